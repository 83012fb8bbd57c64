"""push stream, device side: which requests begin what."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from farm.dialects import (
    Admission,
    Call,
    Context,
    Opened,
    Session,
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
    PublishingSession,
    RefusedSession,
    StreamSession,
    WebSocketSession,
)
from farm.dialects.pushstream.shared import NEWEST, PushStreamShared
from farm.dialects.pushstream.transports import Transports
from farm.settings import WorkerOptions
from farm.transports import HTTP, Transport
from farm.transports.request import Refusal, Request, Response
from router.common import messages as m
from router.common.operation import invoke
from router.common.position import LIVE
from router.dialects.pushstream.protocol import (
    CALLBACK_ARGUMENT,
    EVENT_ID_ARGUMENT,
    EXPLAIN,
    NAME,
    NO_CHANNEL,
    NOT_READ,
    OTHER_VERSION,
    TAG_ARGUMENT,
    TIME_ARGUMENT,
    Admit,
    Refused,
    channel_address,
    label,
    refusal_of,
    subscribers_address,
)

_shared_address = lru_cache(2048)(channel_address)


class PushStreamDialect(PushStreamShared):
    """The dialect, for a whole worker."""

    methods = (b"GET", b"OPTIONS")
    ignored_arguments = frozenset(("_", TAG_ARGUMENT, TIME_ARGUMENT, EVENT_ID_ARGUMENT, CALLBACK_ARGUMENT))

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._transports = Transports(self.options, context.settings.get(WorkerOptions).retry_after)

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
            question = invoke(NAME, _shared_address(names[0]), Admit(names))
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
