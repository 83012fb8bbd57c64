"""What a router does for the channels that it owns: messages are published, channels deleted, subscribers admitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from router.common import messages as m
from router.common.answers import Answer
from router.common.operation import Operation
from router.common.position import AfterOffset
from router.core.operations import Done, Perform
from router.dialects.app_server import Context
from router.dialects.pushstream.channels import is_wildcard
from router.dialects.pushstream.events_channel import EventsChannel
from router.dialects.pushstream.formats import ChannelInfo
from router.dialects.pushstream.operations import UNREAD, Announce, Ask, Delete, Enter, Outcome, Put
from router.dialects.pushstream.protocol import (
    CANNOT_CREATE,
    DELETED,
    DELETED_ID,
    DELETED_TEXT,
    HEADER_ID,
    HEADER_TYPE,
    NO_ROOM,
    NOT_KEPT,
    TOO_MANY_CHANNELS,
    TOO_OFTEN,
    channel_address,
    refusal_text,
)
from router.dialects.pushstream.registry import Known
from router.dialects.pushstream.state import State, state
from router.dialects.pushstream.statistics import statistics
from router.store.base import NO_HEADERS, Append, LogSize

Published = Callable[[Answer | None], None]
"""Called once, when all channels have the message: where messages are stored, durably. What refuses it, if anything."""


class _Open:
    """A message that not all channels have yet."""

    __slots__ = ("_done", "_left", "_refusal")

    def __init__(self, channels: int, done: Published) -> None:
        self._left = channels
        self._done = done
        self._refusal: Answer | None = None

    def one(self, refusal: Answer | None) -> None:
        self._left -= 1
        self._refusal = refusal or self._refusal
        if not self._left:
            self._done(self._refusal)


class Owner:
    """Performs what is about channels that are named."""

    def __init__(self, context: Context) -> None:
        self._state: Final[State] = context.shared(state)
        self._options = self._state.options
        self._statistics = context.shared(statistics)
        self._messages = context.core.messages
        self._records = context.core.records
        self._logs = context.core.logs
        self._of_endpoint = context.limits.endpoint
        self._events = EventsChannel(self._options.events_channel_id, context.core.operations, self._announce_here)
        self._state.announce = self._events.announce

    def performers(self) -> dict[type[Operation], Perform]:
        """By operation."""
        return {
            Put: self.put,
            Delete: self._delete,
            Ask: self._ask,
            Enter: self._enter,
            Announce: self._announce,
        }

    # ------------------------------------------------------------------ messages

    def put(self, key: bytes, asked: Put, done: Done) -> None:
        """Publish a message."""
        names = asked.names
        if not asked.info:
            self._publish(asked, lambda refusal: done(m.OK, Outcome(refusal_text(refusal))))
            return
        outcome: list[Answer | None] = []
        self._publish(asked, outcome.append)
        if outcome and outcome[0] is not None:
            done(m.OK, Outcome(refusal_text(outcome[0])))
            return

        def known(found: list[ChannelInfo] | None) -> None:
            refusal = outcome[0] if outcome else NOT_KEPT
            done(m.OK, Outcome(refusal_text(refusal)) if refusal is not None else Outcome("", found or []))

        self._statistics.behind(names, known)  # with the same commit, behind the message

    def _publish(self, asked: Put, done: Published) -> None:
        names = asked.names
        refusal = self._refusal(names)
        if refusal is not None:
            done(refusal)
            return
        self._state.total_published += len(names)
        headers = {HEADER_TYPE: asked.event_type} if asked.event_type else NO_HEADERS
        if not self._options.store_messages:
            for name in names:
                known = self._state.published_to(name, 0)
                known.published += 1
                self._send(known.key, known.published, asked.text, asked.event_id, headers)
            done(None)
            return
        open_ = _Open(len(names), done)
        for name in names:
            self._keep(name, asked.text, asked.event_id, headers, open_)

    def _refusal(self, names: Sequence[str]) -> Answer | None:
        if self._options.store_messages and self._messages.full:
            return NO_ROOM
        new = sum(map(self._state.unknown, names))
        if new and not self._state.registry.room_for(new):
            return TOO_MANY_CHANNELS
        if self._of_endpoint is not None and self._of_endpoint.of_all([channel_address(name) for name in names]):
            return TOO_OFTEN
        return None

    def _keep(self, name: str, text: str, event_id: str, headers: dict[str, str], open_: _Open) -> None:
        options = self._options
        sequence = self._messages.sequence()
        expires = int(self._state.now()) + options.message_ttl
        known = self._state.published_to(name, expires)
        most = options.max_messages_stored_per_channel
        event = Append(known.key, sequence, expires, text, event_id, headers, known.published + 1, most=most)
        self._messages.publish_logged(event, lambda status, end: self._kept(known, status, end, open_))

    def _kept(self, known: Known, status: int, end: AfterOffset | None, open_: _Open) -> None:
        if end is not None:
            known.published = max(known.published, end.offset)
        open_.one(None if status == m.OK and end is not None else NOT_KEPT)

    def _send(self, key: bytes, number: int, text: str, event_id: str, headers: dict[str, str]) -> None:
        """To those that are subscribed now."""
        sequence = self._messages.sequence()
        expires = int(self._state.now()) + self._options.message_ttl
        own = {HEADER_ID: str(number)} | headers
        self._messages.publish_unlogged(Append(key, sequence, expires, text, event_id, own))

    # ------------------------------------------------------------------ the events channel

    def _announce(self, key: bytes, asked: Announce, done: Done) -> None:
        for text in asked.texts:
            self._announce_here(text)
        done(m.OK)

    def _announce_here(self, text: str) -> None:
        name = self._options.events_channel_id
        self._state.total_published += 1
        if not self._options.store_messages:
            known = self._state.published_to(name, 0)
            known.published += 1
            self._send(known.key, known.published, text, "", NO_HEADERS)
        elif self._messages.full:
            self._state.events_dropped += 1
        else:
            self._keep(name, text, "", NO_HEADERS, _Open(1, lambda refusal: None))

    @property
    def events_dropped(self) -> int:
        """Events that were lost on their way to the owner of the events channel."""
        return self._events.dropped

    # ------------------------------------------------------------------ channels

    def _ask(self, key: bytes, asked: Ask, done: Done) -> None:
        """Subscribers are counted before."""

        def known(found: list[ChannelInfo] | None) -> None:
            done(UNREAD if found is None else m.OK, found)

        self._statistics.counted(asked.names, known)

    def _delete(self, key: bytes, asked: Delete, done: Done) -> None:
        """What those that there are have stored goes, and their subscribers are closed. OK when that is durable."""

        def known(found: list[ChannelInfo] | None) -> None:
            if found is None:
                done(UNREAD)
                return
            for info in found:
                address = channel_address(info.channel)
                self._send(address, DELETED_ID, asked.text or DELETED_TEXT, "", NO_HEADERS)
                self._messages.terminate(address, int(DELETED), DELETED.text)
                self._state.delete(info.channel)
            if found:
                self._records.when_durable(lambda status: done(status, len(found)))
            else:
                done(m.OK, 0)

        self._statistics.info(asked.names, known)

    def _enter(self, key: bytes, asked: Enter, done: Done) -> None:
        """As far as authorized_channels_only and max_number_of_channels go."""
        names = asked.names
        new = sum(map(self._state.unknown, names))
        if new and not self._state.registry.room_for(new):
            done(m.OK, refusal_text(TOO_MANY_CHANNELS))
            return
        keys = [channel_address(name) for name in names if not is_wildcard(name, self._options)]
        if not keys or not self._options.authorized_channels_only:
            done(m.OK, refusal_text(None))
            return

        def read(status: int, sizes: dict[bytes, LogSize]) -> None:
            if status != m.OK:
                done(m.FAILED)
                return
            filled = all(key in sizes and sizes[key].number for key in keys)
            done(m.OK, refusal_text(None if filled else CANNOT_CREATE))

        self._logs.sizes(keys, read)


def owner(context: Context) -> Owner:
    """That of a router, for `Context.shared`."""
    return Owner(context)
