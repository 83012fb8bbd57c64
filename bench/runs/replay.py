"""`farm bench replay`: subscribers that were away come back at once, and get what was stored for them meanwhile."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.figures.percentiles import percentiles
from bench.interrupt import Interrupt
from bench.load.reconnect import Backoff
from bench.load.samples import ACCEPTED
from bench.load.shared_counts import SharedCounts
from bench.machine.procfs import cores
from bench.machine.usage import Meter
from bench.progress import Progress
from bench.runs import fanout
from bench.runs.app_servers import START_SECONDS, Outcome, wait_for_pushers
from bench.runs.deliveries import Deliveries, cpu_a_million, deliveries_of
from bench.runs.load import Load, processes_for
from bench.runs.load_processes import Child, LoadProcesses
from bench.runs.speaking import Speaking
from bench.runs.subscribers import Subscribers, Tally
from bench.target import Target

STORING_RATE: Final = 1_000_000.0
"""Events a second while subscribers are away: due at once, and sent as fast as they are answered."""
NEVER: Final = Backoff(first=1e9, cap=1e9)
AGAIN: Final = Backoff(first=1.0, cap=8.0)
"""When a subscriber tries once more whose attempt to come back failed."""
SPARE: Final = 8
"""Events that a channel keeps beside those of a round: its first, its last, and some of the live ones."""


@dataclass(frozen=True, slots=True)
class Plan:
    """`messages`: stored for each channel while its subscribers are away. `channels`: that they share evenly. `rate`:
    events a second meanwhile they come back, for `seconds`. `events`: how they are posted. What is missing when nothing
    has come for `grace` s is lost. `rounds`: how often they go and come back."""

    messages: int = 20
    channels: int = 1
    rate: float = 0.0
    seconds: float = 2.0
    rounds: int = 1
    grace: float = 10.0
    events: fanout.Plan = field(default_factory=fanout.Plan)

    @property
    def stored(self) -> int:
        """Events that a channel has to keep."""
        return self.messages + SPARE + int(self.rate * self.seconds)


def run(
    target: Target, load: Load, plan: Plan, spoken: Speaking, *, interrupt: Interrupt, progress: Progress
) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there, or no subscriber could be set up.
    """
    result: dict[str, Any] = {**spoken.fields, "payload": plan.events.payload}
    result |= {"channels": plan.channels, "messages": plan.messages}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        if not target.url:
            spoken, settings = spoken.settings(stack, plan.stored)
            target = replace(target, settings=(*settings, *target.settings))
        farm = target.open(stack, interrupt, spoken.fan_out.name)
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        load, events = fanout.speaking(spoken, load, replace(plan.events, channels=plan.channels))
        plan = replace(plan, events=replace(events, router=events.router or farm.router))
        result |= measure(processes, farm, load, plan, lambda: farm.groups(farm.status()), progress)
    return result


def measure(
    processes: LoadProcesses,
    farm: Farm,
    load: Load,
    plan: Plan,
    groups: Callable[[], dict[str, list[int]]],
    progress: Progress,
) -> dict[str, Any]:
    """Let subscribers come, go and come back. `groups` gives the server's processes, by what they are: asked once the
    subscribers are up, as some are only started when the server listens.

    Raises:
      BenchError: no subscriber could be set up, the first event did not come to all, events can't be posted, or a load
        process ended.
    """
    with SharedCounts(processes_for(load)) as counts:
        subscribers = Subscribers.listening(processes, replace(load, backoff=NEVER), farm, counts)
        setup = subscribers.bring_up(progress, "setting up subscribers")
        fanout.check(setup)
        publisher = fanout.start_publisher(subscribers, plan.events, evenly=True)
        rounds: list[dict[str, Any]] = []
        while len(rounds) < plan.rounds:
            done = _Round(subscribers, publisher, plan, groups(), progress).run()
            if done is None:
                break
            rounds.append(done)
        processes.dismiss([publisher])
        subscribers.dismiss()
    return {"setup": setup.fields(), "rounds": rounds}


@dataclass(slots=True)
class _Round:
    subscribers: Subscribers
    publisher: Child
    plan: Plan
    groups: dict[str, list[int]]
    progress: Progress

    def run(self) -> dict[str, Any] | None:
        """Its fields of the JSON; None: it was interrupted, and what is missing was not lost."""
        subscribers, plan, progress = self.subscribers, self.plan, self.progress
        interrupt = subscribers.processes.interrupt
        if interrupt.requested:
            return None
        subscribers.collect()
        listening = subscribers.tally().listening
        wanted = sum(listening)
        before = subscribers.arrived()
        first = self._publish(plan.channels, "sending each channel an event, behind which its subscribers go on")
        fanout.wait_for_arrivals(subscribers, before, wanted, plan.grace, progress)
        if interrupt.requested:
            return None
        if subscribers.arrived() - before < wanted or first.errors:
            raise BenchError(
                f"of {wanted:,} subscribers {subscribers.arrived() - before:,} got the first event "
                f"(answered {dict(deliveries_of(first, listening, subscribers.tally()).statuses)})"
            )
        progress.step("cutting the subscribers off")
        subscribers.cut()
        subscribers.tally()
        subscribers.collect()
        stored = self._publish(plan.messages * plan.channels, "storing events")
        before = subscribers.arrived()
        load = {"load subscribers": [child.pid for child in subscribers.children]}
        meter = Meter(self.groups | load | {"load app servers": [self.publisher.pid]})
        start = _now()
        progress.step("coming back")
        subscribers.bring_back(list(range(subscribers.first, subscribers.first + subscribers.devices)), 0.0, AGAIN)
        outcomes = [stored]
        if plan.rate:
            outcomes.append(self._publish(0, "coming back, while events are sent"))
        outcome = _joined(outcomes)
        accepted = zip(outcome.pushes.channels, outcome.pushes.statuses, strict=True)
        expected = sum(listening[channel] for channel, status in accepted if status in ACCEPTED)
        fanout.wait_for_arrivals(subscribers, before, expected, plan.grace, progress)
        usage = meter.stop(cores())
        tally = subscribers.tally()
        held = subscribers.collect()
        deliveries = deliveries_of(outcome, listening, tally)
        before = subscribers.arrived()
        live = self._publish(plan.channels, "sending each channel an event, now that they are back")
        fanout.wait_for_arrivals(subscribers, before, wanted, plan.grace, progress)
        if interrupt.requested:
            return None
        after_tally = subscribers.tally()
        after = deliveries_of(live, listening, after_tally)
        faults = tally.faults + after_tally.faults
        seconds = (deliveries.last - start) / 1e6 if deliveries.delivered else 0.0
        return {
            "subscribers": wanted,
            "back": len(held.absences.back),
            "back_ms": percentiles((at - start for at in held.absences.back_times), 0.001),
            "seconds": seconds,
            "deliveries_a_second": deliveries.delivered / seconds if seconds else 0.0,
            "storing_ms": percentiles(stored.pushes.times, 0.001),
            "stored_a_second": len(stored.pushes.times) / max((stored.end - stored.start) / 1e6, 1e-6),
            **deliveries.fields(),
            "live": after.fields(),
            **{name: faults[name] for name in ("duplicates", "reordered", "wrong_data", "stale")},
            "strays": held.strays,
            "held": held.devices,
            "drops": dict(held.drops),
            "return_failures": dict(held.return_failures),
            "errors": dict(outcome.errors + live.errors),
            "clean": _clean(deliveries, after, tally, after_tally) and not held.strays,
            "cpu_a_million": cpu_a_million(usage, deliveries.delivered),
            "usage": usage.fields(deliveries.delivered),
            "limit": usage.limit(),
        }

    def _publish(self, count: int, title: str) -> Outcome:
        """So many events, as fast as they are answered; 0: at the plan's rate, for its time."""
        processes, plan = self.subscribers.processes, self.plan
        self.progress.step(title, count or plan.seconds)
        start = _now() + int(START_SECONDS * 1e6)
        rate, seconds = (STORING_RATE, 0.0) if count else (plan.rate, plan.seconds)
        processes.send([self.publisher], "go", start=start, seconds=seconds, rate=rate, phase=0.0, count=count)
        return wait_for_pushers(processes, [self.publisher], self.progress, count)


def _clean(deliveries: Deliveries, after: Deliveries, *tallies: Tally) -> bool:
    """Whether all came, once and in order."""
    faults = sum(sum(tally.faults.values()) for tally in tallies)
    wrong = (one.refused + one.unanswered + one.lost + one.undelivered + one.unexpected for one in (deliveries, after))
    return bool(deliveries.delivered and after.delivered and not faults and not any(wrong))


def _joined(outcomes: list[Outcome]) -> Outcome:
    """What was published, in one."""
    first, *others = outcomes
    found = Outcome(start=first.start, end=first.end)
    for one in (first, *others):
        for name in ("channels", "versions", "statuses", "times"):
            getattr(found.pushes, name).extend(getattr(one.pushes, name))
        found.errors.update(one.errors)
    return found


def _now() -> int:
    return time.monotonic_ns() // 1000
