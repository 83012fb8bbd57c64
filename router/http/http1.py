"""HTTP/1.1 for app servers, without I/O: bytes in, requests out; answers in, bytes out in the order of the requests.

`router.common.http_head` reads the heads; here are bodies (RFC 9112 6 and 7), limits, and pipelining. Trailers are
counted with the headers, and dropped: they are never taken for headers (RFC 9110 6.5.1).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Container, Sized
from typing import Final

from router.common.answers import Answer
from router.common.client_address import Networks
from router.common.forwarded import ForwardedError, forwarded_address
from router.common.http_head import CHUNKED, END, Fields, HeadError, check_fields, parse, skip_blank_lines
from router.common.refusals import LONG_HEAD, MALFORMED, TOO_LARGE
from router.common.settings import EndpointOptions
from router.http.message import REQUEST_ID, PendingResponse, Request, Response, refusal, sane_id

_CHUNK: Final = re.compile(rb"([0-9A-Fa-f]{1,16})((?:;[\t\x20-\x7e\x80-\xff]*+)?)")
_REMEMBERED: Final = 2048  # bytes of header lines that are kept for the next request of a connection: more are rare
_LONGEST_SIZE: Final = 18  # digits of a chunk's size, and a line end
_HEAD, _BODY, _CHUNK_SIZE, _CHUNK_DATA, _CHUNK_END, _TRAILERS = range(6)


class HttpConnection:
    """The protocol state of one connection of an app server.

    `receive` gives whole requests, each with what is to be called with its answer; then `answered` is called, and
    `take` gives what can be sent by now. `finished` says that nothing more will come and the connection is to be closed
    when everything taken has been sent.
    """

    def __init__(self, options: EndpointOptions, answered: Callable[[], None] = lambda: None) -> None:
        self._options = options
        self._answered = answered
        self.address = ""
        """Where it comes from, without a port; "" if that is not known."""
        self.proxies: Networks | None = None
        """It is a proxy's connection, whose requests come from where their headers say; these are the proxies."""
        self.out: Sized = b""
        """What was taken and could not be written yet: its owner's."""
        self.deferred: dict[PendingResponse, Callable[[], None]] = {}
        """What is to be made when there is room: `make_deferred`."""
        self._pending: deque[PendingResponse] = deque()
        self._waiting_bytes = 0  # of answers
        self._rest = b""  # bytes that were received and not yet parsed
        self._seen = 0  # so many bytes of the rest have been looked at, and did not make a head, or line, whole
        self._state = _HEAD
        self._method = self._path = self._query = b""
        self._headers: dict[bytes, bytes] = {}
        self._fields: Fields | None = None  # of this request, or the last
        self._body: bytes | bytearray = b""  # bytearray while it comes in pieces
        self._missing = 0  # bytes of the body, or of the chunk
        self._extra = 0  # bytes of head, chunk extensions and trailers
        self._expect_continue = False
        self.more = False
        """Whether `receive` has stopped at its limit: call it again, perhaps with nothing, when there is a turn."""
        self.begun = 0
        """Requests of which something was received."""
        self.finished = False
        self.refused = False

    # ------------------------------------------------------------------ bytes in

    def receive(self, data: bytes, most: int = 1 << 30) -> list[tuple[Request, PendingResponse]]:
        """Parse what came, up to so many requests and not beyond `full`; what is behind them waits here.

        After an error or the last request of the connection, further bytes are not looked at.
        """
        if self.finished:
            return []
        if self._rest:
            data = self._rest + data
            self._rest = b""
        ready: list[tuple[Request, PendingResponse]] = []
        try:
            at = self._parse(data, ready, most)
        except HeadError as error:
            self.give_up(error.answer, error.text)
        else:
            if at < len(data) and not self.finished:
                self._rest = data[at:]
        return ready

    def _parse(self, data: bytes, ready: list[tuple[Request, PendingResponse]], most: int) -> int:
        """Returns: how far it came."""
        at, end = 0, len(data)
        self.more = False
        while at < end and not self.finished:
            state = self._state
            if state == _HEAD:
                if data.startswith(b"\r\n", at):
                    at = skip_blank_lines(data, at)
                    self._seen = 0
                    if at == end:
                        break
                if len(ready) >= most or self.full:
                    self.more = True
                    break
                found = self._head(data, at)
            elif state in (_BODY, _CHUNK_DATA):
                found = self._some_body(data, at)
            elif state == _CHUNK_SIZE:
                found = self._chunk_size(data, at)
            elif state == _CHUNK_END:
                found = self._chunk_end(data, at)
            else:
                found = self._trailers(data, at)
            if found < 0:
                self._seen = end - at
                break
            self._seen = 0
            at = found
            if self._state == _BODY and not self._missing:
                ready.append(self._whole())
        return at

    # Each of these takes what is there from `at` on, and gives where it stopped; -1: it needs more.

    def _head(self, data: bytes, at: int) -> int:
        options = self._options
        if not self._seen:
            self.begun += 1
        parsed = parse(data, options.max_header_bytes, options.max_headers, at, self._seen, self._fields)
        if parsed is None:
            return -1
        head, end = parsed
        self._method, self._path, self._query = head.method, head.path, head.query
        self._headers = head.headers
        if self.proxies is not None:
            try:
                self.address_of(head.headers)
            except ForwardedError as error:
                raise HeadError(MALFORMED, str(error)) from None
        self._fields = fields = head.fields
        self._expect_continue = fields.expects
        length = fields.length
        if length > options.max_body_bytes:
            raise HeadError(TOO_LARGE)
        self._extra = end - at
        if length == CHUNKED:
            self._state = _CHUNK_SIZE
            self._body = bytearray()
            return end
        self._state = _BODY
        if len(data) - end >= length:  # the usual: all of it is there
            self._missing = 0
            self._body = data[end : end + length]
            return end + length
        self._missing = length
        self._body = bytearray()
        return end

    def _some_body(self, data: bytes, at: int) -> int:
        end = min(at + self._missing, len(data))
        self._body += data[at:end]
        self._missing -= end - at
        if not self._missing and self._state == _CHUNK_DATA:
            self._state = _CHUNK_END
        return end

    def _chunk_size(self, data: bytes, at: int) -> int:
        end = data.find(b"\r\n", at + max(self._seen - 1, 0))
        if end < 0:
            if len(data) - at > _LONGEST_SIZE and b";" not in data[at : at + _LONGEST_SIZE]:
                raise HeadError(MALFORMED, "size of a chunk is malformed")
            self._count(len(data) - at - _LONGEST_SIZE, keep=False)
            return -1
        found = _CHUNK.fullmatch(data, at, end)
        if found is None:
            raise HeadError(MALFORMED, "size of a chunk is malformed")
        self._count(len(found[2]))
        size = int(found[1], 16)
        if len(self._body) + size > self._options.max_body_bytes:
            raise HeadError(TOO_LARGE)
        self._missing = size
        self._state = _CHUNK_DATA if size else _TRAILERS
        return end + 2

    def _chunk_end(self, data: bytes, at: int) -> int:
        if len(data) - at < 2:
            return -1
        if not data.startswith(b"\r\n", at):
            raise HeadError(MALFORMED, "a chunk is longer than its size")
        self._state = _CHUNK_SIZE
        return at + 2

    def _trailers(self, data: bytes, at: int) -> int:
        if data.startswith(b"\r\n", at):
            end = at
        else:
            end = data.find(END, at + max(self._seen - 3, 0)) + 2
            if end < 2:
                self._count(len(data) - at, keep=False)
                return -1
            self._count(end - at)
            if check_fields(data[at:end]) + len(self._headers) > self._options.max_headers:
                raise HeadError(LONG_HEAD, "too many trailers")
        self._state = _BODY  # with nothing missing
        return end + 2

    def _count(self, extra: int, keep: bool = True) -> None:
        """Count bytes that are neither body nor needed for it: together they have the room of one head."""
        if self._extra + extra > self._options.max_header_bytes:
            raise HeadError(LONG_HEAD)
        if keep:
            self._extra += extra

    def _whole(self) -> tuple[Request, PendingResponse]:
        assert self._fields is not None
        keep_alive = self._fields.keep_alive
        body = bytes(self._body)  # no copy of what is bytes already
        self._body = b""
        size = len(body)
        pending = PendingResponse(self, keep_alive, self._method == b"HEAD", size)
        self._pending.append(pending)
        self._waiting_bytes += size
        if (given := self._headers.get(REQUEST_ID)) is not None:
            pending.request_id = sane_id(given)
        request = Request(self._method, self._path, self._query, self._headers, body, pending)
        self._method = self._path = self._query = b""
        self._headers = {}
        if len(self._fields.raw) > _REMEMBERED:
            self._fields = None
        self._extra = 0
        self._state = _HEAD
        self._expect_continue = False
        if not keep_alive:
            self.finished = True
        return request, pending

    def address_of(self, headers: dict[bytes, bytes]) -> str:
        """Where a request with these headers comes from. Raises: ForwardedError, but not for one that is whole."""
        return self.address if self.proxies is None else forwarded_address(self.address, headers, self.proxies)

    def give_up(self, answer: Answer, text: str = "", *headers: tuple[str, str]) -> None:
        """Answer the unfinished request with an error; nothing more is read, and what was read of it is forgotten.

        text: more particular than the row's.
        """
        if self.finished:
            return
        pending = PendingResponse(self, False, False, 0)
        self._pending.append(pending)
        self.finished = self.refused = True
        self._rest = b""
        self._body = b""
        self._headers = {}
        self._fields = None
        self._extra = 0
        self._expect_continue = False
        pending(refusal(answer, text, *headers))

    def end_behind(self, pending: PendingResponse) -> None:
        """This answer is to be the last one, unless other requests have come behind it."""
        if self._pending[-1] is pending and not self._rest:
            pending.keep_alive = False
            self.finished = True

    @property
    def full(self) -> bool:
        """Whether so much is being handled, or waits to be sent, that no more is read until some of it is done."""
        options = self._options
        return len(self._pending) >= options.max_pipelined or self._waiting_bytes > options.max_write_bytes

    @property
    def in_request(self) -> bool:
        """Whether a part of a request was received."""
        return (self._state != _HEAD or bool(self._rest)) and not self.more and not self.finished

    @property
    def drained(self) -> bool:
        """Whether nothing that came waits to be parsed, and more may come."""
        return not self._rest and self._state == _HEAD and not self.finished

    @property
    def idle(self) -> bool:
        """Whether nothing of a request is here, and no answer is awaited."""
        return self._state == _HEAD and not self._rest and not self._pending and not self.finished

    @property
    def held(self) -> int:
        """Bytes that this connection has waiting: received, in work, and answers that cannot be sent yet."""
        return len(self._rest) + self._extra + len(self._body) + self._waiting_bytes

    # ------------------------------------------------------------------ bytes out

    def answer(self, pending: PendingResponse, size: int) -> None:
        """One has its answer, of this size."""
        self._waiting_bytes += size - pending.size
        pending.size = size
        self._answered()

    def take(self) -> bytes:
        """What is to be sent now: the answers up to the first that is not there yet."""
        pending = self._pending
        if self._expect_continue and not pending:
            self._expect_continue = False
            return b"HTTP/1.1 100 Continue\r\n\r\n"
        if not pending or pending[0].data is None:
            return b""
        if len(pending) == 1:
            parts = [pending.popleft().data or b""]
        else:
            parts = []
            while pending and (data := pending[0].data) is not None:
                parts.append(data)
                pending.popleft()
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._waiting_bytes -= len(data)
        return data

    @property
    def waiting(self) -> bool:
        """Whether a request is without its answer."""
        return bool(self._pending)

    def take_back(self, instead: Response, but: Container[PendingResponse]) -> int:
        """Answer all with this that have an answer which was not taken. Returns: how many they are."""
        number = 0
        for pending in self._pending:
            if pending.data is not None and pending not in but:
                pending.data = None
                pending(instead)
                number += 1
        return number

    # ------------------------------------------------------------------ answers that are large

    def defer(self, pending: PendingResponse, make: Callable[[], None]) -> bool:
        """Whether a large answer is not to be made yet, since too much waits to be sent before it. Then `make` is
        called when there is room; of several one after the other."""
        crowded = self._crowded(pending)
        if crowded:
            self.deferred[pending] = make
        return crowded

    def make_deferred(self) -> None:
        """Something has been written, or taken: one large answer may be made, if there is room for it now."""
        first = self._pending[0]
        pending = first if first in self.deferred else next(iter(self.deferred))
        if not self._crowded(pending):
            self.deferred.pop(pending)()

    def _crowded(self, pending: PendingResponse) -> bool:
        """Bytes that wait behind the first answer do not count against it: they are sent after it."""
        before = 0 if pending is self._pending[0] else self._waiting_bytes
        return len(self.out) + before > self._options.max_write_bytes
