"""Server-sent events, as the browsers' EventSource reads them (HTML standard, section 9.2). Pure.

A browser that lost its connection comes again with the last `id` as the header Last-Event-ID. So each event that a log
holds has one. Where the application gave none it is `time:tag`, the event's place among all events. Where it gave one,
the event has that, and a block without data follows that has the place: the page sees the application's ID, and the
browser comes again with the place, which is exact in every channel, and where an application uses an ID twice.
"""

from __future__ import annotations

import re
from typing import Final

from farm.transports import Headers
from farm.transports.http_stream import HttpStream
from farm.transports.retry import reconnect_ms
from router.common.close_codes import GOING_AWAY, TRY_LATER
from router.common.position import LogEvent

_END_OF_LINE: Final = re.compile(rb"\r\n|\r|\n")


def place(event: LogEvent) -> str:
    """An event's place among all events, as the `id` that a client comes again with."""
    return f"{event.time}:{event.tag}"


def comment(text: bytes) -> bytes:
    """Lines that a client ignores."""
    return b"".join(b": %s\r\n" % line for line in _END_OF_LINE.split(text))


def _data(text: bytes) -> bytes:
    if b"\n" not in text and b"\r" not in text:
        return b"data: %s\r\n\r\n" % text
    return b"".join(b"data: %s\r\n" % line for line in _END_OF_LINE.split(text)) + b"\r\n"


def _one_line(text: str) -> bytes:
    return _END_OF_LINE.sub(b" ", text.encode())


class EventStream(HttpStream):
    """`text/event-stream`.

    opening, closing, beat: texts that are sent as comments, the first in any case, as it tells the client and what is
    between that the stream has begun. type_header: of a log's event, the type that EventSource dispatches it as.
    """

    __slots__ = ("_type_header",)

    def __init__(
        self,
        *,
        chunked: bool = True,
        headers: Headers = (),
        opening: bytes = b"",
        closing: bytes = b"",
        beat: bytes = b"",
        type_header: str = "type",
        late: bool = False,
        retry_after: int = 30,
    ) -> None:
        self._type_header = type_header
        super().__init__(
            "text/event-stream; charset=utf-8",
            chunked=chunked,
            headers=headers,
            opening=comment(opening) + b"\r\n",
            closing=comment(closing) if closing else b"",
            beat=comment(beat) + b"\r\n",
            late=late,
            retry_after=retry_after,
        )

    def text(self, payload: bytes) -> bytes:
        return self._part(_data(payload))

    def event(self, text: bytes, logged: LogEvent | None) -> bytes:
        if logged is None:
            return self.text(text)
        at = place(logged).encode()
        kind = logged.headers.get(self._type_header, "")
        typed = b"event: %s\r\n" % _one_line(kind) if kind else b""
        if not logged.id:
            return self._part(b"id: %s\r\n%s%s" % (at, typed, _data(text)))
        return self._part(b"id: %s\r\n%s%sid: %s\r\n\r\n" % (_one_line(logged.id), typed, _data(text), at))

    def close(self, code: int, reason: str) -> bytes:
        last = super().close(code, reason)
        if self._late or code not in (GOING_AWAY, TRY_LATER):
            return last
        return self._part(b"retry: %d\r\n\r\n" % reconnect_ms()) + last
