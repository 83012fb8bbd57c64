"""A stream over HTTP: messages are the body of an answer that goes on. Pure.

`HttpStream` is for clients that read the body as it comes, a message a line. What the client sends meanwhile is thrown
away.
"""

from __future__ import annotations

from copy import copy
from http import HTTPStatus
from typing import Final

from farm.transports import Headers, ResponseHead, Transport
from farm.transports.request import Request, Response, response_head
from farm.transports.retry import spread
from router.common.close_codes import GOING_AWAY, NO_STATUS, NORMAL, POLICY, TRY_LATER
from router.common.http_date import http_date

_UNBEGUN: Final[dict[int, int]] = {NORMAL: 200, NO_STATUS: 200, POLICY: 403, GOING_AWAY: 503, TRY_LATER: 503}
"""The status where the connection is closed before the session has given one, by close code; of any other: 500."""
LAST_CHUNK: Final = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk of a body (RFC 9112 section 7.1); of nothing: nothing, as that would end the body."""
    return b"%x\r\n%s\r\n" % (len(data), data) if data else b""


class HttpStream(Transport):
    """One for all connections whose answers begin alike. Where it is `late`, the answer begins when the session gives a
    `Respond`, so that it may still be an error, and not with the acceptance of the request. One that is closed before
    that is answered by the close code.

    chunked: False for a client that speaks HTTP/1.0: for it the end of the connection is the end of the body.
    headers: of every answer. opening, closing: bytes that the body begins and ends with; that of one that is refused
    (POLICY) is empty. beat: of the body, what a ping is. ending: behind each message. retry_after: seconds, where there
    is no room.
    """

    __slots__ = (
        "_beat",
        "_begun",
        "_chunked",
        "_closing",
        "_end",
        "_ending",
        "_head",
        "_headers",
        "_late",
        "_opening",
        "_retry_after",
    )

    def __init__(
        self,
        content_type: str,
        *,
        chunked: bool = True,
        headers: Headers = (),
        opening: bytes = b"",
        closing: bytes = b"",
        beat: bytes = b"",
        ending: bytes = b"\r\n",
        late: bool = False,
        retry_after: int = 30,
    ) -> None:
        framing = (("Transfer-Encoding", "chunked"),) if chunked else ()
        # X-Accel-Buffering has nginx pass on what comes at once.
        fields = (("Content-Type", content_type), *framing, ("Connection", "close"), ("X-Accel-Buffering", "no"))
        self._head = (*fields, *headers)
        self._chunked = chunked
        self._opening = opening
        self._end = LAST_CHUNK if chunked else b""
        self._closing = self._part(closing) + self._end
        self._beat = self._part(beat)
        self._ending = ending
        self._headers = tuple(headers)
        self._retry_after = retry_after
        self._late = late
        self._begun = self
        if late:
            self._begun = begun = copy(self)  # so a subclass sets what is its own first
            begun._late, begun._begun = False, begun

    def _part(self, data: bytes) -> bytes:
        return chunk(data) if self._chunked else data

    def head(self, request: Request, subprotocol: str | None, headers: Headers) -> bytes:
        return b"" if self._late else self._begin(200, headers)

    def respond(self, status: int, headers: Headers) -> ResponseHead | None:
        return ResponseHead(self._begin(status, headers)) if self._late else None

    @property
    def responded(self) -> HttpStream:
        return self._begun

    def _begin(self, status: int, headers: Headers) -> bytes:
        head = response_head(status, (("Date", http_date()), *self._head, *headers))
        return head + self._part(self._opening) if status == HTTPStatus.OK else head

    def text(self, payload: bytes) -> bytes:
        return self._part(payload + self._ending)

    def binary(self, payload: bytes) -> bytes:
        return self.text(payload)

    def ping(self, payload: bytes) -> bytes:
        return self._beat

    def close(self, code: int, reason: str) -> bytes:
        if self._late:
            return self._unbegun(_UNBEGUN.get(code, 500))
        return self._end if code == POLICY else self._closing

    def _unbegun(self, status: int) -> bytes:
        """The whole answer to a request that has none yet."""
        if status == HTTPStatus.OK:
            return self._begin(status, ()) + self._closing
        later = (("Retry-After", spread(self._retry_after)),) if status == HTTPStatus.SERVICE_UNAVAILABLE else ()
        return Response(status, b"", (*self._headers, *later)).encode()
