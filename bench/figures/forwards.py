"""What a forward costs: pushes through the host that has the router of an address, and through another one. Pure."""

from collections.abc import Callable
from statistics import median
from typing import Any

Run = dict[str, Any]
"""A run of pushes, see `bench.runs.push`."""


def compared(owner: list[Run], other: list[Run]) -> dict[str, float | None]:
    """What the runs through another host took more, in the median: CPU of the farm a push flat out and at half of
    that rate, and time until the answer at half of it. None where there are no such runs."""

    def more(kind: Callable[[list[Run]], list[Run]], figure: Callable[[Run], float]) -> float | None:
        mine, others = ([figure(run) for run in kind(runs)] for runs in (owner, other))
        return median(others) - median(mine) if mine and others else None

    return {
        "cpu_us": more(flat, cpu_of),
        "cpu_us_half": more(slow, cpu_of),
        "p50_ms": more(slow, lambda run: answered(run, "p50")),
        "p99_ms": more(slow, lambda run: answered(run, "p99")),
    }


def flat(runs: list[Run]) -> list[Run]:
    """Those without a rate."""
    return [run for run in runs if not run["rate"]]


def slow(runs: list[Run]) -> list[Run]:
    """Those with one."""
    return [run for run in runs if run["rate"]]


def cpu_of(run: Run) -> float:
    """Microseconds of the farm's CPU for a push, the store's servers left out."""
    groups = run["usage"]["groups"]
    ours = (use for name, use in groups.items() if not name.startswith("load") and name != "store")
    return 1000 * sum(use["cpu_seconds_a_1000"] or 0.0 for use in ours)


def answered(run: Run, point: str) -> float:
    """Milliseconds until the answer, a percentile."""
    return float(run["to_response_ms"].get(point, 0.0))
