"""Times that are kept for each of very many connections, and need not be exact. Pure."""

from __future__ import annotations

from typing import Final

STRETCH_S: Final = 0.25


class CoarseTime:
    """One object stands for all times of a stretch: a float of its own would cost each connection 32 bytes."""

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last = float("-inf")

    def of(self, now: float) -> float:
        """A time that is at most `STRETCH_S` before this one, and never after it."""
        if not 0 <= now - self._last < STRETCH_S:
            self._last = now
        return self._last
