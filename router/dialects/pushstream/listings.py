"""Statistics of all channels, or of all with a prefix: gathered some at a time, for there may be very many.

Every owner gathers what it has (`_Rows`, `_Sums`), and the router that was asked makes the answer of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Protocol

from router.common import messages as m
from router.common.operation import Operation
from router.core.operations import Done, Perform
from router.dialects.app_server import Context
from router.dialects.pushstream.channels import ALL
from router.dialects.pushstream.formats import ChannelInfo, Head, Summary, WorkerInfo, format_of
from router.dialects.pushstream.operations import UNREAD, List, Sum, Sums, Totals
from router.dialects.pushstream.protocol import FAILED, NOT_READ
from router.dialects.pushstream.requests import Call, channel_path
from router.dialects.pushstream.state import LOOKED_AT, State, state
from router.dialects.pushstream.statistics import TAGS, Sizes, Statistics, statistics
from router.http.parts import Parts
from router.store.base import LogSize


class _Page(Protocol):
    """What grows with each channel."""

    def add(self, name: str, size: LogSize | None) -> None:
        """One more channel, with what its log holds."""

    def reply(self) -> Any:
        """All of them."""


class _Rows:
    """The numbers of each channel."""

    def __init__(self, statistics_: Statistics) -> None:
        self._statistics = statistics_
        self._rows: list[ChannelInfo] = []

    def add(self, name: str, size: LogSize | None) -> None:
        self._rows.append(self._statistics.info_of(name, size))

    def reply(self) -> list[ChannelInfo]:
        return self._rows


class _Sums:
    """Sums, and the subscribers of each worker."""

    def __init__(self, state_: State) -> None:
        self._state: Final = state_
        self._stored = 0
        self._by_shard: dict[int, int] = {}

    def add(self, name: str, size: LogSize | None) -> None:
        self._stored += 0 if size is None else size.number
        channel = self._state.core.channels.get(self._state.key(name))
        for lease, subscribers in () if channel is None else channel.counts():
            self._by_shard[lease.shard] = self._by_shard.get(lease.shard, 0) + subscribers

    def reply(self) -> Sums:
        return Sums(self._state.total_published, self._stored, self._by_shard)


class Listings:
    """`GET /channels-stats`. One answer about all channels is made at a time, and one gathering for other routers."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._state = context.shared(state)
        self._statistics = context.shared(statistics)
        self._operations = context.core.operations
        self._turns = context.turns
        self._requests = Parts(context.turns, 1, 1)
        self._gatherings = Parts(context.turns, 1, 1)

    def performers(self) -> dict[type[Operation], Perform]:
        """By operation."""
        return {List: self._list, Sum: self._sum, Totals: self._statistics.totals}

    # ------------------------------------------------------------------ requests

    def get(self, call: Call) -> None:
        """Of the channels that are named, or of all."""
        path = channel_path(call.request)
        if not path:
            self._begin(call, lambda decided: self._summary(call, decided))
        elif path == ALL or (path.endswith("*") and "/" not in path):
            prefix = "" if path == ALL else path[:-1]
            self._begin(call, lambda decided: self._listing(call, prefix, decided))
        else:
            self._statistics.named(call, path)

    def _begin(self, call: Call, make: Callable[[Callable[[], None]], None]) -> None:
        """Make an answer when this connection has its turn and room for it."""
        pending = call.request.pending
        connection = None if pending is None else pending.connection

        def begin(_: int) -> None:
            if pending is not None and pending.connection.defer(pending, again):
                decided()
            else:
                self._guarded(call, decided, lambda: make(decided))

        def again() -> None:
            self._begin(call, make)

        decided = self._requests.add(connection, begin, 1)

    def _guarded(self, call: Call, decided: Callable[[], None], act: Callable[[], None]) -> None:
        """A defect ends this answer, and the next one has its turn."""
        try:
            act()
        except Exception:
            decided()
            call.refuse(FAILED)
            raise

    def _headed(self, call: Call, decided: Callable[[], None], then: Callable[[Head], None]) -> None:
        def known(head: Head | None) -> None:
            if head is None:
                decided()
                call.refuse(NOT_READ)
            else:
                self._guarded(call, decided, lambda: then(head))

        self._statistics.head(known)

    def _summary(self, call: Call, decided: Callable[[], None]) -> None:
        def known(status: int, parts: list[Sums]) -> None:
            if status != m.OK:
                decided()
                call.refuse(NOT_READ)
            else:
                self._headed(call, decided, lambda head: self._answer_summary(call, decided, head, parts))

        self._operations.at_all(Sum(), known)

    def _answer_summary(self, call: Call, decided: Callable[[], None], head: Head, parts: list[Sums]) -> None:
        content_type, form = format_of(call.request.headers.get(b"accept", b""))
        by_shard: dict[int, int] = {}
        for part in parts:
            for shard, subscribers in part.subscribers.items():
                by_shard[shard] = by_shard.get(shard, 0) + subscribers
        workers = [
            WorkerInfo(row["pid"], by_shard.get(row["shard"], 0), int(row.get("running", 0)))
            for row in self._context.status()["workers"]
        ]
        published, stored = sum(part.published for part in parts), sum(part.stored for part in parts)
        summary = Summary(published, stored, sum(by_shard.values()), workers)
        call.answer(form.summary(head, summary).encode(), content_type, *TAGS)
        decided()

    def _listing(self, call: Call, prefix: str, decided: Callable[[], None]) -> None:
        """A row for each channel, in their format some a turn."""
        content_type, form = format_of(call.request.headers.get(b"accept", b""))
        items: list[str] = []
        rows: list[ChannelInfo] = []

        def known(status: int, parts: list[list[ChannelInfo]]) -> None:
            if status != m.OK:
                decided()
                call.refuse(NOT_READ)
                return
            rows.extend(row for part in parts for row in part)
            self._turns.add(go_on)

        def go_on() -> bool:
            self._guarded(call, decided, some)
            return len(items) < len(rows)

        def some() -> None:
            items.extend(map(form.item, rows[len(items) : len(items) + LOOKED_AT]))
            if len(items) == len(rows):
                self._headed(call, decided, answer)

        def answer(head: Head) -> None:
            call.answer(form.group(head, items).encode(), content_type, *TAGS)
            decided()

        self._operations.at_all(List(prefix), known)

    # ------------------------------------------------------------------ at each owner

    def _list(self, key: bytes, asked: List, done: Done) -> None:
        self._begin_gathering(asked.prefix, lambda: _Rows(self._statistics), done)

    def _sum(self, key: bytes, asked: Sum, done: Done) -> None:
        self._begin_gathering("", lambda: _Sums(self._state), done)

    def _begin_gathering(self, prefix: str, page: Callable[[], _Page], done: Done) -> None:
        """When it has its turn; subscribers are counted before."""

        def counted() -> None:
            def begin(_: int) -> None:
                names = [name for name in self._state.all_names() if name.startswith(prefix)]
                self._gather(names, 0, page(), ended)

            def ended(status: int, reply: Any = None) -> None:
                decided()
                done(status, reply)

            decided = self._gatherings.add(None, begin, 1)

        self._state.core.channels.when_counted(None, counted)

    def _gather(self, names: list[str], start: int, page: _Page, ended: Done) -> None:
        """The next channels; what the store holds of them is read in one step."""
        part = names[start : start + LOOKED_AT]
        if not part:
            ended(m.OK, page.reply())
            return
        get = self._state.registry.get
        stored = {name: known.key for name in part if (known := get(name)) is not None and known.stored}

        def read(status: int, sizes: Sizes) -> None:
            if status != m.OK:
                ended(UNREAD)
                return
            try:
                for name in part:
                    key = stored.get(name)
                    page.add(name, None if key is None else sizes.get(key))
            except Exception:
                ended(m.FAILED)
                raise
            self._turns.add(go_on)

        def go_on() -> bool:
            self._gather(names, start + len(part), page, ended)
            return False

        if stored:
            self._state.core.logs.sizes(list(stored.values()), read)
        else:
            read(m.OK, {})
