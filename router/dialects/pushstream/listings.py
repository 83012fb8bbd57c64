"""Statistics of all channels, or of all with a prefix: gathered some at a time, for there may be very many."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from router.common import messages as m
from router.dialects.app_server import Context
from router.dialects.pushstream.channels import ALL
from router.dialects.pushstream.formats import Summary, WorkerInfo, format_of
from router.dialects.pushstream.protocol import FAILED, NOT_READ
from router.dialects.pushstream.requests import Call, channel_path
from router.dialects.pushstream.state import LOOKED_AT, State, state
from router.dialects.pushstream.statistics import TAGS, Sizes, Statistics, statistics
from router.http.parts import Parts
from router.store.base import LogSize


class _Page(Protocol):
    """An answer that grows."""

    def add(self, name: str, size: LogSize | None) -> None:
        """One more channel, with what its log holds."""

    def finish(self, call: Call) -> None:
        """All are there."""


class _Listing:
    """A row for each channel."""

    def __init__(self, call: Call, statistics_: Statistics) -> None:
        self._statistics = statistics_
        self._content_type, self._format = format_of(call.request.headers.get(b"accept", b""))
        self._items: list[str] = []

    def add(self, name: str, size: LogSize | None) -> None:
        self._items.append(self._format.item(self._statistics.info_of(name, size)))

    def finish(self, call: Call) -> None:
        body = self._format.group(self._statistics.head(), self._items)
        call.answer(body.encode(), self._content_type, *TAGS)


class _Summary:
    """Sums, and the subscribers of each worker."""

    def __init__(self, context: Context, statistics_: Statistics) -> None:
        self._state: Final[State] = context.shared(state)
        self._channels = context.core.channels
        self._status = context.status
        self._statistics = statistics_
        self._stored = 0
        self._by_shard: dict[int, int] = {}

    def add(self, name: str, size: LogSize | None) -> None:
        self._stored += 0 if size is None else size.number
        channel = self._channels.get(self._state.key(name))
        for lease, subscribers in () if channel is None else channel.counts():
            self._by_shard[lease.shard] = self._by_shard.get(lease.shard, 0) + subscribers

    def finish(self, call: Call) -> None:
        content_type, form = format_of(call.request.headers.get(b"accept", b""))
        workers = [
            WorkerInfo(row["pid"], self._by_shard.get(row["shard"], 0), int(row.get("running", 0)))
            for row in self._status()["workers"]
        ]
        summary = Summary(self._state.total_published, self._stored, sum(self._by_shard.values()), workers)
        call.answer(form.summary(self._statistics.head(), summary).encode(), content_type, *TAGS)


class Listings:
    """`GET /channels-stats`. One answer about all channels is made at a time."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._state = context.shared(state)
        self._statistics = context.shared(statistics)
        self._turns = context.turns
        self._parts = Parts(context.turns, 1, 1)

    def get(self, call: Call) -> None:
        """Of the channels that are named, or of all."""
        path = channel_path(call.request)
        if not path:
            self._begin(call, "", lambda: _Summary(self._context, self._statistics))
        elif path == ALL or (path.endswith("*") and "/" not in path):
            prefix = "" if path == ALL else path[:-1]
            self._begin(call, prefix, lambda: _Listing(call, self._statistics))
        else:
            self._statistics.named(call, path)

    def _begin(self, call: Call, prefix: str, page: Callable[[], _Page]) -> None:
        """Make a page when this connection has its turn and room for it; subscribers are counted before."""
        pending = call.request.pending
        connection = None if pending is None else pending.connection

        def begin(decided: Callable[[], None]) -> None:
            if pending is not None and pending.connection.defer(pending, again):
                decided()
            else:
                names = [name for name in self._state.all_names() if name.startswith(prefix)]
                self._guarded(call, decided, lambda: self._gather(call, names, 0, page(), decided))

        def again() -> None:
            self._begin(call, prefix, page)

        def counted() -> None:
            decided = self._parts.add(connection, lambda _: begin(decided), 1)

        self._context.core.channels.when_counted(None, counted)

    def _guarded(self, call: Call, decided: Callable[[], None], act: Callable[[], None]) -> None:
        """A defect ends this answer, and the next one has its turn."""
        try:
            act()
        except Exception:
            decided()
            call.refuse(FAILED)
            raise

    def _gather(self, call: Call, names: list[str], start: int, page: _Page, decided: Callable[[], None]) -> None:
        """The next channels; what the store holds of them is read in one step."""
        part = names[start : start + LOOKED_AT]
        if not part:
            page.finish(call)
            decided()
            return
        get = self._state.registry.get
        stored = {name: known.key for name in part if (known := get(name)) is not None and known.stored}

        def read(status: int, sizes: Sizes) -> None:
            if status != m.OK:
                decided()
                call.refuse(NOT_READ)
                return
            self._guarded(call, decided, lambda: added(sizes))

        def added(sizes: Sizes) -> None:
            for name in part:
                key = stored.get(name)
                page.add(name, None if key is None else sizes.get(key))
            self._turns.add(go_on)

        def go_on() -> bool:
            self._guarded(call, decided, lambda: self._gather(call, names, start + len(part), page, decided))
            return False

        if stored:
            self._state.core.logs.sizes(list(stored.values()), read)
        else:
            read(m.OK, {})
