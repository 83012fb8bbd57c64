"""Long polling: what is said first is the answer, and the next request goes on behind it. Pure.

Where an answer ends stands in its headers: `Last-Modified` is the time of the newest event in it, and `Etag` its tag
among the events of that second. A client sends them again as If-Modified-Since and If-None-Match.
"""

from __future__ import annotations

from collections.abc import Sequence
from email.utils import formatdate
from typing import Final

from farm.transports import Headers, ResponseHead, Transport
from farm.transports.request import Request, header_lines, status_line
from farm.transports.retry import spread
from router.common.close_codes import GOING_AWAY, NO_STATUS, NORMAL, POLICY, TRY_LATER
from router.common.http_date import http_date
from router.common.position import LogEvent

_UNSAID: Final = {0: 304, NORMAL: 304, NO_STATUS: 304, GOING_AWAY: 304, POLICY: 403, TRY_LATER: 503}
"""The status where nothing was said, by close code; of any other: 500."""
_FRESH: Final = (("Expires", "Thu, 01 Jan 1970 00:00:01 GMT"), ("Cache-Control", "no-cache, no-store, must-revalidate"))


def position_headers(time: int, tag: int) -> tuple[tuple[str, str], ...]:
    """What a client sends again to go on from here."""
    return (("Last-Modified", formatdate(time, usegmt=True)), ("Etag", f"W/{tag}"))


class Part(bytes):
    """An event of a log in an answer."""

    at: tuple[int, int]
    """Its time and tag."""


class LongPoll(Transport):
    """One for all connections whose answers are alike. keeps_alive: whether the next request may come on the same
    connection. headers: of every answer. opening, closing: what a body begins and ends with. retry_after: seconds,
    where there is no room."""

    __slots__ = ("_closing", "_content_type", "_headers", "_opening", "_retry_after", "keeps_alive")

    once = True

    def __init__(
        self,
        keeps_alive: bool,
        content_type: str = "text/plain; charset=utf-8",
        headers: Headers = (),
        opening: bytes = b"",
        closing: bytes = b"",
        retry_after: int = 30,
    ) -> None:
        self.keeps_alive = keeps_alive
        self._content_type = content_type
        self._headers = (*_FRESH, *headers) if keeps_alive else (*_FRESH, *headers, ("Connection", "close"))
        self._opening = opening
        self._closing = closing
        self._retry_after = retry_after

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        return b""

    def text(self, payload: bytes) -> bytes:
        return payload

    def binary(self, payload: bytes) -> bytes:
        return payload

    def event(self, text: bytes, logged: LogEvent | None) -> bytes:
        if logged is None:
            return text
        part = Part(text)
        part.at = (logged.time, logged.tag)
        return part

    def respond(self, status: int, headers: Headers) -> ResponseHead:
        return ResponseHead(status_line(status) + header_lines((("Date", http_date()), *headers)))

    def answer(self, parts: Sequence[bytes], code: int, reason: str) -> bytes:
        if parts and isinstance(parts[0], ResponseHead):
            head, parts = parts[0], parts[1:]
        elif parts:
            newest = max((part.at for part in parts if isinstance(part, Part)), default=None)
            head = self.respond(200, () if newest is None else position_headers(*newest))
        else:
            status = _UNSAID.get(code, 500)
            head = self.respond(status, (("Retry-After", spread(self._retry_after)),) if status == 503 else ())
        headers = self._headers
        if code == GOING_AWAY and self.keeps_alive:  # a proxy should not ask here again
            headers = (*headers, ("Connection", "close"))
        if not parts:
            length = () if head.startswith(b"HTTP/1.1 304") else (("Content-Length", "0"),)
            return head + header_lines((*headers, *length)) + b"\r\n"
        body = self.body(parts)
        fields = (*headers, ("Content-Type", self._content_type), ("Content-Length", str(len(body))))
        return head + header_lines(fields) + b"\r\n" + body

    def body(self, parts: Sequence[bytes]) -> bytes:
        """Of an answer with these messages."""
        return b"".join((self._opening, *parts, self._closing))


class JsonpPoll(LongPoll):
    """For a page that asks by a script element: the answer calls a function of the page with the messages, each a
    JavaScript expression. callback: the function's name, checked by the caller."""

    __slots__ = ("_callback",)
    for_scripts = True

    def __init__(self, callback: str, keeps_alive: bool, headers: Headers = ()) -> None:
        safe = (("X-Content-Type-Options", "nosniff"), *headers)
        super().__init__(keeps_alive, "application/javascript; charset=utf-8", safe)
        self._callback = callback.encode()

    def body(self, parts: Sequence[bytes]) -> bytes:
        return b"%s([%s]);\r\n" % (self._callback, b",".join(parts))
