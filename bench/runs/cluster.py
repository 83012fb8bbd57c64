"""`farm bench cluster`: several hosts on one machine that are one farm. What they take, what a forward costs, and what
happens when one of them is killed."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench import cluster_process
from bench.cluster_process import Cluster
from bench.errors import BenchError
from bench.figures.forwards import compared
from bench.interrupt import Interrupt
from bench.load.reconnect import Backoff
from bench.machine import procfs
from bench.machine.usage import Meter
from bench.progress import Progress
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.cluster_lost import Lost
from bench.runs.collected import Setup
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.stored import Stored
from bench.runs.virtual_users import VirtualUsers
from bench.store_servers import servers
from bench.store_servers.choices import CHOICES

LOOK_SECONDS: Final = 0.2
SETTLING_SECONDS: Final = 1.0
COME_BACK: Final = Backoff(1.0, 10.0, jitter=True)


@dataclass(frozen=True, slots=True)
class Plan:
    """`workers`: of each host; `routers`: of all together. `idle`: s for which the hosts are left alone; `pushes`: flat
    out to all hosts, `forwards`: s of each run that compares the owner of an address with another host, 0: none, and
    how often. `rate`: pushes a second while a host is killed, 0: none is; `calm`: s before that and after; `limit`: s
    after which the bench waits no longer; `grace`: s that an accepted push may take to a device that is connected."""

    hosts: int = 3
    workers: int = 1
    routers: int = 3
    settings: tuple[str, ...] = ()
    idle: float = 5.0
    pushes: PushPlan = field(default_factory=PushPlan)
    forwards: float = 3.0
    repeat: int = 2
    rate: float = 200.0
    calm: float = 3.0
    limit: float = 60.0
    grace: float = 10.0
    backoff: Backoff = COME_BACK


def run(store: str, load: Load, plan: Plan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run with one store; returns the fields of its JSON.

    Raises:
      BenchError: a host, or a load process, is not there, or no device could be set up.
    """
    result: dict[str, Any] = {"dialect": load.protocol, "hosts": plan.hosts, "workers": plan.workers}
    result |= {"routers": plan.routers, "idle": None, "runs": [], "forward": None, "lost": None}
    with ExitStack() as stack:
        progress.step(f"starting {plan.hosts} hosts")
        began = time.monotonic()
        running = stack.enter_context(servers.started(CHOICES[store], interrupt))
        cluster = stack.enter_context(
            cluster_process.started(plan.hosts, plan.workers, plan.routers, running, interrupt, plan.settings)
        )
        result["farm"] = {"address": cluster.host, **cluster.settings}
        result["start_seconds"] = time.monotonic() - began
        processes = stack.enter_context(LoadProcesses(interrupt))
        if plan.idle:
            result["idle"] = _idle(cluster, processes, plan, progress)
        stored = Stored(running)
        users = VirtualUsers.of(processes, replace(load, backoff=plan.backoff), cluster)
        before = _memory(cluster)
        setup = users.bring_up(progress, "setting up devices")
        result["setup"] = setup.fields()
        if not setup.endpoints:
            raise BenchError(f"no device could be set up ({setup.why})")
        stored.set_up(setup.ready)
        users.hold(min(SETTLING_SECONDS, plan.idle), progress)
        result["user_memory"] = _grown(before, _memory(cluster), setup.ready)
        everywhere = replace(plan.pushes, spread=cluster.routers(cluster.living))
        result["runs"] = pushing.measure(processes, cluster, users, setup, plan=everywhere, progress=progress)
        stored.pushed()
        result["store"] = stored.fields(0)
        if plan.forwards and not interrupt.requested:
            result["forward"] = _forward(cluster, processes, users, setup, plan, progress)
        if plan.rate and plan.hosts > 1 and not interrupt.requested:
            result["lost"] = Lost(cluster, processes, users, setup, plan.pushes, progress).measure(
                plan.rate, plan.calm, plan.limit, plan.grace
            )
    return result


def _idle(cluster: Cluster, processes: LoadProcesses, plan: Plan, progress: Progress) -> dict[str, Any]:
    """What the hosts take before there is a device."""
    progress.step("leaving the hosts alone", plan.idle)
    status = cluster.status()
    groups = cluster.groups(status)
    meter = Meter(groups)
    deadline = time.monotonic() + plan.idle
    while (left := deadline - time.monotonic()) > 0 and not processes.interrupt.requested:
        processes.receive(min(LOOK_SECONDS, left))
    usage = meter.stop(procfs.cores())
    ours = sum(use.cpu for use in usage.uses if use.group != "store")
    links = plan.hosts * plan.workers * plan.routers
    return {
        "seconds": usage.seconds,
        "cores": ours / usage.seconds,
        "store_cores": sum(use.cpu for use in usage.uses if use.group == "store") / usage.seconds,
        "links": links,
        "links_tcp": links - plan.workers * plan.routers,
        "memory": {group: size / len(groups[group]) for group, size in _memory(cluster).items()},
        "usage": usage.fields(0),
    }


def _memory(cluster: Cluster) -> dict[str, int]:
    """Private memory of all routers together, and of all workers."""
    groups = cluster.groups(cluster.status())
    return {name: sum(procfs.private_memory(pid) or 0 for pid in groups[name]) for name in ("router", "workers")}


def _grown(before: dict[str, int], after: dict[str, int], devices: int) -> dict[str, dict[str, float]]:
    """What devices took of it."""
    return {
        name: {"before": size, "after": after[name], "a_connection": (after[name] - size) / max(1, devices)}
        for name, size in before.items()
    }


# ---- forwards


def _forward(
    cluster: Cluster, processes: LoadProcesses, users: VirtualUsers, setup: Setup, plan: Plan, progress: Progress
) -> dict[str, Any] | None:
    """The same addresses pushed to through the host that has their router, and through another one, in turn; None
    where it is not known which these are."""
    places = cluster.places()
    owner = next(iter(places.values()), 0)
    others = [number for number in cluster.living if number != owner]
    mine = owned(setup, plan.routers, [number for number, host in places.items() if host == owner])
    if not others or not mine.endpoints:
        return None
    runs: dict[str, list[dict[str, Any]]] = {"owner": [], "other": []}
    for _ in range(plan.repeat):
        for name, host in (("owner", owner), ("other", others[0])):
            if not processes.interrupt.requested:
                how = replace(plan.pushes, seconds=plan.forwards, half=True, spread=cluster.routers([host]))
                runs[name] += pushing.measure(processes, cluster, users, mine, plan=how, progress=progress)
    return {"addresses": len(mine.endpoints), **runs, **compared(runs["owner"], runs["other"])}


def owned(setup: Setup, routers: int, numbers: Sequence[int]) -> Setup:
    """The endpoints whose partitions belong to these routers, of so many."""
    found = replace(setup, channels=setup.channels[:0], endpoints=[], partitions=setup.partitions[:0])
    if len(setup.partitions) == len(setup.endpoints):
        for channel, endpoint, partition in zip(setup.channels, setup.endpoints, setup.partitions, strict=True):
            if partition % routers in numbers:
                found.channels.append(channel)
                found.endpoints.append(endpoint)
                found.partitions.append(partition)
    return found
