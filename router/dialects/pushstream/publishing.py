"""Messages on their way to channels: of app servers, of subscribers that may publish, of queues, and of the farm."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from router.common import messages as m
from router.common.answers import Answer
from router.common.position import MAX_EVENT_ID, AfterOffset
from router.dialects.app_server import Context
from router.dialects.pushstream.protocol import (
    BAD_EVENT,
    DELETED,
    DELETED_ID,
    DELETED_TEXT,
    EMPTY_POST,
    HEADER_ID,
    HEADER_TYPE,
    NO_ROOM,
    NOT_KEPT,
    ONLY_INTERNAL,
    TOO_LONG,
    TOO_MANY_CHANNELS,
    channel_address,
)
from router.dialects.pushstream.registry import Known
from router.dialects.pushstream.state import State, state
from router.store.base import NO_HEADERS, Append

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


class Publisher:
    """Publishes, and deletes channels."""

    def __init__(self, context: Context) -> None:
        self._state: Final[State] = context.shared(state)
        self._options = self._state.options
        self._messages = context.core.messages
        self._logs = context.core.logs
        self._records = context.core.records
        self._state.announce = self._announce

    def publish(
        self, names: Sequence[str], text: str, done: Published, *, event_id: str = "", event_type: str = ""
    ) -> None:
        """Publish a message to channels, each named once; those that there are not are made."""
        refusal = self._refusal(names, text, event_id, event_type)
        if refusal is not None:
            done(refusal)
            return
        self._state.total_published += len(names)
        headers = {HEADER_TYPE: event_type} if event_type else NO_HEADERS
        if not self._options.store_messages:
            for name in names:
                known = self._state.published_to(name, 0)
                known.published += 1
                self._send(known.key, known.published, text, event_id, headers)
            done(None)
            return
        open_ = _Open(len(names), done)
        for name in names:
            self._keep(name, text, event_id, headers, open_)

    def _refusal(self, names: Sequence[str], text: str, event_id: str, event_type: str) -> Answer | None:
        options = self._options
        if not text:
            return EMPTY_POST
        if self.is_too_long(text):
            return TOO_LONG
        if len(event_id) > MAX_EVENT_ID or len(event_type) > MAX_EVENT_ID or "\0" in event_id + event_type:
            return BAD_EVENT
        if options.events_channel_id in names:
            return ONLY_INTERNAL
        if options.store_messages and self._messages.full:
            return NO_ROOM
        new = sum(map(self._state.unknown, names))
        if new and not self._state.registry.room_for(new):
            return TOO_MANY_CHANNELS
        return None

    def is_too_long(self, text: str) -> bool:
        """Whether no message may be this text."""
        # A character has at most 4 bytes: nearly no message need be encoded to be measured.
        most = self._options.max_message_bytes
        return len(text) * 4 > most and len(text.encode()) > most

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

    def _announce(self, text: str) -> None:
        """To the events channel."""
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

    def delete(self, names: Sequence[str], text: str, done: Callable[[int], None]) -> None:
        """Delete channels that there are: what they have stored goes, and their subscribers are sent this text and
        closed. `done` gets the status when that is durable."""
        for name in names:
            key = channel_address(name)
            self._send(key, DELETED_ID, text or DELETED_TEXT, "", NO_HEADERS)
            self._messages.terminate(key, int(DELETED), DELETED.text)
            self._state.delete(name)
        self._records.when_durable(done)


def publisher(context: Context) -> Publisher:
    """That of a router, for `Context.shared`."""
    return Publisher(context)
