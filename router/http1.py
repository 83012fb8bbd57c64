"""HTTP/1.1 for app servers, without I/O: bytes in, requests out; answers in, bytes out in the order of the requests.

httptools (llhttp) parses; RFC 9112 is the standard. What is added here are limits, and pipelining.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus

import httptools

from router.settings import EndpointOptions


@dataclass(slots=True)
class Request:
    """One whole request. Header names are in lower case; of repeated headers the last is kept."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes


@dataclass(slots=True)
class Response:
    """An answer. `headers` are further header lines (name, value). Not to be changed once it has been sent."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    # Nearly all answers are one of a handful of constants: their bytes are made once.
    _encoded: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def encoded(self) -> bytes:
        """The bytes of this answer on a connection that stays."""
        if self._encoded is None:
            self._encoded = encode(self, True)
        return self._encoded


class HttpError(Exception):
    """The request breaks the protocol or a limit; it is answered with this and the connection ends."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = Response(status, text.encode() + b"\n", "text/plain; charset=utf-8")


_REASONS = {status.value: status.phrase for status in HTTPStatus}
_REASONS[413] = "Content Too Large"


def encode(response: Response, keep_alive: bool, head_only: bool = False) -> bytes:
    """The bytes of an answer."""
    lines = [f"HTTP/1.1 {response.status} {_REASONS.get(response.status, 'Unknown')}"]
    if response.body or response.status not in (204, 304):
        lines.append(f"Content-Length: {len(response.body)}")
    if response.body:
        lines.append(f"Content-Type: {response.content_type}")
    lines.extend(f"{name}: {value}" for name, value in response.headers)
    if not keep_alive:
        lines.append("Connection: close")
    head = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
    return head if head_only else head + response.body


class Place:
    """The place of one request in the order of answers. Called with the answer, once."""

    __slots__ = ("_answered", "data", "head_only", "keep_alive")

    def __init__(self, keep_alive: bool, head_only: bool, answered: Callable[[], None]) -> None:
        self.keep_alive = keep_alive
        self.head_only = head_only
        self.data: bytes | None = None
        self._answered = answered

    def __call__(self, response: Response) -> None:
        if self.keep_alive and not self.head_only:
            self.data = response.encoded()
        else:
            self.data = encode(response, self.keep_alive, self.head_only)
        self._answered()


class HttpConnection:
    """The protocol state of one connection of an app server.

    `receive` gives whole requests, each with the place to call with its answer; then `answered` is called, and `take`
    gives what can be sent by now. `finished` says that nothing more will come and the connection is to be closed when
    everything taken has been sent.
    """

    def __init__(self, options: EndpointOptions, answered: Callable[[], None] = lambda: None) -> None:
        self._options = options
        self._answered = answered
        self._parser = httptools.HttpRequestParser(self)
        self._pending: deque[Place] = deque()
        self._ready: list[tuple[Request, Place]] = []
        self._reset()
        self.in_request = False
        self.finished = False
        self.refused = False
        self._expect_continue = False

    def _reset(self) -> None:
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._body: list[bytes] = []
        self._size = 0  # while the head comes: bytes of it in earlier reads; then: bytes of the body
        self._head_size = 0
        self._in_head = True
        self._header_count = 0

    # ------------------------------------------------------------------ bytes in

    def receive(self, data: bytes) -> list[tuple[Request, Place]]:
        """Parse what came. After an error or the last request of the connection, further bytes are not looked at."""
        if self.finished:
            return []
        if self._in_head:
            self._size += len(data)
        try:
            self._parser.feed_data(data)
            if self._in_head and self.in_request and self._size > self._options.max_header_bytes:
                self._fail(431, "Request Header Fields Too Large")
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__ or error.__cause__
            if not isinstance(cause, HttpError):
                raise
            self._refuse(cause)
        except httptools.HttpParserInvalidMethodError:
            self._fail(501, "Not Implemented")
        except httptools.HttpParserError:
            self._fail(400, "Bad Request")
        ready, self._ready = self._ready, []
        return ready

    def give_up(self, status: int, text: str) -> None:
        """Answer the unfinished request with an error; nothing more is read."""
        self._fail(status, text)

    def _fail(self, status: int, text: str) -> None:
        self._refuse(HttpError(status, text))

    def _refuse(self, error: HttpError) -> None:
        if self.finished:
            return  # what stands behind the last request is nobody's business
        place = Place(False, False, self._answered)
        place.data = encode(error.response, False)
        self._pending.append(place)
        self.finished = self.refused = True

    @property
    def full(self) -> bool:
        """Whether as many requests are in work as may be: read no more until some are answered."""
        return len(self._pending) >= self._options.max_pipelined

    # --- called by httptools
    def on_message_begin(self) -> None:
        self.in_request = True

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > self._options.max_header_bytes:
            raise HttpError(414, "URI Too Long")

    def on_header(self, name: bytes, value: bytes) -> None:
        # Judged when the head is whole; one that never ends is stopped by its bytes, in receive.
        self._header_count += 1
        self._head_size += len(name) + len(value) + 4
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._size = 0
        if self._header_count > self._options.max_headers or self._head_size > self._options.max_header_bytes:
            raise HttpError(431, "Request Header Fields Too Large")
        headers = self._headers
        length = headers.get(b"content-length")
        if length is not None and length.isdigit() and int(length) > self._options.max_body_bytes:
            raise HttpError(413, "Content Too Large")
        if b"host" not in headers and self._parser.get_http_version() == "1.1":
            raise HttpError(400, "Host header is missing")
        if self._parser.should_upgrade():
            raise HttpError(400, "Upgrade is not supported on this port: devices connect to the device port")
        if headers.get(b"expect", b"").lower() == b"100-continue":
            self._expect_continue = True

    def on_body(self, body: bytes) -> None:
        self._body.append(body)
        self._size += len(body)
        if self._size > self._options.max_body_bytes:
            raise HttpError(413, "Content Too Large")

    def on_message_complete(self) -> None:
        if self.finished:
            return
        self.in_request = False
        self._expect_continue = False
        method = self._parser.get_method()
        path, _, query = self._url.partition(b"?")
        # An HTTP/1.0 client would have to be told that its connection stays: it does not stay.
        keep_alive = self._parser.should_keep_alive() and self._parser.get_http_version() == "1.1"
        place = Place(keep_alive, method == b"HEAD", self._answered)
        body = self._body[0] if len(self._body) == 1 else b"".join(self._body)
        self._ready.append((Request(method, path, query, self._headers, body), place))
        self._pending.append(place)
        if not keep_alive:
            self.finished = True
        self._reset()

    # ------------------------------------------------------------------ bytes out

    def take(self) -> bytes:
        """What is to be sent now: the answers up to the first that is not there yet."""
        pending = self._pending
        if self._expect_continue and not pending:
            self._expect_continue = False
            return b"HTTP/1.1 100 Continue\r\n\r\n"
        if not pending or pending[0].data is None:
            return b""
        if len(pending) == 1:
            return pending.popleft().data or b""
        parts = []
        while pending and (data := pending[0].data) is not None:
            parts.append(data)
            pending.popleft()
        return b"".join(parts)

    @property
    def waiting(self) -> bool:
        """Whether a request is without its answer."""
        return bool(self._pending)
