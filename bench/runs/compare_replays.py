"""What `farm bench compare` measures of servers that store events: how fast they take them, and how fast subscribers
that come back have what they missed. The farm does it in each dialect and mode that replays."""

from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Final

from bench import farm_process
from bench.farm_process import Farm
from bench.interrupt import Interrupt
from bench.load.protocols import FAN_OUTS
from bench.machine import procfs
from bench.peers.base import Tools
from bench.peers.base import started as started_peer
from bench.progress import Progress
from bench.runs import fanout, replay
from bench.runs.contestants import Contestant
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.speaking import Speaking

CHANNELS: Final = 100
"""That the subscribers share, so that many events are under way at once while they are stored."""
KEPT: Final[tuple[str, ...]] = (
    *("subscribers", "back", "seconds", "deliveries_a_second", "stored_a_second", "expected", "delivered", "lost"),
    *("duplicates", "stale", "reordered", "wrong_data", "clean", "held", "drops", "limit"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """`subscribers`: that come back, each to so many `messages`; 0: none. `connections`: of app servers. What is
    missing when nothing has come for `grace` s is lost."""

    subscribers: int = 0
    messages: int = 20
    connections: int = 64
    timeout: float = 60.0
    grace: float = 5.0
    settings: tuple[str, ...] = ()


def run(
    contestant: Contestant, plan: Plan, tools: Tools, interrupt: Interrupt, progress: Progress
) -> dict[str, dict[str, Any]]:
    """A round of this server, started for it, by the ways in which it replays; nothing of one that does not.

    Raises:
      BenchError: it did not come up, or took no event.
    """
    channels = min(CHANNELS, plan.subscribers)
    events = fanout.Plan(channels, connections=plan.connections)
    how = replay.Plan(plan.messages, channels, grace=plan.grace, events=events)
    load = Load(plan.subscribers, timeout=plan.timeout, shared=channels, payload=events.payload)
    found: dict[str, dict[str, Any]] = {}
    with ExitStack() as stack:
        runs: list[tuple[str, Load, fanout.Plan]] = []
        server: Farm
        if contestant.peer is None:
            settings: tuple[str, ...] = ()
            ready: list[Speaking] = []
            for one in FAN_OUTS.values():
                for mode in one.modes if one.replays else ():
                    spoken, more = Speaking(one, (mode,)).settings(stack, how.stored)
                    ready.append(spoken)
                    settings += more
            if not ready:
                return {}
            server = stack.enter_context(
                farm_process.started(tools.workers, contestant.store, interrupt, (*settings, *plan.settings))
            )
            for spoken in ready:
                mine, where = fanout.speaking(spoken, load, events)
                title = f"{spoken.fan_out.title}, {spoken.modes[0]}"
                runs.append((title, mine, replace(where, router=server.router)))
        else:
            storing = contestant.peer.storing()
            if storing is None:
                return {}
            peer = stack.enter_context(started_peer(contestant.peer, replace(tools, stored=how.stored), interrupt))
            mine = replace(load, protocol=storing.protocol, arguments=storing.arguments)
            router = f"http://127.0.0.1:{peer.ports.push}"
            where = replace(events, wire=contestant.peer.wire, router=router, path=storing.path)
            runs.append((storing.title, mine, where))
            server = peer
        processes = stack.enter_context(LoadProcesses(interrupt))
        supervisor = server.supervisor
        assert supervisor is not None

        def groups() -> dict[str, list[int]]:
            return {"server": [supervisor, *procfs.descendants(supervisor)]}

        for title, mine, where in runs:
            if not interrupt.requested:
                progress.step(f"{contestant.title}, {title}: storing and replaying")
                done = replay.measure(processes, server, mine, replace(how, events=where), groups, progress)
                found[title] = _kept(done)
    return found


def _kept(done: dict[str, Any]) -> dict[str, Any]:
    setup = {name: done["setup"][name] for name in ("wanted", "ready", "failures")}
    round_: dict[str, Any] = done["rounds"][0] if done["rounds"] else {}
    kept: dict[str, Any] = {name: round_[name] for name in KEPT if name in round_}
    if round_:
        kept["cpu_a_million"] = round_["cpu_a_million"]["server"]
        kept["live_lost"] = round_["live"]["lost"]
    return {"setup": setup, **kept}
