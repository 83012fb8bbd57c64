"""Does a figure creep? A straight line through samples, and how far it can be trusted. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

GROWS: Final = "grows"
STEADY: Final = "steady"
UNKNOWN: Final = "too short to tell"
FEWEST: Final = 8
SHORTEST_SECONDS: Final = 900.0
HOUR: Final = 3600.0


@dataclass(frozen=True, slots=True)
class Line:
    """The slope in units a second, its standard error, and the value in the middle of the times."""

    slope: float
    error: float
    middle: float


def fit(times: Sequence[float], values: Sequence[float]) -> Line | None:
    """Least squares; None for fewer than three points, or all at one time.

    Samples that follow each other are alike: of memory that was taken and is kept, of latency while the machine does
    something else. They tell less than as many that are independent, so the standard error is that of
    n (1 - r) / (1 + r) samples, r the correlation of a residual with the one before, or 0 if that is negative (Santer
    et al., Journal of Geophysical Research 105, 2000). As residuals of a line through few samples show too little of
    it, (2 + 4 r) / n are added first (Kendall, Biometrika 41, 1954, and as much again for the line).
    """
    count = len(times)
    if count < 3:
        return None
    middle, mean = sum(times) / count, sum(values) / count
    spread = sum((time - middle) ** 2 for time in times)
    if spread <= 0:
        return None
    slope = sum((time - middle) * (value - mean) for time, value in zip(times, values, strict=True)) / spread
    rest = [value - mean - slope * (time - middle) for time, value in zip(times, values, strict=True)]
    squares = sum(one * one for one in rest)
    pairs = sum(one * other for one, other in pairwise(rest))
    found = pairs / squares if squares else 0.0
    alike = min(max(0.0, found + (2 + 4 * found) / count), 1.0)
    independent = max(1.0, count * (1 - alike) / (1 + alike) - 2)
    return Line(slope, math.sqrt(squares / independent / spread), mean)


def judge(
    times: Sequence[float], values: Sequence[float], most: float, *, step: float = 0.0, ratios: bool = False
) -> dict[str, Any]:
    """Whether a figure (`values` at `times` in s) grows by more than `most` an hour.

    Only the second half of the time counts: before, caches fill and every code path runs for the first time. The
    slope is uncertain by twice its standard error, and by no less than what one `step` of that height does at the
    worst place, the middle: 1.5 times its height over the span. `ratios`: the figure scatters by factors, as
    latencies do, so that the line goes through its logarithms, and a window that took ten times as long does not
    outweigh all others; slope and uncertainty are then those at the geometric mean.

    The verdict is `grows` if the slope is above the limit by more than the uncertainty, `steady` if it is below it by
    more, otherwise, or for fewer than 8 samples or 15 minutes, `too short to tell`. With it stand `first` and `last`,
    the values at both ends of that half, None without samples.
    """
    half = (times[0] + times[-1]) / 2 if times else 0.0
    second = [(time, value) for time, value in zip(times, values, strict=True) if time >= half]
    chosen = [(time, math.log(value)) for time, value in second if value > 0] if ratios else second
    line = fit([time for time, _ in chosen], [value for _, value in chosen])
    span = chosen[-1][0] - chosen[0][0] if chosen else 0.0
    first, last = (second[0][1], second[-1][1]) if second else (None, None)
    verdict: dict[str, Any] = {"first": first, "last": last}
    verdict |= {"samples": len(chosen), "seconds": span, "limit": most, "verdict": UNKNOWN}
    if line is None:
        return verdict | {"slope": None, "uncertainty": None}
    hourly = HOUR * (math.exp(line.middle) if ratios else 1.0)
    slope = line.slope * hourly
    uncertainty = max(2 * line.error * hourly, 1.5 * step / span * HOUR)
    if len(chosen) >= FEWEST and span >= SHORTEST_SECONDS:
        if slope - uncertainty > most:
            verdict["verdict"] = GROWS
        elif slope + uncertainty <= most:
            verdict["verdict"] = STEADY
    return verdict | {"slope": slope, "uncertainty": uncertainty}
