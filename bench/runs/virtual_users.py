"""The devices of a run over all their processes: bring them up, collect what they received, let them go."""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.load.protocols import protocol_of
from bench.load.protocols.base import Scenario
from bench.load.reconnect import Backoff
from bench.load.sockets import Address
from bench.progress import Progress
from bench.runs.collected import Held, Setup
from bench.runs.load import Load, Way, most_a_process, processes_for
from bench.runs.load_processes import Child, LoadProcesses

OPENING_A_PROCESS: Final = 256
OPENING_IN_ALL: Final = 2048
"""Half of the usual somaxconn (4096): a full queue of a listener drops SYNs, and those come again after 1 s."""
OPENING_A_LISTENER: Final = 128
"""With many listeners, more may be under way in all: fewer leave nothing to do in batches. On 58 workers, 2,048 took
the workers 241 and the load 138 microseconds of CPU a set-up, 256 for each listener 184 and 115. Not more than this,
or a machine that stalls for seconds lets set-ups run into the farm's timeouts (10 s for the upgrade)."""
CONNECTING: Final = 8
"""Flat out, so many processes connect at a time: more would have less to do at each wake-up, and share two cores."""
RECEIVE_SECONDS: Final = 0.5
COUNT_SECONDS: Final = 60.0


class VirtualUsers:
    """Devices, over the load processes that hold them. Several groups of devices may be under way in one run, if their
    numbers, from `first` on, don't overlap."""

    kind = "devices"
    """Of its load processes, see `bench.load.runners`."""

    def __init__(
        self,
        processes: LoadProcesses,
        load: Load,
        address: Address,
        *,
        host: str,
        path: str = "/",
        first: int = 0,
        listeners: int = 1,
        others: Sequence[Address] = (),
    ) -> None:
        """others: more hosts of the same farm, over which the devices spread."""
        self.processes = processes
        self.load = load
        self._listeners = listeners
        self._addresses = [address, *others]
        self.children: list[Child] = []
        self.gone: set[int] = set()  # devices that lost their connection, as far as reported, and do not come back
        self.devices = load.devices
        self.first = self._next = first
        self._sizes: dict[int, int] = {}  # devices by the process's pid
        self._new: dict[int, int] = {}  # those of them that have not been sent `go` yet
        protocol = "bare" if load.bare else load.protocol
        scenario = Scenario(host, path, load.channels, load.payload, shared=load.shared)
        self._ways = load.ways or (Way(load.arguments),)
        try:
            for way in self._ways:
                protocol_of(protocol, scenario, dict(way.arguments))
        except ValueError as error:
            raise BenchError(str(error)) from None
        self._order: dict[str, Any] = {
            "host": host,
            "path": path,
            "timeout": load.timeout,
            "endpoints_every": load.endpoints_every,
            "protocol": protocol,
            "channels": load.channels,
            "shared": load.shared,
            "ping": load.ping,
            "payload": load.payload,
            "backoff": asdict(load.backoff) if load.backoff else None,
            "sources": load.sources,
            "tls": load.tls,
        }
        count = processes_for(load)
        share, rest = divmod(load.devices, count)
        self._start([share + (number < rest) for number in range(count)])

    @classmethod
    def of(cls, processes: LoadProcesses, load: Load, farm: Farm, first: int = 0) -> "VirtualUsers":
        """Devices for a farm."""
        status = farm.status()
        listeners = len(status.workers) if status else 1
        return cls(
            processes,
            load,
            farm.address,
            host=farm.host,
            path=farm.path,
            first=first,
            listeners=listeners,
            others=farm.others,
        )

    def _start(self, sizes: list[int]) -> None:
        started: list[Child] = []
        for size in sizes:
            name = "a load process of devices"
            number = len(self.children) + len(started)
            way = self._ways[number % len(self._ways)]
            addresses = [one._replace(port=way.port or one.port) for one in self._addresses]
            more = {"addresses": addresses, "arguments": dict(way.arguments), **self._more(number)}
            child = self.processes.start(self.kind, name, first=self._next, devices=size, **self._order, **more)
            self._next += size
            self._sizes[child.pid] = self._new[child.pid] = size
            started.append(child)
        self.children += started
        self.processes.gather(started, "up")

    def _more(self, number: int) -> dict[str, Any]:
        """What the process with this number gets in its `begin` beside what all get."""
        return {}

    def grow(self, devices: int) -> None:
        """Make room for more devices, in the last process and then in new ones; `bring_up` connects them."""
        self.devices += devices
        last, most = self.children[-1], most_a_process()
        if (room := min(devices, most - self._sizes[last.pid])) > 0:
            self.processes.send([last], "more", devices=room)
            self.processes.gather([last], "up")
            self._sizes[last.pid] += room
            self._new[last.pid] = self._new.get(last.pid, 0) + room
            self._next += room
            devices -= room
        if devices > 0:
            count = math.ceil(devices / most)
            share, rest = divmod(devices, count)
            self._start([share + (number < rest) for number in range(count)])

    def bring_up(self, progress: Progress, title: str, watch: Callable[[], bool] | None = None) -> Setup:
        """Connect all that were not connected before; returns early with what there is when the run is interrupted,
        or as soon as `watch`, which is asked at every look, says that it is enough."""
        new, self._new = self._new, {}
        wanted = sum(new.values())
        before = self.count("ready") + self.count("failed")
        progress.step(title, wanted)
        setup = Setup(wanted, started=time.monotonic())
        children = [child for child in self.children if child.pid in new]
        at_once = len(children) if self.load.rate else min(CONNECTING, len(children))
        opening = max(1, (self.load.opening or self._opening_for(len(children))) // max(1, at_once))
        queue = deque(children)

        def go() -> None:
            child = queue.popleft()
            self.processes.send([child], "go", rate=self.load.rate * new[child.pid] / max(1, wanted), opening=opening)

        for _ in range(at_once):
            go()
        waiting = set(new)
        halted = False
        while waiting:
            if not halted and (self.processes.interrupt.requested or (watch is not None and watch())):
                halted = True
                for child in queue:  # these never began
                    waiting.discard(child.pid)
                    self._new[child.pid] = new[child.pid]
                self.processes.send([child for child in children if child.pid in waiting], "halt")
            for child, message in self.processes.receive(RECEIVE_SECONDS):
                if message.kind != "ready":
                    continue
                waiting.discard(child.pid)
                if queue and not halted:
                    go()
                setup.ready += message.fields["ready"]
                setup.failures.update(message.fields["failures"])
                setup.durations.extend(message.numbers(0, "d"))
                setup.completions.extend(message.numbers(1, "d"))
                setup.channels.extend(message.numbers(2, "I"))
                setup.endpoints.extend(message.blobs[3].split(b"\n") if message.blobs[3] else ())
                setup.partitions.extend(message.numbers(4, "H"))
            ready = self.count("ready")
            progress.update(max(0, ready + self.count("failed") - before), unit="set-ups/s")
        return setup

    def _opening_for(self, processes: int) -> int:
        """How many set-ups are under way at once, over so many load processes."""
        return max(min(OPENING_A_PROCESS * processes, OPENING_IN_ALL), OPENING_A_LISTENER * self._listeners)

    def count(self, what: str) -> int:
        """The sum of a counter over the processes, as of their last progress: ready, failed, arrived, away, back,
        pings_sent, pings_answered, pings_overdue."""
        return sum(child.progress.get(what, 0) for child in self.children)

    def count_anew(self, what: str) -> int:
        """The same, after each process has reported its progress once more.

        Raises:
          BenchError: one ended, or did not report in time.
        """
        for child in self.children:
            child.progress = {}
        self.processes.send(self.children, "count")
        others = []
        deadline = time.monotonic() + COUNT_SECONDS
        while not all(child.progress for child in self.children):
            if time.monotonic() > deadline:
                raise BenchError(f"the load processes did not report their progress within {COUNT_SECONDS:g} s")
            others += self.processes.receive(RECEIVE_SECONDS)
        self.processes.keep(others)
        return self.count(what)

    def hold(self, seconds: float, progress: Progress) -> None:
        """Let the devices be, until the time is over or the run is interrupted."""
        if seconds <= 0:
            return
        progress.step("holding", round(seconds))
        start = time.monotonic()
        while (passed := time.monotonic() - start) < seconds and not self.processes.interrupt.requested:
            self.processes.receive(min(RECEIVE_SECONDS, seconds - passed))
            note = f"{self.count('ready'):,} connected"
            if self.load.ping:
                note += f", {self.count('pings_answered'):,} of {self.count('pings_sent'):,} pings answered"
                if overdue := self.count("pings_overdue"):
                    note += f", {overdue:,} overdue"
            progress.update(round(passed, 1), note=note)

    def back_off(self, backoff: Backoff) -> None:
        """From now on devices come back by this; needs `Load.backoff`."""
        assert self.load.backoff is not None
        self.processes.send(self.children, "backoff", **asdict(backoff))
        self.processes.gather(self.children, "noted")

    def cut(self) -> None:
        """Reset all connections at once. With `Load.backoff` the devices come back, otherwise they are gone."""
        self.processes.send(self.children, "cut")
        self.processes.gather(self.children, "cut")

    def bring_back(self, devices: list[int], seconds: float, backoff: Backoff) -> None:
        """Of the devices that are away (`Load.backoff` has to be set) let only these come back, evenly over so many
        seconds; those that fail try again by the backoff."""
        first = self.first
        for child in self.children:
            size = self._sizes[child.pid]
            mine = [device for device in devices if first <= device < first + size]
            self.processes.send([child], "return", devices=mine, seconds=seconds, backoff=asdict(backoff))
            first += size
        self.processes.gather(self.children, "returning")

    def churn(self, rate: float) -> None:
        """From now on, reset so many random connections a second, over all processes; 0: none."""
        for child in self.children:
            self.processes.send([child], "churn", rate=rate * self._sizes[child.pid] / self.devices)
        self.processes.gather(self.children, "churning")

    def collect(self) -> Held:
        """What arrived, and which devices lost their connection and came back, since the last call."""
        self.processes.send(self.children, "collect")
        held = Held()
        arrivals, absences = held.arrivals, held.absences
        for message in self.processes.gather(self.children, "collected"):
            arrivals.channels.extend(message.numbers(0, "I"))
            arrivals.versions.extend(message.numbers(1, "q"))
            arrivals.times.extend(message.numbers(2, "q"))
            arrivals.gone.extend(message.numbers(3, "I"))
            arrivals.data.extend(message.numbers(4, "B"))
            absences.gone_times.extend(message.numbers(5, "q"))
            absences.back.extend(message.numbers(6, "I"))
            absences.back_times.extend(message.numbers(7, "q"))
            absences.attempts.extend(message.numbers(8, "H"))
            held.devices += message.fields["held"]
            held.drops.update(message.fields["drops"])
            held.return_failures.update(message.fields["return_failures"])
            held.strays += message.fields["strays"]
            held.reassigned += message.fields["reassigned"]
            held.pings.update(message.fields["pings"])
        absences.gone = arrivals.gone
        if self.load.backoff is None:
            self.gone.update(arrivals.gone)
        return held

    def dismiss(self) -> None:
        """Reset the connections and end the processes."""
        self.processes.dismiss(self.children)
