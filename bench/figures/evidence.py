"""What result files say about an instance: memory of a connection, ceilings, pushes and idle CPU. Pure.

- memory: what a connection takes, user and kernel memory, with how many devices; from `instances` or `connect`
- ceiling: where this very instance stopped for want of memory or CPU; from `instances`, if it was among them
- pushes: how many notifications a second one farm delivered, and the CPU of one; from `push`, `instances`, or
  `connect --push`
- idle: CPU of devices that only ping; from `instances`
- stored: what a device and a message take of a store's server; from `push` and `cluster`
- clusters: what links cost, and how long until a router that was lost is on another host; from `cluster`
"""

from dataclasses import dataclass, field
from typing import Any, Final

from bench.errors import BenchError
from bench.figures.dialects import FRONTS, dialect_of, parts_of
from bench.figures.forwards import cpu_of
from bench.figures.profiles import FARM_BYTES, WORKER_BYTES, Profile
from bench.load.protocols import REFERENCE

REAL_LIMITS: Final = ("memory", "CPU", "failures")
"""Limits of a ramp that are the instance's own: not the load's, nor that of descriptors, which can be raised."""
PLAUSIBLE_KERNEL: Final = (2 << 10, 12 << 10)
"""Bytes of the kernel for one idle connection (3.5 to 5 KiB are usual). Its growth is read off the whole machine: what
lies outside of this was mostly something else that came or went in the meantime."""

MEASURED: Final = "measured"
EXTRAPOLATED: Final = "extrapolated"
ASSUMED: Final = "assumed"
GIVEN: Final = "given"


@dataclass(frozen=True, slots=True)
class Memory:
    """What a connection was measured to take, in bytes, of which `router` and `kernel` where they are known apart.
    `base`: of the farm with no device and one worker; `worker`: of each further worker; `base_from` says where they
    come from."""

    connection: float
    devices: int
    base: float
    base_kind: str
    base_from: str
    worker: float
    setup_rate: float
    source: str
    router: float | None = None
    kernel: float | None = None


@dataclass(frozen=True, slots=True)
class Ceiling:
    """How many devices this instance held until its `limit`."""

    devices: int
    limit: str
    source: str


@dataclass(frozen=True, slots=True)
class Pushes:
    """A push run. `rate`: notifications/s that arrived; `cpu`: seconds of the farm's processes for one push, and
    `router_cpu`: those of its routers, of which there were `routers`; `store_cpu`: those of one server of the store,
    if it has any. `connections`: of app servers."""

    rate: float
    cpu: float
    p99: float | None
    flat_out: bool
    own: bool
    source: str
    routers: int = 1
    router_cpu: float = 0.0
    store_cpu: float = 0.0
    connections: int = 0


@dataclass(frozen=True, slots=True)
class Idle:
    """CPU of a farm whose devices only ping: cores for each device."""

    cores: float
    source: str


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of one copy in a server of the store. `message`: None where none waited."""

    device: float
    message: float | None
    devices: int
    source: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Several hosts. `idle`: cores of all routers and of all workers while nothing happens, with so many `links` of
    workers to routers; `lost_seconds`: until pushes to a lost host's routers were accepted again, by `lost_devices`
    devices a router; `forward_cpu`: CPU seconds that a forward costs. None where they were not measured."""

    idle: tuple[float, float] | None
    links: int
    lost_seconds: float | None
    lost_devices: float
    forward_cpu: float | None
    source: str


@dataclass(slots=True)
class Evidence:
    """All that the result files say; `unused`: what could not be taken from them, and why."""

    memory: list[Memory]
    ceilings: list[Ceiling]
    pushes: list[Pushes]
    idle: list[Idle]
    prices: list[tuple[float, str]]
    unused: list[str]
    stored: list[Stored] = field(default_factory=list)
    clusters: list[Cluster] = field(default_factory=list)


def evidence(profile: Profile, documents: list[tuple[str, dict[str, Any]]]) -> Evidence:
    """What result files, each with its name, say about this profile.

    Raises:
      BenchError: a file lacks a field that its command writes.
    """
    found = Evidence([], [], [], [], [], [])
    readers = {"connect": _of_connect, "push": _of_push, "instances": _of_instances, "cluster": _of_cluster}
    for name, body in documents:
        read = readers.get(body["command"])
        if read is None:
            found.unused.append(f"{name}: a result of {body['command']}; plan reads {', '.join(readers)}")
            continue
        try:
            for part in parts_of(body):
                dialect, store = dialect_of(part), part.get("variant", "")
                told = [*([dialect.title] if dialect is not REFERENCE else []), *([store] if store else [])]
                read(f"{name} ({', '.join(told)})" if told else name, part, profile, found)
        except KeyError as error:
            raise BenchError(f"{name}: the field {error.args[0]!r} is missing") from None
        except (TypeError, AttributeError, ZeroDivisionError, ValueError, IndexError) as error:
            raise BenchError(f"{name}: not understood: {error}") from None
    return found


def _of_connect(name: str, body: dict[str, Any], profile: Profile, found: Evidence) -> None:
    done = body["connect"]
    devices = done["setup"]["ready"]
    source = f"{name}: connect with {devices:,} devices"
    if done.get("push"):
        _add_pushes(found, done["push"], f"{source}, pushes", own=False)
    user, kernel = done["user_memory"], done["kernel_memory"]["a_connection_one_end"]
    parts = [user.get(group, {}).get("a_connection") for group in ("workers", "router")]
    if body["options"]["bare"]:
        found.unused.append(f"{name}: its devices had no hello and no channel (--bare)")
    elif body.get("variant") in FRONTS:
        found.unused.append(f"{name}: its devices had TLS")
    elif not devices or kernel is None or None in parts:
        found.unused.append(f"{name}: does not say what a connection takes (no device, no --admin, or a restart)")
    elif not PLAUSIBLE_KERNEL[0] <= kernel <= PLAUSIBLE_KERNEL[1]:
        found.unused.append(
            f"{name}: {kernel / 1024:,.1f} KiB of kernel memory a connection is not credible: too few devices, or "
            "something else took or gave back memory in the meantime"
        )
    elif done["held"] < devices:
        found.unused.append(f"{name}: of {devices:,} devices only {done['held']:,} were still connected at the end")
    else:
        workers = len(done["shards"]) or 1
        worker = user["workers"]["before"] / workers
        found.memory.append(
            Memory(
                connection=sum(parts) + kernel,
                devices=devices,
                base=FARM_BYTES + worker,
                base_kind=ASSUMED,
                base_from=f"{FARM_BYTES >> 20} MiB for supervisor, fork server and router; a worker's as in {source}",
                worker=worker,
                setup_rate=done["setup"]["rate"],
                source=source,
                router=parts[1],
                kernel=kernel,
            )
        )


def _of_push(name: str, body: dict[str, Any], profile: Profile, found: Evidence) -> None:
    for run in body["runs"]:
        _add_pushes(found, run, f"{name}: push to {body['setup']['ready']:,} devices", own=False)
    _add_stored(found, body, name)


def _of_cluster(name: str, body: dict[str, Any], profile: Profile, found: Evidence) -> None:
    """Its pushes are left out: they had less than a machine for each host."""
    _add_stored(found, body, name)
    source = f"{name}: {body['hosts']} hosts of {body['workers']} workers, {body['routers']} routers"
    idle, lost, forward = body.get("idle"), body.get("lost"), body.get("forward")
    found.clusters.append(
        Cluster(
            idle=_cores(idle["usage"]["groups"], idle["seconds"]) if idle else None,
            links=body["hosts"] * body["workers"] * body["routers"],
            lost_seconds=lost["accepted_seconds"]["95%"] if lost else None,
            lost_devices=body["setup"]["ready"] / body["routers"],
            forward_cpu=forward["cpu_us"] / 1e6 if forward and forward["cpu_us"] is not None else None,
            source=source,
        )
    )


def _cores(groups: dict[str, Any], seconds: float) -> tuple[float, float]:
    return groups["router"]["cpu_seconds"] / seconds, groups["workers"]["cpu_seconds"] / seconds


def _add_stored(found: Evidence, body: dict[str, Any], name: str) -> None:
    store = body.get("store")
    if store and store["a_device"]:
        source = f"{name}: {store['title']} {store['version']}, {store['devices']:,} devices"
        found.stored.append(Stored(store["a_device"], store["a_message"], store["devices"], source))


def _of_instances(name: str, body: dict[str, Any], profile: Profile, found: Evidence) -> None:
    limited = body["accounting"]["kind"] == "cgroup"
    for row in body["profiles"]:
        # a profile of one's own has a name that says nothing; what it has counts
        own = row["memory"] == profile.memory and row["vcpus"] == profile.vcpus and row["ecu"] == profile.ecu
        where = f"{name}: {row['name']}" + ("" if limited else " (no control group)")
        if own and row["price"] is not None:
            found.prices.append((row["price"], where))
        for stage in (row.get("reproduce") or {}, row.get("ramp") or {}):
            held = stage.get("held")
            if not held:
                continue
            _of_stage(stage, held, f"{where} with {held:,} devices", own and limited, found)
        ramp = row.get("ramp") or {}
        limit = ramp.get("limit") or {}
        if own and ramp.get("held"):
            if limited and limit.get("kind") in REAL_LIMITS:
                found.ceilings.append(Ceiling(ramp["held"], limit["kind"], where))
            else:
                why = f"no real limit met ({limit.get('kind', 'interrupted')})" if limited else "no control group"
                found.unused.append(f"{where}: its {ramp['held']:,} devices are no ceiling: {why}")


def _of_stage(stage: dict[str, Any], held: int, source: str, own: bool, found: Evidence) -> None:
    connection = stage.get("connection", {}).get("all")
    if connection:
        further = max(0, stage["workers"] - 1)
        found.memory.append(
            Memory(
                connection=connection,
                devices=held,
                base=max(0.0, stage["idle"]["used"] - further * WORKER_BYTES),
                base_kind=MEASURED if not further else EXTRAPOLATED,
                base_from=source
                + (f", less {further} workers of {WORKER_BYTES >> 20} MiB (assumed)" if further else ""),
                worker=float(WORKER_BYTES),
                setup_rate=stage["setup"]["rate"],
                source=source,
            )
        )
    cores = stage.get("cpu_idle", {}).get("cores")
    if cores is not None:
        every = stage.get("ping_seconds") or 0
        found.idle.append(Idle(cores / held, f"{source}, " + (f"a ping every {every:g} s" if every else "no pings")))
    for run in stage.get("push") or []:
        _add_pushes(found, run, f"{source}, pushes", own=own)


def _add_pushes(found: Evidence, run: dict[str, Any], source: str, own: bool) -> None:
    if not run["clean"] or not run["delivered"]:
        found.unused.append(f"{source}: not clean, or nothing arrived")
        return
    usage = run["usage"]["groups"]
    routers = usage.get("router", {})
    store = usage.get("store", {})
    found.pushes.append(
        Pushes(
            rate=run["notifications_a_second"],
            cpu=cpu_of(run) / 1e6,
            p99=run["to_frame_ms"].get("p99"),
            flat_out=not run["rate"],
            own=own,
            source=f"{source} {'flat out' if not run['rate'] else 'at a rate'}",
            routers=routers.get("processes", 1),
            router_cpu=(routers.get("cpu_seconds_a_1000") or 0.0) / 1000,
            store_cpu=(store.get("cpu_seconds_a_1000") or 0.0) / 1000 / store.get("processes", 1),
            connections=run.get("connections", 0),
        )
    )
