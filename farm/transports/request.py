"""The request that a device connection begins with (RFC 9112), without I/O: bytes in, a request or a refusal.

`router.common.http_head` reads it, as it does on the router port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from http import HTTPStatus
from typing import Final, NamedTuple, Self

from router.common import http_head, pages
from router.common.answers import Answer
from router.common.http_date import http_date
from router.common.http_head import HeadError
from router.common.refusals import BAD_ORIGIN, NO_LENGTH, OTHER_METHOD, TOO_LARGE

_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_ONE_LINE: Final = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
_WITHOUT_BODY: Final = (204, 304)
READING: Final = (b"GET", b"HEAD")
OPTIONS: Final = b"OPTIONS"


class Grant(NamedTuple):
    """What the application's main server has granted to a client."""

    channels: tuple[str, ...] | None = None
    """Those that it may have; None: the main server names none, and it may have what it asks for."""
    user: str = ""
    """User id."""
    data: str = ""
    """Whatever else the main server says of it, as JSON; "" for nothing."""
    expires: int = 0
    """Seconds after which the worker has the main server asked again; 0: never."""


@dataclass(slots=True)
class Request:
    """A whole request head. Names are in lower case; values of a repeated header are joined by a comma (Cookie:
    by a semicolon)."""

    method: bytes
    path: str
    query: str
    headers: dict[bytes, bytes]
    version: tuple[int, int]
    length: int = 0
    """Bytes of the body; below 0: it comes in chunks."""
    socket_id: str = ""
    """A name of the connection that no other has in this farm, "<digits>.<digits>"; the worker gives it."""
    address: str = ""
    """Of the client. A session that needs it keeps it; the worker does not."""
    expects: bool = False
    """Whether the client waits for 100 Continue before it sends the body."""
    keep_alive: bool = False
    """Whether the client may send another request on this connection."""
    body: bytes = b""
    grant: Grant | None = None
    """None: no main server is asked about clients of this dialect."""


class Response(NamedTuple):
    """The whole answer to a request, after which the connection ends."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()
    """Besides those that every answer has."""
    content_type: str = "text/plain; charset=utf-8"

    def encode(self, head_only: bool = False) -> bytes:
        """Its bytes. head_only: to a HEAD request."""
        lines = [("Date", http_date()), *self.headers]
        if self.status not in _WITHOUT_BODY:
            lines += [("Content-Type", self.content_type), ("Content-Length", str(len(self.body)))]
        if not any(name.lower() == "connection" for name, _ in self.headers):
            lines.append(("Connection", "close"))
        head = response_head(self.status, lines)
        return head if head_only or self.status in _WITHOUT_BODY else head + self.body


@lru_cache(100)
def status_line(status: int) -> bytes:
    """What an answer begins with."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


def response_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """The head of an answer. Raises: ValueError for what is no header."""
    return status_line(status) + header_lines(headers) + b"\r\n"


def header_lines(headers: Iterable[tuple[str, str]]) -> bytes:
    """Headers of an answer, each with its line end. Raises: ValueError for one that would be more than one line."""
    lines = []
    for name, value in headers:
        if not _ONE_LINE.fullmatch(value) or not _TOKEN.fullmatch(name):
            raise ValueError(f"{name!r} with the value {value!r} is no header of an answer")
        lines.append(f"{name}: {value}\r\n")
    return "".join(lines).encode("latin-1")


class Refusal(Exception):
    """The request is answered with an HTTP error, and the connection ends."""

    @classmethod
    def of(cls, answer: Answer, text: str = "", **headers: str) -> Self:
        """As a row of a table has it. text: more particular than the row's."""
        return cls(answer.status, text or answer.text, **headers)

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def encode(self, head_only: bool = False) -> bytes:
        """The answer's bytes. head_only: to a HEAD request."""
        return Response(self.status, self.text.encode() + b"\n", tuple(self.headers.items())).encode(head_only)


class Denied(Refusal):
    """The application's main server refuses the request: it is answered as that has said."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status, "the main server does not allow this")
        self.response = response

    def encode(self, head_only: bool = False) -> bytes:
        return self.response.encode(head_only)


def parse(data: bytes, max_bytes: int, max_headers: int, seen: int = 0) -> tuple[Request, bytes] | None:
    """The request at the beginning of `data` and the bytes behind it; None if it is not whole yet.

    seen: so many of these bytes were there at the last call, which gave None.
    Raises: Refusal if it is malformed or over a limit (also while it is not whole).
    """
    try:
        parsed = http_head.parse(data, max_bytes, max_headers, seen=seen)
    except HeadError as error:
        raise Refusal.of(error.answer, error.text) from None
    if parsed is None:
        return None
    head, end = parsed
    if head.path == b"*":
        raise Refusal(200, "this port speaks WebSocket", Allow="GET, HEAD")
    path, query = head.path.decode("ascii"), head.query.decode("ascii")
    fields = head.fields
    request = Request(head.method, path, query, head.headers, fields.version, fields.length)
    if fields.expects:
        request.expects = True
    request.keep_alive = fields.keep_alive
    return request, data[end:]


def check_plain(request: Request, methods: tuple[bytes, ...] = READING, max_body: int = 0) -> None:
    """What holds for every request on the device port: its method, and how long its body is.

    Raises: Refusal.
    """
    if request.method not in methods:
        understood = "only GET is" if methods == READING else ", ".join(map(bytes.decode, methods)) + " are"
        raise Refusal.of(OTHER_METHOD, f"{understood} understood here", Allow=", ".join(map(bytes.decode, methods)))
    if request.length and not max_body:
        raise Refusal.of(TOO_LARGE, "a request here has no body")
    if request.length > max_body:
        raise Refusal.of(TOO_LARGE, f"a body here has no more than {max_body} bytes")
    if request.length < 0:
        raise Refusal.of(NO_LENGTH)


def check_origin(request: Request, origins: tuple[str, ...]) -> None:
    """Whether the page that sends this request may connect; origins: none if every page may. Raises: Refusal."""
    if not origins:
        return
    headers = request.headers
    origin = pages.page_origin(headers)
    if origin not in origins:
        own = not origin and headers.get(pages.SITE) == b"same-origin"
        if not own or pages.host(headers) not in map(pages.authority, origins):
            raise Refusal.of(BAD_ORIGIN)


def check_own_page(request: Request, known: bool = False) -> None:
    """Whether a request with what a browser sends of itself (cookies, a password) comes from a page of the same host,
    or of none. Another page could use what it gets in the name of its visitor. known: it must be known that it is no
    other page's: a script element sends no Origin, and over plain HTTP nothing at all if its page wants no Referer.
    Raises: Refusal."""
    headers = request.headers
    if b"cookie" not in headers and b"authorization" not in headers:
        return
    origin = pages.page_origin(headers)
    site = headers.get(pages.SITE)
    if origin:
        other = pages.authority(origin) != pages.host(headers)
    else:
        other = site in pages.OTHER_SITES or (known and site is None)
    if other:
        raise Refusal.of(
            BAD_ORIGIN, "origin is not allowed: with cookies a page of another host has to be in worker.origins"
        )


def offered_subprotocols(request: Request) -> list[str]:
    """What the client offers in Sec-WebSocket-Protocol, in its order."""
    value = request.headers.get(b"sec-websocket-protocol", b"").decode("latin-1")
    return [part.strip() for part in value.split(",") if part.strip()]
