"""What a load process of devices keeps of its run until it reports."""

from array import array
from collections import Counter

from bench.load.link import Link
from router.common.partitions import partition


class SetUps:
    """Devices that came up since the last report, with their times in s of CLOCK_MONOTONIC, and those that did not, by
    kind. Of the endpoints that they reported: channel, URL, and the partition of the device where its identity is
    known. `failed` counts since the beginning."""

    def __init__(self) -> None:
        self.failed = 0
        self._clear()

    def _clear(self) -> None:
        self._failures: Counter[str] = Counter()
        self._durations = array("d")
        self._completions = array("d")
        self._channels = array("I")
        self._endpoints: list[bytes] = []
        self._partitions = array("H")

    def done(self, due: float, now: float) -> None:
        self._durations.append(now - due)
        self._completions.append(now)

    def failure(self, kind: str) -> None:
        self.failed += 1
        self._failures[kind] += 1

    def endpoint(self, channel: int, endpoint: bytes, identity: bytes = b"") -> None:
        self._channels.append(channel)
        self._endpoints.append(endpoint)
        if identity:
            self._partitions.append(partition(identity))

    def report(self, link: Link, ready: int) -> None:
        """Send all of it, and forget it: the endpoints are most of the memory. `ready`: how many of them are up."""
        link.send(
            "ready",
            self._durations.tobytes(),
            self._completions.tobytes(),
            self._channels.tobytes(),
            b"\n".join(self._endpoints),
            self._partitions.tobytes(),
            ready=ready,
            failures=dict(self._failures),
        )
        self._clear()


class Seen:
    """What devices that are up received since the last report, in microseconds of CLOCK_MONOTONIC; which of them were
    cut off, and which came back. `arrived` counts all updates since the beginning, `back` all returns."""

    def __init__(self, judge: bool) -> None:
        self._judge = judge
        self.arrived = self.back = 0
        self._clear()

    def _clear(self) -> None:
        self._channels = array("I")
        self._versions = array("q")
        self._times = array("q")
        self._data = array("B")
        self._gone = array("I")
        self._gone_times = array("q")
        self._back = array("I")
        self._back_times = array("q")
        self._attempts = array("H")
        self._drops: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self.strays = self.reassigned = 0

    def update(self, channel: int, version: int, now: int, data: int) -> None:
        self.arrived += 1
        self._channels.append(channel)
        self._versions.append(version)
        self._times.append(now)
        if self._judge:
            self._data.append(data)

    def dropped(self, device: int, now: int, why: str) -> None:
        """It lost its connection; `why` is empty when the bench cut it."""
        self._gone.append(device)
        self._gone_times.append(now)
        if why:
            self._drops[why] += 1

    def returned(self, device: int, now: int, attempts: int) -> None:
        self.back += 1
        self._back.append(device)
        self._back_times.append(now)
        self._attempts.append(min(attempts, 0xFFFF))

    def return_failure(self, kind: str) -> None:
        self._failures[kind] += 1

    def report(self, link: Link, held: int, pings: dict[str, int]) -> None:
        """Send all of it, and begin anew."""
        link.send(
            "collected",
            self._channels.tobytes(),
            self._versions.tobytes(),
            self._times.tobytes(),
            self._gone.tobytes(),
            self._data.tobytes(),
            self._gone_times.tobytes(),
            self._back.tobytes(),
            self._back_times.tobytes(),
            self._attempts.tobytes(),
            held=held,
            drops=dict(self._drops),
            strays=self.strays,
            reassigned=self.reassigned,
            return_failures=dict(self._failures),
            pings=pings,
        )
        self._clear()
