"""`farm bench compare`: the same load on a farm and on other servers, all started here, one after the other."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

from bench import farm_process, peers
from bench.errors import BenchError
from bench.farm_process import Farm
from bench.interrupt import Interrupt
from bench.load.protocols import FAN_OUTS
from bench.load.shared_counts import SharedCounts
from bench.machine import procfs
from bench.machine.usage import Meter
from bench.peers.base import Peer, PeerServer, Tools
from bench.peers.base import started as started_peer
from bench.progress import Progress
from bench.runs import compare_replays, fanout
from bench.runs import push as pushing
from bench.runs.app_servers import PushPlan
from bench.runs.compare_figures import fanout_figures, figures, ratios
from bench.runs.contestants import Contestant, find_all
from bench.runs.load import Load, most_a_process, processes_for
from bench.runs.load_processes import LoadProcesses
from bench.runs.speaking import Speaking
from bench.runs.subscribers import Subscribers
from bench.runs.virtual_users import VirtualUsers

WARM_UP_DEVICES: Final = 200
WARM_UP_SHARE: Final = 0.02
"""Of the devices, at most: what they leave free in a server's heap is taken first, and would look like memory saved."""
WARM_UP_PUSH_SECONDS: Final = 0.5
OPENING: Final = 256
"""Set-ups under way at once. uWebSockets has the shortest queue at its listener, 512, and what does not fit into it
comes again after a second: that would measure the queue and not the server."""
GOODBYE_SECONDS: Final = 5.0
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class Plan:
    """What every server gets. `devices`: connections held; `hold`: s of silence before memory is read; `seconds` of
    pushing, flat out over `connections` app servers' connections in `pushers` processes; an accepted push that has
    not arrived `grace` s later is lost. `subscribers`: of one channel, to which events are sent flat out for as
    long, by the servers that can do that; 0: none. `replays`: how events are stored and replayed. `repeat`: rounds
    over all servers. `settings`: for the farm."""

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
    replays: compare_replays.Plan = field(default_factory=compare_replays.Plan)


def run(plan: Plan, *, interrupt: Interrupt, progress: Progress) -> dict[str, Any]:
    """The whole of a run; returns the fields of its JSON.

    Raises:
      BenchError: so many devices are more than the farm's workers can hold, or the farm could not be measured. What
        happens to a peer is in its row.
    """
    most = most_a_process()
    for option, wanted in (
        *(("--devices", plan.devices), ("--subscribers", plan.subscribers)),
        ("--replay", plan.replays.subscribers),
    ):
        if wanted > most * plan.tools.workers:
            needed = -(-wanted // most)
            raise BenchError(
                f"{option} {wanted}: a process may open so many descriptors that it holds {most:,}; "
                f"give --workers {needed}"
            )
    tools = replace(plan.tools, devices=max(plan.devices, plan.subscribers, plan.replays.subscribers))
    contestants = find_all(plan.peers, plan.devices, tools, most, progress)
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
                if plan.replays.subscribers and not interrupt.requested:
                    replayed = compare_replays.run(contestant, plan.replays, tools, interrupt, progress)
                    contestant.rounds[-1]["replays"] = replayed
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


def _round(
    contestant: Contestant, plan: Plan, tools: Tools, interrupt: Interrupt, progress: Progress
) -> dict[str, Any]:
    """Start the server, load it, stop it."""
    with ExitStack() as stack:
        load = Load(contestant.devices, opening=OPENING, timeout=plan.timeout, endpoints_every=1)
        push = PushPlan(plan.connections, plan.pushers, plan.seconds, grace=plan.grace)
        # a server that is one process holds no more than one may
        many = contestant.peer is None or contestant.peer.many
        count = plan.subscribers if many else min(plan.subscribers, most_a_process())
        subscribers = Load(count, opening=OPENING, timeout=plan.timeout)
        events = fanout.Plan(seconds=plan.seconds, connections=plan.connections, grace=plan.grace)
        subscribers = replace(subscribers, shared=events.channels, payload=events.payload)
        server: Farm
        if contestant.peer is None:
            fan_out = next(iter(FAN_OUTS.values()), None) if plan.subscribers else None
            spoken = Speaking(fan_out, fan_out.modes[:1]) if fan_out is not None else None
            settings = plan.settings
            if spoken is not None:
                spoken, more = spoken.settings(stack)
                settings = (*more, *settings)
            server = stack.enter_context(farm_process.started(tools.workers, contestant.store, interrupt, settings))
            if spoken is not None:
                subscribers, events = fanout.speaking(spoken, subscribers, events)
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
        if subscribers.devices and contestant.fans_out and not interrupt.requested:
            found["fanout"] = _fan_out(processes, server, subscribers, events, contestant.title, progress)
            found["figures"] |= fanout_figures(found["fanout"])
        return found


def _fan_out(
    processes: LoadProcesses, server: Farm, load: Load, plan: fanout.Plan, title: str, progress: Progress
) -> dict[str, Any]:
    """Events to the subscribers of one channel."""
    with SharedCounts(processes_for(load)) as counts:
        subscribers = Subscribers.listening(processes, load, server, counts)
        setup = subscribers.bring_up(progress, f"{title}: setting up subscribers")
        found: dict[str, Any] = {"setup": setup.fields(), "run": None}
        for seconds in (min(WARM_UP_PUSH_SECONDS, plan.seconds), plan.seconds):
            if setup.ready and not processes.interrupt.requested:
                groups = {"server": processes_of(server)}
                runs = fanout.measure(subscribers, replace(plan, seconds=seconds), groups, progress)
                found["run"] = runs[0] if runs else None
        subscribers.dismiss()
    return found


def _speaking(load: Load, peer: Peer, server: PeerServer) -> Load:
    return replace(load, protocol=peer.protocol, arguments=peer.arguments(server.ports))


def _measure(
    processes: LoadProcesses,
    server: Farm,
    load: Load,
    *,
    plan: Plan,
    push: PushPlan,
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
        raise BenchError(f"no device could be set up ({setup.why})")
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
