"""What the application's main server is asked about connections, and what follows from its answers. Pure.

A connection is asked about before its dialect sees the request (`farm.worker.admission`). It has an entry here only if
its grant expires, or its dialect asks about messages too: all others cost nothing. A grant that expires is renewed
shortly before, beside whatever the session does; the connection is not held up by that.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any, Final, NamedTuple

import msgspec

from farm.dialects import Authorise, Dialect
from farm.transports.request import OPTIONS, Denied, Grant, Refusal, Request, Response, check_own_page
from farm.transports.retry import spread
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from router.common import messages as m
from router.common.auth_settings import AuthOptions
from router.common.close_codes import TRY_LATER
from router.common.metrics import WorkerCounters
from router.common.numbers import router_of
from router.common.refusals import NOT_ANSWERED, NOT_ASKED, UNUSABLE
from router.common.wire import reply_payload

_EARLY: Final = 0.1
"""A grant is renewed in the last part of its time, so long a part at most; those that were given at once are then asked
about one after another."""
_AGAIN_S: Final = 5.0
"""From a renewal that failed to the next, about."""
_TRIES: Final = 4
"""So many renewals at least are tried before a connection is closed because nothing was decided."""
_UNKNOWN: Final = "the main server cannot be asked whether this is still allowed"
_FEW: Final = 64
"""So many timers that do not count are left where they are."""


class Ending(NamedTuple):
    """A connection that is to be closed."""

    connection: Connection
    code: int
    reason: str


class _Kept:
    """What is kept of a connection."""

    __slots__ = ("deadline", "dialect", "named", "number", "question", "timer")

    def __init__(self, dialect: Dialect, question: m.Authorise, named: tuple[str, ...] | None) -> None:
        self.dialect = dialect
        self.question = question
        self.named = named
        """The channels that it has; None: all that it asked for."""
        self.deadline = 0.0
        """When it is closed, if its grant was not renewed by then."""
        self.timer = 0
        """The one that counts; 0: none."""
        self.number = 0
        """Of the call that renews it, if one is open."""


class Grants:
    """All of a worker."""

    def __init__(
        self,
        names: Mapping[Dialect, str],
        options: AuthOptions,
        origins: bool,
        retry_after: int,
        counters: WorkerCounters,
        clock: Clock,
        send: Callable[[Any], None],
        number: Callable[[m.Authorise], int],
    ) -> None:
        """names: those dialects about whose clients the main server is asked, and how it knows them. origins: whether
        only pages of some may connect. send: sends a router a message. number: gives one for the call that asks this,
        which no other has had."""
        self._names = names
        self.asks = bool(names)
        """Whether it is asked about any connection."""
        self._options = options
        self._headers = tuple(name.encode() for name in options.headers)
        self._origins = origins
        self._retry_after = retry_after
        self._counters = counters
        self._clock = clock
        self._send = send
        self._number = number
        self.kept: dict[Connection, _Kept] = {}
        """Connections with an entry."""
        self._timers: list[tuple[float, int]] = []  # a heap: when, and the timer's number
        self._armed: dict[int, Connection] = {}  # of the timers that count
        self._last_timer = 0
        self._renewals: dict[int, Connection] = {}

    # ------------------------------------------------------------------ the request

    def question(self, dialect: Dialect, request: Request, for_scripts: bool = False) -> m.Authorise | None:
        """What is to be asked before the dialect sees this request; None: nothing. for_scripts: as its transport says.
        Raises: Refusal.

        OPTIONS is what a browser sends before another page's request, without cookies; it begins nothing.
        """
        name = self._names.get(dialect)
        if name is None or request.method == OPTIONS:
            return None
        if not self._origins:
            check_own_page(request, for_scripts)
        found = request.headers
        headers = [(header, found[header]) for header in self._headers if header in found]
        uri = request.path
        if query := _without(request.query, dialect.ignored_arguments):
            uri += f"?{query}"
        method = request.method.decode("ascii")
        return m.Authorise(name, m.CONNECT, method, uri, headers, request.address, list(dialect.wanted(request)))

    def grant(self, dialect: Dialect, status: int, verdict: m.Verdict | None) -> Grant:
        """What the router's reply grants. Raises: Refusal."""
        if status != m.OK or verdict is None:
            raise Refusal.of(NOT_ASKED, Retry_After=spread(self._retry_after))
        if verdict.undecided:
            text = verdict.body.decode()
            if verdict.status == NOT_ASKED.status:
                raise Refusal.of(NOT_ASKED, text, Retry_After=spread(self._retry_after))
            if verdict.status == NOT_ANSWERED.status:
                raise Refusal.of(NOT_ANSWERED, text)
            raise Refusal.of(UNUSABLE, text)
        if not verdict.allowed:
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in verdict.headers)
            kind = verdict.content_type or "text/plain; charset=utf-8"
            raise Denied(Response(verdict.status, verdict.body, headers, kind))
        return Grant(dialect.granted(verdict), verdict.user, verdict.data, verdict.expires)

    def begin(self, connection: Connection, dialect: Dialect, request: Request) -> None:
        """The connection of a request with a grant is open."""
        grant = request.grant
        assert grant is not None
        if not grant.expires and not dialect.asks_of_messages:
            return
        question = self.question(dialect, request)
        assert question is not None
        question.action = m.REFRESH
        question.user, question.data = grant.user, grant.data
        kept = self.kept[connection] = _Kept(dialect, question, grant.channels)
        self._expires(connection, kept, grant.expires)

    def forget(self, connection: Connection) -> None:
        """The connection's session has ended."""
        kept = self.kept.pop(connection, None)
        if kept is not None:
            if self._renewals.pop(kept.number, None) is not None:
                self._send(m.Withdraw(kept.number))
            self._disarm(kept)

    # ------------------------------------------------------------------ messages

    def of_message(self, connection: Connection, asked: Authorise) -> m.Authorise:
        """What is asked about a message of this connection. Raises: KeyError if the dialect may not ask."""
        question = self.kept[connection].question
        channels = question.channels if asked.channels is None else list(asked.channels)
        return msgspec.structs.replace(question, action=m.PUBLISH, channels=channels, message=asked.message)

    # ------------------------------------------------------------------ grants that expire

    def _expires(self, connection: Connection, kept: _Kept, seconds: int) -> None:
        """It is granted for so long; 0: without end."""
        if not seconds:
            self._disarm(kept)
            return
        until = self._clock.now + seconds
        kept.deadline = until + self._options.grace
        self._arm(connection, kept, until - seconds * _EARLY * random.random())

    def _arm(self, connection: Connection, kept: _Kept, when: float) -> None:
        self._disarm(kept)
        self._last_timer += 1
        kept.timer = self._last_timer
        self._armed[kept.timer] = connection
        heappush(self._timers, (when, kept.timer))

    def _disarm(self, kept: _Kept) -> None:
        if kept.timer:
            del self._armed[kept.timer]
            kept.timer = 0
            if len(self._timers) > 2 * len(self._armed) + _FEW:
                self._timers = [timer for timer in self._timers if timer[1] in self._armed]
                heapify(self._timers)

    def tick(self, now: float) -> Iterator[Ending]:
        """To be called several times a second: renew what is due. Gives those whose time is over."""
        while self._timers and self._timers[0][0] <= now:
            _, timer = heappop(self._timers)
            connection = self._armed.get(timer)
            if connection is None:
                continue
            kept = self.kept[connection]
            if now >= kept.deadline:
                self._disarm(kept)
                yield self._ended(connection, TRY_LATER, _UNKNOWN)
                continue
            self._arm(connection, kept, kept.deadline)
            if not kept.number:
                kept.number = self._number(kept.question)
                self._renewals[kept.number] = connection
                self._counters.grants_renewed += 1
                self._send(m.Call(kept.number, kept.question))

    def replied(self, number: int, status: int, payload: Any) -> Ending | None:
        """A reply has come to a call that may be of the grants. Returns: what is to be closed now."""
        connection = self._renewals.pop(number, None)
        if connection is None:
            return None
        kept = self.kept[connection]
        kept.number = 0
        verdict: m.Verdict | None = reply_payload(m.Authorise, payload) if status == m.OK else None
        if verdict is None or verdict.undecided:
            pause = min(_AGAIN_S, self._options.grace / _TRIES)
            again = self._clock.now + pause * (0.5 + random.random())
            self._arm(connection, kept, min(again, kept.deadline))
            return None
        session = connection.session
        assert session is not None
        if not verdict.allowed:
            return self._ended(connection, *session.denied)
        named = kept.dialect.granted(verdict)
        if named is not None and not {*(kept.question.channels if kept.named is None else kept.named)} <= {*named}:
            return self._ended(connection, session.farewell[0], "other channels are granted now: connect again")
        kept.named = named
        kept.question.user, kept.question.data = verdict.user, verdict.data
        self._expires(connection, kept, verdict.expires)
        return None

    def _ended(self, connection: Connection, code: int, reason: str) -> Ending:
        self._counters.grants_ended += 1
        return Ending(connection, code, reason)

    def again(self, router: int) -> None:
        """The link is new, and the router may be: it does not keep what it was asked."""
        for number, connection in self._renewals.items():
            if router_of(number) == router:
                self._send(m.Call(number, self.kept[connection].question))


def _without(query: str, arguments: frozenset[str]) -> str:
    if not arguments or not query:
        return query
    return "&".join(part for part in query.split("&") if part.partition("=")[0] not in arguments)
