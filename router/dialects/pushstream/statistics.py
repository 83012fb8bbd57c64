"""What is told of channels: to a publisher of its own, and to `/channels-stats` of one, of several, and of all."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from router import __version__
from router.common import messages as m
from router.core.address_map import Lease
from router.dialects.app_server import Context
from router.dialects.pushstream.channels import ALL, is_wildcard, publisher_path
from router.dialects.pushstream.formats import ChannelInfo, Head, Summary, WorkerInfo, format_of
from router.dialects.pushstream.protocol import (
    FAILED,
    NO_SUCH_CHANNEL,
    NOT_READ,
    Refused,
)
from router.dialects.pushstream.requests import Call, channel_path
from router.dialects.pushstream.state import LOOKED_AT, state
from router.http.parts import Parts, one_a_turn
from router.store.base import LogSize

Sizes = dict[bytes, LogSize]
TAGS: Final = (("X-Nginx-PushStream-Tag", f"connection-farm {__version__}"), ("X-Nginx-PushStream-Commit", __version__))
"""What the module says of its build."""


class Statistics:
    """Numbers of channels. Those of subscribers are right when they are asked for."""

    def __init__(self, context: Context) -> None:
        self._state = context.shared(state)
        self._options = self._state.options
        self._core = context.core
        self._status = context.status
        self._started = context.unix_time()
        self._listings = Parts(context.turns, 1, 1)

    # ------------------------------------------------------------------ requests

    def statistics(self, call: Call) -> None:
        """`GET /channels-stats`."""
        path = channel_path(call.request)
        if not path:
            self._when_counted(None, lambda: self._read_all(call, "", self._summary))
        elif path == ALL or (path.endswith("*") and "/" not in path):
            prefix = "" if path == ALL else path[:-1]
            self._when_counted(None, lambda: self._read_all(call, prefix, self._listing))
        else:
            self.named(call, path)

    def named(self, call: Call, path: str) -> None:
        """Those of the channels of a path, in the format that is asked for."""
        try:
            names = publisher_path(path, self._options)
        except Refused as refused:
            call.refuse(refused.answer)
            return
        keys = [self._state.key(name) for name in names]
        self._when_counted(keys, lambda: self._read_named(call, names))

    def info(self, names: Sequence[str], done: Callable[[list[ChannelInfo] | None], None]) -> None:
        """The numbers of those of these channels that there are; None: the store cannot be read. Those of subscribers
        are the last that are known."""

        def read(status: int, sizes: Sizes) -> None:
            done([self._info(name, sizes) for name in names if self._exists(name, sizes)] if status == m.OK else None)

        keys = [self._state.key(name) for name in names if self._may_be_stored(name)]
        if keys:
            self._core.logs.sizes(keys, read)
        else:
            read(m.OK, {})

    def tell(self, call: Call, names: Sequence[str], found: list[ChannelInfo]) -> None:
        """Answer with the numbers of the channels that there are, of these."""
        content_type, form = format_of(call.request.headers.get(b"accept", b""))
        if len(names) == 1:
            call.answer(form.one(found[0]).encode(), content_type, *TAGS)
        else:
            call.answer(form.group(self._head(), found).encode(), content_type, *TAGS)

    # ------------------------------------------------------------------ some channels

    def _when_counted(self, keys: Iterable[bytes] | None, then: Callable[[], None]) -> None:
        self._core.channels.when_counted(keys, then)

    def _may_be_stored(self, name: str) -> bool:
        known = self._state.registry.get(name)
        return known is None or known.stored

    def _exists(self, name: str, sizes: Sizes) -> bool:
        return self._state.exists(name, sizes.get(self._state.key(name)))

    def _info(self, name: str, sizes: Sizes) -> ChannelInfo:
        key = self._state.key(name)
        known, size = self._state.registry.get(name), sizes.get(key)
        published = 0 if known is None else known.published
        if size is None:
            return ChannelInfo(name, published, 0, self._state.subscribers(key))
        return ChannelInfo(name, max(published, size.offset), size.number, self._state.subscribers(key))

    def _read_named(self, call: Call, names: Sequence[str]) -> None:
        def told(found: list[ChannelInfo] | None) -> None:
            if found is None:
                call.refuse(NOT_READ)
            elif not found:
                call.refuse(NO_SUCH_CHANNEL)
            else:
                self.tell(call, names, found)

        self.info(names, told)

    # ------------------------------------------------------------------ all channels

    def _read_all(self, call: Call, prefix: str, tell: Callable[[Call, list[str], Sizes], None]) -> None:
        """Read how much the logs of all channels with this prefix hold, a part of them at a time."""
        names = [name for name in self._state.all_names() if name.startswith(prefix)]
        stored = [known.key for name in names if (known := self._state.registry.get(name)) is not None and known.stored]
        sizes: Sizes = {}

        def read(start: int) -> None:
            part = stored[start : start + LOOKED_AT]
            if part:
                self._core.logs.sizes(part, lambda status, found: took(start + len(part), status, found))
            else:
                one_a_turn(
                    self._listings, call.request.pending, lambda: tell(call, names, sizes), lambda: call.refuse(FAILED)
                )

        def took(start: int, status: int, found: Sizes) -> None:
            if status != m.OK:
                call.refuse(NOT_READ)
                return
            sizes.update(found)
            read(start)

        read(0)

    def _listing(self, call: Call, names: list[str], sizes: Sizes) -> None:
        content_type, form = format_of(call.request.headers.get(b"accept", b""))
        infos = (self._info(name, sizes) for name in names)
        call.answer(form.group(self._head(), infos).encode(), content_type, *TAGS)

    def _summary(self, call: Call, names: list[str], sizes: Sizes) -> None:
        by_shard: dict[int, int] = {}
        for name in names:
            channel = self._core.channels.get(self._state.key(name))
            for lease, subscribers in () if channel is None else channel.counts():
                _add(by_shard, lease, subscribers)
        workers = [
            WorkerInfo(row["pid"], by_shard.get(row["shard"], 0), int(row.get("running", 0)))
            for row in self._status()["workers"]
        ]
        stored = sum(size.number for size in sizes.values())
        summary = Summary(self._state.total_published, stored, sum(by_shard.values()), workers)
        content_type, form = format_of(call.request.headers.get(b"accept", b""))
        call.answer(form.summary(self._head(), summary).encode(), content_type, *TAGS)

    def _head(self) -> Head:
        now = self._state.now()
        number = len(self._state.registry)
        wildcards = sum(is_wildcard(name, self._options) for name in self._state.all_names()) if self._prefix else 0
        local = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
        return Head(socket.gethostname(), local, number - wildcards, wildcards, int(now - self._started))

    @property
    def _prefix(self) -> str:
        return self._options.wildcard_channel_prefix


def _add(by_shard: dict[int, int], lease: Lease, subscribers: int) -> None:
    by_shard[lease.shard] = by_shard.get(lease.shard, 0) + subscribers


def statistics(context: Context) -> Statistics:
    """That of a router, for `Context.shared`."""
    return Statistics(context)
