"""What workers are asked about their connections, for users of the admin port. Pure.

A worker that speaks an older version of the link is not asked, and one that does not answer in time is not waited for:
the answer says that it is not complete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from router.common import messages as m
from router.core.address_map import Lease
from router.core.sessions import Sessions, WorkerSession

MOST: Final = 64
"""Questions that may be open at a time."""

Found = Callable[[list[tuple[WorkerSession, m.Inspection]], bool], None]
"""Called once: connections, each with the session of its worker, and whether these are all."""


class _Open:
    __slots__ = ("complete", "deadline", "done", "found", "limit", "waiting")

    def __init__(self, waiting: set[Lease], complete: bool, limit: int, deadline: float, done: Found) -> None:
        self.waiting = waiting
        self.complete = complete
        self.limit = limit
        self.deadline = deadline
        self.done = done
        self.found: list[tuple[WorkerSession, m.Inspection]] = []


class Inspections:
    """The questions that are open. Numbers begin at `first`, so that no answer to another router's is taken for one."""

    def __init__(
        self, sessions: Sessions, first: int, timeout: float, search_timeout: float, monotonic: Callable[[], float]
    ) -> None:
        """Seconds that the answer about a device, and a search, may take."""
        self._sessions = sessions
        self._number = first
        self._timeout = timeout
        self._search_timeout = search_timeout
        self._monotonic = monotonic
        self._open: dict[int, _Open] = {}

    def __len__(self) -> int:
        return len(self._open)

    def device(self, session: WorkerSession, device: bytes, done: Found) -> None:
        """Ask the worker of this session about a device. What it had sent before it took this has been handled when
        `done` is called."""
        self._ask([session], device, "", 1, done)

    def address(self, sessions: Iterable[WorkerSession], address: str, limit: int, done: Found) -> None:
        """Ask these about the devices whose client has this address: `limit` of them at most."""
        self._ask(sessions, b"", address, limit, done)

    def _ask(self, sessions: Iterable[WorkerSession], device: bytes, address: str, limit: int, done: Found) -> None:
        asked = list(sessions)
        able = [session for session in asked if session.wire.version >= m.INSPECTED and session.lease.alive]
        if not able or len(self._open) >= MOST:
            done([], not asked)
            return
        self._number += 1
        waiting = {session.lease for session in able}
        complete = len(able) == len(asked)
        deadline = self._monotonic() + (self._timeout if device else self._search_timeout)
        self._open[self._number] = _Open(waiting, complete, limit, deadline, done)
        for session in able:
            session.offer(m.Inspect(self._number, device, address, limit))

    def received(self, session: WorkerSession, message: m.Inspected, number: None = None) -> None:
        """INSPECTED has come."""
        one = self._open.get(message.number)
        if one is None or session.lease not in one.waiting:  # too late, or repeated
            return
        one.waiting.discard(session.lease)
        room = one.limit - len(one.found)
        one.found += [(session, inspection) for inspection in message.found[:room]]
        one.complete = one.complete and not message.more and len(message.found) <= room
        if not one.waiting:
            self._end(message.number, one)

    def tick(self) -> None:
        """To be called a few times a second."""
        now = self._monotonic()
        for number, one in list(self._open.items()):
            alive = {lease for lease in one.waiting if lease.alive}
            if alive != one.waiting:
                one.complete, one.waiting = False, alive
            if not alive or one.deadline <= now:
                one.complete = False
                self._end(number, one)

    def _end(self, number: int, one: _Open) -> None:
        del self._open[number]
        one.done(one.found, one.complete)
