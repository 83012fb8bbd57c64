"""A scan over descriptors: each is visited once in a period, a few at a time, with no timer for any of them. Pure.

TCP's own keep-alive can't do this for very many: the kernel's timers for minutes fire in steps of 16 seconds, so that
the probes of a million connections leave in bursts of tens of thousands, most of which a queue of 1,000 packets
drops; nine in a row, and a live connection is cut. (Seen with two million on one machine: 3 % were gone after a
quarter of an hour.)
"""

from __future__ import annotations


class KeepaliveScan:
    """period: seconds for a scan over all descriptors met so far; 0: there are none."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._top = 0
        self._at = 0
        self._visited = 0.0  # of the descriptors, since the last time; a part of one waits for the next
        self._last: float | None = None

    def meet(self, fd: int) -> None:
        """There is such a descriptor."""
        if fd >= self._top:
            self._top = fd + 1

    def due(self, now: float) -> range:
        """The descriptors to visit now, never more than all of them once; some may be closed, or another's."""
        if not self._period:
            return range(0)
        passed, self._last = (0.0 if self._last is None else now - self._last), now
        if self._at >= self._top:
            self._at = 0
        self._visited = min(self._visited + self._top * passed / self._period, float(self._top))
        first, count = self._at, min(int(self._visited), self._top - self._at)
        self._visited -= count
        self._at += count
        return range(first, first + count)
