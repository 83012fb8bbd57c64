"""Events of app servers: one, many, and by the old route."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from router.common import messages as m
from router.common.limit_settings import LimitOptions
from router.common.position import AfterOffset
from router.common.settings import RouterOptions
from router.core.operations import Done
from router.core.push_limits import retry_after
from router.dialects.app_server import Context
from router.dialects.pusher.directory import Directory
from router.dialects.pusher.kept import Change, KeptBytes
from router.dialects.pusher.operations import BUSY, OFTEN, OVER, TOO_MUCH_KEPT, Counts, Publish, PublishKept, Sent
from router.dialects.pusher.protocol import (
    BAD_REQUEST,
    FROM_ADDRESS,
    NAME,
    NO_ROOM,
    NOT_KEPT,
    OF_APP,
    OVER_STORE,
    TO_CHANNEL,
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
_NO_CHANGES: Final[Mapping[bytes, Change]] = {}
_ACCEPTED: Final = Response(202, b"{}")
_NOT_KEPT: Final = error_response(NOT_KEPT, "", WAIT)
_PARTLY: Final = error_response(NOT_KEPT, "Not all of it could be sent; some of it may have been", WAIT)
_REFUSED: Final = {
    OVER: error_response(NO_ROOM, "The store is full (store.max_bytes)", WAIT),
    BUSY: error_response(NO_ROOM, "Too much waits for the store", WAIT),
    TOO_MUCH_KEPT: error_response(OVER_STORE),
    m.UNREACHED: error_response(NOT_KEPT, "Its router did not answer; it may have been sent", WAIT),
}


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
    """What an operation has for the logs of channels."""

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


Answer = Callable[[list[Counts]], Response]
"""Makes the answer of the counts of all channels, in the order of the request."""


class Publishing:
    """The requests that publish. Directory: for the counts that they may ask for."""

    def __init__(self, context: Context, directory: Directory) -> None:
        self._options = options = context.settings.get(PusherOptions)
        self._messages = context.core.messages
        self._counters = context.core.counters
        self._operations = context.core.operations
        self._unix_time = context.unix_time
        self._directory = directory
        # Libraries' own tests look for these words, and for those of a batch.
        self._too_long = f"The data content of this event exceeds the allowed maximum ({options.max_data_bytes} bytes)"
        limits = context.limits
        self._of_address, self._of_app, self._to_channel = limits.address, limits.application, limits.endpoint
        self._limited = limits.address is not None or limits.application is not None
        self._refused = dict(_REFUSED)
        perform = self.perform
        if limits.endpoint is not None:
            self._refused[OFTEN] = error_response(TO_CHANNEL, "", retry_after(limits.endpoint.longest))
            perform = self._perform_limited
        most = context.settings.get(LimitOptions).store_bytes_per_application
        self._kept = KeptBytes(-(-most // context.settings.get(RouterOptions).routers)) if most else None
        context.core.operations.register(NAME, {Publish: perform, PublishKept: perform})

    def events(self, call: Call) -> None:
        """`POST .../events`: one event for up to `max_channels_an_event` channels."""
        event = decode(_event_in, call.body)
        channels = self._check_event(event)
        wanted = wanted_of(event.info, INFORMED)

        def answer(counts: list[Counts]) -> Response:
            return Response(200, _encode({"channels": dict(zip(channels, counts, strict=True))}))

        self._send(call, [(event, channels)], wanted, answer if wanted else _nothing)

    def batch_events(self, call: Call) -> None:
        """`POST .../batch_events`: all of them are checked before any is sent."""
        events = decode(_batch_in, call.body).batch
        most = self._options.max_batch
        if len(events) > most:
            raise Refused(BAD_REQUEST, f"Batch too large ({len(events)} > {most})")
        checked = [(event, self._check_event(event)) for event in events]
        wanted = [wanted_of(event.info, INFORMED) for event in events]
        for _, channels in checked:
            if len(channels) != 1:
                raise Refused(BAD_REQUEST, "An event of a batch goes to one channel")

        def answer(counts: list[Counts]) -> Response:
            found = zip(counts, wanted, strict=True)
            return Response(200, _encode({"batch": [only(one, asked) for one, asked in found]}))

        every = NOTHING.union(*wanted)
        self._send(call, checked, every, answer if every else _nothing)

    def old_events(self, call: Call, channel: str) -> None:
        """`POST .../channels/{name}/events?name=`: the body is the data. Deprecated, and answered with 202."""
        try:
            data = call.body.decode()
        except UnicodeDecodeError:
            raise Refused(BAD_REQUEST, "The data of an event is not UTF-8") from None
        parameters = call.parameters
        event = _Event(parameters.get("name", ""), data, [channel], None, parameters.get("socket_id"))
        self._send(call, [(event, self._check_event(event))], NOTHING, lambda _: _ACCEPTED)

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

    def _too_often(self, call: Call, count: int) -> Response | None:
        """What refuses so many events, if anything."""
        if self._of_address is not None and call.pending is not None:
            wait = self._of_address(call.pending.connection.address_of(call.headers), count)
            if wait:
                return error_response(FROM_ADDRESS, "", retry_after(wait))
        if self._of_app is not None and (wait := self._of_app(f"{NAME}:{call.app.id}", count)):
            return error_response(OF_APP, "", retry_after(wait))
        return None

    def _send(self, call: Call, events: list[tuple[_Event, list[str]]], wanted: frozenset[str], answer: Answer) -> None:
        """Have the owners of the channels send these events, each those of its channels, and answer when all have."""
        app, reply = call.app.id, call.reply
        if self._limited:
            refused = self._too_often(call, sum(len(channels) for _, channels in events))
            if refused is not None:
                reply(refused)
                return
        attributes = sorted(wanted)
        event, channels = events[0] if events else (None, ())
        if event is not None and len(events) == len(channels) == 1:  # the usual

            def performed(status: int, found: list[Counts] | None = None) -> None:
                reply(answer(found or []) if status == m.OK else self._refused.get(status, _NOT_KEPT))

            key = channel_address(app, channels[0])
            sent = Sent(event.name, event.data, event.socket_id or "", [(key, channels[0])])
            self._operations.at(key, self._asked(app, [sent], attributes), performed)
            return
        owner = self._operations.owner
        shares: dict[int, list[Sent]] = {}
        places: dict[int, list[int]] = {}  # of each share's channels, in the request
        place = 0
        for event, channels in events:
            here: dict[int, Sent] = {}
            for channel in channels:
                key = channel_address(app, channel)
                if (share := here.get(number := owner(key))) is None:
                    share = here[number] = Sent(event.name, event.data, event.socket_id or "", [])
                    shares.setdefault(number, []).append(share)
                share.channels.append((key, channel))
                places.setdefault(number, []).append(place)
                place += 1

        def done(answers: list[tuple[int, Any]]) -> None:
            for status, _ in answers:
                if status != m.OK:
                    reply(self._refused.get(status, _NOT_KEPT) if len(answers) == 1 else _PARTLY)
                    return
            counts: list[Counts] = [{} for _ in range(place)] if wanted else []
            if wanted:
                for number, (_, found) in zip(shares, answers, strict=True):
                    for index, one in zip(places[number], found, strict=True):
                        counts[index] = one
            reply(answer(counts))

        asked = [(share[0].channels[0][0], self._asked(app, share, attributes)) for share in shares.values()]
        self._operations.at_each(asked, done)

    def _asked(self, app: str, events: list[Sent], wanted: list[str]) -> Publish:
        return Publish(events, wanted) if self._kept is None else PublishKept(events, wanted, app)

    # ------------------------------------------------------------------ at the owner

    def _keep(self, kept: KeptBytes, asked: PublishKept) -> Mapping[bytes, Change] | None:
        """Count what is to be stored. Returns: see `KeptBytes.keep`; None: the application may not have it."""
        cached = [
            (address, len(event.name) + len(channel) + len(event.data))
            for event in asked.events
            for address, channel in event.channels
            if is_cache(channel)
        ]
        now = self._unix_time()
        if not cached:
            return _NO_CHANGES
        changes = kept.keep(asked.app, cached, now, now + self._options.cache_ttl)
        if changes is None:
            self._counters.limited_store_bytes_per_application += 1
        return changes

    def _perform_limited(self, key: bytes, asked: Publish, done: Done) -> None:
        assert self._to_channel is not None
        if self._to_channel.of_all([address for event in asked.events for address, _ in event.channels]):
            done(OFTEN)
        else:
            self.perform(key, asked, done)

    def perform(self, key: bytes, asked: Publish, done: Done) -> None:
        """To the workers; to those of cache channels when the store has it, or could not. What channels have in common
        is encoded once. The counts are those of after that."""
        messages = self._messages
        if messages.full and any(is_cache(channel) for event in asked.events for _, channel in event.channels):
            done(OVER if messages.over else BUSY)
            return
        kept = self._kept
        app, changes = "", _NO_CHANGES
        if kept is not None and isinstance(asked, PublishKept):
            may_be = self._keep(kept, asked)
            if may_be is None:
                done(TOO_MUCH_KEPT)
                return
            app, changes = asked.app, may_be

        def not_stored(address: bytes) -> None:
            if kept is not None and address in changes:
                kept.not_stored(app, address, changes[address])

        logged = _Logged()
        for event in asked.events:
            start, end = event_start(event.name), event_end(event.data)
            for address, channel in event.channels:
                frame = f"{start}{_encode(channel).decode()}{end}"
                if is_cache(channel):
                    self._publish_logged(address, frame, event.exclude, logged, not_stored)
                else:
                    messages.publish(address, frame, event.exclude)
        if not asked.wanted:
            logged.when_done(lambda status: done(status, []))
            return
        channels = [channel for event in asked.events for channel in event.channels]

        def counted() -> None:
            found = [self._directory.counts(address, channel, asked.wanted) for address, channel in channels]
            logged.when_done(lambda status: done(status, found))

        self._directory.when_counted(asked.wanted, [address for address, _ in channels], counted)

    def _publish_logged(
        self, key: bytes, frame: str, exclude: str, logged: _Logged, not_stored: Callable[[bytes], None]
    ) -> None:
        messages = self._messages

        def done(status: int, end: AfterOffset | None) -> None:
            if status != m.OK:
                not_stored(key)
                messages.publish(key, frame, exclude)
            logged.done(status)

        logged.open += 1
        expires = int(self._unix_time()) + self._options.cache_ttl
        messages.publish_logged(Append(key, messages.sequence(), expires, frame, most=1), done, exclude)


def _nothing(counts: list[Counts]) -> Response:
    return EMPTY


def only(counts: Counts, wanted: frozenset[str]) -> Counts:
    """Those that this event of a batch has asked for."""
    return {name: count for name, count in counts.items() if name in wanted}
