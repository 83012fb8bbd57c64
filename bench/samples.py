"""From raw samples to figures: percentiles, the steady middle of a ramp, and which push arrived. Pure."""

import math
from array import array
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

STEADY: Final = (0.25, 0.75)
ACCEPTED: Final = frozenset({200, 202})
STORED: Final = 202
NO_ANSWER: Final = 0
_CHANNEL_BITS: Final = 32


def percentiles(values: Iterable[float], factor: float = 1.0) -> dict[str, float]:
    """Nearest-rank percentiles and the maximum, each times `factor`; empty for no values."""
    ordered = sorted(values)
    if not ordered:
        return {}
    ranks = (("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0))
    return {name: ordered[max(0, math.ceil(rank * len(ordered)) - 1)] * factor for name, rank in ranks}


def rates(completions: Iterable[float], start: float) -> tuple[float, float]:
    """Completions a second, overall since `start` and in the middle half of them; 0 where there are too few."""
    ordered = sorted(completions)
    if not ordered:
        return 0.0, 0.0
    low, high = (int(len(ordered) * part) for part in STEADY)
    overall = len(ordered) / (ordered[-1] - start) if ordered[-1] > start else 0.0
    span = ordered[high] - ordered[low] if high > low else 0.0
    return overall, (high - low) / span if span > 0 else 0.0


@dataclass(slots=True)
class Pushes:
    """Every push of a run, column by column; times in microseconds of CLOCK_MONOTONIC."""

    channels: "array[int]" = field(default_factory=lambda: array("I"))
    versions: "array[int]" = field(default_factory=lambda: array("q"))
    statuses: "array[int]" = field(default_factory=lambda: array("H"))
    times: "array[int]" = field(default_factory=lambda: array("I"))


@dataclass(slots=True)
class Arrivals:
    """Every update that a device received in a run, and the devices that lost their connection in it."""

    channels: "array[int]" = field(default_factory=lambda: array("I"))
    versions: "array[int]" = field(default_factory=lambda: array("q"))
    times: "array[int]" = field(default_factory=lambda: array("q"))
    gone: "array[int]" = field(default_factory=lambda: array("I"))


@dataclass(slots=True)
class Account:
    """What became of the pushes of a run.

    `lost`: accepted, its device was connected all the time, and neither it nor a newer version of its
    channel arrived. A 202 whose channel got a newer version is `superseded`: that is what SimplePush
    promises. Those of devices that lost their connection are `undelivered`: they wait in the store.
    `unexpected` arrived and were never sent; `refused_but_arrived` had an answer other than 200 or 202, or
    none.
    """

    statuses: dict[int, int]
    delivered: int
    lost: int
    superseded: int
    undelivered: int
    duplicates: int
    reordered: int
    unexpected: int
    refused_but_arrived: int
    latencies: "array[int]"

    def fields(self) -> dict[str, Any]:
        """All but the samples, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "latencies"}

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicates or self.unexpected)


def account(pushes: Pushes, arrivals: Arrivals) -> Account:
    """Match every push with its arrival by channel and version."""
    sent = {
        version << _CHANNEL_BITS | channel: status
        for channel, version, status in zip(pushes.channels, pushes.versions, pushes.statuses, strict=True)
    }
    seen: set[int] = set()
    newest: dict[int, int] = {}
    delivered = duplicates = reordered = unexpected = refused = 0
    latencies = array("q")
    for channel, version, time in zip(arrivals.channels, arrivals.versions, arrivals.times, strict=True):
        push = version << _CHANNEL_BITS | channel
        status = sent.get(push)
        if status is None:
            unexpected += 1
            continue
        if push in seen:
            duplicates += 1
            continue
        seen.add(push)
        if version < newest.get(channel, 0):
            reordered += 1
        else:
            newest[channel] = version
        if status in ACCEPTED:
            delivered += 1
        else:
            refused += 1
        latencies.append(time - version)
    gone = set(arrivals.gone)
    lost = superseded = undelivered = 0
    for push, status in sent.items():
        if status not in ACCEPTED or push in seen:
            continue
        channel, version = push & (1 << _CHANNEL_BITS) - 1, push >> _CHANNEL_BITS
        if status == STORED and newest.get(channel, 0) > version:
            superseded += 1
        elif channel in gone:
            undelivered += 1
        else:
            lost += 1
    return Account(
        statuses=dict(sorted(Counter(pushes.statuses).items())),
        delivered=delivered,
        lost=lost,
        superseded=superseded,
        undelivered=undelivered,
        duplicates=duplicates,
        reordered=reordered,
        unexpected=unexpected,
        refused_but_arrived=refused,
        latencies=latencies,
    )
