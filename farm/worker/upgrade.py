"""The upgrade request of a device (RFC 9112 and RFC 6455 section 4.2), without I/O: bytes in, a request or a refusal.

`router.common.http_head` reads it, as it does on the router port.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from hashlib import sha1
from http import HTTPStatus
from typing import Final

from router.common import http_head
from router.common.http_date import http_date
from router.common.http_head import END, HeadError, has_token

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


@dataclass(slots=True)
class Request:
    """A whole request head. Names are in lower case; values of a repeated header are joined by a comma."""

    method: bytes
    path: str
    query: str
    headers: dict[bytes, bytes]
    version: tuple[int, int]
    length: int = 0
    """Bytes of the body; below 0: it comes in chunks."""
    socket_id: str = ""
    """A name of the connection that no other has in this farm, "<digits>.<digits>"; the worker gives it."""


class Refusal(Exception):
    """The request is answered with an HTTP error, and the connection ends."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def encode(self, head_only: bool = False) -> bytes:
        """The answer's bytes. head_only: to a HEAD request."""
        body = self.text.encode() + b"\n"
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            f"Date: {http_date()}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close" if "Connection" not in self.headers else "",
        ]
        head = "\r\n".join(filter(None, lines)).encode("latin-1") + END
        return head if head_only else head + body


def parse(data: bytes, max_bytes: int, max_headers: int, seen: int = 0) -> tuple[Request, bytes] | None:
    """The request at the beginning of `data` and the bytes behind it; None if it is not whole yet.

    seen: so many of these bytes were there at the last call, which gave None.
    Raises: Refusal if it is malformed or over a limit (also while it is not whole).
    """
    try:
        parsed = http_head.parse(data, max_bytes, max_headers, seen=seen)
    except HeadError as error:
        raise Refusal(error.status, error.text) from None
    if parsed is None:
        return None
    head, end = parsed
    if head.path == b"*":
        raise Refusal(200, "this port speaks WebSocket", Allow="GET, HEAD")
    path, query = head.path.decode("ascii"), head.query.decode("ascii")
    return Request(head.method, path, query, head.headers, head.fields.version, head.fields.length), data[end:]


def check_plain(request: Request) -> None:
    """What holds for every request on the device port.

    Raises: Refusal.
    """
    if request.method not in (b"GET", b"HEAD"):
        raise Refusal(405, "only GET is understood here", Allow="GET, HEAD")
    if request.length:
        raise Refusal(413, "a request here has no body")


def accept(request: Request, origins: tuple[str, ...]) -> bytes:
    """Check that this is an upgrade to WebSocket from an allowed origin.

    Returns: the value of Sec-WebSocket-Accept (RFC 6455 section 4.2.2).
    Raises: Refusal.
    """
    headers = request.headers
    wanted = has_token(headers.get(b"upgrade", b""), b"websocket") and has_token(
        headers.get(b"connection", b""), b"upgrade"
    )
    if not wanted or request.version < (1, 1) or request.method != b"GET":
        raise Refusal(426, "this port speaks WebSocket", Upgrade="websocket", Connection="Upgrade, close")
    if headers.get(b"sec-websocket-version") != b"13":
        raise Refusal(
            426,
            "Sec-WebSocket-Version must be 13",
            Upgrade="websocket",
            Connection="Upgrade, close",
            Sec_WebSocket_Version="13",
        )
    key = headers.get(b"sec-websocket-key", b"")
    try:
        decoded = binascii.a2b_base64(key, strict_mode=True)
    except binascii.Error:
        decoded = b""
    if len(decoded) != 16:
        raise Refusal(400, "Sec-WebSocket-Key must be 16 bytes in base64")
    if origins and headers.get(b"origin", b"").decode("latin-1") not in origins:
        raise Refusal(403, "origin is not allowed")
    return base64.b64encode(sha1(key + _GUID, usedforsecurity=False).digest())


def offered_subprotocols(request: Request) -> list[str]:
    """What the client offers in Sec-WebSocket-Protocol, in its order."""
    value = request.headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
    return [part.strip() for part in value.split(",") if part.strip()]


def switching(accept_value: bytes, subprotocol: str | None) -> bytes:
    """The bytes of the 101 answer."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    if subprotocol is None:
        return head + accept_value + END
    return head + accept_value + b"\r\nSec-WebSocket-Protocol: " + subprotocol.encode("latin-1") + END
