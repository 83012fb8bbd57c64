"""The upgrade request of a device (RFC 9112 and RFC 6455 section 4.2), without I/O: bytes in, a request or a refusal.

Parsed strictly: what two parsers could read in two ways is refused.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha1
from http import HTTPStatus
from typing import Final

_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE: Final = re.compile(rb"(" + _TOKEN + rb") (/[\x21-\x7e]*) HTTP/(\d)\.(\d)")
_FIELD_VALUE: Final = rb"[\t\x20-\x7e\x80-\xff]*"
_FIELDS: Final = re.compile(rb"(?:" + _TOKEN + rb":" + _FIELD_VALUE + rb"\r\n)*")
_FIELD: Final = re.compile(rb"(" + _TOKEN + rb"):[ \t]*(" + _FIELD_VALUE + rb"?)[ \t]*\r\n")
_END: Final = b"\r\n\r\n"
_ONCE: Final = (b"host", b"sec-websocket-key", b"sec-websocket-version", b"origin", b"content-length")


@dataclass(slots=True)
class Request:
    """A whole request head. Names are in lower case; values of a repeated header are joined by a comma."""

    method: bytes
    path: str
    query: str
    headers: dict[bytes, bytes]
    version: tuple[int, int]
    socket_id: str = ""
    """A name of the connection that no other has in this farm, "<digits>.<digits>"; the worker gives it."""


class Refusal(Exception):
    """The request is answered with an HTTP error, and the connection ends."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def encode(self) -> bytes:
        """The answer's bytes."""
        body = self.text.encode() + b"\n"
        lines = [
            f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}",
            *(f"{name}: {value}" for name, value in self.headers.items()),
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close" if "Connection" not in self.headers else "",
        ]
        return "\r\n".join(filter(None, lines)).encode("latin-1") + _END + body


def parse(data: bytes, max_bytes: int, max_headers: int) -> tuple[Request, bytes] | None:
    """The request at the beginning of `data` and the bytes behind it; None if it is not whole yet.

    Raises: Refusal if it is malformed or over a limit (also while it is not whole).
    """
    end = data.find(_END)
    if end < 0 or end + len(_END) > max_bytes:
        if len(data) >= max_bytes:
            raise Refusal(431, f"request head is longer than {max_bytes} bytes")
        if not _could_be_a_request(data):
            raise Refusal(400, "this is no HTTP request")
        return None
    line_end = data.find(b"\r\n", 0, end + 2)
    line = _REQUEST_LINE.fullmatch(data, 0, line_end)
    if line is None:
        raise Refusal(400, "request line is malformed")
    fields = data[line_end + 2 : end + 2]
    if _FIELDS.fullmatch(fields) is None:
        raise Refusal(400, "a header line is malformed")
    pairs = _FIELD.findall(fields)
    if len(pairs) > max_headers:
        raise Refusal(431, f"more than {max_headers} headers")
    headers: dict[bytes, bytes] = {}
    for name, value in pairs:
        name = name.lower()
        if name in headers:
            if name in _ONCE:
                raise Refusal(400, f"header {name.decode()} stands twice")
            value = headers[name] + b", " + value
        headers[name] = value
    method, target, major, minor = line.groups()
    if major != b"1":
        raise Refusal(400, "HTTP/1.1 is expected")
    path, _, query = target.decode("ascii").partition("?")
    return Request(method, path, query, headers, (int(major), int(minor))), data[end + 4 :]


def _could_be_a_request(data: bytes) -> bool:
    # Somebody who speaks TLS or anything else to this port should hear of it at once, not at the deadline.
    line, newline, _ = data.partition(b"\n")
    if newline:
        return line.endswith(b"\r") and _REQUEST_LINE.fullmatch(line[:-1]) is not None
    return re.match(rb"(?:" + _TOKEN + rb"(?: |$)|$)", line[:64]) is not None


def check_plain(request: Request) -> None:
    """What holds for every request on the device port.

    Raises: Refusal.
    """
    if b"host" not in request.headers and request.version >= (1, 1):
        raise Refusal(400, "Host header is missing")
    if request.method != b"GET":
        raise Refusal(405, "only GET is understood here", Allow="GET")
    length = request.headers.get(b"content-length", b"0")
    if not length.isdigit():
        raise Refusal(400, "Content-Length is not a number")
    if length.strip(b"0") or b"transfer-encoding" in request.headers:
        raise Refusal(413, "a request here has no body")


def accept(request: Request, origins: tuple[str, ...]) -> bytes:
    """Check that this is an upgrade to WebSocket from an allowed origin.

    Returns: the value of Sec-WebSocket-Accept (RFC 6455 section 4.2.2).
    Raises: Refusal.
    """
    headers = request.headers
    upgrade = headers.get(b"upgrade", b"").lower()
    connection = headers.get(b"connection", b"").lower()
    if request.version < (1, 1) or not _has(upgrade, b"websocket") or not _has(connection, b"upgrade"):
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


def _has(value: bytes, token: bytes) -> bool:
    return value == token or token in (part.strip() for part in value.split(b","))


def offered_subprotocols(request: Request) -> list[str]:
    """What the client offers in Sec-WebSocket-Protocol, in its order."""
    value = request.headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
    return [part.strip() for part in value.split(",") if part.strip()]


def switching(accept_value: bytes, subprotocol: str | None) -> bytes:
    """The bytes of the 101 answer."""
    head = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    if subprotocol is None:
        return head + accept_value + _END
    return head + accept_value + b"\r\nSec-WebSocket-Protocol: " + subprotocol.encode("latin-1") + _END
