"""The farm's numbers of the last hour, one sample in ten seconds, for a look without Prometheus. Pure."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from math import isnan, nan
from typing import Any, Final

INTERVAL_S: Final = 10.0
SAMPLES: Final = 360
_DIGITS: Final = 4  # of an average or a rate, as far as a chart shows them


class History:
    """Series of numbers, each with a name, over the same slots of time; a slot has one sample of each at most.

    A series takes 8 bytes a sample, and is forgotten when it had none for as long as is kept.
    """

    def __init__(self, interval: float = INTERVAL_S, samples: int = SAMPLES) -> None:
        self.interval = interval
        self._size = samples
        self._last = -1  # the newest slot: its number counts intervals of the clock
        self._kept = 0
        self._series: dict[tuple[str, str], array[float]] = {}  # (process or "", name): a slot has its number's place
        self._seen: dict[tuple[str, str], int] = {}

    def add(self, now: float, values: Mapping[tuple[str, str], float]) -> None:
        """The values of this moment, in s of a clock that only goes forward, by process ("" for the whole farm) and
        name."""
        slot = int(now // self.interval)
        if slot <= self._last:
            return
        passed = min(slot - self._last, self._size) if self._last >= 0 else 1
        self._last = slot
        self._kept = min(self._kept + passed, self._size)
        for number in range(slot - passed + 1, slot + 1):
            for series in self._series.values():
                series[number % self._size] = nan
        for key, value in values.items():
            if key not in self._series:
                self._series[key] = array("d", (nan for _ in range(self._size)))
            self._series[key][slot % self._size] = value
            self._seen[key] = slot
        for key in [key for key, seen in self._seen.items() if seen <= slot - self._size]:
            del self._series[key], self._seen[key]

    def since(self, minutes: float, after: int = -1) -> dict[str, Any]:
        """The samples of so many minutes, oldest first; of those, the ones behind the slot `after`.

        Returns: `interval` in s, `last`, the slot of the newest sample, `series` of the whole farm by name, and
        `processes` with the series of each. None stands where there is no value.
        """
        wanted = min(self._kept, max(0, int(minutes * 60 / self.interval)))
        if 0 <= after <= self._last:  # otherwise the supervisor has started anew
            wanted = min(wanted, self._last - after)
        series: dict[str, list[float | None]] = {}
        processes: dict[str, dict[str, list[float | None]]] = {}
        for (process, name), values in self._series.items():
            of = processes.setdefault(process, {}) if process else series
            slots = range(self._last - wanted + 1, self._last + 1)
            of[name] = [_short(values[slot % self._size]) for slot in slots]
        return {"interval": self.interval, "last": self._last, "series": series, "processes": processes}


def _short(value: float) -> float | None:
    if isnan(value):
        return None
    if value.is_integer():
        return int(value)
    return round(value, 1) if value >= 10_000 else float(f"{value:.{_DIGITS}g}")
