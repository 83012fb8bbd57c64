"""Which processes used the cores during a run, and which was therefore its limit."""

import time
from dataclasses import dataclass
from typing import Any, Final

from bench.machine.procfs import cpu_seconds, machine_busy_seconds, wanted_seconds

FULL: Final = 0.9
"""A process that runs, or waits for a core, for more than this part of the time is taken as never idle."""


@dataclass(frozen=True, slots=True)
class Use:
    """One process in a run: its CPU seconds, those as a share of the time (threads add up), and the share of the time
    in which its main thread ran or was ready to run."""

    group: str
    pid: int
    cpu: float
    running: float
    wanting: float


@dataclass(frozen=True, slots=True)
class Usage:
    """The processes of a run and the machine below them. `machine` is the busy share of all cores."""

    seconds: float
    uses: list[Use]
    machine: float
    cores: int = 1

    @property
    def others(self) -> float:
        """Cores that were busy with what is no part of the run, the kernel's own work included."""
        ours = sum({use.pid: use.cpu for use in self.uses}.values())
        return max(0.0, self.machine * self.cores - ours / self.seconds)

    def fields(self, events: int) -> dict[str, Any]:
        """For JSON: a group's CPU seconds, also per 1000 events, and its busiest process."""
        groups: dict[str, Any] = {}
        for name in dict.fromkeys(use.group for use in self.uses):
            uses = [use for use in self.uses if use.group == name]
            cpu = sum(use.cpu for use in uses)
            groups[name] = {
                "processes": len(uses),
                "cpu_seconds": round(cpu, 3),
                "cpu_seconds_a_1000": round(cpu / events * 1000, 6) if events else None,
                "busiest_running": round(max(use.running for use in uses), 3),
                "busiest_wanting": round(max(use.wanting for use in uses), 3),
            }
        return {
            "seconds": round(self.seconds, 3),
            "machine_busy": round(self.machine, 3),
            "cores_with_others": round(self.others, 3),
            "groups": groups,
        }

    def limit(self) -> str:
        """One sentence: what held the run back."""
        never_idle = sorted((use for use in self.uses if use.wanting > FULL), key=lambda use: -use.running)
        for use in never_idle:
            if use.running > FULL:
                whose = "the load generator itself" if use.group.startswith("load") else f"the {use.group}"
                return f"{whose}: a process of {use.group} was busy {use.running:.0%} of a core"
        if self.machine > FULL:
            load = sum(use.cpu for use in self.uses if use.group.startswith("load")) / self.seconds
            return (
                f"the machine: cores {self.machine:.0%} busy, {load:.2f} with the load, {self.others:.2f} with others"
            )
        if never_idle:
            use = never_idle[0]
            return f"{use.group}: a process was never idle, but had a core only {use.running:.0%} of the time"
        return "none of the processes' CPU: all had time to spare"


class Meter:
    """Reads /proc when it is made, and again at `stop`."""

    def __init__(self, groups: dict[str, list[int]]) -> None:
        self._groups = groups
        self._machine = machine_busy_seconds()
        self._before = {pid: _times(pid) for pids in groups.values() for pid in pids}
        self._start = time.monotonic()

    def stop(self, cores: int) -> Usage:
        seconds = max(time.monotonic() - self._start, 1e-9)
        uses = []
        for group, pids in self._groups.items():
            for pid in pids:
                before, after = self._before[pid], _times(pid)
                if before is None or after is None:
                    continue
                cpu = after[0] - before[0]
                wanted = cpu if before[1] is None or after[1] is None else after[1] - before[1]
                uses.append(Use(group, pid, cpu, cpu / seconds, min(1.0, wanted / seconds)))
        return Usage(seconds, uses, (machine_busy_seconds() - self._machine) / (seconds * cores), cores)


def _times(pid: int) -> tuple[float, float | None] | None:
    cpu = cpu_seconds(pid)
    return None if cpu is None else (cpu, wanted_seconds(pid))
