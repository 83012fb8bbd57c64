"""Does memory grow? A straight line through samples, and how far it can be trusted. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

MIB: Final = 1024 * 1024
STEP_BYTES: Final = MIB
"""Python takes memory from the kernel in arenas of this size: a process that grows by less shows nothing or a whole
step, wherever in the run that falls."""
WORST_STEP: Final = 1.5
"""A single step of height h in the middle of a span T gives a fitted slope of 1.5 h / T, more than anywhere else."""
FEWEST: Final = 8
SHORTEST_SECONDS: Final = 900.0


@dataclass(frozen=True, slots=True)
class Line:
    """The slope in units a second, and its standard error as if the residuals were independent."""

    slope: float
    error: float


def fit(times: Sequence[float], values: Sequence[float]) -> Line | None:
    """Least squares; None for fewer than three points, or all at one time."""
    count = len(times)
    if count < 3:
        return None
    middle, mean = sum(times) / count, sum(values) / count
    spread = sum((time - middle) ** 2 for time in times)
    if spread <= 0:
        return None
    slope = sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / spread
    rest = sum((value - mean - slope * (time - middle)) ** 2 for time, value in zip(times, values, strict=True))
    return Line(slope, math.sqrt(rest / (count - 2) / spread))


def judge(times: Sequence[float], values: Sequence[float], processes: int, most: float) -> dict[str, Any]:
    """Whether the memory of a group of processes (bytes, at times in s) grows by more than `most` MiB an hour.

    Only the second half of the time counts: before, caches fill and every code path runs for the first time. The
    slope is uncertain by twice its standard error, and by one arena of one process at the worst place (two processes
    seldom step together; the fit then moves by less). The verdict is `grows` if the slope is above the limit by
    more than that, `steady` if it is below it by more, otherwise, or for fewer than 8 samples or 15 minutes,
    `too short to tell`.
    """
    half = (times[0] + times[-1]) / 2 if times else 0.0
    chosen = [(time, value) for time, value in zip(times, values, strict=True) if time >= half]
    line = fit([time for time, _ in chosen], [value for _, value in chosen])
    span = chosen[-1][0] - chosen[0][0] if chosen else 0.0
    verdict = {"samples": len(chosen), "seconds": span, "limit": most, "verdict": "too short to tell"}
    if line is None:
        return verdict | {"slope": None, "uncertainty": None}
    hourly = 3600 / MIB
    slope = line.slope * hourly
    uncertainty = 2 * line.error * hourly
    if processes:
        uncertainty += WORST_STEP * STEP_BYTES / span * hourly
    if len(chosen) >= FEWEST and span >= SHORTEST_SECONDS:
        if slope - uncertainty > most:
            verdict["verdict"] = "grows"
        elif slope + uncertainty <= most:
            verdict["verdict"] = "steady"
    return verdict | {"slope": slope, "uncertainty": uncertainty}
