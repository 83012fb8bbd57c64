"""`farm bench push`: pushes to single devices, counted where they arrive."""

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.figures.percentiles import percentiles
from bench.interrupt import Interrupt
from bench.load.dialect import Dialect
from bench.load.samples import ACCEPTED, Account, Pushes, account
from bench.machine.procfs import cores
from bench.machine.usage import Meter, Usage
from bench.progress import Progress
from bench.runs.app_servers import START_SECONDS, Outcome, PushPlan, start_app_servers, wait_for_pushers
from bench.runs.away import Away
from bench.runs.collected import Held, Setup
from bench.runs.load import Load
from bench.runs.load_processes import Child, LoadProcesses
from bench.runs.stored import Stored
from bench.runs.virtual_users import VirtualUsers
from bench.target import Target


def speaking(dialect: Dialect, load: Load, plan: PushPlan, payload: int | None = None) -> tuple[Load, PushPlan]:
    """The same load in a dialect, which says how large a `payload` of None is."""
    size = dialect.payload if payload is None else payload
    signer = dialect.signer() if dialect.signer is not None else None
    load = replace(load, protocol=dialect.name, arguments={"key": signer.public} if signer else {})
    wire = dialect.batch_wire if plan.batch else dialect.wire
    return load, replace(plan, wire=wire, payload=size, keeps_all=dialect.keeps_all, signer=signer)


def run(target: Target, load: Load, plan: PushPlan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there, or no device could be set up.
    """
    result: dict[str, Any] = {"dialect": load.protocol, "payload": plan.payload, "batch": plan.batch}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        farm = target.open(stack, interrupt, load.protocol)
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        load = replace(load, payload=plan.payload)
        stored = Stored(farm.store)
        online = min(load.devices, max(1, round(load.devices * plan.online)))
        away = None
        if online < load.devices:
            away = Away.of(processes, replace(load, devices=load.devices - online), farm, online, progress)
        users = VirtualUsers.of(processes, replace(load, devices=online), farm)
        setup = users.bring_up(progress, "setting up devices")
        result["setup"] = setup.fields()
        if not setup.endpoints:
            raise BenchError(f"no device could be set up ({setup.why})")
        stored.set_up(setup.ready + (away.setup.ready if away is not None else 0))
        result["runs"] = measure(processes, farm, users, setup, plan=plan, progress=progress, away=away)
        stored.pushed()
        if away is not None:
            result["away"] = away.bring_back(progress, plan.grace, plan.keeps_all)
        if farm.store is not None:
            result["store"] = stored.fields(result["away"]["stored"] if away is not None else 0)
    return result


def measure(
    processes: LoadProcesses,
    farm: Farm,
    users: VirtualUsers,
    setup: Setup,
    *,
    plan: PushPlan,
    progress: Progress,
    away: Away | None = None,
) -> list[dict[str, Any]]:
    """Push to devices that are up, and to those that are away: at the plan's rate, then perhaps at half of what was
    reached.

    Raises:
      BenchError: an endpoint is not one that can be pushed to, or a load process ended.
    """
    if processes.interrupt.requested:
        return []
    run = _Run(processes, farm, users, start_app_servers(processes, setup, plan, away), plan, progress, away)
    runs = [_push(run, plan.rate)]
    if plan.half and not processes.interrupt.requested:
        reached = runs[0]["pushes_a_second" if away else "notifications_a_second"] / 2
        if reached >= 1:
            runs.append(_push(run, reached))
    processes.dismiss(run.pushers)
    return runs


@dataclass(frozen=True, slots=True)
class _Run:
    """What takes part in a run."""

    processes: LoadProcesses
    farm: Farm
    users: VirtualUsers
    pushers: list[Child]
    plan: PushPlan
    progress: Progress
    away: Away | None

    @property
    def channels(self) -> int:
        return self.users.load.channels

    @property
    def absent(self) -> range:
        return self.away.devices if self.away is not None else range(0)


def _push(run: _Run, rate: float) -> dict[str, Any]:
    processes, users, plan, progress = run.processes, run.users, run.plan, run.progress
    pushers = run.pushers[: plan.count] if plan.count else run.pushers
    title = f"pushing at {rate:,.0f} /s" if rate else "pushing flat out"
    progress.step(title, plan.count or plan.seconds)
    users.collect()  # what came before this run is not its concern
    load = {
        "load devices": [child.pid for child in users.children],
        "load pushers": [child.pid for child in pushers],
    }
    meter = Meter(run.farm.groups(run.farm.status()) | load)
    start = time.monotonic_ns() // 1000 + int(START_SECONDS * 1e6)
    share, rest = divmod(plan.count, len(pushers))
    for number, child in enumerate(pushers):
        processes.send(
            [child],
            "go",
            start=start,
            seconds=plan.seconds,
            rate=rate / len(pushers),
            phase=number * 1e6 / rate if rate else 0.0,
            count=share + (number < rest),
        )
    outcome = wait_for_pushers(processes, pushers, progress, plan.count)
    usage = meter.stop(cores())
    held = _wait_for_arrivals(run, outcome.pushes)
    if run.away is not None:
        run.away.runs.append(outcome.pushes)
    return {
        "mode": "open loop" if rate else "flat out",
        "rate": rate or None,
        **_figures(run, outcome, held, usage),
        "unsent": outcome.unsent,
        "connections": outcome.connections,
        "errors": dict(outcome.errors),
    }


def _wait_for_arrivals(run: _Run, pushes: Pushes) -> Held:
    """Collect, once nothing more comes; while something accepted for a device that is there has not arrived, go on
    for the time of grace."""
    users, progress = run.users, run.progress
    expected = sum(
        status in ACCEPTED and channel // run.channels not in run.absent
        for channel, status in zip(pushes.channels, pushes.statuses, strict=True)
    )
    deadline = time.monotonic() + run.plan.grace
    progress.step("waiting for the last to arrive", expected)
    before, now = -1, users.count_anew("arrived")
    while before < 0 or ((now < expected or now != before) and time.monotonic() < deadline):
        if users.processes.interrupt.requested:
            break
        before, now = now, users.count_anew("arrived")
        progress.update(now)
    held = users.collect()
    while _account(run, pushes, held).lost and (left := deadline - time.monotonic()) > 0:
        if users.processes.interrupt.requested:
            break
        users.processes.receive(min(left, 0.5))
        held.add(users.collect())
    return held


def _account(run: _Run, pushes: Pushes, held: Held) -> Account:
    return account(
        pushes,
        held.arrivals,
        channels=run.channels,
        away=run.absent,
        gone=run.users.gone,
        keeps_all=run.plan.keeps_all,
    )


def _figures(run: _Run, outcome: Outcome, held: Held, usage: Usage) -> dict[str, Any]:
    pushes, start, end = outcome.pushes, outcome.start, outcome.end
    found = _account(run, pushes, held)
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
        "to_frame_ms": percentiles(found.latencies, 0.001),
        "to_response_ms": percentiles(answers, 0.001),
        **found.fields(),
        "strays": held.strays,
        "clean": found.clean and not held.strays,
        "held": held.devices,
        "drops": dict(held.drops),
        "usage": usage.fields(len(pushes.statuses)),
        "limit": usage.limit(),
    }
