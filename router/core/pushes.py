"""Pushes in work: what is still unknown of each, and of which of them a worker has to report. Pure.

A push is answered once two things are known: whether it is durable, and what became of its delivery. The second is
known when the worker reports it, when its lease ends, or when it has not reported in time. A result counts only from
the lease that the delivery was sent to, and the numbers of one router are never those of another: a worker repeats what
was not confirmed to the next router, and a result among it must not be taken for that of another push.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from router.common import logs
from router.common import messages as m
from router.common.metrics import RouterCounters
from router.common.numbers import first_number
from router.core.address_map import Lease

DELIVERED: Final = 0
"""Outcome of a push: durable, and the frame is with the device's socket."""
STORED: Final = 1
"""Outcome of a push: durable; it waits for the device. (With a TTL of 0: it has been sent or it has not.)"""
REFUSED_FULL: Final = 2
"""Outcome of a push: the device's inbox has no room."""
REFUSED_FAILED: Final = 3
"""Outcome of a push: the store could not keep it, or too much waits for it."""
REFUSED_OVER: Final = 4
"""Outcome of a push: as much is stored as `store.max_bytes` allows."""
REFUSED_OFTEN: Final = 5
"""Outcome of a push: more than `limits.pushes_per_endpoint`. It has not come to the store."""

PushDone = Callable[[int], None]

PENDING: Final = -1


class Push:
    """A push in work. Number 0: its result is not waited for."""

    __slots__ = ("_pushes", "body", "done", "durable", "lease", "number", "result", "since", "slot", "version")

    def __init__(
        self, pushes: Pushes, number: int, slot: str, version: int, body: str | None, done: PushDone, since: float
    ) -> None:
        """since: when it came, by the clock of its `Pushes`."""
        self._pushes = pushes
        self.since = since
        self.number = number
        self.slot = slot
        self.version = version
        self.body = body
        self.done = done
        self.durable = PENDING
        self.result = PENDING
        self.lease: Lease | None = None  # to which it was sent

    def committed(self, status: int) -> None:
        """The store has kept it, or has not."""
        self.durable = status
        if self.result != PENDING:
            self._finish()
        elif status != m.OK:
            # It may have reached the device, but it is not kept: the app server has to try again.
            self._pushes.forget(self.number)
            self.result = m.NOT_HERE
            self._finish()

    def resulted(self, outcome: int) -> None:
        """It is known what became of its delivery."""
        if self.result != PENDING:
            return  # it was given up before: refused, or answered as stored
        self.result = outcome
        if self.durable != PENDING:
            self._finish()

    def _finish(self) -> None:
        counters = self._pushes.counters
        if self.durable == m.OK:
            if self.result == m.WRITTEN:
                counters.pushes_delivered += 1
                counters.push_delivered_seconds.observe(self._pushes.monotonic() - self.since)
                outcome = DELIVERED
            else:
                counters.pushes_stored += 1
                counters.push_stored_seconds.observe(self._pushes.monotonic() - self.since)
                outcome = STORED
        else:
            counters.pushes_refused += 1
            outcome = REFUSED_FULL if self.durable == m.FULL else REFUSED_FAILED
        try:
            self.done(outcome)
        except Exception as error:  # one request's defect: the others of this turn have theirs
            logs.limited("push.answer_failed", at="error", per=repr(error), exc=error)


class Pushes:
    """Those whose result is waited for, by number.

    timeout: s after which a push is answered without a result. most: results that may be waited for at once.
    monotonic: a clock in s, by which it is told how long they took. router: its number among the farm's routers.
    """

    def __init__(
        self,
        counters: RouterCounters,
        incarnation: bytes,
        timeout: float,
        most: int,
        monotonic: Callable[[], float],
        router: int = 0,
    ) -> None:
        self.counters = counters
        self.monotonic = monotonic
        self._timeout = timeout
        self._most = most
        self._waiting: dict[int, Push] = {}
        self._deadlines: deque[tuple[float, int]] = deque()
        self._number = first_number(router, incarnation)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether so many results are waited for that the next push is not to wait for its own."""
        return len(self._waiting) >= self._most

    def number(self) -> int:
        """A number for the next push."""
        self._number += 1
        return self._number

    def wait(self, push: Push, now: float) -> None:
        """Wait for its result from now on."""
        self._waiting[push.number] = push
        self._deadlines.append((now + self._timeout, push.number))

    def forget(self, number: int) -> None:
        """No result of this push is waited for any more."""
        self._waiting.pop(number, None)

    def received(self, number: int, outcome: int, lease: Lease) -> None:
        """A worker has reported what became of a delivery."""
        push = self._waiting.get(number)
        if push is not None and push.lease is lease:
            del self._waiting[number]
            push.resulted(m.WRITTEN if outcome == m.WRITTEN else m.NOT_HERE)

    def lost(self, lease: Lease) -> None:
        """The lease has ended: whatever it reports of deliveries from here on does not count."""
        for push in [push for push in self._waiting.values() if push.lease is lease]:
            self.forget(push.number)
            push.resulted(m.NOT_HERE)

    def tick(self, now: float) -> None:
        """Answer those whose deadline has passed."""
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            push = self._waiting.pop(deadlines.popleft()[1], None)
            if push is not None:
                self.counters.deliveries_late += 1
                push.resulted(m.NOT_HERE)
