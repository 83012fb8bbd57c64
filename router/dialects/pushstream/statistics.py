"""The numbers of channels, as their owner has them; and the answers that give those of channels that are named."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from router import __version__
from router.common import messages as m
from router.core.operations import Done
from router.dialects.app_server import Context
from router.dialects.pushstream.channels import is_wildcard, publisher_path
from router.dialects.pushstream.formats import ChannelInfo, Head, format_of
from router.dialects.pushstream.operations import Ask, Totals
from router.dialects.pushstream.protocol import NO_SUCH_CHANNEL, NOT_READ, Refused, channel_address
from router.dialects.pushstream.requests import Call
from router.dialects.pushstream.state import state
from router.store.base import LogSize

Sizes = dict[bytes, LogSize]
TAGS: Final = (("X-Nginx-PushStream-Tag", f"connection-farm {__version__}"), ("X-Nginx-PushStream-Commit", __version__))
"""What the module says of its build."""
_COUNTED_S: Final = 10.0
"""How long the number of channels with the wildcard prefix is told again to those that ask for other numbers: all names
are gone through for it."""


class Statistics:
    """Numbers of channels."""

    def __init__(self, context: Context) -> None:
        self._state = context.shared(state)
        self._options = self._state.options
        self._core = context.core
        self._operations = context.core.operations
        self._started = context.unix_time()
        self._publishers = 0  # that wait for an answer
        self._wildcards = 0  # when it was counted last
        self._counted = float("-inf")

    def named(self, call: Call, path: str) -> None:
        """Answer with those of the channels of a path."""
        try:
            names = publisher_path(path, self._options)
        except Refused as refused:
            call.refuse(refused.answer)
            return

        def known(answers: list[tuple[int, Any]]) -> None:
            if any(status != m.OK for status, _ in answers):
                call.refuse(NOT_READ)
                return
            there = {info.channel: info for _, infos in answers for info in infos}
            found = [there[name] for name in names if name in there]
            if found:
                self.answer(call, names, found)
            else:
                call.refuse(NO_SUCH_CHANNEL)

        shares = self._operations.by_owner(names, channel_address)
        self._operations.at_each([(key, Ask(share)) for key, share in shares], known)

    def counted(self, names: Sequence[str], done: Callable[[list[ChannelInfo] | None], None]) -> None:
        """As `info`, with the numbers of subscribers as they are now."""
        keys = [self._state.key(name) for name in names]
        self._core.channels.when_counted(keys, lambda: self.info(names, done))

    def behind(self, names: Sequence[str], done: Callable[[list[ChannelInfo] | None], None]) -> None:
        """As `info`, behind a message that is on its way to the store: workers are asked for the numbers of subscribers
        meanwhile. Only if no other publisher waits for its answer: of many at once the others are told the last that
        are known, so that they cost nothing more."""
        state = self._state
        found: list[ChannelInfo] | None = None
        left = 1 if self._publishers else 2
        self._publishers += 1

        def read(infos: list[ChannelInfo] | None) -> None:
            nonlocal found
            found = infos
            one()

        def one() -> None:
            nonlocal left
            left -= 1
            if not left:
                self._publishers -= 1
                done(
                    found and [info._replace(subscribers=state.subscribers(state.key(info.channel))) for info in found]
                )

        if left > 1:
            self._core.channels.when_counted([state.key(name) for name in names], one)
        self.info(names, read)

    def info(self, names: Sequence[str], done: Callable[[list[ChannelInfo] | None], None]) -> None:
        """The numbers of those of these channels that there are; None: the store cannot be read. Those of subscribers
        are the last that are known."""

        def read(status: int, sizes: Sizes) -> None:
            done(self._there(names, sizes) if status == m.OK else None)

        keys = [self._state.key(name) for name in names if self._may_be_stored(name)]
        if keys:
            self._core.logs.sizes(keys, read)
        else:
            read(m.OK, {})

    def _there(self, names: Sequence[str], sizes: Sizes) -> list[ChannelInfo]:
        found = []
        for name in names:
            size = sizes.get(self._state.key(name))
            if self._state.exists(name, size):
                found.append(self.info_of(name, size))
        return found

    def _may_be_stored(self, name: str) -> bool:
        known = self._state.registry.get(name)
        return known is None or known.stored

    def info_of(self, name: str, size: LogSize | None) -> ChannelInfo:
        """The numbers of a channel. size: what its log holds."""
        known = self._state.registry.get(name)
        published = 0 if known is None else known.published
        subscribers = self._state.subscribers(self._state.key(name))
        if size is None:
            return ChannelInfo(name, published, 0, subscribers)
        return ChannelInfo(name, max(published, size.offset), size.number, subscribers)

    def answer(self, call: Call, names: Sequence[str], found: list[ChannelInfo]) -> None:
        """Answer with the numbers of the channels that there are, of these."""
        content_type, form = format_of(call.request.headers.get(b"accept", b""))
        if len(names) == 1:
            call.answer(form.one(found[0]).encode(), content_type, *TAGS)
            return

        def headed(head: Head | None) -> None:
            if head is None:
                call.refuse(NOT_READ)
            else:
                call.answer(form.group(head, map(form.item, found)).encode(), content_type, *TAGS)

        self.head(headed, _COUNTED_S)

    def head(self, done: Callable[[Head | None], None], age: float = 0) -> None:
        """What statistics of several channels begin with. age: how old the number of those with the wildcard prefix may
        be, in seconds."""

        def known(status: int, totals: list[tuple[int, int]]) -> None:
            if status != m.OK:
                done(None)
                return
            now = self._state.now()
            number, wildcards = (sum(column) for column in zip(*totals, strict=True))
            local = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now))
            done(Head(socket.gethostname(), local, number - wildcards, wildcards, int(now - self._started)))

        self._operations.at_all(Totals(age), known)

    def totals(self, key: bytes, asked: Totals, done: Done) -> None:
        """Perform it."""
        now = self._state.now()
        number = len(self._state.registry)
        if self._options.wildcard_channel_prefix and not 0 <= now - self._counted < asked.age:
            self._wildcards = sum(is_wildcard(name, self._options) for name in self._state.all_names())
            self._counted = now
        done(m.OK, (number, min(self._wildcards, number)))


def statistics(context: Context) -> Statistics:
    """That of a router, for `Context.shared`."""
    return Statistics(context)
