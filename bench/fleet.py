"""The devices of a run over all their processes: bring them up, hear what they received, let them go."""

import math
import resource
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from bench.crew import Child, Crew
from bench.errors import BenchError
from bench.farm_process import Farm
from bench.progress import Progress
from bench.samples import Arrivals, percentiles, rates
from bench.sockets import Address

DEVICES_A_PROCESS: Final = 18_000
SPARE_DESCRIPTORS: Final = 200
OPENING: Final = 256
OPENING_IN_ALL: Final = 2048
"""Half of the usual somaxconn (4096): a full queue of a listener drops SYNs, and those come again after 1 s."""
HEAR_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Load:
    """How devices are brought up. `opening`: set-ups that a process has under way at once. `timeout`: s for one.
    Every `endpoints_every`-th device reports its push endpoint; 0: none."""

    devices: int
    bare: bool = False
    rate: float = 0.0
    processes: int = 0
    opening: int = OPENING
    timeout: float = 30.0
    endpoints_every: int = 0


@dataclass(slots=True)
class Ramp:
    """How the devices came up. `endpoints`: those that devices reported; `channels`: the devices' numbers."""

    wanted: int
    ready: int = 0
    started: float = 0.0
    failures: Counter[str] = field(default_factory=Counter)
    durations: "array[float]" = field(default_factory=lambda: array("d"))
    completions: "array[float]" = field(default_factory=lambda: array("d"))
    channels: "array[int]" = field(default_factory=lambda: array("I"))
    endpoints: list[bytes] = field(default_factory=list)

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
class Held:
    """What the devices saw since the last look. `strays`: updates for a channel that the device does not have."""

    arrivals: Arrivals = field(default_factory=Arrivals)
    devices: int = 0
    drops: Counter[str] = field(default_factory=Counter)
    strays: int = 0


def processes_for(load: Load) -> int:
    """How many processes hold this many devices.

    Raises:
      BenchError: as many as were asked for can't, each for the descriptors that it may open.
    """
    most = min(DEVICES_A_PROCESS, resource.getrlimit(resource.RLIMIT_NOFILE)[1] - SPARE_DESCRIPTORS)
    needed = math.ceil(load.devices / most)
    if load.processes and load.processes < needed:
        raise BenchError(f"{load.devices} devices need {needed} load processes of at most {most} sockets each")
    return min(load.processes or needed, load.devices)


class Fleet:
    """The device processes of a run."""

    def __init__(self, crew: Crew, load: Load, address: Address, *, host: str, path: str = "/", first: int = 0) -> None:
        self.crew = crew
        self.load = load
        count = processes_for(load)
        share, rest = divmod(load.devices, count)
        self.children: list[Child] = []
        for number in range(count):
            devices = share + (number < rest)
            child = crew.start(
                "bench.devices",
                "a load process of devices",
                address=address,
                host=host,
                path=path,
                first=first,
                devices=devices,
                bare=load.bare,
                rate=load.rate * devices / load.devices,
                opening=max(1, min(load.opening, OPENING_IN_ALL // count)),
                timeout=load.timeout,
                endpoints_every=load.endpoints_every,
            )
            first += devices
            self.children.append(child)
        crew.gather(self.children, "up")

    @classmethod
    def of(cls, crew: Crew, load: Load, farm: Farm, first: int = 0) -> "Fleet":
        """Devices for a farm."""
        return cls(crew, load, farm.address, host=farm.host, path=farm.path, first=first)

    def bring_up(self, progress: Progress, title: str) -> Ramp:
        """Connect them all; returns early with what there is when the run is interrupted."""
        progress.step(title, self.load.devices)
        ramp = Ramp(self.load.devices, started=time.monotonic())
        self.crew.tell(self.children, "go")
        waiting = {child.pid for child in self.children}
        halted = False
        while waiting:
            if self.crew.interrupt.requested and not halted:
                halted = True
                self.crew.tell(self.children, "halt")
            for child, word in self.crew.hear(HEAR_SECONDS):
                if word.kind != "ready":
                    continue
                waiting.discard(child.pid)
                ramp.ready += word.fields["ready"]
                ramp.failures.update(word.fields["failures"])
                ramp.durations.extend(word.numbers(0, "d"))
                ramp.completions.extend(word.numbers(1, "d"))
                ramp.channels.extend(word.numbers(2, "I"))
                ramp.endpoints.extend(word.blobs[3].split(b"\n") if word.blobs[3] else ())
            done = self.count("ready") + self.count("failed")
            progress.update(done, self.count("ready"), "set-ups/s")
        return ramp

    def count(self, what: str) -> int:
        """The sum of a counter over the processes, as of their last progress."""
        return sum(child.progress.get(what, 0) for child in self.children)

    def count_anew(self, what: str) -> int:
        """The same, after each process has said how far it is once more."""
        for child in self.children:
            child.progress = {}
        while not all(child.progress for child in self.children):
            self.crew.hear(HEAR_SECONDS)
        return self.count(what)

    def hold(self, seconds: float, progress: Progress) -> None:
        """Let the devices be, until the time is over or the run is interrupted."""
        if seconds <= 0:
            return
        progress.step("holding", round(seconds))
        start = time.monotonic()
        while (passed := time.monotonic() - start) < seconds and not self.crew.interrupt.requested:
            self.crew.hear(min(HEAR_SECONDS, seconds - passed))
            progress.update(round(passed, 1), note=f"{self.count('ready'):,} connected")

    def collect(self) -> Held:
        """What arrived and who lost its connection, since the last call."""
        self.crew.tell(self.children, "collect")
        held = Held()
        for word in self.crew.gather(self.children, "collected"):
            held.arrivals.channels.extend(word.numbers(0, "I"))
            held.arrivals.versions.extend(word.numbers(1, "q"))
            held.arrivals.times.extend(word.numbers(2, "q"))
            held.arrivals.gone.extend(word.numbers(3, "I"))
            held.devices += word.fields["held"]
            held.drops.update(word.fields["drops"])
            held.strays += word.fields["strays"]
        return held

    def dismiss(self) -> None:
        """Reset the connections and end the processes."""
        self.crew.dismiss(self.children)
