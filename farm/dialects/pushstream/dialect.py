"""push stream, device side: which requests begin what, and the texts of messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import msgspec

from farm.dialects import (
    Admission,
    Call,
    Context,
    Dialect,
    Effect,
    Event,
    Opened,
    Session,
    Subscribed,
    Subscription,
)
from farm.dialects.pushstream.polls import ImmediatePollSession, PollSession
from farm.dialects.pushstream.requests import (
    POLL,
    POLLING_MODES,
    WEBSOCKET_MODE,
    Asked,
    asked,
    mode_of,
    named,
    redirected,
)
from farm.dialects.pushstream.sessions import (
    NEWEST,
    PublishingSession,
    RefusedSession,
    StreamSession,
    WebSocketSession,
)
from farm.dialects.pushstream.transports import Transports
from farm.settings import WorkerOptions
from farm.transports import HTTP, Transport
from farm.transports.request import Refusal, Request, Response
from router.common import messages as m
from router.common.position import LIVE, LogEvent
from router.dialects.pushstream.protocol import (
    ADMIT,
    CALLBACK_ARGUMENT,
    EVENT_ID_ARGUMENT,
    EXPLAIN,
    LONGEST_TIMER,
    MISSED_ID,
    NAME,
    NO_CHANNEL,
    NOT_READ,
    OTHER_VERSION,
    TAG_ARGUMENT,
    TIME_ARGUMENT,
    TIMED_OUT_ID,
    TIMED_OUT_TEXT,
    PushStreamOptions,
    Refused,
    channel_address,
    label,
    refusal_of,
    subscribers_address,
)
from router.dialects.pushstream.templates import Message, Template, message_of

_KEPT_TEXTS: Final = 256
_KEPT_BYTES: Final = 2048
"""Texts of events that are kept, and the longest of them."""
_encode: Final = msgspec.json.Encoder().encode
_shared_address = lru_cache(2048)(channel_address)


class PushStreamDialect(Dialect):
    """What all sessions of a worker share."""

    methods = (b"GET", b"OPTIONS")
    ignored_arguments = frozenset(("_", TAG_ARGUMENT, TIME_ARGUMENT, EVENT_ID_ARGUMENT, CALLBACK_ARGUMENT))

    def __init__(self, context: Context) -> None:
        self.options = options = context.settings.get(PushStreamOptions)
        worker = context.settings.get(WorkerOptions)
        self._transports = Transports(options, worker.retry_after)
        self.retry_after = str(worker.retry_after)
        self.patience = worker.admission_timeout
        self._template = Template(options.message_template)
        self._texts: dict[tuple[str, int], tuple[tuple[Any, ...], bytes]] = {}
        self.counters = context.counters
        self.pings = float(options.ping_message_interval)
        self.stream_ttl = float(options.subscriber_connection_ttl)
        self.poll_ttl = float(options.longpolling_connection_ttl) or self.stream_ttl
        self.timed_out = (
            self._template.fill(Message(TIMED_OUT_ID, "", TIMED_OUT_TEXT)) if options.timeout_with_body else b""
        )

    # ------------------------------------------------------------------ requests

    def transport(self, request: Request) -> Transport:
        if request.method == b"OPTIONS":
            return HTTP
        try:
            return self._transports.find(request)
        except Refused as refused:
            raise self._refusal(request, refused) from None

    def wanted(self, request: Request) -> Sequence[str]:
        try:
            return [channel.name for channel in named(request, self.options)]
        except Refused as refused:
            if refused.answer is NO_CHANNEL:  # the main server may name some
                return ()
            raise self._refusal(request, refused) from None

    def redirected(self, target: str) -> Sequence[str]:
        return redirected(target)

    @property
    def asks_of_messages(self) -> bool:
        return self.options.websocket_allow_publish

    def opened(self, request: Request) -> Opened:
        if request.method == b"OPTIONS":
            return Response(200, headers=(("Allow", "GET, OPTIONS"), *self._transports.headers(request)))
        mode = mode_of(request)
        try:
            found = asked(request, self.options)
        except Refused as refused:
            return self._refused(request, mode, refused)
        if self.options.authorized_channels_only:
            names = [channel.name for channel in found.channels]
            question = m.Invoke(NAME, _shared_address(names[0]), _encode([ADMIT, names]))
            return Admission(Call(question, (mode, found)))
        return self._session(mode, found, request)

    def admitted(self, request: Request, context: Any, status: int, payload: Any) -> Opened:
        mode, found = context
        answer = NOT_READ if status != m.OK or payload is None else refusal_of(payload)
        if answer is not None:
            return self._refused(request, mode, Refused(answer))
        return self._session(mode, found, request)

    def _refused(self, request: Request, mode: str, refused: Refused) -> Session:
        """A WebSocket gets the reason behind the upgrade. Raises: Refusal for all others."""
        if mode != WEBSOCKET_MODE:
            raise self._refusal(request, refused)
        self.counters.commands_refused += 1
        return RefusedSession(refused.answer)

    def _session(self, mode: str, found: Asked, request: Request) -> Session:
        polls = mode in POLLING_MODES
        wanted = tuple(
            Subscription(
                _shared_address(channel.name),
                label(channel.name),
                position=NEWEST if polls and position is LIVE else position,
            )
            for channel, position in zip(found.channels, found.positions, strict=True)
        )
        most = self.options.max_subscribers_per_channel
        if most:  # presence counts over all shards
            wanted += tuple(
                Subscription(subscribers_address(channel.name), user=request.socket_id, most=most)
                for channel in found.channels
            )
        if polls:
            return ImmediatePollSession(self, wanted) if mode == POLL else PollSession(self, wanted)
        if mode != WEBSOCKET_MODE:
            return StreamSession(self, wanted)
        if self.options.websocket_allow_publish:
            names = tuple(channel.name for channel in found.channels)
            return PublishingSession(self, wanted, _names=names, _asks=request.grant is not None)
        return WebSocketSession(self, wanted)

    def _refusal(self, request: Request, refused: Refused) -> Refusal:
        self.counters.commands_refused += 1
        answer = refused.answer
        refusal = Refusal(answer.status, answer.text)
        refusal.headers = {EXPLAIN: answer.text, **dict(self._transports.headers(request))}
        if answer is OTHER_VERSION:
            refusal.headers["Sec-WebSocket-Version"] = "8, 13"
        return refusal

    # ------------------------------------------------------------------ messages

    def event_text(self, channel: str, event: LogEvent) -> bytes:
        # Many come back at once to the same events, and each reads them from the log: to fill the template takes 5 us.
        kept = self._texts.get((channel, event.offset))
        if kept is not None and kept[0] == event:
            return kept[1]
        text = self._template.fill(message_of(channel, event))
        if len(text) <= _KEPT_BYTES:
            if len(self._texts) >= _KEPT_TEXTS:
                self._texts.clear()
            self._texts[channel, event.offset] = tuple(event), text
        return text

    def missed_text(self, channel: str) -> bytes | None:
        text = self.options.missed_message
        return self._template.fill(Message(MISSED_ID, channel, text)) if text else None

    def missing(self, results: Sequence[Subscribed]) -> Iterator[Effect]:
        """The message for a client whose position is one that a log does not reach back to."""
        for wanted, _, _, log in results:
            if log is not None and not log.recovered and wanted.position is not NEWEST:
                text = self.missed_text(m.label_parts(wanted.label)[2])
                if text is not None:
                    yield Event(text)

    # ------------------------------------------------------------------ time

    def step(self, left: float) -> float:
        """Seconds until the next tick of a connection that ends in so many seconds, or stays (0); 0: it needs none."""
        due = [seconds for seconds in (self.pings, left) if seconds > 0]
        return min(*due, LONGEST_TIMER) if due else 0.0
