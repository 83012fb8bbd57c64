"""The transport of gopush2's TCP protocol: a command, then heartbeats, which are one byte in both directions, and
messages, `$<bytes>\\r\\n<JSON>\\r\\n`. An error ends the connection without a message."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote_from_bytes

from farm.dialects.gopush2.multibulk import MultibulkError, parse
from farm.transports import BytesReader, Headers, PeerError, Reader, Transport
from farm.transports.frames import TEXT
from farm.transports.request import Refusal, Request
from router.dialects.gopush2.protocol import BAD_HEARTBEAT, HEARTBEAT, SUB_PATH

NO_HTTP: Final = (0, 0)
"""As the version of a request: it was a command of this protocol."""
_COMMAND: Final = b"sub"
_PARAMETERS: Final = ("key", "mid", "heartbeat", "token")


class HeartbeatReader(BytesReader):
    """Heartbeats that wait for their turn."""

    __slots__ = ()

    def feed(self, data: bytes, most: int) -> list[tuple[int, bytes]]:
        data = self._kept + data
        now = data[:most]
        beats = len(now) - len(now.lstrip(HEARTBEAT))
        if beats < len(now):
            self.error = PeerError(BAD_HEARTBEAT, BAD_HEARTBEAT.text)
            self._kept = b""
        else:
            self._kept = data[most:]
        self.more = bool(self._kept)
        self.taken = beats
        return [(TEXT, HEARTBEAT)] * beats


class GopushTcp(Transport):
    """No HTTP at all."""

    __slots__ = ()

    two_way = True
    request_timeout = 5.0
    for_pages = False

    def request(self, data: bytes, max_bytes: int, max_headers: int, seen: int) -> tuple[Request, bytes] | None:
        try:
            found = parse(data, max_bytes)
        except MultibulkError as error:
            raise Refusal(400, str(error)) from None
        if found is None:
            return None
        (command, *values), end = found
        if command != _COMMAND:
            raise Refusal(400, "there is no such command")
        given = zip(_PARAMETERS, values, strict=False)
        query = "&".join(f"{name}={quote_from_bytes(value, safe='')}" for name, value in given)
        return Request(b"GET", SUB_PATH, query, {}, NO_HTTP), data[end:]

    def refusal(self, refusal: Refusal, request: Request | None) -> bytes:
        return b""

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        return b""

    def texts(self, data: bytes, max_message: int, most: int) -> tuple[list[bytes], int] | None:
        if data == HEARTBEAT:
            return [HEARTBEAT], 1
        return None

    def reader(self, max_message: int, max_fragments: int) -> Reader:
        return HeartbeatReader()

    def text(self, payload: bytes) -> bytes:
        return payload if payload == HEARTBEAT else b"$%d\r\n%s\r\n" % (len(payload), payload)

    def binary(self, payload: bytes) -> bytes:
        return self.text(payload)


GOPUSH_TCP: Final = GopushTcp()
