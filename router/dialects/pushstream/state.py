"""What is known of channels: kept in step with the core and with the store, and announced in the events channel.

The core knows subscribers, the store messages; the registry holds what neither does. Which channels there are is asked
here, by publishers, statistics and subscribers alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from router.common import messages as m
from router.core.facades import Core
from router.dialects.app_server import Context
from router.dialects.pushstream.names import Names
from router.dialects.pushstream.protocol import NAME, PushStreamOptions, channel_address
from router.dialects.pushstream.registry import Known, Registry
from router.store.base import LogSize

LOOKED_AT: Final = 1000
"""Channels that are looked up in the store at once."""
_EVENTS_A_TURN: Final = 1000
"""Events of one channel's subscribers that are sent at once: more of them came or went in one second."""

_encode = msgspec.json.Encoder().encode


class State:
    """The channels, as an observer of the core keeps them."""

    def __init__(self, context: Context) -> None:
        self.options = context.settings.get(PushStreamOptions)
        self.core: Core = context.core
        self.now = context.unix_time
        channels = self.core.channels
        self.registry = Registry(self.options, lambda: channels.number(NAME, ""))
        self.names = Names(self.core.records, self.core.operations.owns)
        self.announce: Callable[[str], None] = lambda text: None
        """Publishes to the events channel."""
        self.events_dropped = 0
        self.total_published = 0
        """Messages of all channels, each counted for each, since the router started."""
        self._deleted: set[str] = set()  # of which the last subscribers are going
        self._subscribers: dict[str, int] = {}  # as the events channel knows them
        self._events = self.options.events_channel_id
        channels.observe(NAME, self)

    # ------------------------------------------------------------------ questions

    def key(self, name: str) -> bytes:
        """The address of a channel."""
        known = self.registry.get(name)
        return channel_address(name) if known is None else known.key

    def subscribers(self, key: bytes) -> int:
        """Of a channel."""
        there = self.core.channels.get(key)
        return 0 if there is None else there.count

    def exists(self, name: str, size: LogSize | None) -> bool:
        """Whether there is such a channel. size: what its log holds."""
        if self.registry.get(name) is not None or (size is not None and size.number > 0):
            return True
        return name == self._events or self.subscribers(self.key(name)) > 0

    def all_names(self) -> Iterator[str]:
        """The names of all channels. Not to be kept while anything happens."""
        for known in self.registry:
            yield known.name
        for name in self.core.channels.names(NAME, ""):
            if self.registry.get(name) is None:
                yield name

    def unknown(self, name: str) -> bool:
        """Whether there is no such channel, as far as is known without the store."""
        return self.registry.get(name) is None and self.core.channels.get(channel_address(name)) is None

    # ------------------------------------------------------------------ publishing

    def published_to(self, name: str, stored_until: int) -> Known:
        """A message comes to a channel: it is made, if there is none. stored_until: 0 if the message is not stored."""
        now = self.now()
        registry = self.registry
        known = registry.get(name)
        if known is None:
            known = Known(name)
            occupied = self.core.channels.get(known.key) is not None
            registry.add(known, now, occupied)
            self._deleted.discard(name)
            if not occupied:
                self._announce("channel_created", name)
        registry.used(known, now, stored_until)
        if stored_until and not known.stored:
            known.stored = True
            self.names.add(name, known.key)
        return known

    def delete(self, name: str) -> None:
        """A channel goes, with all that is stored of it. Its subscribers are to be closed."""
        known = self.registry.get(name)
        key = channel_address(name)
        if self.core.channels.get(key) is not None:
            self._deleted.add(name)
        self._forget(known or Known(name))

    def _forget(self, known: Known) -> None:
        """There is no such channel any more: a later one begins with the id 1."""
        self.core.logs.expire(known.key, 1)
        self.names.remove(known.name, known.key)
        self.registry.forget(known)
        self._announce("channel_destroyed", known.name)

    # ------------------------------------------------------------------ what the store has from before

    def found(self, names: list[str]) -> None:
        """The store may hold messages of these channels."""
        now = self.now()
        new = [name for name in names if self.registry.get(name) is None]
        for name in new:
            known = Known(name)
            known.stored = True
            self.registry.add(known, now, self.core.channels.get(known.key) is not None)

    def look(self) -> None:
        """Forget channels whose time is over. To be called about once a second."""
        self.names.write_again()
        ended = self.registry.due(self.now(), LOOKED_AT)
        stored = [known for known in ended if known.stored]
        for known in ended:
            if not known.stored:
                self._end(known)
        if stored:
            self.core.logs.sizes([known.key for known in stored], lambda *found: self._looked(stored, *found))

    def _looked(self, ended: list[Known], status: int, sizes: dict[bytes, LogSize]) -> None:
        for known in ended:
            size = sizes.get(known.key)
            if status != m.OK:
                self.registry.used(known, self.now())
            elif size is not None:
                known.published = max(known.published, size.offset)
                if size.number:
                    self.registry.used(known, self.now(), size.expires)
            self._end(known)

    def _end(self, known: Known) -> None:
        if self.registry.get(known.name) is not known:
            return
        now = self.now()
        if known.name == self._events:
            self.registry.used(known, now)
        if self.core.channels.get(known.key) is not None:  # announced by a worker, which the observer does not see
            self.registry.occupy(known)
        elif known.ends > now:
            self.registry.again(known)
        else:
            self._forget(known)

    # ------------------------------------------------------------------ the core's observer

    def admits(self, label: str) -> bool:
        """See `router.core.channel.Observer`."""
        name = m.label_parts(label)[2]
        return self.registry.get(name) is not None or self.registry.room_for(1)

    def occupied(self, label: str) -> None:
        """See `router.core.channel.Observer`."""
        name = m.label_parts(label)[2]
        self._deleted.discard(name)
        if self._events:
            self._subscribers[name] = 0
        known = self.registry.get(name)
        if known is None:
            self._announce("channel_created", name)
        else:
            self.registry.occupy(known)

    def vacated(self, label: str) -> None:
        """See `router.core.channel.Observer`."""
        name = m.label_parts(label)[2]
        self._announce_clients(name, self._subscribers.pop(name, 0), 0)
        if name in self._deleted:
            self._deleted.discard(name)
            return
        known = self.registry.get(name)
        if known is None:
            self.registry.add(Known(name), self.now(), False)
        else:
            self.registry.vacate(known, self.now())

    def counted(self, label: str, subscribers: int) -> None:
        """See `router.core.channel.Observer`."""
        if self._events:
            name = m.label_parts(label)[2]
            # Of one that a worker announced to a router that is new it is not known which of them came just now.
            before = self._subscribers.get(name, subscribers)
            self._subscribers[name] = subscribers
            self._announce_clients(name, before, subscribers)

    def joined(self, label: str, user: str) -> None:
        """See `router.core.channel.Observer`."""

    def left(self, label: str, user: str) -> None:
        """See `router.core.channel.Observer`."""

    def published(self, label: str, body: str, exclude: str) -> None:
        """See `router.core.channel.Observer`."""

    def happened(self, label: str, what: str, detail: str) -> None:
        """See `router.core.channel.Observer`."""

    def settled(self) -> None:
        """See `router.core.channel.Observer`."""

    # ------------------------------------------------------------------ the events channel

    def _announce_clients(self, name: str, before: int, after: int) -> None:
        what = "client_subscribed" if after > before else "client_unsubscribed"
        number = abs(after - before)
        self.events_dropped += max(0, number - _EVENTS_A_TURN)
        for _ in range(min(number, _EVENTS_A_TURN)):
            self._announce(what, name)

    def _announce(self, what: str, name: str) -> None:
        if self._events and name != self._events:
            self.announce(f'{{"type": "{what}", "channel": {_encode(name).decode()}}}')


def state(context: Context) -> State:
    """That of a router, for `Context.shared`."""
    return State(context)
