"""The time as all parts of a worker have it: read once a turn, not once a connection."""

from __future__ import annotations

from collections.abc import Callable


class Clock:
    """Seconds of a monotonic clock."""

    __slots__ = ("_monotonic", "now", "stamp")

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self.now = self.stamp = monotonic()
        """`now` is that of this turn; `stamp` that of the last tick: one object for all connections."""

    def read(self) -> None:
        """A turn begins."""
        self.now = self._monotonic()

    def tick(self) -> float:
        """A tick begins. Returns: now."""
        self.now = self.stamp = self._monotonic()
        return self.now
