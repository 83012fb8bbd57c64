"""Requests of many parts, such as batches of pushes: so many parts in each turn and in work for all connections
together, and of both a fair share for each connection. Part of the router's pure core.

Parts that are being handled wait for the store, and later ones wait behind them. So there is one limit for all: with a
limit for each connection, eight of them would make every request wait eight times as long. A connection may begin a
part while it has fewer in work than are still free. So one alone gets half of all, two get a third each, and there is
always room for another, even if the parts of some wait for a device that does not answer.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from router.common import logs
from router.http.message import PendingResponse
from router.http.turns import Turns

_AT_ONCE: Final = 8
"""Parts of one connection that are begun before the next connection has its turn."""

Begin = Callable[[int], None]
"""Begins the part with this index."""


class _Connection:
    """The requests of one connection, in order; the parts of the first are begun first."""

    __slots__ = ("in_work", "requests")

    def __init__(self) -> None:
        self.requests: deque[tuple[Begin, int, int]] = deque()  # begin, the next part, number of parts
        self.in_work = 0


def one_a_turn(
    parts: Parts, pending: PendingResponse | None, make: Callable[[], None], failed: Callable[[], None]
) -> None:
    """Have something made that takes long and may be large, such as a page about everything, when the connection of
    this answer has its turn, and has room for it.

    failed: answers if `make` raises.
    """
    connection = None if pending is None else pending.connection

    def begin(_: int) -> None:
        try:
            if pending is None or not pending.connection.defer(pending, again):
                make()
        except Exception:  # a defect, which the queue logs
            failed()
            raise
        finally:
            decided()

    def again() -> None:
        one_a_turn(parts, pending, make, failed)

    decided = parts.add(connection, begin, 1)


class Parts:
    """The queue of all parts that are not begun yet.

    a_turn: parts that are begun in one turn. most: parts that are in work at once.
    """

    def __init__(self, turns: Turns, a_turn: int, most: int) -> None:
        self._turns = turns
        self._a_turn = a_turn
        self._most = most
        self._in_work = 0
        self._connections: dict[object, _Connection] = {}
        self._ready: deque[_Connection] = deque()
        self._blocked: list[_Connection] = []  # those that have their share in work
        self._freed = False  # parts were decided since the blocked ones were looked at
        self._queued = False  # for a turn, or having it

    def add(self, connection: object, begin: Begin, count: int) -> Callable[[], None]:
        """Have `begin` called with each of `range(count)`, in order.

        Returns: what is to be called each time that one of these parts has been decided.
        """
        found = self._connections.get(connection)
        if found is None:
            found = self._connections[connection] = _Connection()
        if not found.requests:
            self._ready.append(found)
        scope = self._turns.scope
        found.requests.append((begin if scope is None else scope.kept(begin), 0, count))
        self._have_turn()
        return lambda: self._decided(connection, found)

    def _have_turn(self) -> None:
        if not self._queued:
            self._queued = True
            self._turns.add(self._turn)

    def _decided(self, key: object, connection: _Connection) -> None:
        self._in_work -= 1
        connection.in_work -= 1
        if not connection.in_work and not connection.requests:
            self._connections.pop(key, None)
        self._freed = True
        if self._ready or self._blocked:
            self._have_turn()

    def _turn(self) -> bool:
        ready, blocked = self._ready, self._blocked
        if self._freed:
            self._freed = False
            ready.extend(blocked)
            blocked.clear()
        left = self._a_turn
        while ready and left and (free := self._most - self._in_work) > 0:
            connection = ready.popleft()
            share = (free - connection.in_work + 1) // 2
            if share <= 0:
                blocked.append(connection)
                continue
            left -= self._some(connection, min(share, left, _AT_ONCE))
            if connection.requests:
                ready.append(connection)
        self._queued = bool(ready or blocked) and (self._freed or (bool(ready) and self._in_work < self._most))
        return self._queued

    def _some(self, connection: _Connection, most: int) -> int:
        """Begin parts of the connection's first request. Returns: how many."""
        begin, index, count = connection.requests[0]
        last = min(index + most, count)
        if last < count:
            connection.requests[0] = (begin, last, count)
        else:
            connection.requests.popleft()
        self._in_work += last - index
        connection.in_work += last - index
        for part in range(index, last):
            try:
                begin(part)
            except Exception as error:  # a defect of one part must not end the turn of all
                logs.limited("part.failed", at="error", per=repr(error), exc=error)
        return last - index
