"""What load processes of devices have reported in a run: how devices came up, what they received, and which lost
their connection."""

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from bench.figures.percentiles import percentiles
from bench.load.samples import Arrivals, rates


@dataclass(slots=True)
class Setup:
    """How the devices came up. `endpoints`: those that devices reported; `channels`: their numbers; `partitions`: of
    the devices', if these come back when they lose their connection."""

    wanted: int
    ready: int = 0
    started: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    completions: "array[float]" = field(default_factory=lambda: array("d"))
    channels: "array[int]" = field(default_factory=lambda: array("I"))
    endpoints: list[bytes] = field(default_factory=list)
    partitions: "array[int]" = field(default_factory=lambda: array("H"))

    @property
    def why(self) -> str:
        """Why no device came up, in a few words."""
        return ", ".join(f"{count} x {kind}" for kind, count in self.failures.most_common(3)) or "interrupted"

    def fields(self) -> dict[str, Any]:
        """For JSON; times in ms."""
        overall, steady = rates(self.completions, self.started)
        return {
            "wanted": self.wanted,
            "ready": self.ready,
            "failures": dict(self.failures),
            "seconds": max(self.completions, default=self.started) - self.started,
            "rate": overall,
            "rate_steady": steady,
            "time_ms": percentiles(self.durations, 1000),
        }


@dataclass(slots=True)
class Absences:
    """Devices that lost their connection, and those that were back (hello answered, the first time or after several
    attempts), with times in microseconds of CLOCK_MONOTONIC, in the order of time for each device."""

    gone: "array[int]" = field(default_factory=lambda: array("I"))
    gone_times: "array[int]" = field(default_factory=lambda: array("q"))
    back: "array[int]" = field(default_factory=lambda: array("I"))
    back_times: "array[int]" = field(default_factory=lambda: array("q"))
    attempts: "array[int]" = field(default_factory=lambda: array("H"))


@dataclass(slots=True)
class Held:
    """What the devices saw since the last look.

    `devices`: connected now. `strays`: updates for a channel that the device does not have. `drops`: why connections
    ended that the bench did not cut. `pings`: how many were sent, answered and overdue, how many a cut left without an
    answer, and how many are outstanding now. `return_failures`: attempts to come back that failed. `reassigned`:
    devices that came back and got another identity.
    """

    arrivals: Arrivals = field(default_factory=Arrivals)
    devices: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    strays: int = 0
    absences: Absences = field(default_factory=Absences)
    return_failures: Counter[str] = field(default_factory=Counter)
    reassigned: int = 0
    pings: Counter[str] = field(default_factory=Counter)

    def add(self, more: "Held") -> None:
        """What was collected later."""
        mine, other = self.arrivals, more.arrivals
        for name in ("channels", "versions", "times", "gone", "data"):
            getattr(mine, name).extend(getattr(other, name))
        absences = self.absences
        absences.gone = mine.gone
        for name in ("gone_times", "back", "back_times", "attempts"):
            getattr(absences, name).extend(getattr(more.absences, name))
        self.devices = more.devices
        self.drops.update(more.drops)
        self.strays += more.strays
        self.return_failures.update(more.return_failures)
        self.reassigned += more.reassigned
        self.pings.update(more.pings)
