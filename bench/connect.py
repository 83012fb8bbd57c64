"""`farm bench connect`: how many devices come up a second, and what one costs while it is silent."""

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Final

from bench import procfs
from bench.crew import Crew
from bench.farm_process import Farm, Status, attach, started
from bench.fleet import Fleet, Load
from bench.interrupt import Interrupt
from bench.progress import Progress
from bench.sockets import Address
from bench.usage import Meter

WARM_UP_DEVICES: Final = 200
WARM_UP_SECONDS: Final = 5.0
BASELINE_DEVICES: Final = 5000
BASELINE_HOLD_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Target:
    """Which farm: one that runs (`url`, and `admin` for its status), or one started for the run."""

    url: str = ""
    admin: str = ""
    workers: int = 2
    store: str = "sqlite"
    settings: tuple[str, ...] = ()

    def open(self, stack: ExitStack, interrupt: Interrupt) -> Farm:
        if self.url:
            return attach(self.url, self.admin)
        return stack.enter_context(started(self.workers, self.store, interrupt, self.settings))


def groups_of(farm: Farm, status: Status | None, load: dict[str, list[int]]) -> dict[str, list[int]]:
    """Pids by what they are; the farm's only where it says them."""
    groups: dict[str, list[int]] = {}
    if status is not None:
        groups["router"] = status.routers
        groups["workers"] = list(status.workers.values())
    if farm.supervisor is not None:
        groups["supervisor"] = [farm.supervisor]
    return groups | load


def run(
    target: Target, load: Load, *, hold: float, baseline: bool, interrupt: Interrupt, progress: Progress
) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: the farm, or a load process, is not there.
    """
    result: dict[str, Any] = {}
    with ExitStack() as stack:
        progress.step("starting a farm" if not target.url else "asking the farm")
        farm = target.open(stack, interrupt)
        crew = stack.enter_context(Crew(interrupt))
        result["farm"] = {"address": farm.host, **farm.settings}
        result["connect"] = _measure(crew, farm, load, hold, progress)
        if baseline and not interrupt.requested:
            result["baseline"] = _baseline(crew, min(load.devices, BASELINE_DEVICES), progress)
    return result


def _measure(crew: Crew, farm: Farm, load: Load, hold: float, progress: Progress) -> dict[str, Any]:
    idle = farm.status()
    connected = sum(idle.connections.values()) if idle else 0
    warm_up = Fleet.of(crew, Load(min(WARM_UP_DEVICES, load.devices), load.bare), farm)
    warm_up.bring_up(progress, "warming up")
    warm_up.dismiss()
    _wait_until(lambda: idle is None or _connections(farm) <= connected)

    fleet = Fleet.of(crew, load, farm)
    before = farm.status()
    memory_before = _memory(before)
    kernel_before = procfs.kernel_memory()
    meter = Meter(groups_of(farm, before, {"load devices": [child.pid for child in fleet.children]}))
    ramp = fleet.bring_up(progress, "setting up devices")
    usage = meter.stop(procfs.cores())
    fleet.hold(hold, progress)
    kernel_after = procfs.kernel_memory()
    after = farm.status()
    memory_after = _memory(after)
    held = fleet.collect()
    fleet.dismiss()
    return {
        "setup": ramp.fields(),
        "hold_seconds": hold,
        "held": held.devices,
        "drops": dict(held.drops),
        "usage": usage.fields(ramp.ready),
        "limit": usage.limit(),
        "user_memory": _growth(memory_before, memory_after, ramp.ready),
        "kernel_memory": _kernel_growth(kernel_before, kernel_after, ramp.ready),
        "shards": _spread(before, after),
        "gc_pause_max_ms": after.gc_pause_max_ms if after else None,
    }


def _baseline(crew: Crew, devices: int, progress: Progress) -> dict[str, Any]:
    server = crew.start("bench.baseline", "the baseline server")
    (word,) = crew.gather([server], "up")
    address = Address(2, "127.0.0.1", word.fields["port"])
    host = f"{address.host}:{address.port}"
    warm_up = Fleet(crew, Load(min(WARM_UP_DEVICES, devices), bare=True), address, host=host)
    warm_up.bring_up(progress, "warming up the baseline")
    warm_up.dismiss()
    fleet = Fleet(crew, Load(devices, bare=True), address, host=host)
    before = procfs.private_memory(server.pid)
    meter = Meter({"baseline server": [server.pid], "load devices": [child.pid for child in fleet.children]})
    ramp = fleet.bring_up(progress, "setting up baseline connections")
    usage = meter.stop(procfs.cores())
    fleet.hold(BASELINE_HOLD_SECONDS, progress)
    after = procfs.private_memory(server.pid)
    fleet.dismiss()
    crew.dismiss([server])
    grown = None if before is None or after is None or not ramp.ready else (after - before) / ramp.ready
    return {
        "server": "trio-websocket serve_websocket, one process, upgrade only",
        "setup": ramp.fields(),
        "usage": usage.fields(ramp.ready),
        "limit": usage.limit(),
        "user_memory_a_connection": grown,
    }


def _connections(farm: Farm) -> int:
    status = farm.status()
    return sum(status.connections.values()) if status else 0


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WARM_UP_SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


def _memory(status: Status | None) -> dict[str, dict[int, int]]:
    if status is None:
        return {}
    groups = {"router": status.routers, "workers": list(status.workers.values())}
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


def _kernel_growth(before: procfs.Kernel, after: procfs.Kernel, devices: int) -> dict[str, Any]:
    grown = after.total - before.total
    return {
        "slab": after.slab - before.slab,
        "tcp": after.tcp - before.tcp,
        "a_connection_one_end": grown / 2 / devices if devices else None,
        "note": "growth on the whole machine, which holds both ends of every connection: halved for one end",
    }


def _spread(before: Status | None, after: Status | None) -> dict[str, int]:
    if before is None or after is None:
        return {}
    return {shard: count - before.connections.get(shard, 0) for shard, count in after.connections.items()}
