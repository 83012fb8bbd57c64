"""Nothing leaves a router that another one may have taken the place of: the lease is looked at before anything does.

While the gate is shut, what workers and other routers send is received, and what is for them is kept; app servers are
answered 503. The router then either finds that nobody has taken its partitions, and goes on with all that it holds,
or that somebody has, and ends.
"""

from __future__ import annotations

from collections.abc import Callable

from router.common import health, logs
from router.store.lease import Lease, boottime


class Gate:
    """What of the router is not to leave at a moment. clock: as the lease has it."""

    __slots__ = ("_clock", "_lease", "_shut_at", "shut")

    def __init__(self, lease: Lease, clock: Callable[[], float] = boottime) -> None:
        self._lease = lease
        self._clock = clock
        self.shut = True
        """Whether it was when it was looked at last."""
        self._shut_at: float | None = None

    def look(self) -> bool:
        """Whether nothing may leave now."""
        if self._clock() < self._lease.until:
            if self.shut:
                self._open()
            return False
        if not self.shut:
            self.shut = True
            self._shut_at = self._clock()
            logs.warning("lease.over", why=self.why)
        return True

    def _open(self) -> None:
        self.shut = False
        if self._shut_at is not None:
            logs.event("lease.renewed", seconds=round(self._clock() - self._shut_at, 3))

    @property
    def why(self) -> str:
        """Why it is shut, as a health page has it; "" if it is not."""
        if not self.shut:
            return ""
        return health.CLOCK_OFF if self._lease.clock_is_off else health.NOT_OWNED

    @property
    def for_long(self) -> bool:
        """Whether it is shut, and has been for another lease: others serve by now, if any can."""
        return self.shut and self._clock() >= self._lease.until + self._lease.seconds

    def state(self) -> dict[str, float]:
        """For the router's row in the status: how long its last renewal took, by how much the clock of a server of the
        store is ahead of ours, of the one where it is most; and where other routers take over, what is left of it."""
        lease = self._lease
        offset: float = max((0.0, *lease.offsets.values()), key=abs)
        found = {"renewal_seconds": round(lease.lag, 4), "clock_offset_seconds": round(offset, 3)}
        if lease.shared:
            found["lease_left_seconds"] = round(max(0.0, lease.until - self._clock()), 2)
        return found
