"""`farm bench push`: pushes to single devices, counted where they arrive."""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from bench.connect import Target, groups_of
from bench.crew import Child, Crew
from bench.errors import BenchError
from bench.farm_process import Farm
from bench.fleet import HEAR_SECONDS, Fleet, Held, Load, Ramp
from bench.frames import PeerError
from bench.http_bytes import split_endpoint
from bench.interrupt import Interrupt
from bench.procfs import cores
from bench.progress import Progress
from bench.samples import ACCEPTED, Pushes, account, percentiles
from bench.sockets import resolve
from bench.usage import Meter, Usage

ANSWER_SECONDS: Final = 10.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How to push. `rate` 0 is flat out; `grace` is how long an accepted push may take to arrive before it is lost."""

    connections: int = 64
    processes: int = 1
    seconds: float = 10.0
    rate: float = 0.0
    half: bool = False
    grace: float = 5.0
    endpoint: str = ""


def run(target: Target, load: Load, plan: Plan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there, or no device could be set up.
    """
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        farm = target.open(stack, interrupt)
        crew = stack.enter_context(Crew(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        fleet = Fleet.of(crew, load, farm)
        ramp = fleet.bring_up(progress, "setting up devices")
        result["setup"] = ramp.fields()
        if not ramp.endpoints:
            failures = ", ".join(f"{count} x {kind}" for kind, count in ramp.failures.most_common(3))
            raise BenchError(f"no device could be set up ({failures or 'interrupted'})")
        result["runs"] = measure(crew, farm, fleet, ramp, plan=plan, progress=progress)
    return result


def measure(
    crew: Crew, farm: Farm, fleet: Fleet, ramp: Ramp, *, plan: Plan, progress: Progress
) -> list[dict[str, Any]]:
    """Push to devices that are up: at the plan's rate, then perhaps at half of what was reached."""
    if crew.interrupt.requested:
        return []
    pushers = _hire(crew, ramp, plan)
    runs = [_push(crew, farm, fleet, pushers, plan=plan, rate=plan.rate, progress=progress)]
    if plan.half and not crew.interrupt.requested:
        reached = runs[0]["notifications_a_second"] / 2
        if reached >= 1:
            runs.append(_push(crew, farm, fleet, pushers, plan=plan, rate=reached, progress=progress))
    crew.dismiss(pushers)
    return runs


def _hire(crew: Crew, ramp: Ramp, plan: Plan) -> list[Child]:
    try:
        host, port, header, _ = split_endpoint(ramp.endpoints[0])
        paths = [split_endpoint(endpoint)[3] for endpoint in ramp.endpoints]
    except PeerError:
        raise BenchError(f"can't push to the endpoint {ramp.endpoints[0]!r}: expected http://host:port/...") from None
    if plan.endpoint:
        parts = urlsplit(plan.endpoint)
        host, port, header = parts.hostname or "", parts.port or 80, parts.netloc
    try:
        address = resolve(host, port)
    except OSError as error:
        raise BenchError(f"the router at {host}:{port}: {error}") from None
    count = min(plan.processes, plan.connections, len(paths))
    share, rest = divmod(plan.connections, count)
    children = [
        crew.start(
            "bench.pushers",
            "a load process of app servers",
            ramp.channels[number::count].tobytes(),
            b"\n".join(paths[number::count]),
            address=address,
            host=header,
            connections=share + (number < rest),
            timeout=ANSWER_SECONDS,
        )
        for number in range(count)
    ]
    crew.gather(children, "up")
    return children


def _push(
    crew: Crew, farm: Farm, fleet: Fleet, pushers: list[Child], *, plan: Plan, rate: float, progress: Progress
) -> dict[str, Any]:
    title = f"pushing at {rate:,.0f} /s" if rate else "pushing flat out"
    progress.step(title, plan.seconds)
    fleet.collect()  # what came before this run is not its concern
    load = {
        "load devices": [child.pid for child in fleet.children],
        "load pushers": [child.pid for child in pushers],
    }
    meter = Meter(groups_of(farm, farm.status(), load))
    crew.tell(pushers, "go", seconds=plan.seconds, rate=rate / len(pushers))
    pushes, start, end, facts, errors = _wait_for_pushers(crew, pushers, progress)
    usage = meter.stop(cores())
    held = _wait_for_arrivals(fleet, pushes, plan.grace, progress)
    fields = _figures(pushes, held, start, end, usage)
    return {
        "mode": "open loop" if rate else "flat out",
        "rate": rate or None,
        **fields,
        **facts,
        "errors": dict(errors),
    }


def _wait_for_pushers(
    crew: Crew, pushers: list[Child], progress: Progress
) -> tuple[Pushes, int, int, dict[str, int], Counter[str]]:
    pushes = Pushes()
    errors: Counter[str] = Counter()
    facts = {"unsent": 0, "connections": 0}
    waiting = {child.pid for child in pushers}
    began = time.monotonic()
    starts, ends = [], []
    halted = False
    for child in pushers:
        child.progress = {}
    while waiting:
        if crew.interrupt.requested and not halted:
            halted = True
            crew.tell(pushers, "halt")
        for child, word in crew.hear(HEAR_SECONDS):
            if word.kind != "pushed":
                continue
            waiting.discard(child.pid)
            pushes.channels.extend(word.numbers(0, "I"))
            pushes.versions.extend(word.numbers(1, "q"))
            pushes.statuses.extend(word.numbers(2, "H"))
            pushes.times.extend(word.numbers(3, "I"))
            errors.update(word.fields["errors"])
            starts.append(word.fields["start"])
            ends.append(word.fields["end"])
            for name in facts:
                facts[name] += word.fields[name]
        pushed = sum(child.progress.get("pushed", 0) for child in pushers)
        progress.update(round(time.monotonic() - began, 1), pushed, "pushes/s")
    return pushes, min(starts), max(ends), facts, errors


def _wait_for_arrivals(fleet: Fleet, pushes: Pushes, grace: float, progress: Progress) -> Held:
    """Collect, once nothing more comes; while something accepted has not arrived, go on for the time of grace."""
    accepted = sum(status in ACCEPTED for status in pushes.statuses)
    deadline = time.monotonic() + grace
    progress.step("waiting for the last to arrive", accepted)
    before, now = -1, fleet.count_anew("arrived")
    while before < 0 or ((now < accepted or now != before) and time.monotonic() < deadline):
        if fleet.crew.interrupt.requested:
            break
        before, now = now, fleet.count_anew("arrived")
        progress.update(now)
    held = fleet.collect()
    while account(pushes, held.arrivals).lost and (left := deadline - time.monotonic()) > 0:
        if fleet.crew.interrupt.requested:
            break
        fleet.crew.hear(min(left, 0.5))
        _merge(held, fleet.collect())
    return held


def _merge(held: Held, more: Held) -> None:
    mine, other = held.arrivals, more.arrivals
    mine.channels.extend(other.channels)
    mine.versions.extend(other.versions)
    mine.times.extend(other.times)
    mine.gone.extend(other.gone)
    held.devices = more.devices
    held.drops.update(more.drops)
    held.strays += more.strays


def _figures(pushes: Pushes, held: Held, start: int, end: int, usage: Usage) -> dict[str, Any]:
    books = account(pushes, held.arrivals)
    seconds = max((end - start) / 1e6, 1e-6)
    in_time = sum(start <= time_ <= end for time_ in held.arrivals.times)
    answers = [time_ for time_, status in zip(pushes.times, pushes.statuses, strict=True) if status]
    answered_in_time = sum(
        status != 0 and version + time_ <= end
        for version, time_, status in zip(pushes.versions, pushes.times, pushes.statuses, strict=True)
    )
    return {
        "seconds": seconds,
        "pushes": len(pushes.statuses),
        "pushes_a_second": answered_in_time / seconds,
        "notifications_a_second": in_time / seconds,
        "to_frame_ms": percentiles(books.latencies, 0.001),
        "to_response_ms": percentiles(answers, 0.001),
        **books.fields(),
        "strays": held.strays,
        "clean": books.clean and not held.strays,
        "held": held.devices,
        "drops": dict(held.drops),
        "usage": usage.fields(len(pushes.statuses)),
        "limit": usage.limit(),
    }
