"""gopush2, device side: which requests begin what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import ceil
from typing import Final

from farm.dialects import Context, Dialect, Opened
from farm.dialects.gopush2.client_page import CLIENT_PAGE, CLIENT_PAGE_TRANSPORT
from farm.dialects.gopush2.sessions import BadParameter, JoiningSession, RefusedSession, wanted
from farm.dialects.gopush2.tcp import GOPUSH_TCP, NO_HTTP
from farm.transports import Transport
from farm.transports.request import Refusal, Request
from farm.transports.websocket import WEBSOCKET
from router.common.position import LogEvent
from router.dialects.gopush2.protocol import BAD_PARAMETER, CLIENT_PATH, NOT_GRANTED, Gopush2Options, message_text

_SECONDS: Final = 1024  # that are remembered


class Gopush2Dialect(Dialect):
    """What all sessions of a worker share."""

    ignored_arguments = frozenset(("mid", "heartbeat"))

    def __init__(self, context: Context) -> None:
        self.options = context.settings.get(Gopush2Options)
        self.counters = context.counters
        self.unix_time = context.unix_time
        self.devices = 0
        """That are subscribed now."""
        self.subscribed = 0
        """That have been since the start."""

    @property
    def first_tick(self) -> float:
        return float(2 * self.options.heartbeat)

    def transport(self, request: Request) -> Transport:
        if request.version == NO_HTTP:
            return GOPUSH_TCP
        return CLIENT_PAGE_TRANSPORT if request.path == CLIENT_PATH else WEBSOCKET

    def wanted(self, request: Request) -> Sequence[str]:
        if request.path == CLIENT_PATH:
            return ()
        try:
            return (wanted(request.query, self.options).key,)
        except BadParameter:
            return ()  # as `opened` will say

    def opened(self, request: Request) -> Opened:
        options = self.options
        if request.path == CLIENT_PATH:
            if not options.debug:
                raise Refusal(404, "the test page is off: gopush2.debug")
            return CLIENT_PAGE
        try:
            found = wanted(request.query, options)
        except BadParameter as error:
            return RefusedSession(BAD_PARAMETER, str(error))
        if request.grant is not None and request.grant.channels is not None and found.key not in request.grant.channels:
            return RefusedSession(NOT_GRANTED, NOT_GRANTED.text)
        return JoiningSession(self, found, request.socket_id)

    def counts(self) -> Mapping[str, float]:
        return {"gopush2_devices": self.devices, "gopush2_subscribed": self.subscribed}

    def event_text(self, channel: str, event: LogEvent) -> bytes:
        return message_text(event.offset, event.body, self.options.msg_id)

    def deadline(self, seconds: int) -> int:
        """When that is from now, in unix seconds: one object for all of that second."""
        return _shared(ceil(self.unix_time()) + seconds)


@lru_cache(_SECONDS)
def _shared(second: int) -> int:
    return second
