"""What a load process of devices keeps of its run until it reports."""

from array import array
from collections import Counter

from bench.link import Link


class SetUps:
    """Devices that came up, with their times in s of CLOCK_MONOTONIC, and those that did not, by kind."""

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self._durations = array("d")
        self._completions = array("d")
        self._devices = array("I")
        self._endpoints: list[bytes] = []

    def done(self, due: float, now: float) -> None:
        self._durations.append(now - due)
        self._completions.append(now)

    def endpoint(self, device: int, endpoint: bytes) -> None:
        self._devices.append(device)
        self._endpoints.append(endpoint)

    def report(self, link: Link, ready: int) -> None:
        """Send all of it, and forget the endpoints: they are most of the memory."""
        link.send(
            "ready",
            self._durations.tobytes(),
            self._completions.tobytes(),
            self._devices.tobytes(),
            b"\n".join(self._endpoints),
            ready=ready,
            failures=dict(self.failures),
        )
        self._endpoints.clear()


class Seen:
    """What devices that are up received since the last report, in microseconds, and which of them were cut off."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._devices = array("I")
        self._versions = array("q")
        self._times = array("q")
        self._dropped = array("I")
        self._drops: Counter[str] = Counter()
        self.strays = 0

    def arrived(self, device: int, version: int, now: int) -> None:
        self._devices.append(device)
        self._versions.append(version)
        self._times.append(now)

    def dropped(self, device: int, why: str) -> None:
        self._dropped.append(device)
        self._drops[why] += 1

    def __len__(self) -> int:
        return len(self._devices)

    def report(self, link: Link, held: int) -> None:
        """Send all of it, and begin anew."""
        link.send(
            "collected",
            self._devices.tobytes(),
            self._versions.tobytes(),
            self._times.tobytes(),
            self._dropped.tobytes(),
            held=held,
            drops=dict(self._drops),
            strays=self.strays,
        )
        self._clear()
