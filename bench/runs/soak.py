"""`farm bench soak`: hours of devices that leave and return and of pushes; does anything creep, or get lost?"""

import time
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.errors import BenchError
from bench.farm_process import Farm, Status
from bench.figures import creep
from bench.figures.json_text import rounded
from bench.figures.percentiles import percentiles
from bench.figures.results import Document
from bench.interrupt import Interrupt
from bench.load.reconnect import Backoff
from bench.machine import procfs
from bench.machine.usage import Meter
from bench.progress import Progress
from bench.runs.app_servers import PushPlan
from bench.runs.delivery_checker import DeliveryChecker
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.traffic import Traffic
from bench.runs.virtual_users import VirtualUsers
from bench.target import Target

MOST_SAMPLES: Final = 720
MOST_KEPT: Final = 100
"""Of the samples in the result; what creeps is judged by all of them."""
KERNEL: Final = "kernel, whole machine"
LOOK_SECONDS: Final = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """`seconds`: of the soak. `every`: s between two samples. `churn`: devices that lose their connection a second;
    they come back by the backoff. `rate`: pushes a second. `grace`: s that an accepted push may take to a device that
    is connected. `limits`: what memory, descriptors and latency may grow by in an hour."""

    seconds: float = 8 * 3600.0
    every: float = 60.0
    churn: float = 20.0
    rate: float = 100.0
    connections: int = 64
    grace: float = 10.0
    backoff: float = 5.0
    cap: float = 1800.0
    jitter: bool = True
    limits: creep.Limits = field(default_factory=creep.Limits)


def run(target: Target, load: Load, plan: Plan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there or ended, or no device could be set up.
    """
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        farm = target.open(stack, interrupt, load.protocol)
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        users = VirtualUsers.of(processes, replace(load, backoff=Backoff(plan.backoff, plan.cap, plan.jitter)), farm)
        setup = users.bring_up(progress, "setting up devices")
        result["setup"] = setup.fields()
        if not setup.ready or (plan.rate and not setup.endpoints):
            raise BenchError(f"no device could be set up ({setup.why})")
        traffic = Traffic(processes, setup, PushPlan(connections=plan.connections)) if plan.rate else None
        soak = _Soak(farm, users, traffic, plan, progress)
        result["soak"] = soak.run()
    return result


@dataclass(slots=True)
class _Soak:
    farm: Farm
    users: VirtualUsers
    traffic: Traffic | None
    plan: Plan
    progress: Progress
    began: float = 0.0
    samples: list[dict[str, Any]] = field(default_factory=list)
    stride: int = 1
    gone: int = 0
    back: int = 0
    strays: int = 0
    reassigned: int = 0
    pings: Counter[str] = field(default_factory=Counter)
    drops: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    unsent: int = 0

    def run(self) -> dict[str, Any]:
        users, plan, interrupt = self.users, self.plan, self.users.processes.interrupt
        users.collect()
        self.began = time.monotonic()
        checker = DeliveryChecker(users.load.channels, plan.grace, since=_now())
        load = {"load devices": [child.pid for child in users.children]}
        if self.traffic is not None:
            load["load pushers"] = [child.pid for child in self.traffic.children]
        groups = self.farm.groups(self._status()) | load
        meter = Meter(groups)
        users.churn(plan.churn)
        self.progress.step("soaking", round(plan.seconds))
        pending: list[dict[str, Any]] = []
        while (left := plan.seconds - self._passed()) > 0 and not interrupt.requested:
            pending.append(self._round(checker, min(left, plan.every)))
            if len(pending) == self.stride:
                self.samples.append(joined(pending))
                pending = []
            if len(self.samples) >= MOST_SAMPLES:
                self.samples = [joined(self.samples[at : at + 2]) for at in range(0, len(self.samples), 2)]
                self.stride *= 2
        if pending:
            self.samples.append(joined(pending))
        usage = meter.stop(procfs.cores())
        users.churn(0)
        self._let_settle(checker)
        growth = creep.verdicts(self.samples, plan.limits)
        sent = checker.counts["sent"]
        held = users.count_anew("ready")
        lost = not checker.clean or bool(self.strays or self.reassigned)
        return {
            "seconds": self._passed(),
            "devices": users.devices,
            "held": held,
            "samples": thinned(self.samples),
            "growth": growth,
            "grows": creep.grows(growth),
            "deliveries": checker.fields(),
            "strays": self.strays,
            "reassigned": self.reassigned,
            "left": self.gone,
            "returned": self.back,
            "away": checker.away,
            "return_failures": dict(self.failures),
            "drops": dict(self.drops),
            "errors": dict(self.errors),
            "unsent": self.unsent,
            "pings": dict(self.pings),
            "usage": usage.fields(sent),
            "clean": not lost,
        }

    def _passed(self) -> float:
        return time.monotonic() - self.began

    def _status(self) -> Status | None:
        """None also while the farm does not answer: a soak goes on, and shows the gap."""
        with suppress(BenchError):
            return self.farm.status()
        return None

    def _round(self, checker: DeliveryChecker, seconds: float) -> dict[str, Any]:
        """Push for so long, and see where everything stands then."""
        processes = self.users.processes
        start = time.monotonic()
        if self.traffic is not None:
            self.traffic.go(self.plan.rate, seconds)
        while time.monotonic() - start < seconds and not processes.interrupt.requested:
            wait = min(LOOK_SECONDS, max(0.0, seconds - (time.monotonic() - start)))
            if self.traffic is not None:
                self.traffic.receive(wait)
            else:
                processes.receive(wait)
            note = f"{self.users.count('ready'):,} connected, {checker.counts['lost']:,} lost"
            self.progress.update(round(self._passed(), 1), note=note)
        sent = None
        if self.traffic is not None:
            self._wait_for_answers()
            sent = self.traffic.end()
            checker.pushed(sent.pushes)
            self.errors.update(sent.errors)
            self.unsent += sent.unsent
        self._collect(checker)
        answers = (
            []
            if sent is None
            else [time_ for time_, status in zip(sent.pushes.times, sent.pushes.statuses, strict=True) if status]
        )
        sample = {
            "at": round(self._passed(), 3),
            **self._measures(),
            "devices": self.users.count("ready"),
            "away": self.users.count("away"),
            "pushes": 0 if sent is None else len(sent.pushes.statuses),
            "refused": checker.counts["refused"],
            "unanswered": checker.counts["unanswered"],
            "lost": checker.counts["lost"],
            "stored": checker.open,
            "to_frame_ms": _points(percentiles(checker.live, 0.001)),
            "to_response_ms": _points(percentiles(answers, 0.001)),
        }
        del checker.live[:], checker.waited[:]
        checker.complete.clear()
        return sample

    def _wait_for_answers(self) -> None:
        """The round's time is over, and the processes report it by themselves, once the last answer came."""
        deadline = time.monotonic() + self.plan.grace
        while (
            self.traffic is not None
            and self.traffic.going
            and time.monotonic() < deadline
            and not self.users.processes.interrupt.requested
        ):
            self.traffic.receive(LOOK_SECONDS)

    def _collect(self, checker: DeliveryChecker) -> None:
        held = self.users.collect()
        checker.absences(held.absences)
        checker.arrived(held.arrivals)
        checker.settle(_now())
        self.gone += len(held.absences.gone)
        self.back += len(held.absences.back)
        self.strays += held.strays
        self.reassigned += held.reassigned
        self.drops.update(held.drops)
        self.failures.update(held.return_failures)
        outstanding = held.pings.pop("outstanding", 0)
        self.pings.update(held.pings)
        self.pings["outstanding"] = outstanding

    def _let_settle(self, checker: DeliveryChecker) -> None:
        """Until those that are away are back, one backoff later, and what was accepted has arrived."""
        processes, plan = self.users.processes, self.plan
        self.progress.step("waiting for the last to arrive")
        deadline = time.monotonic() + 2 * plan.backoff + plan.grace + 1
        while (checker.open or checker.away) and time.monotonic() < deadline and not processes.interrupt.requested:
            processes.receive(LOOK_SECONDS)
            self._collect(checker)

    def _measures(self) -> dict[str, Any]:
        """Memory, descriptors and connections now; None where the farm does not report them."""
        status = self._status()
        groups = self.farm.groups(status)
        memory: dict[str, int | None] = {}
        descriptors: dict[str, int | None] = {}
        for name, pids in groups.items():
            memory[name] = _sum([procfs.private_memory(pid) for pid in pids])
            descriptors[name] = _sum([procfs.descriptors(pid) for pid in pids])
        memory[KERNEL] = procfs.kernel_memory().total
        connections = sum(status.connections.values()) if status is not None else None
        return {"memory": memory, "descriptors": descriptors, "connections": connections}


def _sum(sizes: list[int | None]) -> int | None:
    known = [size for size in sizes if size is not None]
    return sum(known) if known and len(known) == len(sizes) else None


def _now() -> int:
    return time.monotonic_ns() // 1000


# ---- figures; pure


def _points(points: dict[str, float]) -> dict[str, float]:
    return {name: points[name] for name in ("p50", "p99", "max") if name in points}


def joined(samples: list[dict[str, Any]]) -> dict[str, Any]:
    """One sample for several that follow each other: where things stood at the end, all pushes, and the worst latency
    of each kind, so that thinning out hides no spike."""
    last = samples[-1]
    result = {**last, "pushes": sum(sample["pushes"] for sample in samples)}
    for name in ("to_frame_ms", "to_response_ms"):
        result[name] = {
            point: max(sample[name][point] for sample in samples if point in sample[name])
            for point in ("p50", "p99", "max")
            if any(point in sample[name] for sample in samples)
        }
    return result


def thinned(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """So many samples that follow each other joined that `MOST_KEPT` are left at most; the first stays as it is."""
    rest = samples[1:]
    step = -(-len(rest) // (MOST_KEPT - 1)) or 1
    return samples[:1] + [joined(rest[at : at + step]) for at in range(0, len(rest), step)]


def judged_again(body: Document, limits: creep.Limits, limited: dict[str, float]) -> Document:
    """The document of a soak with the verdicts that its samples give by `limits`, which `limited` says as options. A
    long run has joined samples, so that they may differ a little from those of the run itself.

    Raises:
      BenchError: it is no result of a soak, or of one without a field that is needed.
    """
    if body["command"] != "soak":
        raise BenchError(f"a result of {body['command']!r}, and only one of 'soak' has samples to judge")
    try:
        done = body["soak"]
        growth = creep.verdicts(done["samples"], limits)
        done |= {"growth": rounded(growth), "grows": creep.grows(growth)}
        return body | {"options": body["options"] | limited, "soak": done}
    except (KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"a result of a soak without the samples that it takes ({error})") from None
