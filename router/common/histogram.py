"""Histograms of seconds with fixed buckets: what they hold, how that is sent as plain numbers, and its quantiles. Pure.

In a row of numbers (a worker's beat, a router's status) the histogram `hello_seconds` stands as `hello_seconds_sum` and
a number for each of its buckets, `hello_seconds_le_0.001` and so on to `hello_seconds_le_inf`: so many were above the
bound before and not above this one. In Prometheus' format each bucket holds those below it, too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from math import inf
from typing import Any, Final

BOUNDS: Final = (
    *(0.0005, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005, 0.0075),
    *(0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
"""Upper bounds of the buckets in s; one more has no bound. A push takes 1 to 4 ms, so they are narrow there."""
_LES: Final = tuple(f"{bound:g}" for bound in (*BOUNDS, inf))


class Histogram:
    """How long things took. An observation costs about 0.15 us."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * len(_LES)
        self.sum = 0.0

    def observe(self, seconds: float) -> None:
        """One more that took so long."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds

    def snapshot(self, name: str) -> dict[str, float]:
        """Its numbers in a row, where this is its name."""
        found: dict[str, float] = {f"{name}_le_{le}": count for le, count in zip(_LES, self.counts, strict=True)}
        found[f"{name}_sum"] = round(self.sum, 6)
        return found


def counts_in(row: Mapping[str, Any], name: str) -> list[int] | None:
    """How many a row has in each of the buckets, the one without a bound last; None: the histogram is not there."""
    try:
        return [row[f"{name}_le_{le}"] for le in _LES]
    except KeyError:
        return None


def without_buckets(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for people: of each histogram its 99th percentile in ms (`hello_p99_ms`) instead of its numbers."""
    sums = {key for key in row if key.endswith("_seconds_sum")}
    names = {key.removesuffix("_sum"): counts for key in sums if (counts := counts_in(row, key.removesuffix("_sum")))}
    found: dict[str, Any] = {}
    for key, value in row.items():
        name, _, part = key.rpartition("_le_") if "_le_" in key else key.rpartition("_")
        if name not in names:
            found[key] = value
        elif part == "sum" and (p99 := quantile(names[name], 0.99)) is not None:
            found[f"{name.removesuffix('_seconds')}_p99_ms"] = round(1000 * p99, 1)
    return found


def added(rows: Iterable[Mapping[str, Any]], name: str) -> list[int]:
    """The same of several rows together; of what is not there, zeros."""
    total = [0] * len(_LES)
    for row in rows:
        if (counts := counts_in(row, name)) is not None:
            total = [one + other for one, other in zip(total, counts, strict=True)]
    return total


def quantile(counts: Iterable[int], share: float) -> float | None:
    """The time in s that this share (0.99, say) of what was counted did not exceed, interpolated within its bucket as
    Prometheus does; of what is beyond all bounds the last bound. None: nothing was counted."""
    numbers = list(counts)
    wanted = share * sum(numbers)
    if not wanted:
        return None
    low = below = 0.0
    for bound, number in zip(BOUNDS, numbers, strict=False):
        if number and below + number >= wanted:
            return low + (bound - low) * (wanted - below) / number
        below += number
        low = bound
    return BOUNDS[-1]


def buckets(counts: Iterable[int]) -> list[tuple[str, float]]:
    """As Prometheus has them: (le, number at or below it)."""
    found, total = [], 0
    for le, number in zip((*_LES[:-1], "+Inf"), counts, strict=True):
        total += number
        found.append((le, float(total)))
    return found
