"""Events of app servers: one, many, and by the old route."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from router.common import messages as m
from router.common.position import AfterOffset
from router.dialects.app_server import Context
from router.dialects.pusher.directory import Directory, attributes
from router.dialects.pusher.protocol import (
    BAD_REQUEST,
    NO_ROOM,
    NOT_KEPT,
    TOO_LONG,
    PusherOptions,
    channel_address,
    event_end,
    event_start,
    is_cache,
    is_encrypted,
    is_socket_id,
)
from router.dialects.pusher.requests import (
    EMPTY,
    INFORMED,
    NOTHING,
    WAIT,
    Call,
    Refused,
    check_channel,
    decode,
    error_response,
    wanted_of,
)
from router.http.message import Response
from router.store.base import Append

_encode = msgspec.json.Encoder().encode
_ACCEPTED: Final = Response(202, b"{}")
_NOT_KEPT: Final = error_response(NOT_KEPT, "", WAIT)


class _Event(msgspec.Struct, gc=False):
    """The body of an event. Of `channels` and `channel` one is there. Null counts as not given."""

    name: str
    data: str
    channels: list[str] | None = None
    channel: str | None = None
    socket_id: str | None = None
    info: str | None = None


class _Batch(msgspec.Struct):
    """The body of many events."""

    batch: list[_Event]


_event_in: Final = msgspec.json.Decoder(_Event)
_batch_in: Final = msgspec.json.Decoder(_Batch)


class _Logged:
    """What a request has for the logs of channels."""

    __slots__ = ("_then", "open", "status")

    def __init__(self) -> None:
        self.open = 0
        self.status = m.OK
        self._then: Callable[[int], None] | None = None

    def done(self, status: int) -> None:
        """One of its events is in its log, or could not be kept."""
        self.open -= 1
        if status != m.OK:
            self.status = status
        if not self.open and self._then is not None:
            self._then(self.status)

    def when_done(self, then: Callable[[int], None]) -> None:
        """Call it with OK once all are, or with what has gone wrong."""
        self._then = then
        if not self.open:
            then(self.status)


class Publishing:
    """The requests that publish. Directory: for the counts that they may ask for."""

    def __init__(self, context: Context, directory: Directory) -> None:
        self._options = options = context.settings.get(PusherOptions)
        self._messages = context.core.messages
        self._unix_time = context.unix_time
        self._directory = directory
        # Libraries' own tests look for these words, and for those of a batch.
        self._too_long = f"The data content of this event exceeds the allowed maximum ({options.max_data_bytes} bytes)"

    def events(self, call: Call) -> None:
        """`POST .../events`: one event for up to `max_channels_an_event` channels."""
        event = decode(_event_in, call.body)
        channels = self._check_event(event)
        wanted = wanted_of(event.info, INFORMED)
        self._check_room(any(map(is_cache, channels)))
        logged = _Logged()
        self._publish(call, event, channels, logged)
        if not wanted:
            self._answer(call, EMPTY, logged)
            return

        def counted() -> None:
            found = {name: attributes(name, self._directory.there(call.app, name), wanted) for name in channels}
            self._answer(call, Response(200, _encode({"channels": found})), logged)

        self._directory.when_counted(call, wanted, channels, counted)

    def batch_events(self, call: Call) -> None:
        """`POST .../batch_events`: all of them are checked before any is sent."""
        events = decode(_batch_in, call.body).batch
        most = self._options.max_batch
        if len(events) > most:
            raise Refused(BAD_REQUEST, f"Batch too large ({len(events)} > {most})")
        checked = [(event, self._check_event(event), wanted_of(event.info, INFORMED)) for event in events]
        for _, channels, _ in checked:
            if len(channels) != 1:
                raise Refused(BAD_REQUEST, "An event of a batch goes to one channel")
        self._check_room(any(is_cache(channels[0]) for _, channels, _ in checked))
        logged = _Logged()
        for event, channels, _ in checked:
            self._publish(call, event, channels, logged)
        every = NOTHING.union(*(wanted for _, _, wanted in checked))
        if not every:
            self._answer(call, EMPTY, logged)
            return

        def counted() -> None:
            found = [
                attributes(channels[0], self._directory.there(call.app, channels[0]), wanted)
                for _, channels, wanted in checked
            ]
            self._answer(call, Response(200, _encode({"batch": found})), logged)

        self._directory.when_counted(call, every, [channels[0] for _, channels, _ in checked], counted)

    def old_events(self, call: Call, channel: str) -> None:
        """`POST .../channels/{name}/events?name=`: the body is the data. Deprecated, and answered with 202."""
        try:
            data = call.body.decode()
        except UnicodeDecodeError:
            raise Refused(BAD_REQUEST, "The data of an event is not UTF-8") from None
        parameters = call.parameters
        event = _Event(parameters.get("name", ""), data, [channel], None, parameters.get("socket_id"))
        channels = self._check_event(event)
        self._check_room(is_cache(channel))
        logged = _Logged()
        self._publish(call, event, channels, logged)
        self._answer(call, _ACCEPTED, logged)

    def _check_event(self, event: _Event) -> list[str]:
        """The channels that it goes to, each once. Raises: Refused."""
        options = self._options
        if not 0 < len(event.name) <= options.max_event_name:
            raise Refused(BAD_REQUEST, f"The name of an event has 1 to {options.max_event_name} characters")
        data = event.data
        # A character has at most 4 bytes: nearly all data need not be encoded to be measured.
        if len(data) * 4 > options.max_data_bytes and len(data.encode()) > options.max_data_bytes:
            raise Refused(TOO_LONG, self._too_long)
        if event.socket_id and not is_socket_id(event.socket_id):
            raise Refused(BAD_REQUEST, "socket_id must be two whole numbers with a dot between them")
        channels = event.channels or []
        if event.channel is not None:
            channels = [*channels, event.channel]
        if not channels:
            raise Refused(BAD_REQUEST, "An event needs channels, or a channel")
        if len(channels) > 1:
            if len(channels) > options.max_channels_an_event:
                raise Refused(BAD_REQUEST, f"{len(channels)} channels, {options.max_channels_an_event} are allowed")
            channels = list(dict.fromkeys(channels))
            if len(channels) > 1 and any(map(is_encrypted, channels)):
                raise Refused(BAD_REQUEST, "An event for an encrypted channel goes to that channel alone")
        for channel in channels:
            check_channel(channel, options)
        return channels

    def _check_room(self, kept: bool) -> None:
        if kept and self._messages.full:
            why = "The store is full (store.max_bytes)" if self._messages.over else "Too much waits for the store"
            raise Refused(NO_ROOM, why, WAIT)

    def _publish(self, call: Call, event: _Event, channels: list[str], logged: _Logged) -> None:
        """To the workers; to those of cache channels when the store has it, or could not. What channels have in common
        is encoded once."""
        app = call.app.id
        exclude = event.socket_id or ""
        start, end = event_start(event.name), event_end(event.data)
        for channel in channels:
            key = channel_address(app, channel)
            frame = f"{start}{_encode(channel).decode()}{end}"
            if is_cache(channel):
                self._publish_logged(key, frame, exclude, logged)
            else:
                self._messages.publish(key, frame, exclude)

    def _publish_logged(self, key: bytes, frame: str, exclude: str, logged: _Logged) -> None:
        messages = self._messages

        def done(status: int, end: AfterOffset | None) -> None:
            if status != m.OK:
                messages.publish(key, frame, exclude)
            logged.done(status)

        logged.open += 1
        expires = int(self._unix_time()) + self._options.cache_ttl
        messages.publish_logged(Append(key, messages.sequence(), expires, frame, most=1), done, exclude)

    def _answer(self, call: Call, answer: Response, logged: _Logged) -> None:
        reply = call.reply
        logged.when_done(lambda status: reply(answer if status == m.OK else _NOT_KEPT))
