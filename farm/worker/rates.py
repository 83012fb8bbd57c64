"""The rate of requests of each connection. Pure. Nothing is kept of connections with few of them."""

from __future__ import annotations


class Rates:
    """A rate a connection, with a burst: what is above the rate is a debt, and a second pays off the rate.

    Counted by descriptor and in windows of a second, so that a connection that asks once in a while costs an entry
    of a table that is thrown away with the second.
    """

    def __init__(self, per_second: int, burst_seconds: float) -> None:
        """per_second: 0 for no limit. burst_seconds: what a quiet connection may ask for at once, in seconds of it."""
        self._rate = per_second
        self._burst = per_second * burst_seconds
        self._counts: dict[int, int] = {}  # of this second
        self._debts: dict[int, int] = {}

    def spend(self, fd: int, count: int = 1) -> bool:
        """Count this many requests of a connection. Returns: whether it is within its rate and burst."""
        rate = self._rate
        if not rate:
            return True
        total = self._counts.get(fd, 0) + count
        self._counts[fd] = total
        if total <= rate and not self._debts:
            return True
        debt = self._debts.get(fd, 0)
        if not debt and total <= rate:
            return True
        self._debts[fd] = debt = debt + (count if debt else min(count, total - rate))
        return debt <= self._burst

    def may(self, fd: int) -> bool:
        """Whether the connection is within its rate and burst."""
        return self._debts.get(fd, 0) <= self._burst

    def second(self) -> None:
        """A second is over."""
        if self._counts:
            self._counts = {}
        if self._debts:
            self._debts = {fd: debt - self._rate for fd, debt in self._debts.items() if debt > self._rate}

    def forget(self, fd: int) -> None:
        """The connection is closed, and another may get its descriptor next."""
        self._counts.pop(fd, None)
        self._debts.pop(fd, None)
