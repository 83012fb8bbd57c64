"""What one address may have of a worker: connections, and set-ups and registrations a second.

The kernel spreads the connections of an address over the workers by chance. A worker knows its own, and lets an address
have its share of `limits.connections_per_address` and five standard deviations more: an address that has no more than
the limit is refused by some worker less than once in a million times, and all workers together let none have many more.

Of each open connection eight bytes are kept, by its descriptor, and of each address how many it has.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from math import ceil, sqrt
from typing import Final

from farm.worker.clock import Clock
from router.common.answers import Answer
from router.common.client_keys import NOBODY, ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import WorkerCounters
from router.common.rate_table import RateTable
from router.common.refusals import TOO_MANY_OF_ADDRESS, TOO_OFTEN

_DEVIATIONS: Final = 5.0
_MOST_REFUSED: Final = 64
"""Connections of a worker that are beyond a limit and wait to be answered; further ones are closed at once."""


def share(limit: int, workers: int) -> int:
    """How many connections each worker lets an address have, so that the farm lets it have this limit."""
    mean = limit / workers
    return min(limit, ceil(mean + _DEVIATIONS * sqrt(mean)))


class Refused:
    """Why a connection is refused."""

    __slots__ = ("answer", "wait")

    def __init__(self, answer: Answer, wait: float) -> None:
        self.answer = answer
        self.wait = wait
        """Seconds after which it would be let in; 0: it is not known."""


class AddressLimits:
    """The addresses of a worker's connections, as far as a limit wants to know them."""

    def __init__(
        self, limits: LimitOptions, workers: int, keys: ClientKeys, counters: WorkerCounters, clock: Clock
    ) -> None:
        """workers: of the farm, on this host."""
        self._key_of = keys
        self._counters = counters
        self._clock = clock
        self._most = share(limits.connections_per_address, workers)
        self._setups = _table(limits.setups_per_address, limits)
        self._keys = array("Q")  # by descriptor
        self._counts: dict[int, int] = {}
        self._refused: dict[int, Refused] = {}

    @classmethod
    def of(
        cls, limits: LimitOptions, workers: int, keys: ClientKeys, counters: WorkerCounters, clock: Clock
    ) -> AddressLimits | None:
        """None if none of these limits is set: then nothing is to be kept."""
        if limits.connections_per_address or limits.setups_per_address or limits.registrations_per_address:
            return cls(limits, workers, keys, counters, clock)
        return None

    def arrived(self, fd: int, address: str, answered: bool = True) -> bool:
        """A connection has been accepted, or it is known by now where it comes from. answered: whether one that is
        refused may have an answer: before a TLS handshake that would cost too much. Returns: whether it may stay, at
        least until it has its answer (`refusal`)."""
        key, before = self._key_of(address), self.key(fd)
        if key in (NOBODY, before) or fd in self._refused:
            return True
        if before != NOBODY:  # a proxy passes on a request of another client by the same connection
            self.left(fd)
        if self._most and self._counts.get(key, 0) >= self._most:
            self._counters.limited_connections_per_address += 1
            return answered and self._refuse(fd, Refused(TOO_MANY_OF_ADDRESS, 0.0))
        if self._setups is not None and (wait := self._setups.take(key, self._clock.now)):
            self._counters.limited_setups_per_address += 1
            return answered and self._refuse(fd, Refused(TOO_OFTEN, wait))
        keys = self._keys
        if fd >= len(keys):
            keys.frombytes(bytes(8 * (fd + 1 - len(keys))))
        keys[fd] = key
        if self._most:
            self._counts[key] = self._counts.get(key, 0) + 1
        return True

    def _refuse(self, fd: int, refused: Refused) -> bool:
        if len(self._refused) >= _MOST_REFUSED:
            return False
        self._refused[fd] = refused
        return True

    def refusal(self, fd: int) -> Refused | None:
        """Why this connection is to be refused, if it is."""
        return self._refused.get(fd)

    def key(self, fd: int) -> int:
        """The key of a connection's address, NOBODY if it is not counted."""
        return self._keys[fd] if fd < len(self._keys) else NOBODY

    def left(self, fd: int) -> None:
        """A connection has ended; it need not have been counted."""
        self._refused.pop(fd, None)
        key = self.key(fd)
        if key == NOBODY:
            return
        self._keys[fd] = NOBODY
        if self._most:
            left = self._counts[key] - 1
            if left:
                self._counts[key] = left
            else:
                del self._counts[key]


class Registrations:
    """How many channels the devices of an address, and all of a worker, register in a second.

    What is beyond waits: a device that has registered too much is not read until there is room again.
    """

    def __init__(
        self, limits: LimitOptions, key_of: Callable[[int], int] | None, counters: WorkerCounters, clock: Clock
    ) -> None:
        """key_of: gives the key of a connection's address; None: it is not known."""
        self._key_of = key_of
        self._counters = counters
        self._clock = clock
        self._by_address = _table(limits.registrations_per_address, limits) if key_of is not None else None
        self._of_all = _table(limits.registrations_per_worker, limits, 1)
        self._a_second = max(1, int(limits.registrations_per_worker))
        self._room = self._a_second
        self._waiting: set[int] = set()

    @classmethod
    def of(
        cls, limits: LimitOptions, key_of: Callable[[int], int] | None, counters: WorkerCounters, clock: Clock
    ) -> Registrations | None:
        """None if none of these limits is set."""
        if limits.registrations_per_address or limits.registrations_per_worker:
            return cls(limits, key_of, counters, clock)
        return None

    def registered(self, fd: int) -> bool:
        """A connection has registered a channel. Returns: whether it may go on at once."""
        now = self._clock.now
        may = True
        if self._of_all is not None and not self._of_all.add(None, now):
            self._counters.limited_registrations_per_worker += 1
            may = False
        if self._by_address is not None and self._key_of is not None:
            key = self._key_of(fd)
            if key != NOBODY and not self._by_address.add(key, now):
                self._counters.limited_registrations_per_address += 1
                may = False
        if not may:
            self._waiting.add(fd)
        return may

    def second(self) -> None:
        """A second is over: so many may go on in the next."""
        self._room = self._a_second

    def may_go_on(self, fd: int) -> bool:
        """Whether a connection may that waits; of those that wait for a registration no more than the rate in a
        second."""
        if fd not in self._waiting:
            return True
        now = self._clock.now
        if self._by_address is not None and self._key_of is not None and self._by_address.wait(self._key_of(fd), now):
            return False
        if self._of_all is not None:
            if not self._room or self._of_all.wait(None, now):
                return False
            self._room -= 1
        self._waiting.discard(fd)
        return True

    def left(self, fd: int) -> None:
        """A connection has ended."""
        self._waiting.discard(fd)


def _table(per_second: float, limits: LimitOptions, most: int = 0) -> RateTable | None:
    if not per_second:
        return None
    return RateTable(per_second, per_second * limits.burst_seconds, most or limits.tracked)
