"""The request that a device connection begins with (RFC 9112), without I/O: bytes in, a request or a refusal.

`router.common.http_head` reads it, as it does on the router port.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from router.common import http_head
from router.common.http_date import http_date
from router.common.http_head import END, HeadError


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


def check_origin(request: Request, origins: tuple[str, ...]) -> None:
    """Whether the page that sends this request may connect; origins: none if every page may. Raises: Refusal."""
    if origins and request.headers.get(b"origin", b"").decode("latin-1") not in origins:
        raise Refusal(403, "origin is not allowed")


def offered_subprotocols(request: Request) -> list[str]:
    """What the client offers in Sec-WebSocket-Protocol, in its order."""
    value = request.headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
    return [part.strip() for part in value.split(",") if part.strip()]
