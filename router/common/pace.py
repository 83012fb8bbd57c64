"""How often a worker looks at its devices where there are many workers: interrupt coalescing, as network cards have it.

A wake-up costs the same whether it finds one event or fifty: 60 to 150 us in a worker whose memory has left the CPU's
caches while others ran, and its message wakes the router, whose answer wakes it once more. With two workers each
wake-up finds plenty. With 60 of them the same load reaches each in crumbs, and a set-up costs three times the CPU. So
under load a worker lets events gather before it looks. Where there are few it does not: that would save little, and
every request would wait longer for its answer.

The router's own turns need no such rule: with workers that send less often it has fewer by itself. To pace it too saved
about 2 % of the CPU of a set-up at 60 workers, within the noise of three rounds.
"""

from __future__ import annotations

from typing import Final

FEWEST_WORKERS: Final = 8
"""With fewer workers wake-ups find enough by themselves."""
BUSY_EVENTS: Final = 4000
"""Events a second on the devices' connections of all workers, below which none waits. A device that comes has four."""
_LONGEST_S: Final = 0.1
"""A worker that waits reads its link and nothing else: the wait must not delay its end, nor let its lease run out."""


class Pace:
    """When to look again. Pure: times and numbers in, seconds out.

    If there was enough in an interval, the next look is at its end, and after that there is one look an interval for as
    long as each finds enough. After an interval without a look, because there was nothing to do, there is no wait.
    """

    __slots__ = ("_busy", "_ends", "_enough", "_found", "interval")

    def __init__(self, interval: float, workers: int) -> None:
        """The pace of one of so many workers. interval: seconds from one look to the next, by any of them: so
        their looks, and the messages to the router that come of them, cost the same however many they are."""
        self.interval = min(interval * workers, _LONGEST_S) if workers >= FEWEST_WORKERS else 0.0
        """Seconds from one look of this worker to its next; 0: it never waits."""
        self._enough = max(2.0, BUSY_EVENTS / workers * self.interval)
        self._found = 0  # in this interval
        self._ends = 0.0
        self._busy = False  # the interval before had enough

    def looked(self, now: float, found: int) -> None:
        """So much was there."""
        if now >= self._ends:
            self._busy = self._found >= self._enough and now < self._ends + self.interval
            self._found = 0
            self._ends = now + self.interval
        self._found += found

    def rest(self, now: float) -> float:
        """Seconds to wait before the next look; 0 or less: none."""
        return self._ends - now if self._busy or self._found >= self._enough else 0.0
