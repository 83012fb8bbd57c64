"""Until when nobody else may have what a router owns by a lease: the clockwork of it. Pure.

The store's server counts a lease from the moment at which it handles a renewal, the owner from the moment before it
sends it, and by a clock that goes on while the machine sleeps. So the owner's end comes first, by a margin for what the
two clocks differ in speed. A renewal that was not confirmed moves nothing: whether it arrived is not known.

Leases end by the server's clock, and what clients see as time is this machine's. Where the two are more than
`MAX_OFFSET_S` apart, one of them is wrong.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from math import inf
from typing import Final

MARGIN: Final = 0.1
"""Of the lease: so much earlier it ends here."""
MAX_OFFSET_S: Final = 1.0
"""So much the clock of a server of the store may differ from this machine's."""


boottime: Final = partial(time.clock_gettime, time.CLOCK_BOOTTIME)
"""Seconds, by a clock that nobody sets and that counts while the machine sleeps."""


def apart(there: float, before: float, after: float) -> float:
    """By how much a clock is ahead of ours at least, if it showed `there` at a moment between `before` and `after`."""
    return max(0.0, there - after) or min(0.0, there - before)


class Lease:
    """One router's. seconds: how long it lasts. shared: whether other routers take over what it has left."""

    def __init__(self, seconds: float, shared: bool) -> None:
        self.seconds = seconds * (1 - MARGIN)
        self.shared = shared
        self._confirmed = -inf  # its end, as far as renewals say
        self._lost = False
        self.lag = 0.0
        """How many seconds the last renewal took that was answered."""
        self.offsets: dict[str, float] = {}
        """Of the servers that were asked last: by how many seconds each clock is ahead of ours, at least."""
        self.until = -inf if shared else inf
        """The moment, by `boottime`, from which on another router may own it. Where there is no other one, that is
        never, unless one has it all the same."""

    def confirmed(self, sent_at: float) -> None:
        """A renewal, or what acquired it, that was sent then by `boottime` has succeeded on enough servers."""
        self._confirmed = max(self._confirmed, sent_at + self.seconds)
        self._changed()

    def lose(self) -> None:
        """Another router owns it, or a part of it."""
        self._lost = True
        self._changed()

    def compared(self, offsets: Mapping[str, float]) -> dict[str, float]:
        """Take what the clocks of the servers are ahead of ours. Returns: those that are too far away."""
        self.offsets = dict(offsets)
        self._changed()
        return {name: offset for name, offset in self.offsets.items() if abs(offset) > MAX_OFFSET_S}

    @property
    def clock_is_off(self) -> bool:
        """Whether this machine's clock, or a server's, is wrong."""
        return any(abs(offset) > MAX_OFFSET_S for offset in self.offsets.values())

    def _changed(self) -> None:
        if self._lost or (self.shared and self.clock_is_off):
            self.until = -inf
        elif self.shared:
            self.until = self._confirmed
