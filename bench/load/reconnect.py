"""When devices that lost their connection come back, and with which identity. Pure: the caller passes the time.

Devices are numbers here, from 0 on. Nothing is kept for a device that is connected but its identity, and that only if
devices are to come back.
"""

import heapq
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

IDENTITY_BYTES: Final = 16
JITTER: Final = 0.5
"""A delay with jitter is this part shorter to this part longer: as long as the one without on average."""


@dataclass(frozen=True, slots=True)
class Backoff:
    """When a device comes back: `first` seconds after it lost its connection, twice as long after every attempt that
    failed, `cap` at most; with jitter from half of that to half as much again. The defaults are those of Firefox's
    SimplePush and WebPush clients, which have no jitter."""

    first: float = 5.0
    cap: float = 1800.0
    jitter: bool = False

    def delay(self, failed: int) -> float:
        """In seconds, after so many attempts that failed."""
        delay = min(self.cap, self.first * 2.0 ** min(failed, 30))
        return delay * random.uniform(1 - JITTER, 1 + JITTER) if self.jitter else delay


class Reconnects:
    """The devices that are away, and when each of them tries to come back. Times in seconds of one clock.

    Args:
      backoff: None: a device that loses its connection stays away, and is not kept here.
    """

    def __init__(self, backoff: Backoff | None) -> None:
        self.backoff = backoff
        self.away: dict[int, int] = {}
        """Devices to come back, and how many attempts failed."""
        self._due: list[tuple[float, int]] = []  # a heap
        self._identities = bytearray()

    def grow(self, devices: int) -> None:
        """Room for more devices."""
        if self.backoff is not None:
            self._identities.extend(bytes(IDENTITY_BYTES * devices))

    # ---- identities

    def identity(self, number: int) -> bytes:
        """What a device that is away presents when it comes back; empty if it was never set up, or is not away."""
        if not self.away or number not in self.away:
            return b""
        return self.known(number)

    def identify(self, number: int, identity: bytes) -> bool:
        """The server gave a device this identity; whether that is another one than before."""
        if self.backoff is None:
            return False
        known = self.known(number)
        self._identities[number * IDENTITY_BYTES : (number + 1) * IDENTITY_BYTES] = identity
        return bool(known) and known != identity

    def known(self, number: int) -> bytes:
        """The identity of a device; empty if it has none, or if devices don't come back."""
        if self.backoff is None:
            return b""
        identity = bytes(self._identities[number * IDENTITY_BYTES : (number + 1) * IDENTITY_BYTES])
        return identity if any(identity) else b""

    # ---- leaving and coming back

    def left(self, number: int, now: float) -> None:
        """A device lost its connection."""
        if self.backoff is not None:
            self.away[number] = 0
            self._later(number, now)

    def failed(self, number: int, now: float) -> bool:
        """An attempt to connect failed; whether it was one to come back, which is then tried again later."""
        if number not in self.away:
            return False
        self.away[number] += 1
        self._later(number, now)
        return True

    def back(self, number: int) -> int | None:
        """A device is connected; after how many attempts, None if it was not away."""
        failed = self.away.pop(number, None)
        return None if failed is None else failed + 1

    def only(self, numbers: Iterable[int], now: float, step: float, backoff: Backoff) -> None:
        """Of the devices that are away these come back, one after each `step`, and the others don't."""
        self.backoff = backoff
        self._due = [(now + index * step, number) for index, number in enumerate(numbers) if number in self.away]

    def due(self, now: float, most: int) -> Iterator[int]:
        """Those whose time has come, `most` at most."""
        for _ in range(most):
            if not self._due or self._due[0][0] > now:
                return
            yield heapq.heappop(self._due)[1]

    @property
    def next_due(self) -> float | None:
        """When the next one tries, None if none does."""
        return self._due[0][0] if self._due else None

    def _later(self, number: int, now: float) -> None:
        assert self.backoff is not None
        heapq.heappush(self._due, (now + self.backoff.delay(self.away[number]), number))
