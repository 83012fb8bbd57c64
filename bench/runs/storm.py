"""`farm bench storm`: all devices lose their connection at once and come back, while app servers push on."""

import os
import signal
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.errors import BenchError
from bench.farm_process import Farm, Status
from bench.figures.percentiles import percentiles
from bench.interrupt import Interrupt
from bench.load.reconnect import Backoff
from bench.machine import procfs
from bench.machine.usage import Meter, Usage, Use
from bench.progress import Progress
from bench.runs.app_servers import Outcome, PushPlan
from bench.runs.collected import Absences, Held, Setup
from bench.runs.delivery_checker import DeliveryChecker
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.staying import Staying
from bench.runs.storm_figures import phases_of, returns, seen_by_app_servers
from bench.runs.traffic import Traffic
from bench.runs.virtual_users import VirtualUsers
from bench.target import Target

HEALTHY_SECONDS: Final = 30.0
LOOK_SECONDS: Final = 0.2


@dataclass(frozen=True, slots=True)
class Plan:
    """`rate`: pushes a second all the time, 0: none. `calm`: s of them before the cut, and again after all are back.
    `limit`: s after which the bench waits no longer for devices. `grace`: s that an accepted push may take to arrive
    at a device that is connected. `jitters`: a storm for each. `restart`: kill the farm's workers instead. `stay`: as
    many devices more are not cut off, and get pushes at the same rate."""

    rate: float = 100.0
    connections: int = 64
    calm: float = 5.0
    limit: float = 300.0
    grace: float = 10.0
    backoff: float = 5.0
    cap: float = 1800.0
    jitters: tuple[bool, ...] = (False, True)
    restart: bool = False
    stay: int = 0


def run(target: Target, load: Load, plan: Plan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there, or no device could be set up.
    """
    if plan.restart and target.url:
        raise BenchError("--restart kills workers: only those of a farm that the bench itself started")
    result: dict[str, Any] = {"storms": []}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        farm = target.open(stack, interrupt, load.protocol)
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        users = VirtualUsers.of(processes, replace(load, backoff=Backoff(plan.backoff, plan.cap)), farm)
        setup = users.bring_up(progress, "setting up devices")
        result["setup"] = setup.fields()
        if not setup.ready:
            raise BenchError(f"no device could be set up ({setup.why})")
        staying = None
        if plan.stay and plan.rate:
            pushes = PushPlan(connections=plan.connections, rate=plan.rate)
            staying = Staying.start(processes, users.load, farm, plan.stay, pushes, progress)
        storms = _Storms(farm, users, _traffic(processes, setup, plan), staying, plan, progress)
        for jitter in plan.jitters:
            if interrupt.requested:
                break
            result["storms"].append(storms.storm(jitter))
    return result


def _traffic(processes: LoadProcesses, setup: Setup, plan: Plan) -> Traffic | None:
    if not plan.rate or not setup.endpoints:
        return None
    return Traffic(processes, setup, PushPlan(connections=plan.connections))


@dataclass(slots=True)
class _Storms:
    farm: Farm
    users: VirtualUsers
    traffic: Traffic | None
    staying: Staying | None
    plan: Plan
    progress: Progress
    start: int = 0
    cut: int = 0
    end: int = 0
    sent: Outcome = field(default_factory=Outcome)

    def storm(self, jitter: bool) -> dict[str, Any]:
        """One storm, from a quiet farm to a quiet farm."""
        name = "with jitter" if jitter else "without jitter"
        users, plan = self.users, self.plan
        self._wait_until_up()
        users.back_off(Backoff(plan.backoff, plan.cap, jitter))
        users.collect()
        self.start = _now()
        if self.traffic is not None:
            self.traffic.go(plan.rate)
        if self.staying is not None:
            self.staying.go()
        self._let_pass(plan.calm, f"storm {name}: calm before")
        before = self.farm.status()
        load = {"load devices": [child.pid for child in users.children]}
        if self.traffic is not None:
            load["load pushers"] = [child.pid for child in self.traffic.children]
        if self.staying is not None:
            for name, pids in self.staying.load().items():
                load[name] = load.get(name, []) + pids
        meter = Meter(self.farm.groups(before) | load)
        devices = users.count_anew("ready")
        self.cut = _now()
        if plan.restart and before is not None:
            for pid in before.workers.values():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        else:
            users.cut()
        self._wait_until_back(devices, f"storm {name}: coming back")
        self.end = _now()
        usage = meter.stop(procfs.cores())
        if plan.restart and before is not None:
            usage = _with_newcomers(usage, before, self._newcomers(before))
        self._let_pass(plan.calm, f"storm {name}: calm after")
        self.sent = self.traffic.end() if self.traffic is not None else Outcome()
        if self.staying is not None:
            self.staying.end()
        checker, held = self._check_deliveries(users, self.sent)
        stayed = self._stayed(held.absences)
        return {
            "jitter": jitter,
            "cut": "the farm's workers were killed" if plan.restart else "the devices reset their connections",
            "devices": devices,
            "held": held.devices,
            **returns(self.cut, devices, held.absences, checker),
            "attempt_failures": dict(held.return_failures),
            "reassigned": held.reassigned,
            "drops": dict(held.drops),
            "pushes": seen_by_app_servers(self.sent.pushes, self.start, self.cut, self.end),
            "errors": dict(self.sent.errors),
            "unsent": self.sent.unsent,
            "deliveries": checker.fields(),
            "missed_wait_ms": percentiles(checker.waited, 0.001),
            "to_frame_ms": percentiles(checker.live, 0.001),
            "strays": held.strays,
            "stayed": stayed,
            "clean": checker.clean
            and not held.strays
            and not held.reassigned
            and held.devices >= devices
            and (stayed is None or stayed["clean"]),
            "usage": usage.fields(devices),
            "limit": usage.limit(),
        }

    def _status(self) -> Status | None:
        """None also while the farm does not answer."""
        with suppress(BenchError):
            return self.farm.status()
        return None

    def _newcomers(self, before: Status) -> Status | None:
        """The status once every worker in it is another one than before: it lags behind the workers themselves."""
        killed = set(before.workers.values())
        deadline = time.monotonic() + HEALTHY_SECONDS
        while time.monotonic() < deadline and not self.users.processes.interrupt.requested:
            status = self._status()
            pids = set(status.workers.values()) if status is not None else set()
            if len(pids) == len(before.workers) and not killed & pids:
                return status
            self._hear(LOOK_SECONDS)
        return None

    def _wait_until_up(self) -> None:
        """After a storm that killed workers: until each shard has its worker again."""
        deadline = time.monotonic() + HEALTHY_SECONDS
        while self.plan.restart and time.monotonic() < deadline and not self.users.processes.interrupt.requested:
            status = self._status()
            if status is not None and len(status.workers) == len(status.connections):
                return
            self._hear(LOOK_SECONDS)

    def _hear(self, seconds: float) -> None:
        if self.traffic is not None:
            self.traffic.receive(seconds)
        else:
            self.users.processes.receive(seconds)

    def _let_pass(self, seconds: float, title: str) -> None:
        self.progress.step(title, seconds)
        start = time.monotonic()
        while (passed := time.monotonic() - start) < seconds and not self.users.processes.interrupt.requested:
            self._hear(min(LOOK_SECONDS, seconds - passed))
            self.progress.update(round(passed, 1), note=f"{self.users.count('ready'):,} connected")

    def _wait_until_back(self, devices: int, title: str) -> None:
        users, progress = self.users, self.progress
        progress.step(title, devices)
        deadline = time.monotonic() + self.plan.limit
        left = False
        while time.monotonic() < deadline and not users.processes.interrupt.requested:
            self._hear(LOOK_SECONDS)
            ready = users.count_anew("ready")
            away = users.count("away")
            left = left or away > 0 or ready < devices or users.count("back") > 0
            progress.update(ready, note=f"{away:,} away")
            if left and not away:
                return

    def _stayed(self, absences: Absences) -> dict[str, Any] | None:
        """What became of the devices that were not cut off. absences: of the others."""
        if self.staying is None:
            return None
        checker, held = self._check_deliveries(self.staying.users, self.staying.sent)
        first = min((time_ for time_ in absences.back_times if time_ > self.cut), default=self.end)
        return self.staying.fields(self.start, phases_of(self.cut, self.end, first), checker, held)

    def _check_deliveries(self, users: VirtualUsers, sent: Outcome) -> tuple[DeliveryChecker, Held]:
        """Collect until everything accepted is accounted for, or has had its time."""
        plan = self.plan
        self.progress.step("waiting for the last to arrive")
        checker = DeliveryChecker(users.load.channels, plan.grace, since=self.start)
        held = users.collect()
        checker.absences(held.absences)
        checker.pushed(sent.pushes)
        checker.arrived(held.arrivals)
        checker.settle(_now())
        deadline = time.monotonic() + plan.grace + 1
        while checker.open and time.monotonic() < deadline and not users.processes.interrupt.requested:
            users.processes.receive(LOOK_SECONDS)
            more = users.collect()
            checker.absences(more.absences)
            checker.arrived(more.arrivals)
            checker.settle(_now())
            held.add(more)
        return checker, held


def _with_newcomers(usage: Usage, before: Status, after: Status | None) -> Usage:
    """The workers that were started in the meantime in the place of those that were killed: their time since they
    began is all of this run."""
    killed = set(before.workers.values())
    usage.uses[:] = [use for use in usage.uses if use.pid not in killed]
    for pid in after.workers.values() if after is not None else ():
        if (cpu := procfs.cpu_seconds(pid)) is not None:
            wanted = procfs.wanted_seconds(pid)
            wanting = min(1.0, (cpu if wanted is None else wanted) / usage.seconds)
            usage.uses.append(Use("workers", pid, cpu, cpu / usage.seconds, wanting))
    return usage


def _now() -> int:
    return time.monotonic_ns() // 1000
