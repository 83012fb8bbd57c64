"""What is done with a farm in a group: devices come up in waves, are held, are pushed to, and more come until there
is a limit. What is measured goes into the `done` of a stage as soon as it is known, so that an interrupt keeps it.
"""

import select
import time
from dataclasses import dataclass, field
from typing import Any, Final

from bench.errors import BenchError
from bench.farm_process import Farm, Status
from bench.figures.profiles import Profile
from bench.machine import procfs
from bench.machine.group_files import Cpu, Memory
from bench.progress import Progress
from bench.runs import push
from bench.runs.app_servers import PushPlan
from bench.runs.collected import Setup
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.ramp import Gauge, Limit, Watch, first_limit, first_wave, next_wave, opening_for, per_connection
from bench.runs.waves import Waves

EMPTY_SECONDS: Final = 1.0
SETTLE_SECONDS: Final = 1.0
STATUS_TRIES: Final = 5
STATUS_PAUSE_SECONDS: Final = 0.5
SLOW_OPENING: Final = 256
"""Set-ups under way at once with a farm on a part of a core: on a tenth of one, each then takes most of a second."""
STEPS: Final = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done in each profile; times in s.

    `hold`, `ping`: at the figure that is reproduced; `ceiling_hold`, `ramp_ping`: in the ramp. `devices`: held first
    where a profile has no published figure, 0: none. `most`: never more devices than that, 0: no bound. `sample`: of so
    many devices the push endpoints are kept. `workers`: 0 is by need. `ecu`: of a core, 0: measured.
    """

    hold: float = 120.0
    ping: float = 60.0
    reproduce: bool = True
    ramp: bool = True
    ceiling_hold: float = 30.0
    ramp_ping: float = 300.0
    devices: int = 0
    most: int = 0
    sample: int = 20_000
    push_seconds: float = 10.0
    push_connections: int = 64
    push_rate: float = 0.0
    workers: int = 0
    store: str = "sqlite"
    settings: tuple[str, ...] = ()
    timeout: float = 30.0
    ecu: float = 0.0
    groups: bool = True
    prices: dict[str, float] = field(default_factory=dict)

    @property
    def pushing(self) -> PushPlan:
        return PushPlan(self.push_connections, 1, self.push_seconds, self.push_rate, half=not self.push_rate)


@dataclass(slots=True)
class Trial:
    """A farm in its group, with nothing connected yet. `cpus`: its share of a core, None: no limit. `seconds`: that it
    took to start."""

    profile: Profile
    cpus: float | None
    farm: Farm
    processes: LoadProcesses
    gauge: Gauge
    workers: int
    seconds: float
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Idle:
    """A farm before its first device: its memory, and the private memory of its parts, in bytes; its CPU."""

    memory: Memory
    parts: dict[str, int]
    cpu: dict[str, float | None]


def prepared(plan: Plan, trial: Trial, ping: float, expected: int) -> tuple[Watch, Waves]:
    """No devices yet, and what watches them come. `expected`: how many to choose the sample that is pushed to from."""
    opening = opening_for(trial.profile.memory)
    load = Load(
        1,
        opening=min(opening, SLOW_OPENING) if trial.cpus is not None and trial.cpus < 1 else opening,
        timeout=plan.timeout,
        endpoints_every=max(1, expected // plan.sample),
        ping=ping,
    )
    waves = Waves(trial.processes, trial.farm, load)
    return Watch(trial.gauge, trial.profile.memory, waves.count), waves


def reproduce(
    plan: Plan, trial: Trial, waves: Waves, watch: Watch, done: dict[str, Any], idle: Idle, progress: Progress
) -> None:
    """The figure in one wave, held and pushed to. `idle`: the farm before its first device."""
    target = done["target"]
    wave = first_wave(target, idle.memory.used, trial.profile.memory)
    waves.grow(wave, progress, f"{trial.profile.name}: setting up devices", watch)
    done["setup"] = waves.setup_fields()
    failures = dict(waves.setup.failures)
    limit = watch.limit or first_limit(watch.state(failures))
    done["limit"] = limit.fields() if limit is not None else None
    _occupy(plan, trial, waves, watch, done, idle, plan.hold, progress)
    if limit is None and not trial.processes.interrupt.requested:
        drops, overdue = sum(done["drops"].values()), done["pings"].get("overdue", 0)
        limit = first_limit(watch.state(failures, drops, overdue))
    done["limit"] = limit.fields() if limit is not None else None


def ramp(
    plan: Plan,
    trial: Trial,
    waves: Waves,
    watch: Watch,
    done: dict[str, Any],
    progress: Progress,
    idle: Idle | None = None,
) -> None:
    """Waves, until there is a limit; then what is held is held for a while, and pushed to. `idle`: the farm before its
    first device, if it has some by now."""
    profile, interrupt = trial.profile, trial.processes.interrupt
    idle = idle or idle_of(trial)
    steps: list[dict[str, Any]] = []
    done |= {"steps": steps, "held": waves.setup.ready}
    limit = first_limit(watch.state())
    while limit is None and not interrupt.requested and len(steps) < STEPS:
        devices, used = waves.setup.ready, trial.gauge.memory(waves.setup.ready).used
        most = plan.most - waves.setup.wanted if plan.most else 1 << 30
        size = next_wave(devices, used, idle.memory.used, profile.memory, most)
        if not size.devices:
            limit = Limit("none", f"the bound of {plan.most:,} devices was reached (--max-devices)")
            break
        setup = waves.grow(size, progress, f"{profile.name}: ramping up from {devices:,} devices", watch)
        limit, step = _judge(trial, waves, watch, setup)
        steps.append(step)
        done["setup"] = waves.setup_fields()
        done["points"] = watch.points
    if limit is None and not interrupt.requested:
        limit = Limit("none", f"stopped after {STEPS} steps")
    done["limit"] = limit.fields() if limit is not None else None
    if waves.setup.ready:
        _occupy(plan, trial, waves, watch, done, idle, plan.ceiling_hold, progress)
    done["points"] = watch.points


def _judge(trial: Trial, waves: Waves, watch: Watch, setup: Setup) -> tuple[Limit | None, dict[str, Any]]:
    """What a wave of the ramp has come to: a limit, if there is one, and the step for the report."""
    held = waves.users.collect()
    if watch.capacity is None and (status := _status(trial.farm)) is not None:
        watch.capacity = status.capacity
    waves.users.count_anew("ready")  # the last progress may be a moment old
    state = watch.state(dict(setup.failures), sum(held.drops.values()), held.pings["overdue"])
    limit = first_limit(state)
    if watch.limit is not None and (limit is None or watch.limit.kind == "memory"):
        limit = watch.limit
    fields = setup.fields()
    return limit, {
        "devices": held.devices,
        "wanted": setup.wanted,
        "ready": setup.ready,
        "rate": fields["rate"],
        "time_ms": fields["time_ms"],
        "used": state.used,
        "throttled": state.throttled,
        "failures": fields["failures"],
        "drops": dict(held.drops),
    }


def idle_of(trial: Trial) -> Idle:
    """The farm as it is now: call it before the first device."""
    began, before = time.monotonic(), trial.gauge.cpu()
    select.select([trial.processes.interrupt.wake], [], [], EMPTY_SECONDS)  # a signal ends it
    cpu = _cpu(before, trial.gauge.cpu(), time.monotonic() - began)
    return Idle(trial.gauge.memory(0), _parts(_status(trial.farm)), cpu)


def _occupy(
    plan: Plan,
    trial: Trial,
    waves: Waves,
    watch: Watch,
    done: dict[str, Any],
    idle: Idle,
    seconds: float,
    progress: Progress,
) -> None:
    """Hold what is there, read what it costs, and push to a sample of it; all of that goes into `done`."""
    gauge, profile = trial.gauge, trial.profile
    done |= {"workers": trial.workers, "start_seconds": round(trial.seconds, 2), "notes": trial.notes}
    done["cpu_empty"] = idle.cpu
    done["idle"] = {name: getattr(idle.memory, name) for name in idle.memory.__slots__}
    done["load_processes"] = len(waves.users.children)
    waves.users.hold(SETTLE_SECONDS, progress)
    waves.users.collect()  # what came while devices were still coming up is no part of the hold
    began, before = time.monotonic(), gauge.cpu()
    waves.users.hold(seconds, progress)
    done["hold_seconds"] = round(time.monotonic() - began, 2)
    done["ping_seconds"] = waves.load.ping
    done["cpu_idle"] = _cpu(before, gauge.cpu(), done["hold_seconds"])
    held = waves.users.collect()
    done |= {"held": held.devices, "drops": dict(held.drops), "pings": dict(held.pings)}
    memory = gauge.memory(held.devices)
    done["memory"] = {name: getattr(memory, name) for name in memory.__slots__}
    done["connection"] = per_connection(idle.memory, memory, held.devices)
    status = _status(trial.farm)
    parts = _parts(status)
    for name, size in parts.items():
        grown = size - idle.parts[name] if name in idle.parts else None
        done["connection"][name] = grown / held.devices if grown is not None and held.devices else None
    if status is not None:
        done |= {"shards": status.connections, "gc_pause_max_ms": status.gc_pause_max_ms}
    if held.devices and waves.setup.endpoints and not trial.processes.interrupt.requested:
        runs = push.measure(trial.processes, trial.farm, waves.users, waves.setup, plan=plan.pushing, progress=progress)
        done["push"] = [{**one, "farm_cores": _farm_cores(one)} for one in runs]
    memory = gauge.memory(held.devices)
    done["peak"] = max(filter(None, (memory.peak, watch.peak, memory.used)))
    done["oom_kills"] = memory.oom_kills
    done["share_of_memory"] = memory.used / profile.memory
    done["after_push"] = waves.users.count_anew("ready")


def _cpu(before: Cpu, after: Cpu, seconds: float) -> dict[str, float | None]:
    """Cores that were used between two readings, and the part of the periods in which there was not enough of them."""
    used = None if before.seconds is None or after.seconds is None else after.seconds - before.seconds
    periods = after.periods - before.periods
    return {
        "cores": used / seconds if used is not None and seconds else None,
        "throttled": (after.throttled - before.throttled) / periods if periods else None,
    }


def _farm_cores(pushed: dict[str, Any]) -> float:
    usage = pushed["usage"]
    groups = {name: use for name, use in usage["groups"].items() if not name.startswith("load")}
    return float(sum(use["cpu_seconds"] for use in groups.values()) / usage["seconds"])


def _status(farm: Farm) -> Status | None:
    """The farm's status; None if it is too busy to answer."""
    status = None
    for _ in range(STATUS_TRIES):
        try:
            status = farm.status()
        except BenchError:
            continue
        if status is not None and status.routers:
            return status
        time.sleep(STATUS_PAUSE_SECONDS)  # the router did not answer in time: then no worker's connections are known
    return status


def _parts(status: Status | None) -> dict[str, int]:
    """Private memory by part of the farm."""
    if status is None:
        return {}
    parts = {"router": status.routers, "workers": list(status.workers.values())}
    return {name: sum(procfs.private_memory(pid) or 0 for pid in pids) for name, pids in parts.items()}
