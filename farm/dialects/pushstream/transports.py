"""How subscribers of push stream are answered over HTTP: one transport for all whose answers are alike. Pure."""

from __future__ import annotations

from farm.dialects.pushstream.requests import EVENT_SOURCE, STREAM, WEBSOCKET_MODE, callback_of, check_upgrade, mode_of
from farm.transports import Headers, Transport
from farm.transports.event_stream import EventStream
from farm.transports.http_stream import HttpStream
from farm.transports.long_poll import JsonpPoll, LongPoll
from farm.transports.request import Request
from farm.transports.websocket import WEBSOCKET
from router.dialects.pushstream.cors import cors_headers
from router.dialects.pushstream.protocol import HEADER_TYPE, PING_ID, PushStreamOptions
from router.dialects.pushstream.templates import Message, Template


class _Kinds:
    """Transports whose answers have the same headers."""

    def __init__(self, options: PushStreamOptions, retry_after: int, headers: Headers) -> None:
        self.headers = headers
        template = Template(options.message_template)
        ping = template.fill(Message(PING_ID, "", options.ping_message_text)) + b"\r\n"
        opening, closing = options.header_template.encode(), options.footer_template.encode()
        line = b"\r\n" if opening else b""
        self._streams: dict[tuple[str, bool], Transport] = {}
        for chunked in (False, True):
            self._streams[STREAM, chunked] = HttpStream(
                options.content_type,
                chunked=chunked,
                headers=headers,
                opening=opening + line,
                closing=closing,
                beat=ping,
                late=True,
                retry_after=retry_after,
            )
            self._streams[EVENT_SOURCE, chunked] = EventStream(
                chunked=chunked,
                headers=headers,
                opening=opening,
                closing=closing,
                beat=b"%d" % PING_ID,
                type_header=HEADER_TYPE,
                late=True,
                retry_after=retry_after,
            )
        self._polls = {
            keeps_alive: LongPoll(keeps_alive, options.content_type, headers, opening, closing, retry_after)
            for keeps_alive in (False, True)
        }

    def find(self, mode: str, request: Request, callback: str) -> Transport:
        if callback and mode not in (STREAM, EVENT_SOURCE):
            return JsonpPoll(callback, request.keep_alive, self.headers)
        found = self._streams.get((mode, request.version >= (1, 1)))
        return self._polls[request.keep_alive] if found is None else found


class Transports:
    """All that there are. retry_after: seconds until one for which there is no room may come again."""

    def __init__(self, options: PushStreamOptions, retry_after: int) -> None:
        def kinds(origin: str) -> _Kinds:
            return _Kinds(options, retry_after, cors_headers(origin, "GET", options))

        self._by_origin = {origin.encode(): kinds(origin) for origin in options.allowed_origins}
        self._others = kinds("")

    def _kinds(self, request: Request) -> _Kinds:
        return self._by_origin.get(request.headers.get(b"origin", b""), self._others)

    def headers(self, request: Request) -> Headers:
        """Of every answer to this client."""
        return self._kinds(request).headers

    def find(self, request: Request) -> Transport:
        """The one by which a request is answered. Raises: Refused."""
        mode = mode_of(request)
        if mode == WEBSOCKET_MODE:
            check_upgrade(request)
            return WEBSOCKET
        return self._kinds(request).find(mode, request, callback_of(request))
