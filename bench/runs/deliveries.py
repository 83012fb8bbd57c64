"""What became of events that were sent to many subscribers. Pure."""

from array import array
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.load.samples import ACCEPTED, NO_ANSWER
from bench.machine.usage import Usage
from bench.runs.app_servers import Outcome
from bench.runs.subscribers import Tally


@dataclass(slots=True)
class Deliveries:
    """What became of the events of a run, in deliveries. `expected` = delivered + undelivered + lost, of what was
    accepted: `undelivered` to subscribers that lost their connection, `lost`: to those that did not. `unexpected`:
    arrived and never sent. `to_first` and `to_last`: us from the moment at which an event was sent or due until the
    first of its subscribers had it, or the last; only of events that all have."""

    events: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    refused: int = 0
    unanswered: int = 0
    expected: int = 0
    delivered: int = 0
    undelivered: int = 0
    lost: int = 0
    unexpected: int = 0
    refused_but_arrived: int = 0
    last: int = 0
    to_first: "array[int]" = field(default_factory=lambda: array("q"))
    to_last: "array[int]" = field(default_factory=lambda: array("q"))

    def fields(self) -> dict[str, Any]:
        """All but the samples, for JSON."""
        samples = ("last", "to_first", "to_last")
        return {name: getattr(self, name) for name in self.__slots__ if name not in samples}


def deliveries_of(outcome: Outcome, listening: Sequence[int], tally: Tally) -> Deliveries:
    """Match every event with its arrivals. `listening`: subscribers of each channel when the run began."""
    deliveries = Deliveries()
    events = dict(tally.events)
    accepted: dict[int, list[int]] = {}
    for channel, version, status in zip(
        outcome.pushes.channels, outcome.pushes.versions, outcome.pushes.statuses, strict=True
    ):
        deliveries.events += 1
        deliveries.statuses[status] += 1
        arrived = events.pop((channel, version), None)
        if status not in ACCEPTED:
            deliveries.refused += status != NO_ANSWER
            deliveries.unanswered += status == NO_ANSWER
            deliveries.refused_but_arrived += arrived.count if arrived else 0
            continue
        accepted.setdefault(channel, []).append(version)
        deliveries.expected += listening[channel]
        if arrived is None:
            continue
        deliveries.delivered += arrived.count
        deliveries.last = max(deliveries.last, arrived.last)
        if arrived.count == listening[channel]:
            deliveries.to_first.append(arrived.first - version)
            deliveries.to_last.append(arrived.last - version)
    deliveries.unexpected = sum(arrived.count for arrived in events.values())
    for versions in accepted.values():
        versions.sort()
    for channel, newest in tally.gone:
        versions = accepted.get(channel, [])
        deliveries.undelivered += len(versions) - bisect_right(versions, newest)
    deliveries.lost = max(0, deliveries.expected - deliveries.delivered - deliveries.undelivered)
    return deliveries


def clean(run: dict[str, Any]) -> bool:
    """Whether a run, as JSON has it, delivered all that was sent, as it should, and lost no subscriber."""
    counts = (run["refused"], run["unanswered"], run["undelivered"])
    return bool(run["clean"] and run["delivered"] and not any(counts) and not run["drops"])


def cpu_a_million(usage: Usage, deliveries: int) -> dict[str, float | None]:
    """CPU seconds of a million deliveries: of each group of processes, of the server's and the load's together, and of
    all."""
    groups: dict[str, float] = {}
    for use in usage.uses:
        groups[use.group] = groups.get(use.group, 0.0) + use.cpu
    server = sum(cpu for group, cpu in groups.items() if not group.startswith("load"))
    sums = groups | {"server": server, "load": sum(groups.values()) - server, "all": sum(groups.values())}
    return {group: cpu / deliveries * 1e6 if deliveries else None for group, cpu in sums.items()}
