"""`farm bench push`: pushes to single devices, counted where they arrive."""

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import urlsplit

from bench.errors import BenchError
from bench.farm_process import Farm
from bench.figures.dialects import Dialect
from bench.interrupt import Interrupt
from bench.load.frames import PeerError
from bench.load.http_bytes import origin_of, split_endpoint
from bench.load.link import Message
from bench.load.samples import ACCEPTED, Account, Pushes, account, percentiles
from bench.load.sockets import resolve
from bench.load.vapid import Signer
from bench.machine.procfs import cores
from bench.machine.usage import Meter, Usage
from bench.progress import Progress
from bench.runs.away import Away
from bench.runs.load_processes import Child, LoadProcesses
from bench.runs.virtual_users import RECEIVE_SECONDS, Held, Load, Setup, VirtualUsers
from bench.target import Target

ANSWER_SECONDS: Final = 10.0
START_SECONDS: Final = 0.1
"""From `go` to the first push: all processes have their connections by then, and begin together."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How to push. `rate` 0 is flat out; `grace` is how long an accepted push may take to arrive before it is lost.
    A run ends after `seconds`, or earlier after `count` pushes; 0: no limit by it. `payload`: bytes of data that a
    push carries. `online`: the share of the devices that is connected. A push has `answer_timeout` s to be answered.
    `wire`: the kind of push port, see `bench.load.wires`. `batch`: pushes in one request, 0: each has its own, with a
    route of its own. `keeps_all`: no message takes the place of another. `signer`:
    whose header every push has; None: it has none."""

    connections: int = 64
    processes: int = 1
    seconds: float = 10.0
    rate: float = 0.0
    half: bool = False
    grace: float = 5.0
    endpoint: str = ""
    count: int = 0
    payload: int = 0
    online: float = 1.0
    answer_timeout: float = ANSWER_SECONDS
    wire: str = "farm"
    keeps_all: bool = False
    signer: Signer | None = None
    batch: int = 0


def speaking(dialect: Dialect, load: Load, plan: Plan, payload: int | None = None) -> tuple[Load, Plan]:
    """The same load in a dialect, which says how large a `payload` of None is."""
    size = dialect.payload if payload is None else payload
    signer = Signer() if dialect.signs else None
    load = replace(load, protocol=dialect.name, arguments={"key": signer.public} if signer else {})
    wire = "batch" if plan.batch else dialect.wire
    return load, replace(plan, wire=wire, payload=size, keeps_all=dialect.keeps_all, signer=signer)


def run(target: Target, load: Load, plan: Plan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there, or no device could be set up.
    """
    result: dict[str, Any] = {"dialect": load.protocol, "payload": plan.payload, "batch": plan.batch}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        farm = target.open(stack, interrupt)
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        load = replace(load, payload=plan.payload)
        online = min(load.devices, max(1, round(load.devices * plan.online)))
        away = None
        if online < load.devices:
            away = Away.of(processes, replace(load, devices=load.devices - online), farm, online, progress)
        users = VirtualUsers.of(processes, replace(load, devices=online), farm)
        setup = users.bring_up(progress, "setting up devices")
        result["setup"] = setup.fields()
        if not setup.endpoints:
            failures = ", ".join(f"{count} x {kind}" for kind, count in setup.failures.most_common(3))
            raise BenchError(f"no device could be set up ({failures or 'interrupted'})")
        result["runs"] = measure(processes, farm, users, setup, plan=plan, progress=progress, away=away)
        if away is not None:
            result["away"] = away.bring_back(progress, plan.grace, plan.keeps_all)
    return result


def measure(
    processes: LoadProcesses,
    farm: Farm,
    users: VirtualUsers,
    setup: Setup,
    *,
    plan: Plan,
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
    scene = _Scene(processes, farm, users, hire(processes, setup, plan, away), plan, progress, away)
    runs = [_push(scene, plan.rate)]
    if plan.half and not processes.interrupt.requested:
        reached = runs[0]["pushes_a_second" if away else "notifications_a_second"] / 2
        if reached >= 1:
            runs.append(_push(scene, reached))
    processes.dismiss(scene.pushers)
    return runs


@dataclass(frozen=True, slots=True)
class _Scene:
    """Who takes part in a run."""

    processes: LoadProcesses
    farm: Farm
    users: VirtualUsers
    pushers: list[Child]
    plan: Plan
    progress: Progress
    away: Away | None

    @property
    def channels(self) -> int:
        return self.users.load.channels

    @property
    def absent(self) -> range:
        return self.away.devices if self.away is not None else range(0)


def hire(processes: LoadProcesses, setup: Setup, plan: Plan, away: Away | None = None) -> list[Child]:
    """Start the app servers, for all endpoints that devices reported; `go` makes them push."""
    endpoints, channels = setup.endpoints, setup.channels
    if away is not None:
        endpoints, channels = endpoints + away.setup.endpoints, channels + away.setup.channels
    try:
        host, port, header, _ = split_endpoint(endpoints[0])
        paths = [split_endpoint(endpoint)[3] for endpoint in endpoints]
        authorization = plan.signer.authorization(origin_of(endpoints[0])) if plan.signer is not None else ""
    except PeerError:
        raise BenchError(f"can't push to the endpoint {endpoints[0]!r}: expected http://host:port/...") from None
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
        processes.start(
            "bench.load.batchers" if plan.batch else "bench.load.pushers",
            "a load process of app servers",
            channels[number::count].tobytes(),
            b"\n".join(paths[number::count]),
            address=address,
            host=header,
            connections=share + (number < rest),
            timeout=plan.answer_timeout,
            payload=plan.payload,
            wire=plan.wire,
            authorization=authorization,
            batch=plan.batch,
        )
        for number in range(count)
    ]
    processes.gather(children, "up")
    return children


def _push(scene: _Scene, rate: float) -> dict[str, Any]:
    processes, users, plan, progress = scene.processes, scene.users, scene.plan, scene.progress
    pushers = scene.pushers[: plan.count] if plan.count else scene.pushers
    title = f"pushing at {rate:,.0f} /s" if rate else "pushing flat out"
    progress.step(title, plan.count or plan.seconds)
    users.collect()  # what came before this run is not its concern
    load = {
        "load devices": [child.pid for child in users.children],
        "load pushers": [child.pid for child in pushers],
    }
    meter = Meter(scene.farm.groups(scene.farm.status()) | load)
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
    held = _wait_for_arrivals(scene, outcome.pushes)
    if scene.away is not None:
        scene.away.runs.append(outcome.pushes)
    return {
        "mode": "open loop" if rate else "flat out",
        "rate": rate or None,
        **_figures(scene, outcome, held, usage),
        "unsent": outcome.unsent,
        "connections": outcome.connections,
        "errors": dict(outcome.errors),
    }


@dataclass(slots=True)
class Outcome:
    """What the pushers reported of a run; times in microseconds. `unsent`: due and never sent."""

    pushes: Pushes = field(default_factory=Pushes)
    errors: Counter[str] = field(default_factory=Counter)
    start: int = 0
    end: int = 0
    unsent: int = 0
    connections: int = 0

    def add(self, message: Message) -> None:
        """One pusher's part."""
        self.pushes.channels.extend(message.numbers(0, "I"))
        self.pushes.versions.extend(message.numbers(1, "q"))
        self.pushes.statuses.extend(message.numbers(2, "H"))
        self.pushes.times.extend(message.numbers(3, "I"))
        self.errors.update(message.fields["errors"])
        self.start = min(self.start or message.fields["start"], message.fields["start"])
        self.end = max(self.end, message.fields["end"])
        self.unsent += message.fields["unsent"]
        self.connections += message.fields["connections"]


def wait_for_pushers(processes: LoadProcesses, pushers: list[Child], progress: Progress, count: int = 0) -> Outcome:
    """Until all of them have reported what they did; `count` pushes were asked for, 0: as many as fit in the time."""
    outcome = Outcome()
    waiting = {child.pid for child in pushers}
    began = time.monotonic()
    halted = False
    for child in pushers:
        child.progress = {}
    while waiting:
        if processes.interrupt.requested and not halted:
            halted = True
            processes.send(pushers, "halt")
        for child, message in processes.receive(RECEIVE_SECONDS):
            if message.kind == "pushed":
                waiting.discard(child.pid)
                outcome.add(message)
        pushed = sum(child.progress.get("pushed", 0) for child in pushers)
        progress.update(pushed if count else round(time.monotonic() - began, 1), pushed, "pushes/s")
    return outcome


def _wait_for_arrivals(scene: _Scene, pushes: Pushes) -> Held:
    """Collect, once nothing more comes; while something accepted for a device that is there has not arrived, go on
    for the time of grace."""
    users, progress = scene.users, scene.progress
    expected = sum(
        status in ACCEPTED and channel // scene.channels not in scene.absent
        for channel, status in zip(pushes.channels, pushes.statuses, strict=True)
    )
    deadline = time.monotonic() + scene.plan.grace
    progress.step("waiting for the last to arrive", expected)
    before, now = -1, users.count_anew("arrived")
    while before < 0 or ((now < expected or now != before) and time.monotonic() < deadline):
        if users.processes.interrupt.requested:
            break
        before, now = now, users.count_anew("arrived")
        progress.update(now)
    held = users.collect()
    while _account(scene, pushes, held).lost and (left := deadline - time.monotonic()) > 0:
        if users.processes.interrupt.requested:
            break
        users.processes.receive(min(left, 0.5))
        merge(held, users.collect())
    return held


def _account(scene: _Scene, pushes: Pushes, held: Held) -> Account:
    return account(
        pushes,
        held.arrivals,
        channels=scene.channels,
        away=scene.absent,
        gone=scene.users.gone,
        keeps_all=scene.plan.keeps_all,
    )


def merge(held: Held, more: Held) -> None:
    """Add what was collected later."""
    mine, other = held.arrivals, more.arrivals
    for name in ("channels", "versions", "times", "gone", "data"):
        getattr(mine, name).extend(getattr(other, name))
    held.devices = more.devices
    held.drops.update(more.drops)
    held.strays += more.strays


def _figures(scene: _Scene, outcome: Outcome, held: Held, usage: Usage) -> dict[str, Any]:
    pushes, start, end = outcome.pushes, outcome.start, outcome.end
    found = _account(scene, pushes, held)
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
