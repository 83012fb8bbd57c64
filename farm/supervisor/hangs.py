"""Which processes hang: those that have given no sign of life for too long, or do not begin to serve; time is counted
only while we run ourselves, and while the kernel lets them run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

_SWITCHES: Final = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
_OWN_GAP: Final = 5  # looks that we have missed ourselves: stopped, suspended or without the CPU


class Silences:
    """How long each process has been silent. Pure: the caller looks, and gives the time.

    Time in which this process did not look does not count: after the machine was suspended, or the supervisor was
    stopped, every process has been silent, and none hangs.
    """

    def __init__(self) -> None:
        self._last: float | None = None
        self._silent: dict[int, float] = {}

    def look(
        self,
        now: float,
        interval: float,
        signs: Mapping[int, bool | None],
        waited: Mapping[int, float] = MappingProxyType({}),
    ) -> None:
        """interval: seconds between two looks, as it should be.
        signs: for each pid whether there was a sign of life since the last look; None: that could not be seen.
        waited: for how many of the seconds since then a process had work and no core to do it on: a machine that has
        too much to do makes a process slow, and to start it again would make the others slower.
        """
        passed = 0.0 if self._last is None else now - self._last
        self._last = now
        if passed > interval * _OWN_GAP:
            self._silent.clear()
            passed = 0.0
        silent = self._silent
        self._silent = {}
        for pid, sign in signs.items():
            before = silent.get(pid)
            if sign or before is None:
                self._silent[pid] = 0.0
            else:
                self._silent[pid] = before if sign is None else before + max(0.0, passed - waited.get(pid, 0.0))

    def longer_than(self, seconds: float) -> list[int]:
        """The pids that have been silent for longer than that."""
        return [pid for pid, silent in self._silent.items() if silent > seconds]

    def of(self, pid: int) -> float:
        """How long this one has been silent."""
        return self._silent.get(pid, 0.0)


class _Numbers:
    """A number that the kernel keeps of each process, and its value at the last look."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._seen: dict[int, int] = {}

    def _read(self, pid: int) -> tuple[int | None, int] | None:
        """Before, and now; None if it cannot be read."""
        try:
            count = self._count(self._proc / str(pid))
        except (OSError, ValueError, IndexError):
            return None
        before, self._seen[pid] = self._seen.get(pid), count
        return before, count

    def forget_all_but(self, pids: set[int]) -> None:
        """Keep only these."""
        self._seen = {pid: count for pid, count in self._seen.items() if pid in pids}

    def _count(self, process: Path) -> int:
        raise NotImplementedError


class _Moves(_Numbers):
    """Whether such a number has moved."""

    def taken(self, pid: int) -> bool | None:
        """Whether it has since the last look; None if that cannot be read."""
        found = self._read(pid)
        return None if found is None else found[0] != found[1]


class Turns(_Moves):
    """Whether any thread of a process has had the CPU: the only sign of life of one that starts, and has sent
    nothing yet."""

    def _count(self, process: Path) -> int:
        return sum(_number(thread / "status", _SWITCHES) for thread in (process / "task").iterdir())


class Reads(_Moves):
    """Whether a process has read anything: the sign that it makes progress with something that takes long, such as
    opening a large store, and does not loop."""

    def _count(self, process: Path) -> int:
        return _number(process / "io", ("rchar",))


class Waits(_Numbers):
    """For how long the threads of a process could have run, and other processes had the cores."""

    def since(self, pid: int) -> float:
        """Seconds since the last look, those of all threads added up; 0 where the kernel does not count them."""
        found = self._read(pid)
        if found is None or found[0] is None:
            return 0.0
        return max(0, found[1] - found[0]) / 1e9

    def _count(self, process: Path) -> int:
        return sum(int((thread / "schedstat").read_text().split()[1]) for thread in (process / "task").iterdir())


def _number(file: Path, names: Collection[str]) -> int:
    """The sum of these of a file's lines, each a name, a colon and a number."""
    lines = (line.partition(":") for line in file.read_text(errors="replace").splitlines())
    return sum(int(value) for name, _, value in lines if name in names)
