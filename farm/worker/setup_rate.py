"""How many connections a worker may accept now: a token bucket. Pure."""

from __future__ import annotations

import sys
from typing import Final

_BURST_S: Final = 0.1
"""What may be accepted at once after a quiet time, in seconds of the rate: connected devices wait for no more."""
NO_LIMIT: Final = sys.maxsize


class SetupRate:
    """A rate with a short burst. It is `behind` from the moment when more have come than it allows, until for as long
    as a burst fewer have."""

    __slots__ = ("_at", "_burst", "_rate", "_tokens", "behind")

    def __init__(self, per_second: float, now: float) -> None:
        """per_second: 0 for no limit."""
        self._rate = per_second
        self._burst = self._tokens = max(1.0, per_second * _BURST_S)
        self._at = now
        self.behind = False

    def allowed(self, now: float) -> int:
        """How many connections may be accepted now."""
        if not self._rate:
            return NO_LIMIT
        self._tokens = min(self._burst, self._tokens + self._rate * (now - self._at))
        self._at = now
        if self._tokens == self._burst:
            self.behind = False
        return int(self._tokens)

    def spend(self, count: int) -> bool:
        """So many have been accepted, of those that were allowed. Returns: whether more may be, without waiting."""
        if not self._rate:
            return True
        self._tokens -= count
        if self._tokens >= 1:
            return True
        self.behind = True
        return False

    def within(self, seconds: float) -> int:
        """How many it allows in that time."""
        return int(min(NO_LIMIT, self._rate * seconds)) if self._rate else NO_LIMIT
