"""gopush2, device side: which requests begin what."""

from __future__ import annotations

from collections.abc import Sequence

from farm.dialects import Opened
from farm.dialects.gopush2.client_page import CLIENT_PAGE, CLIENT_PAGE_TRANSPORT
from farm.dialects.gopush2.sessions import BadParameter, JoiningSession, RefusedSession, wanted
from farm.dialects.gopush2.shared import Gopush2Shared
from farm.dialects.gopush2.tcp import GOPUSH_TCP, NO_HTTP
from farm.transports import Transport
from farm.transports.request import Refusal, Request
from farm.transports.websocket import WEBSOCKET
from router.dialects.gopush2.protocol import BAD_PARAMETER, CLIENT_PATH, NOT_GRANTED


class Gopush2Dialect(Gopush2Shared):
    """The dialect, for a whole worker."""

    ignored_arguments = frozenset(("mid", "heartbeat"))

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
