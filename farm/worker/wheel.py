"""A timing wheel for very many deadlines that are nearly always met, without I/O.

A bucket is an array of descriptors, 4 bytes each; the owner of a deadline keeps a reference to its bucket and nothing
else. Disarming and re-arming cost nothing: an entry whose owner points at another bucket by then is stale, and skipped
when its bucket's turn comes. Stale entries last until then, at most one turn of the wheel.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import TypeAlias

Bucket: TypeAlias = "array[int]"


class Wheel:
    """`slots` buckets, one a tick. Deadlines beyond one turn fire early: their owner arms again for the rest."""

    def __init__(self, slots: int, tick_seconds: float) -> None:
        self.tick_seconds = tick_seconds
        self._buckets: list[Bucket] = [array("i") for _ in range(slots)]
        self._position = 0

    def arm(self, fd: int, seconds: float) -> Bucket:
        """Have `fd` fire once `seconds` have passed, at most two ticks later.

        Returns: the bucket, which the owner must keep as the sign that this entry counts.
        """
        # One tick more, because the current one began some time ago.
        ticks = min(max(0, -int(-seconds // self.tick_seconds)) + 1, len(self._buckets) - 1)
        bucket = self._buckets[(self._position + ticks) % len(self._buckets)]
        bucket.append(fd)
        return bucket

    def advance(self, fire: Callable[[int, Bucket], None]) -> None:
        """One tick: `fire(fd, bucket)` for each entry due; it must ignore those whose owner has another bucket."""
        self._position = (self._position + 1) % len(self._buckets)
        due = self._buckets[self._position]
        if not due:
            return
        self._buckets[self._position] = array("i")
        for fd in due:
            fire(fd, due)
