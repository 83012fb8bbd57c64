"""The servers of a comparison: the farm, with each of its stores, and the peers that are installed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from bench import peers
from bench.load.protocols import FAN_OUTS, REFERENCE
from bench.machine import procfs
from bench.peers.base import NotInstalledError, Peer, Tools
from bench.progress import Progress
from bench.runs.compare_figures import medians, summary

OURS_PROCESSES: Final = "supervisor, router, {workers}"
DURABILITY: Final = {"sqlite": "on disk before the 200 (SQLite FULL)", "memory": "in memory until acknowledged"}


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

    @property
    def fans_out(self) -> bool:
        """Whether one push can reach many subscribers."""
        return bool(FAN_OUTS) if self.peer is None else self.peer.fans_out

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
            "set_up": peer.set_up if peer else REFERENCE.set_up,
            "push": peer.push if peer else REFERENCE.push,
            "durability": peer.durability if peer else DURABILITY[self.store],
            "fans_out": self.fans_out,
            "devices": self.devices,
            "rounds": [summary(round_) for round_ in self.rounds],
            "median": medians([round_["figures"] for round_ in self.rounds]),
        }


def find_all(names: Sequence[str], devices: int, tools: Tools, most: int, progress: Progress) -> list[Contestant]:
    """The farm, first, and the peers of these names. A server that is one process holds `most` devices."""
    progress.step("looking for the servers")
    version = procfs.machine()["versions"]
    ours = version.get("connection-farm", "") if isinstance(version, dict) else ""
    found = [
        Contestant("farm", "farm (SQLite)", devices, store="sqlite", version=ours),
        Contestant("farm-memory", "farm (memory)", devices, store="memory", version=ours),
    ]
    for name in names:
        peer = peers.PEERS[name]
        held = devices if peer.many else min(devices, most)
        contestant = Contestant(name, peer.title, held, peer)
        if held < devices:
            contestant.note = f"{held:,} devices: it is one process, and one may not open more descriptors here"
        try:
            contestant.version = peer.find(tools)
        except NotInstalledError as error:
            contestant.missing = str(error)
        found.append(contestant)
    return found


def counted(count: int, thing: str) -> str:
    """`1 worker`, `2 workers`."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"
