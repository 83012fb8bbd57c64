"""WebSocket (RFC 6455), without I/O and without extensions."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from hashlib import sha1
from typing import Final

from farm.transports import Headers, Reader, Transport
from farm.transports.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    CloseFinder,
    FrameReader,
    encode_close,
    encode_frame,
    encode_text,
    short_texts,
)
from farm.transports.request import Refusal, Request, header_lines
from router.common.http_head import END, has_token
from router.common.refusals import MALFORMED, NO_UPGRADE

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_SWITCHING: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
)


class WebSocket(Transport):
    """What most dialects speak. The fast path of both directions are functions: nothing stands between."""

    __slots__ = ()

    two_way = True
    texts = staticmethod(short_texts)
    text = staticmethod(encode_text)

    def check(self, request: Request) -> None:
        """Whether this is an upgrade to WebSocket (section 4.2.1)."""
        headers = request.headers
        wanted = has_token(headers.get(b"upgrade", b""), b"websocket") and has_token(
            headers.get(b"connection", b""), b"upgrade"
        )
        if not wanted or request.version < (1, 1) or request.method != b"GET":
            raise Refusal.of(NO_UPGRADE, Upgrade="websocket", Connection="Upgrade, close")
        if headers.get(b"sec-websocket-version") != b"13":
            raise Refusal.of(
                NO_UPGRADE,
                "Sec-WebSocket-Version must be 13",
                Upgrade="websocket",
                Connection="Upgrade, close",
                Sec_WebSocket_Version="13",
            )
        try:
            key = binascii.a2b_base64(headers.get(b"sec-websocket-key", b""), strict_mode=True)
        except binascii.Error:
            key = b""
        if len(key) != 16:
            raise Refusal.of(MALFORMED, "Sec-WebSocket-Key must be 16 bytes in base64")

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        key = request.headers[b"sec-websocket-key"]
        accepted = base64.b64encode(sha1(key + _GUID, usedforsecurity=False).digest())  # section 4.2.2
        if subprotocol is None and not headers:
            return _SWITCHING + accepted + END
        if subprotocol is not None:
            headers = (*headers, ("Sec-WebSocket-Protocol", subprotocol))
        return _SWITCHING + accepted + b"\r\n" + header_lines(headers) + b"\r\n"

    def reader(self, max_message: int, max_fragments: int) -> Reader:
        return FrameReader(max_message, max_fragments)

    def binary(self, payload: bytes) -> bytes:
        return encode_frame(BINARY, payload)

    def ping(self, payload: bytes) -> bytes:
        return encode_frame(PING, payload)

    def pong(self, payload: bytes) -> bytes:
        return encode_frame(PONG, payload)

    def close(self, code: int, reason: str) -> bytes:
        return encode_close(code, reason)

    def close_reply(self, payload: bytes) -> bytes:
        return encode_frame(CLOSE, payload[:2])  # the code alone

    def finder(self, reader: Reader | None, held: Iterable[tuple[int, bytes]]) -> CloseFinder | None:
        finder = CloseFinder()
        if any(kind == CLOSE for kind, _ in held) or (isinstance(reader, FrameReader) and finder.feed(reader.rest)):
            return None
        return finder


WEBSOCKET: Final = WebSocket()
