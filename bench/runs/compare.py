"""`farm bench compare`: the same load on a farm and on other servers, all started here, one after the other."""

import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench import farm_process, peers
from bench.errors import BenchError
from bench.farm_process import Farm
from bench.interrupt import Interrupt
from bench.load.shared_counts import SharedCounts
from bench.machine import procfs
from bench.machine.usage import Meter, Usage
from bench.peers.base import NotInstalledError, Peer, PeerServer, Tools
from bench.peers.base import started as started_peer
from bench.progress import Progress
from bench.runs import fanout
from bench.runs import push as pushing
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import Load, Setup, VirtualUsers, most_a_process, processes_for

WARM_UP_DEVICES: Final = 200
WARM_UP_SHARE: Final = 0.02
"""Of the devices, at most: what they leave free in a server's heap is taken first, and would look like memory saved."""
WARM_UP_PUSH_SECONDS: Final = 0.5
OPENING: Final = 256
"""Set-ups under way at once. uWebSockets has the shortest queue at its listener, 512, and what does not fit into it
comes again after a second: that would measure the queue and not the server."""
GOODBYE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.05

OURS_SET_UP: Final = "upgrade, hello, register a channel"
OURS_PUSH: Final = "PUT of a SimplePush endpoint; 200 once stored and written to the socket; the device acknowledges"
OURS_PROCESSES: Final = "supervisor, router, {workers}"
DURABILITY: Final = {"sqlite": "on disk before the 200 (SQLite FULL)", "memory": "in memory until acknowledged"}

FIGURES: Final = (
    "memory_a_connection",
    "setup_rate",
    "setup_cpu_a_1000",
    "push_rate",
    "push_p50_ms",
    "push_p99_ms",
    "push_cpu_a_1000",
    "fanout_rate",
    "fanout_p50_ms",
    "fanout_p99_ms",
    "fanout_cpu_a_million",
)
"""What is set in relation to the farm."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What every server gets. `devices`: connections held; `hold`: s of silence before memory is read; `seconds` of
    pushing, flat out over `connections` app servers' connections in `pushers` processes; an accepted push that has not
    arrived `grace` s later is lost. `subscribers`: of one channel, to whom events are sent flat out for as long, by the
    servers that can do that; 0: none. `repeat`: rounds over all servers. `settings`: for the farm."""

    peers: tuple[str, ...] = tuple(peers.PEERS)
    devices: int = 10_000
    hold: float = 5.0
    seconds: float = 5.0
    connections: int = 64
    pushers: int = 1
    repeat: int = 1
    timeout: float = 60.0
    grace: float = 5.0
    tools: Tools = field(default_factory=Tools)
    settings: tuple[str, ...] = ()
    subscribers: int = 0


@dataclass(slots=True)
class Contestant:
    """A server in the comparison: a farm with this `store`, or a peer. `missing`: why it can't be measured."""

    name: str
    title: str
    devices: int
    peer: Peer | None = None
    store: str = ""
    version: str = ""
    missing: str = ""
    note: str = ""
    error: str = ""
    rounds: list[dict[str, Any]] = field(default_factory=list)

    def fields(self, workers: int) -> dict[str, Any]:
        """For JSON."""
        peer = self.peer
        return {
            "name": self.name,
            "title": self.title,
            "ours": peer is None,
            "hint": peer.hint if peer else "",
            "missing": self.missing,
            "error": self.error,
            "note": self.note,
            "version": self.version,
            "processes": (peer.processes if peer else OURS_PROCESSES).format(workers=counted(workers, "worker")),
            "set_up": peer.set_up if peer else OURS_SET_UP,
            "push": peer.push if peer else OURS_PUSH,
            "durability": peer.durability if peer else DURABILITY[self.store],
            "fans_out": peer is None or peer.fans_out,
            "devices": self.devices,
            "rounds": self.rounds,
            "median": medians([round_["figures"] for round_ in self.rounds]),
        }


def run(plan: Plan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: so many devices are more than the farm's workers can hold, or the farm could not be measured. What
        happens to a peer is in its row.
    """
    most = most_a_process()
    for option, wanted in (("--devices", plan.devices), ("--subscribers", plan.subscribers)):
        if wanted > most * plan.tools.workers:
            needed = -(-wanted // most)
            raise BenchError(
                f"{option} {wanted}: a process may open so many descriptors that it holds {most:,}; "
                f"give --workers {needed}"
            )
    tools = replace(plan.tools, devices=max(plan.devices, plan.subscribers))
    contestants = _contestants(plan, tools, most, progress)
    there = [contestant for contestant in contestants if not contestant.missing]
    for number in range(plan.repeat):
        # each round begins with another server: a slow minute of the machine does not always meet the same one
        start = number % len(there)
        for contestant in there[start:] + there[:start]:
            if contestant.error or interrupt.requested:
                continue
            progress.step(f"{contestant.title}, round {number + 1} of {plan.repeat}")
            try:
                contestant.rounds.append(_round(contestant, plan, tools, interrupt, progress))
            except BenchError as error:
                if interrupt.requested:
                    break
                if contestant.peer is None:
                    raise
                contestant.error = str(error)
    servers = [contestant.fields(tools.workers) for contestant in contestants]
    for server in servers:
        server["ratio"] = ratios(server["median"], servers[0]["median"])
    return {"servers": servers, "reference": servers[0]["name"]}


def _contestants(plan: Plan, tools: Tools, most: int, progress: Progress) -> list[Contestant]:
    progress.step("looking for the servers")
    version = procfs.machine()["versions"]
    ours = version.get("connection-farm", "") if isinstance(version, dict) else ""
    found = [
        Contestant("farm", "farm (SQLite)", plan.devices, store="sqlite", version=ours),
        Contestant("farm-memory", "farm (memory)", plan.devices, store="memory", version=ours),
    ]
    for name in plan.peers:
        peer = peers.PEERS[name]
        devices = plan.devices if peer.many else min(plan.devices, most)
        contestant = Contestant(name, peer.title, devices, peer)
        if devices < plan.devices:
            contestant.note = f"{devices:,} devices: it is one process, and one may not open more descriptors here"
        try:
            contestant.version = peer.find(tools)
        except NotInstalledError as error:
            contestant.missing = str(error)
        found.append(contestant)
    return found


def _round(
    contestant: Contestant, plan: Plan, tools: Tools, interrupt: Interrupt, progress: Progress
) -> dict[str, Any]:
    """Start the server, load it, stop it."""
    with ExitStack() as stack:
        load = Load(contestant.devices, opening=OPENING, timeout=plan.timeout, endpoints_every=1)
        push = pushing.Plan(plan.connections, plan.pushers, plan.seconds, grace=plan.grace)
        # a server that is one process holds no more than one may
        many = contestant.peer is None or contestant.peer.many
        count = plan.subscribers if many else min(plan.subscribers, most_a_process())
        subscribers = Load(count, opening=OPENING, timeout=plan.timeout)
        events = fanout.Plan(seconds=plan.seconds, connections=plan.connections, grace=plan.grace)
        subscribers = replace(subscribers, shared=events.channels, payload=events.payload)
        server: Farm
        if contestant.peer is None:
            settings = (*plan.settings, *(fanout.settings_for(stack) if plan.subscribers else ()))
            server = stack.enter_context(farm_process.started(tools.workers, contestant.store, interrupt, settings))
            subscribers, events = fanout.speaking(subscribers, events, fanout.OURS)
            events = replace(events, router=server.router)
        else:
            peer = contestant.peer
            server = stack.enter_context(started_peer(peer, tools, interrupt))
            load = _speaking(load, peer, server)
            push = replace(push, wire=peer.wire)
            subscribers = replace(subscribers, protocol=peer.protocol, arguments=peer.listening(server.ports))
            events = replace(
                events, wire=peer.wire, router=f"http://127.0.0.1:{server.ports.push}", path=peer.event_path()
            )
        processes = stack.enter_context(LoadProcesses(interrupt))
        found = _measure(processes, server, load, plan=plan, push=push, title=contestant.title, progress=progress)
        if subscribers.devices and (contestant.peer is None or contestant.peer.fans_out) and not interrupt.requested:
            found["fanout"] = _fan_out(processes, server, subscribers, events, contestant.title, progress)
            found["figures"] |= fanout_figures(found["fanout"])
        return found


def _fan_out(
    processes: LoadProcesses, server: Farm, load: Load, plan: fanout.Plan, title: str, progress: Progress
) -> dict[str, Any]:
    """Events to the subscribers of one channel."""
    with SharedCounts(processes_for(load)) as counts:
        subscribers = fanout.Subscribers.listening(processes, load, server, counts)
        setup = subscribers.bring_up(progress, f"{title}: setting up subscribers")
        found: dict[str, Any] = {"setup": setup.fields(), "run": None}
        for seconds in (min(WARM_UP_PUSH_SECONDS, plan.seconds), plan.seconds):
            if setup.ready and not processes.interrupt.requested:
                groups = {"server": processes_of(server)}
                runs = fanout.measure(subscribers, replace(plan, seconds=seconds), groups, progress)
                found["run"] = runs[0] if runs else None
        subscribers.dismiss()
    return found


def fanout_figures(found: dict[str, Any]) -> dict[str, float | None]:
    """The figures of a fan-out: deliveries a second, ms to the last subscriber, CPU seconds of the server for a
    million deliveries; None where nothing arrived."""
    run = found["run"] if found["run"] is not None and found["run"]["delivered"] else None
    return {
        "fanout_rate": run["deliveries_a_second"] if run else None,
        "fanout_p50_ms": run["to_last_ms"].get("p50") if run else None,
        "fanout_p99_ms": run["to_last_ms"].get("p99") if run else None,
        "fanout_cpu_a_million": run["cpu_a_million"]["server"] if run else None,
    }


def _speaking(load: Load, peer: Peer, server: PeerServer) -> Load:
    return replace(load, protocol=peer.protocol, arguments=peer.arguments(server.ports))


def _measure(
    processes: LoadProcesses,
    server: Farm,
    load: Load,
    *,
    plan: Plan,
    push: pushing.Plan,
    title: str,
    progress: Progress,
) -> dict[str, Any]:
    _warm_up(processes, server, load, title, progress)
    users = VirtualUsers.of(processes, load, server)
    pids = processes_of(server)
    base = _memory(pids)
    meter = Meter({"server": pids, "load devices": [child.pid for child in users.children]})
    setup = users.bring_up(progress, f"{title}: setting up devices")
    usage = meter.stop(procfs.cores())
    users.hold(plan.hold, progress)
    held = _memory(processes_of(server))
    if not setup.endpoints and not processes.interrupt.requested:
        failures = ", ".join(f"{count} x {kind}" for kind, count in setup.failures.most_common(3))
        raise BenchError(f"no device could be set up ({failures})")
    pushed: dict[str, Any] | None = None
    if not processes.interrupt.requested:
        short = replace(push, seconds=min(WARM_UP_PUSH_SECONDS, push.seconds))
        pushing.measure(processes, server, users, setup, plan=short, progress=progress)
    if not processes.interrupt.requested:
        runs = pushing.measure(processes, server, users, setup, plan=push, progress=progress)
        pushed = runs[0] if runs else None
    users.dismiss()
    return {
        "figures": figures(setup, usage, base, held, pushed),
        "setup": setup.fields(),
        "setup_usage": usage.fields(setup.ready),
        "setup_limit": usage.limit(),
        "server_processes": len(pids),
        "memory": {"base": base, "held": held},
        "push": pushed,
    }


def _warm_up(processes: LoadProcesses, server: Farm, load: Load, title: str, progress: Progress) -> None:
    """A few devices come and go, so that what a server does once is done."""
    pids = processes_of(server)
    before = sum(procfs.descriptors(pid) or 0 for pid in pids)
    devices = min(WARM_UP_DEVICES, max(1, int(load.devices * WARM_UP_SHARE)))
    users = VirtualUsers.of(processes, replace(load, devices=devices), server)
    users.bring_up(progress, f"{title}: warming up")
    users.dismiss()
    deadline = time.monotonic() + GOODBYE_SECONDS
    while time.monotonic() < deadline and not processes.interrupt.requested:
        if sum(procfs.descriptors(pid) or 0 for pid in pids) <= before:
            break
        time.sleep(POLL_SECONDS)


def processes_of(server: Farm) -> list[int]:
    """All processes of a server that was started here."""
    assert server.supervisor is not None
    return [server.supervisor, *procfs.descendants(server.supervisor)]


def _memory(pids: Sequence[int]) -> int:
    return sum(procfs.private_memory(pid) or 0 for pid in pids)


def figures(setup: Setup, usage: Usage, base: int, held: int, pushed: dict[str, Any] | None) -> dict[str, float | None]:
    """The figures of a round: memory in bytes, rates a second, times in ms, CPU in s for 1000 events, and how many
    cores the server used while that was measured. Those of pushing are None where nothing was pushed."""
    times = setup.fields()
    cpu = sum(use.cpu for use in usage.uses if use.group == "server")
    found: dict[str, float | None] = {
        "ready": setup.ready,
        "memory_base": base,
        "memory_a_connection": (held - base) / setup.ready if setup.ready else None,
        "setup_rate": times["rate"] or None,
        "setup_p50_ms": times["time_ms"].get("p50"),
        "setup_p99_ms": times["time_ms"].get("p99"),
        "setup_cpu_a_1000": cpu / setup.ready * 1000 if setup.ready else None,
        "setup_cores": cpu / usage.seconds,
    }
    push = pushed if pushed is not None and pushed["delivered"] else None
    cpu = sum(group["cpu_seconds"] for name, group in _groups(push).items() if not name.startswith("load"))
    return found | {
        "push_rate": push["notifications_a_second"] if push else None,
        "push_p50_ms": push["to_frame_ms"].get("p50") if push else None,
        "push_p99_ms": push["to_frame_ms"].get("p99") if push else None,
        "push_cpu_a_1000": cpu / push["pushes"] * 1000 if push else None,
        "push_cores": cpu / push["seconds"] if push else None,
    }


def _groups(pushed: dict[str, Any] | None) -> dict[str, Any]:
    return dict(pushed["usage"]["groups"]) if pushed else {}


def medians(rounds: Sequence[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The median of each figure over the rounds that have it."""
    found: dict[str, float | None] = {}
    for name in dict.fromkeys(name for round_ in rounds for name in round_):
        values = [value for round_ in rounds if (value := round_.get(name)) is not None]
        found[name] = statistics.median(values) if values else None
    return found


def ratios(figures: Mapping[str, float | None], reference: Mapping[str, float | None]) -> dict[str, float | None]:
    """Each of `FIGURES` over that of the reference; None where one of the two is not known, or the reference has
    nothing to divide by."""
    found: dict[str, float | None] = {}
    for name in FIGURES:
        mine, other = figures.get(name), reference.get(name)
        found[name] = mine / other if mine is not None and other is not None and other > 0 else None
    return found


def counted(count: int, thing: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def clean(server: dict[str, Any]) -> bool:
    """Whether a server of the document was measured, and nothing failed in it."""
    return bool(server["rounds"]) and all(
        round_["setup"]["ready"] == server["devices"]
        and round_["push"] is not None
        and round_["push"]["clean"]
        and round_["push"]["delivered"]
        and not round_["push"]["drops"]
        and _fanned_out(round_.get("fanout"))
        for round_ in server["rounds"]
    )


def _fanned_out(found: dict[str, Any] | None) -> bool:
    """Whether all subscribers came up and got all, where that was asked for."""
    if found is None:
        return True
    up = found["setup"]["ready"] == found["setup"]["wanted"]
    return up and found["run"] is not None and fanout.clean(found["run"])
