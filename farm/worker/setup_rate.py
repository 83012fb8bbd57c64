"""How many connections a worker may accept now: a token bucket. Pure."""

from __future__ import annotations

import sys
from typing import Final

_BURST_S: Final = 0.1
"""What may be accepted at once after a quiet time, in seconds of the rate: connected devices wait for no more."""
_BEHIND_S: Final = 1.0
NO_LIMIT: Final = sys.maxsize


class SetupRate:
    """A rate with a short burst."""

    __slots__ = ("_at", "_behind_until", "_burst", "_rate", "_tokens")

    def __init__(self, per_second: float, now: float) -> None:
        """per_second: 0 for no limit."""
        self._rate = per_second
        self._burst = self._tokens = max(1.0, per_second * _BURST_S)
        self._at = now
        self._behind_until = now

    def behind(self, now: float) -> bool:
        """Whether it has held back any in the last second."""
        return now < self._behind_until

    def allowed(self, now: float) -> int:
        """How many connections may be accepted now."""
        if not self._rate:
            return NO_LIMIT
        self._tokens = min(self._burst, self._tokens + self._rate * (now - self._at))
        self._at = now
        return int(self._tokens)

    def spend(self, count: int) -> bool:
        """So many have been accepted, of those that were just allowed. Returns: whether more may be, at once."""
        if not self._rate:
            return True
        self._tokens -= count
        if self._tokens >= 1:
            return True
        self._behind_until = self._at + _BEHIND_S
        return False

    def within(self, seconds: float) -> int:
        """How many it allows in that time."""
        return int(min(NO_LIMIT, self._rate * seconds)) if self._rate else NO_LIMIT
