"""`farm bench connect`: how many devices come up a second, and what one costs while it is silent."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

from bench.errors import BenchError
from bench.farm_process import Farm, Status
from bench.interrupt import Interrupt
from bench.load.sockets import check_sources
from bench.machine import machine_memory, procfs
from bench.machine.usage import Meter
from bench.peers import PEERS
from bench.peers.base import Tools, started
from bench.progress import Progress
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.fronts import Front
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.speaking import Speaking
from bench.runs.virtual_users import VirtualUsers
from bench.target import Target

WARM_UP_DEVICES: Final = 200
WARM_UP_SECONDS: Final = 5.0
SETTLING_SECONDS: Final = 2.0
"""Silence before memory is read first, as there is before it is read last: a farm that is quiet gives memory back."""
BASELINE_DEVICES: Final = 5000
BASELINE_HOLD_SECONDS: Final = 1.0
PINGS: Final = ("sent", "answered", "overdue", "outstanding")


def run(
    target: Target,
    load: Load,
    *,
    hold: float,
    baseline: bool,
    interrupt: Interrupt,
    progress: Progress,
    plan: PushPlan | None = None,
    subscribing: Speaking | None = None,
    front: Front | None = None,
) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON. With a plan, pushes by it once the devices were held.
    `subscribing`: all devices subscribe to one channel, and this says how. `front`: devices connect with TLS,
    which this ends.

    Raises:
      BenchError: the farm, or a load process, is not there, or no connection can come from one of the sources.
    """
    result: dict[str, Any] = {} if load.bare else {"dialect": load.protocol}
    if subscribing is not None:
        result = {**subscribing.fields}
    if plan is not None:
        load = replace(load, payload=plan.payload)
    if front is not None:
        result["variant"] = front.where
        load = replace(load, tls=True)
        target = replace(target, settings=(*target.settings, *front.settings))
    memory = machine_memory.read()  # before any process of the run: their base memory is part of what devices cost
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        if subscribing is not None:
            if not target.url:
                subscribing, settings = subscribing.settings(stack)
                target = replace(target, settings=(*settings, *target.settings))
            load, _ = subscribing.subscribers(replace(load, shared=1))
        farm = target.open(stack, interrupt, load.protocol if subscribing is None else subscribing.fan_out.name)
        if front is not None:
            farm = stack.enter_context(front.before(farm, load.devices, target.workers, interrupt))
        try:
            check_sources(load.sources, farm.address)
        except OSError as error:
            raise BenchError(f"--source {error.filename}: {error.strerror}") from None
        processes = stack.enter_context(LoadProcesses(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        result["connect"] = _measure(processes, farm, load, hold=hold, plan=plan, memory=memory, progress=progress)
        if baseline and not interrupt.requested:
            result["baseline"] = _baseline(processes, min(load.devices, BASELINE_DEVICES), progress)
    return result


def _measure(
    processes: LoadProcesses,
    farm: Farm,
    load: Load,
    *,
    hold: float,
    plan: PushPlan | None,
    memory: machine_memory.Reading,
    progress: Progress,
) -> dict[str, Any]:
    idle = farm.status()
    connected = sum(idle.connections.values()) if idle else 0
    few = Load(
        min(WARM_UP_DEVICES, load.devices),
        load.bare,
        protocol=load.protocol,
        arguments=load.arguments,
        sources=load.sources,
        shared=load.shared,
        ways=load.ways,
        tls=load.tls,
    )
    warm_up = VirtualUsers.of(processes, few, farm)
    warm_up.bring_up(progress, "warming up")
    warm_up.dismiss()
    _wait_until(lambda: idle is None or _connections(farm) <= connected)
    _wait_until(lambda: processes.interrupt.requested, min(hold, SETTLING_SECONDS))

    users = VirtualUsers.of(processes, load, farm)
    before = farm.status()
    memory_before = _memory(farm, before)
    machine_before = machine_memory.read()
    meter = Meter(farm.groups(before) | {"load devices": [child.pid for child in users.children]})
    setup = users.bring_up(progress, "setting up devices")
    usage = meter.stop(procfs.cores())
    users.hold(hold, progress)
    machine_after = machine_memory.read()
    after = farm.status()
    memory_after = _memory(farm, after)
    held = users.collect()
    pushed = None
    if plan is not None and setup.endpoints and not processes.interrupt.requested:
        runs = pushing.measure(processes, farm, users, setup, plan=plan, progress=progress)
        pushed = runs[0] if runs else None
    users.dismiss()
    return {
        "setup": setup.fields(),
        "load_processes": len(users.children),
        "hold_seconds": hold,
        "held": held.devices,
        "drops": dict(held.drops),
        "pings": {name: held.pings[name] for name in PINGS},
        "usage": usage.fields(setup.ready),
        "limit": usage.limit(),
        "user_memory": _growth(memory_before, memory_after, setup.ready),
        "kernel_memory": _kernel_growth(machine_before, machine_after, setup.ready),
        "machine_memory": machine_memory.growth(memory, machine_after, setup.ready),
        "shards": _spread(before, after),
        "gc_pause_max_ms": after.gc_pause_max_ms if after else None,
        "push": pushed,
    }


def _baseline(processes: LoadProcesses, devices: int, progress: Progress) -> dict[str, Any]:
    peer = PEERS["trio-websocket"]
    with started(peer, Tools(devices=devices), processes.interrupt) as server:
        assert server.supervisor is not None
        load = Load(devices, protocol=peer.protocol, arguments=peer.arguments(server.ports))
        warm_up = VirtualUsers.of(processes, replace(load, devices=min(WARM_UP_DEVICES, devices)), server)
        warm_up.bring_up(progress, "warming up the baseline")
        warm_up.dismiss()
        users = VirtualUsers.of(processes, load, server)
        before = procfs.private_memory(server.supervisor)
        load_pids = [child.pid for child in users.children]
        meter = Meter({"baseline server": [server.supervisor], "load devices": load_pids})
        setup = users.bring_up(progress, "setting up baseline connections")
        usage = meter.stop(procfs.cores())
        users.hold(BASELINE_HOLD_SECONDS, progress)
        after = procfs.private_memory(server.supervisor)
        users.dismiss()
    grown = None if before is None or after is None or not setup.ready else (after - before) / setup.ready
    return {
        "server": "trio-websocket serve_websocket, one process, upgrade only",
        "setup": setup.fields(),
        "usage": usage.fields(setup.ready),
        "limit": usage.limit(),
        "user_memory_a_connection": grown,
    }


def _connections(farm: Farm) -> int:
    status = farm.status()
    return sum(status.connections.values()) if status else 0


def _wait_until(condition: Callable[[], bool], seconds: float = WARM_UP_SECONDS) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def _memory(farm: Farm, status: Status | None) -> dict[str, dict[int, int]]:
    if status is None:
        return {}
    groups = {"router": status.routers, "workers": list(status.workers.values())}
    if farm.proxy is not None:
        groups["proxy"] = [farm.proxy]
    return {
        name: {pid: size for pid in pids if (size := procfs.private_memory(pid)) is not None}
        for name, pids in groups.items()
    }


def _growth(before: dict[str, dict[int, int]], after: dict[str, dict[int, int]], devices: int) -> dict[str, Any]:
    """Private bytes by group; a connection's share only where the same processes were there before and after."""
    result: dict[str, Any] = {}
    for name, pids in before.items():
        first, last = sum(pids.values()), sum(after.get(name, {}).values())
        comparable = bool(pids) and devices > 0 and pids.keys() == after.get(name, {}).keys()
        result[name] = {
            "before": first,
            "after": last,
            "a_connection": (last - first) / devices if comparable else None,
        }
    return result


def _kernel_growth(before: machine_memory.Reading, after: machine_memory.Reading, devices: int) -> dict[str, Any]:
    taken = sum((machine_memory.left_by_listings(before, after) or {}).values())
    grown = after.kernel.total - before.kernel.total - taken
    return {
        "slab": after.kernel.slab - before.kernel.slab - taken,
        "tcp": after.kernel.tcp - before.kernel.tcp,
        "subtracted": taken,
        "a_connection_one_end": grown / 2 / devices if devices else None,
        "note": "growth on the whole machine, which holds both ends of every connection: halved for one end",
    }


def _spread(before: Status | None, after: Status | None) -> dict[str, int]:
    if before is None or after is None:
        return {}
    return {shard: count - before.connections.get(shard, 0) for shard, count in after.connections.items()}
