"""Whether this router knows what all workers hold. Pure.

A router that is new knows nothing. What is published then, or asked about subscribers and members, waits until every
worker that is expected has announced what it holds, or until the time is up: else an event would miss subscribers that
have not been announced yet, and a listing would lack them. What goes to a single device need not wait: it is stored,
and the inbox is read when the device is announced.

When all is known, what waits is done in parts: what comes of one is sent before the next, since all of it at once may
be more than the queues of the workers have room for. What comes meanwhile waits behind it.

When it is over, nothing is left of it: who had things wait is called once (`when_over`), and has nothing to ask any
more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from router.common import logs
from router.common.guard import guarded
from router.common.metrics import RouterCounters
from router.common.settings import LinkOptions
from router.core.sessions import Sessions

_PART: Final = 2000
"""Of what waits, in one turn."""


class _Waiting(NamedTuple):
    """What is to be done when it is over, and what instead if that is not before the deadline."""

    deadline: float
    do: Callable[[], None]
    give_up: Callable[[], None]
    size: int


class Settling:
    """What waits, and for whom. timeout: s that something may wait.

    workers: how many are expected of this host, None: it is not known, so the time alone decides; 0: nobody is waited
    for.
    """

    def __init__(
        self,
        sessions: Sessions,
        workers: int | None,
        options: LinkOptions,
        timeout: float,
        counters: RouterCounters,
        monotonic: Callable[[], float],
    ) -> None:
        self.over = workers == 0
        """Whether everything is known, as far as it ever will be, and nothing waits."""
        self._releasing = False  # everything is known
        self._sessions = sessions
        self._expected: Mapping[str, int] | None = None if workers is None else {"": workers}
        self._options = options
        self._timeout = timeout
        self._counters = counters
        self._monotonic = monotonic
        self._until: float | None = None
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0  # of those
        self._then: list[Callable[[], None]] = []

    def when_over(self, then: Callable[[], None]) -> None:
        """Call this as soon as it is over. Not to be called afterwards."""
        self._then.append(then)

    def wait(self, do: Callable[[], None], give_up: Callable[[], None], size: int) -> None:
        """Do this when it is over, in order; instead `give_up`, if it takes too long or too much waits already. size:
        bytes of what is to be done."""
        waiting, options = self._waiting, self._options
        if waiting and (len(waiting) >= options.max_forwarded or self._bytes + size > options.max_forwarded_bytes):
            give_up()
            return
        self._bytes += size
        waiting.append(_Waiting(self._monotonic() + self._timeout, do, give_up, size))
        self._counters.operations_held = len(self._waiting)

    def expect(self, workers: Mapping[str, int]) -> None:
        """Of a cluster: so many workers of each host, by its ID, are waited for. None of a host that is not there any
        more; without a host it is not known."""
        self._expected = workers or None
        self.look()

    def look(self) -> None:
        """To be called when a worker has announced what it holds."""
        if not self.over and not self._releasing and not self._missing():
            self._release()

    def tick(self, heard_until: float) -> None:
        """To be called a few times a second. heard_until: when all that workers had sent had been received."""
        if self.over:
            return
        if self._releasing:
            self._release()
            return
        if self._until is None:  # now they can be heard
            self._until = self._monotonic() + self._options.lease
        missing = self._missing()
        if not missing or heard_until >= self._until:
            if missing and self._expected is not None:
                logs.warning("router.not_announced", workers=missing, after_s=self._options.lease)
            self._release()
            return
        now = self._monotonic()
        while self._waiting and self._waiting[0].deadline <= now:
            guarded("router.held_failed", self._next().give_up)
        self._counters.operations_held = len(self._waiting)

    def _missing(self) -> int:
        """How many workers have not announced what they hold."""
        found: set[tuple[str, int]] = set()
        silent = 0
        for session in self._sessions:
            if session.announced:
                found.add((session.host, session.lease.shard))
            else:
                silent += 1
        if self._expected is None:
            return max(1, silent)
        there = [host for host, _ in found]
        return max(silent, sum(max(0, number - there.count(host)) for host, number in self._expected.items()))

    def _release(self) -> None:
        """All that can be known is known: do the next part of what waits."""
        self._releasing = True
        waiting = self._waiting
        for _ in range(min(len(waiting), _PART)):
            guarded("router.held_failed", self._next().do)
            if self._sessions.pressing:
                break
        self._counters.operations_held = len(waiting)
        if waiting:
            return
        self.over = True
        for then in self._then:
            then()
        self._then = []

    def _next(self) -> _Waiting:
        one = self._waiting.popleft()
        self._bytes -= one.size
        return one
