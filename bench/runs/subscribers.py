"""The subscribers of a run, over the load processes that hold them, and what they saw of the events."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.farm_process import Farm
from bench.load.shared_counts import SharedCounts
from bench.load.sockets import Address
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers


class Subscribers(VirtualUsers):
    """The subscribers of a run. `counts` has a number for each of their processes."""

    kind = "subscribers"

    def __init__(
        self, processes: LoadProcesses, load: Load, address: Address, *, counts: SharedCounts, **where: Any
    ) -> None:
        self.counts = counts
        super().__init__(processes, load, address, **where)

    @classmethod
    def listening(cls, processes: LoadProcesses, load: Load, farm: Farm, counts: SharedCounts) -> "Subscribers":
        """Subscribers of a farm."""
        status = farm.status()
        listeners = len(status.workers) if status else 1
        return cls(processes, load, farm.address, counts=counts, host=farm.host, path=farm.path, listeners=listeners)

    def _more(self, number: int) -> dict[str, Any]:
        return {"counts": self.counts.path, "slot": number}

    def arrived(self) -> int:
        """Deliveries since the beginning; each counts once."""
        return sum(self.counts.numbers)

    def tally(self) -> "Tally":
        """What arrived since the last call."""
        self.processes.send(self.children, "tally")
        tally = Tally(array("I", bytes(4 * self.load.shared)))
        for message in self.processes.gather(self.children, "tallied"):
            tally.add(message.blobs, message.fields)
        return tally


@dataclass(slots=True)
class Arrived:
    """What became of an event: how many subscribers have it, and when the first and the last of them had it (us)."""

    count: int
    first: int
    last: int


@dataclass(slots=True)
class Tally:
    """What the subscribers saw in a run. `listening`: subscribers of each channel, at its end; `events`: by (channel,
    version); `gone`: (channel, version of the newest event that it has) of those that lost their connection."""

    listening: "array[int]"
    events: dict[tuple[int, int], Arrived] = field(default_factory=dict)
    gone: list[tuple[int, int]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)

    def add(self, blobs: Sequence[bytes], faults: dict[str, int]) -> None:
        """One process's part, as `bench.load.subscribers` reports it."""
        columns = [array(code) for code in "IqIqqIIq"]
        for column, blob in zip(columns, blobs, strict=True):
            column.frombytes(blob)
        for channel, version, count, first, last in zip(*columns[:5], strict=True):
            found = self.events.get((channel, version))
            if found is None:
                self.events[channel, version] = Arrived(count, first, last)
            else:
                found.count += count
                found.first, found.last = min(found.first, first), max(found.last, last)
        for channel, count in enumerate(columns[5]):
            self.listening[channel] += count
        self.gone += zip(columns[6], columns[7], strict=True)
        self.faults.update(faults)
