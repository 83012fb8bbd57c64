"""Numbers of subscribers that are right at the moment: workers are asked for what they have not sent yet. Pure.

A worker sends once a second how many subscribers its channels have, so that a storm of them costs few messages. A
connection that knows that it is subscribed must be counted all the same when an app server asks: then the workers
are asked first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from router.common import messages as m
from router.core.address_map import Lease
from router.core.channels import Offer


class _Open:
    """One question: the leases that have not answered it, the deadline, and what is called then."""

    __slots__ = ("deadline", "done", "waiting")

    def __init__(self, waiting: set[Lease], deadline: float, done: Callable[[], None]) -> None:
        self.waiting = waiting
        self.deadline = deadline
        self.done = done


class Recount:
    """The questions that are open. Numbers begin at `first`, so that no answer to another router's is taken for one."""

    def __init__(self, offer: Offer, first: int, limit: int, timeout: float, monotonic: Callable[[], float]) -> None:
        self._offer = offer
        self._number = first
        self._limit = limit
        self._timeout = timeout
        self._monotonic = monotonic
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def ask(self, leases: Iterable[Lease], done: Callable[[], None]) -> None:
        """Call `done` once these have sent what they have. What is late, lost or too much is not waited for."""
        waiting = {lease for lease in leases if lease.alive}
        if not waiting or len(self._open) >= self._limit:
            done()
            return
        self._number += 1
        self._open[self._number] = _Open(waiting, self._monotonic() + self._timeout, done)
        for lease in list(waiting):
            self._offer(lease, m.SendCounts(self._number))

    def sent(self, number: int, lease: Lease) -> None:
        """The lease has sent its counts before this."""
        found = self._open.get(number)
        if found is not None:
            found.waiting.discard(lease)
            if not found.waiting:
                del self._open[number]
                found.done()

    def tick(self) -> None:
        """To be called a few times a second."""
        now = self._monotonic()
        for number, found in list(self._open.items()):
            if found.deadline <= now or not any(lease.alive for lease in found.waiting):
                del self._open[number]
                found.done()
