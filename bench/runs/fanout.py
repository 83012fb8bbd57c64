"""`farm bench fanout`: events to channels with many subscribers, counted at every one of them."""

import time
from array import array
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.figures.percentiles import percentiles
from bench.interrupt import Interrupt
from bench.load.samples import ACCEPTED
from bench.load.shared_counts import SharedCounts
from bench.load.sockets import resolve
from bench.machine import procfs
from bench.machine.usage import Meter
from bench.progress import Progress
from bench.runs.app_servers import START_SECONDS, wait_for_pushers
from bench.runs.collected import Setup
from bench.runs.deliveries import cpu_a_million, deliveries_of
from bench.runs.load import Load, processes_for
from bench.runs.load_processes import Child, LoadProcesses
from bench.runs.speaking import Speaking
from bench.runs.subscribers import Subscribers
from bench.target import Target

CHANNEL: Final = "{channel}"
LOOK_SECONDS: Final = 0.005
LEAST_PAYLOAD: Final = 20
"""The longest version and the dot behind it: it identifies an event."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to send events. `channels`: that the subscribers share evenly; each event goes to one of them, a random one.
    `flat_out`: a run as fast as `in_flight` events a channel under way at once allow; `rate`: and a run at this rate,
    0: none; each of so many `seconds`. Events are posted over so many `connections`, of which each has one unanswered
    at most, by the `wire` of this name (see `bench.load.protocols`), with its `authorization`, to `path` at `router`,
    where `{channel}` stands for the channel's number. What is missing when nothing has come for `grace` s is lost."""

    channels: int = 1
    flat_out: bool = True
    rate: float = 0.0
    seconds: float = 10.0
    in_flight: int = 2
    connections: int = 64
    payload: int = 120
    grace: float = 5.0
    answer_timeout: float = 10.0
    wire: str = ""
    authorization: str = ""
    router: str = ""
    path: str = ""


def speaking(spoken: Speaking, load: Load, plan: Plan) -> tuple[Load, Plan]:
    """The same load in a dialect, with the plan's channels and payload.

    Raises:
      BenchError: the file of applications has none.
    """
    load, events = spoken.subscribers(replace(load, shared=plan.channels, payload=plan.payload))
    return load, replace(plan, wire=spoken.fan_out.wire, authorization=events.authorization, path=events.path)


def run(
    target: Target, load: Load, plan: Plan, spoken: Speaking, *, interrupt: Interrupt, progress: Progress
) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there, or no subscriber could be set up.
    """
    result: dict[str, Any] = {**spoken.fields, "payload": plan.payload, "channels": plan.channels}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        if not target.url:
            spoken, settings = spoken.settings(stack)
            target = replace(target, settings=(*settings, *target.settings))
        farm = target.open(stack, interrupt, spoken.fan_out.name)
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        load, plan = speaking(spoken, load, plan)
        plan = replace(plan, router=plan.router or farm.router)
        counts = stack.enter_context(SharedCounts(processes_for(load)))
        subscribers = Subscribers.listening(processes, load, farm, counts)
        before = _memory(farm)
        setup = subscribers.bring_up(progress, "setting up subscribers")
        result["setup"] = setup.fields()
        check(setup)
        after = _memory(farm)
        result["memory_a_subscriber"] = {group: (after[group] - before[group]) / setup.ready for group in after}
        result["runs"] = measure(subscribers, plan, farm.groups(farm.status()), progress)
    return result


def _memory(farm: Farm) -> dict[str, int]:
    """Private memory of the farm's processes by what they are, in bytes; nothing where it does not report them."""
    groups = farm.groups(farm.status())
    return {group: sum(procfs.private_memory(pid) or 0 for pid in pids) for group, pids in groups.items()}


def check(setup: Setup) -> None:
    """Raises BenchError if no subscriber is there."""
    if not setup.ready:
        raise BenchError(f"no subscriber could be set up ({setup.why})")


def measure(
    subscribers: Subscribers, plan: Plan, groups: dict[str, list[int]], progress: Progress
) -> list[dict[str, Any]]:
    """Events to subscribers that are up: flat out, and at the plan's rate. `groups`: the server's processes, by what
    they are.

    Raises:
      BenchError: events can't be posted to that address, or a load process ended.
    """
    processes = subscribers.processes
    publisher = start_publisher(subscribers, plan)
    runs = []
    for rate in (*((0.0,) if plan.flat_out else ()), *((plan.rate,) if plan.rate else ())):
        if not processes.interrupt.requested:
            runs.append(_run(subscribers, publisher, plan, rate, groups, progress))
    processes.dismiss([publisher])
    return runs


def start_publisher(subscribers: Subscribers, plan: Plan, evenly: bool = False) -> Child:
    """Start the app servers. `evenly`: each channel gets an event before one gets the next; otherwise random ones."""
    parts = urlsplit(plan.router)
    try:
        address = resolve(parts.hostname or "", parts.port or 80)
    except (OSError, ValueError) as error:
        raise BenchError(f"can't post events to {plan.router!r}: {error}") from None
    listening = subscribers.tally().listening
    publisher = subscribers.processes.start(
        "publishers",
        "the load process of app servers",
        array("I", range(plan.channels)).tobytes(),
        "\n".join(plan.path.replace(CHANNEL, str(number)) for number in range(plan.channels)).encode(),
        listening.tobytes(),
        address=address,
        host=parts.netloc,
        connections=plan.connections,
        timeout=plan.answer_timeout,
        payload=plan.payload,
        wire=plan.wire,
        authorization=plan.authorization,
        counts=subscribers.counts.path,
        window=plan.in_flight * sum(listening),
        evenly=evenly,
    )
    subscribers.processes.gather([publisher], "up")
    return publisher


def _run(
    subscribers: Subscribers,
    publisher: Child,
    plan: Plan,
    rate: float,
    groups: dict[str, list[int]],
    progress: Progress,
) -> dict[str, Any]:
    processes = subscribers.processes
    progress.step(f"sending {rate:g} events /s" if rate else "sending events flat out", plan.seconds)
    subscribers.collect()
    listening = subscribers.tally().listening  # what came before this run is not its concern
    before = subscribers.arrived()
    load = {"load subscribers": [child.pid for child in subscribers.children], "load app servers": [publisher.pid]}
    meter = Meter(groups | load)
    start = time.monotonic_ns() // 1000 + int(START_SECONDS * 1e6)
    processes.send([publisher], "go", start=start, seconds=plan.seconds, rate=rate, phase=0.0, count=0)
    outcome = wait_for_pushers(processes, [publisher], progress)
    accepted = zip(outcome.pushes.channels, outcome.pushes.statuses, strict=True)
    expected = sum(listening[channel] for channel, status in accepted if status in ACCEPTED)
    wait_for_arrivals(subscribers, before, expected, plan.grace, progress)
    usage = meter.stop(procfs.cores())
    tally = subscribers.tally()
    held = subscribers.collect()
    deliveries = deliveries_of(outcome, listening, tally)
    seconds = max((deliveries.last - outcome.start) / 1e6, 1e-6) if deliveries.delivered else plan.seconds
    faults = {name: tally.faults[name] for name in ("duplicates", "reordered", "wrong_data")}
    bad = [*faults.values(), deliveries.lost, deliveries.unexpected, held.strays]
    return {
        "mode": "open loop" if rate else "flat out",
        "rate": rate or None,
        "seconds": seconds,
        "deliveries_a_second": deliveries.delivered / seconds,
        "events_a_second": deliveries.events / seconds,
        "to_last_ms": percentiles(deliveries.to_last, 0.001),
        "to_first_ms": percentiles(deliveries.to_first, 0.001),
        "to_response_ms": percentiles(
            (took for took, status in zip(outcome.pushes.times, outcome.pushes.statuses, strict=True) if status), 0.001
        ),
        **deliveries.fields(),
        **faults,
        "strays": held.strays,
        "clean": not any(bad),
        "unsent": outcome.unsent,
        "held": held.devices,
        "drops": dict(held.drops),
        "errors": dict(outcome.errors),
        "cpu_a_million": cpu_a_million(usage, deliveries.delivered),
        "usage": usage.fields(deliveries.delivered),
        "limit": usage.limit(),
    }


def wait_for_arrivals(subscribers: Subscribers, before: int, expected: int, grace: float, progress: Progress) -> None:
    """Until all is there that was accepted, or nothing has come for the time of grace."""
    progress.step("waiting for the last to arrive", expected)
    last, since = -1, time.monotonic()
    while (now := subscribers.arrived() - before) < expected and not subscribers.processes.interrupt.requested:
        if now != last:
            last, since = now, time.monotonic()
        elif time.monotonic() - since > grace:
            break
        subscribers.processes.keep(subscribers.processes.receive(LOOK_SECONDS))
        progress.update(now)
