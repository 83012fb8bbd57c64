"""Percentiles of the samples of a run. Pure."""

from collections.abc import Iterable
from typing import Final

RANKS: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def percentiles(values: Iterable[float], factor: float = 1.0) -> dict[str, float]:
    """Nearest-rank percentiles and the maximum, each times `factor`; empty for no values."""
    import numpy as np  # it takes longer to import than all the rest of `farm bench --help`

    samples = np.fromiter(values, np.float64)
    if not samples.size:
        return {}
    found = np.quantile(samples, list(RANKS.values()), method="inverted_cdf") * factor
    return dict(zip(RANKS, found.tolist(), strict=True))
