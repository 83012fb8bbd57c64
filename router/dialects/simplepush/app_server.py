"""SimplePush, app-server side: `PUT /update/{token}`, the batch route and PushGo's status pages.

Source: PushGo 1.5.0. Bodies are JSON strings or `{}` as PushGo's; what each status means is in
docs/dialects/simplepush.md.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import partial

import msgspec
from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header

from router.common import messages as m
from router.common.answers import Answer
from router.common.operation import Operation
from router.common.refusals import TOO_MANY_PUSHES
from router.common.settings import EndpointOptions
from router.common.token import TokenError
from router.core.operations import Done
from router.core.push_limits import retry_after
from router.core.pushes import DELIVERED, REFUSED_FAILED, REFUSED_FULL, REFUSED_OFTEN, REFUSED_OVER, STORED
from router.dialects.app_server import Context
from router.dialects.simplepush.pages import Pages
from router.dialects.simplepush.protocol import (
    BAD_METHOD,
    BAD_TOKEN,
    BAD_VERSION,
    FAILED,
    INBOX_FULL,
    NAME,
    NO_LINES,
    NOT_KEPT,
    PURPOSE,
    STORE_FULL,
    TOO_LONG,
    TOO_MANY_LINES,
    TOO_OFTEN,
    SimplePushOptions,
)
from router.http.limited import limited
from router.http.message import Request, Response
from router.http.parts import Parts
from router.http.percent import fields as urlencoded
from router.http.routes import Reply, Route


def _refusal(answer: Answer, *headers: tuple[str, str], text: str = "") -> Response:
    """text: more particular than the table's."""
    return Response(answer.status, msgspec.json.encode(text or answer.text), headers=headers)


_EMPTY = Response(200, b"{}")
_STORED = Response(202, b"{}")
_FAILED = _refusal(FAILED)
_BAD_VERSION = _refusal(BAD_VERSION)
_BAD_TOKEN = _refusal(BAD_TOKEN)
_BAD_METHOD = _refusal(BAD_METHOD, ("Allow", "PUT, OPTIONS"))
_NO_LINES = _refusal(NO_LINES)
_NOT_KEPT = _refusal(NOT_KEPT, ("Retry-After", "5"))
_RESPONSES = {
    DELIVERED: _EMPTY,
    STORED: _STORED,
    REFUSED_FULL: _refusal(INBOX_FULL, ("Retry-After", "60")),
    REFUSED_FAILED: _NOT_KEPT,
    REFUSED_OVER: _refusal(STORE_FULL, ("Retry-After", "60")),
}
_CORS_HEADERS = (("Access-Control-Allow-Origin", "*"), ("Access-Control-Allow-Methods", "PUT, OPTIONS"))
_MAX_VERSION = 2**63 - 1
_NUMBER = re.compile(rb"\+?[0-9]{1,19}")
_FORM = "application/x-www-form-urlencoded"
_MULTIPART = "multipart/form-data"
_MOST_PARTS = 64
_FORM_ROOM = 4096  # bytes of a form beside its data: names, version, and what a multipart form puts between them


class _Refused(Exception):
    """A push that is answered without asking the hub."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


class Push(Operation, tag=1):
    """An update for a device. The reply is its outcome (`router.core.pushes`)."""

    REPLY = int

    channel: str
    version: int | None
    """None: the next one, which only the owner can know."""
    data: str | None


def routes(context: Context) -> Iterable[Route]:
    """The dialect's routes on the router port."""
    app_side = _AppSide(context)
    app_side.register()
    pages = Pages(context)
    return (
        Route(b"/update/", limited(context.limits.address, app_side.update, app_side.too_many), exact=False),
        Route(b"/v1/push", app_side.batch),
        Route(b"/realstatus/", pages.real_status),
        Route(b"/metrics/", pages.metrics),
    )


class _AppSide:
    def __init__(self, context: Context) -> None:
        options = context.settings.get(SimplePushOptions)
        endpoint = context.settings.get(EndpointOptions)
        self._context = context
        self._messages = context.core.messages
        self._ask = context.core.operations.at
        self._counters = context.core.counters
        self._ttl = options.timeout_live
        self._max_data = options.max_data_bytes
        self._max_form = 3 * self._max_data + _FORM_ROOM  # %XX makes three bytes of one
        self._parts = Parts(context.turns, endpoint.lines_a_turn, endpoint.max_lines_in_work)
        self._max_batch = endpoint.max_batch
        self._too_many_lines = _refusal(
            TOO_MANY_LINES, text=f"More lines in one request than endpoint.max_batch allows, {self._max_batch}"
        )
        self._cors = endpoint.cors
        self._too_long = _refusal(TOO_LONG, text=f"Data exceeds max length of {self._max_data} bytes")
        self._of_address, self._of_endpoint = context.limits.address, context.limits.endpoint
        self._responses = dict(_RESPONSES)

    def register(self) -> None:
        """Perform pushes for the devices that this router owns."""
        perform = self.perform_push
        if self._of_endpoint is not None:
            self._responses[REFUSED_OFTEN] = _refusal(TOO_OFTEN, retry_after(self._of_endpoint.longest))
            perform = self._perform_limited
        self._context.core.operations.register(NAME, {Push: perform})

    def too_many(self, wait: float) -> Response:
        """The answer to a push of an address that has to wait so long."""
        return _refusal(TOO_MANY_PUSHES, retry_after(wait), *(_CORS_HEADERS if self._cors else ()))

    # ------------------------------------------------------------------ one push

    def update(self, request: Request, reply: Reply) -> None:
        """`PUT /update/{token}`: method, token, version, data. PushGo checks the token last; here nothing
        is parsed before the token is known to be good."""
        if self._cors:
            reply = _with_headers(reply, _CORS_HEADERS)
        if request.method != b"PUT":
            reply(Response(200) if request.method == b"OPTIONS" else _BAD_METHOD)
            return
        try:
            device, channel = self._open(request.path[8:])
            version, data = self._parameters(request)
        except _Refused as refused:
            reply(refused.response)
            return
        self._ask(device, Push(channel, version, data), partial(self._pushed, reply))

    def _pushed(self, decided: Callable[[Response], None], status: int, outcome: int | None = None) -> None:
        if status != m.OK or outcome is None:
            self._counters.pushes_refused += 1
            outcome = REFUSED_FAILED
        decided(self._responses.get(outcome, _NOT_KEPT))

    def _perform_limited(self, device: bytes, push: Push, done: Done) -> None:
        assert self._of_endpoint is not None
        if self._of_endpoint(device + push.channel.encode()):
            done(m.OK, REFUSED_OFTEN)
        else:
            self.perform_push(device, push, done)

    def perform_push(self, device: bytes, push: Push, done: Done) -> None:
        """Keep an update of a device that this router owns, and send it."""
        version = self._messages.version() if push.version is None else push.version
        # The data of an update is never stored (PushGo: privacy): only a device that is there gets it.
        self._messages.push(
            device, push.channel, version, partial(done, m.OK), ttl=self._ttl, body=push.data, keep_body=False
        )

    def _parameters(self, request: Request) -> tuple[int | None, str | None]:
        body = request.body
        if not request.query and body.startswith(b"version=") and body[8:].isdigit() and len(body) < 27:
            kind = request.headers.get(b"content-type", b"")
            if not kind or kind == _FORM.encode():
                return int(body[8:]), None
        fields = urlencoded(request.query) | self._body_fields(request)
        return self._check(fields.get("version", ""), fields.get("data", ""))

    def _body_fields(self, request: Request) -> dict[str, str]:
        """Fields of a form body. Without a Content-Type it is taken as urlencoded; any other type is not looked at."""
        content_type = request.headers.get(b"content-type", b"").decode("latin-1")
        kind = content_type.partition(";")[0].strip().lower() or _FORM
        if kind not in (_FORM, _MULTIPART):
            return {}
        if len(request.body) > self._max_form:
            self._counters.pushes_too_long += 1
            raise _Refused(self._too_long)
        return urlencoded(request.body) if kind == _FORM else _multipart(request.body, content_type)

    def _check(self, version: str, data: str) -> tuple[int | None, str | None]:
        number = None
        if version:
            text = version.encode("utf-8", "replace")
            if not _NUMBER.fullmatch(text) or (number := int(text)) > _MAX_VERSION:
                self._counters.pushes_invalid += 1
                raise _Refused(_BAD_VERSION)
        if len(data.encode("utf-8", "replace")) > self._max_data:
            self._counters.pushes_too_long += 1
            raise _Refused(self._too_long)
        return number, data or None

    def _open(self, token: bytes) -> tuple[bytes, str]:
        try:
            opened = self._context.tokens.open(PURPOSE, token)
        except TokenError:
            self._counters.pushes_rejected += 1
            raise _Refused(_BAD_TOKEN) from None
        return opened[:16], opened[16:].decode()

    # ------------------------------------------------------------------ many pushes

    def batch(self, request: Request, reply: Reply) -> None:
        """`POST /v1/push`: one JSON object a line; answered line by line, in order, when the last is decided."""
        if request.method != b"POST":
            reply(_refusal(BAD_METHOD, ("Allow", "POST")))
            return
        if request.body.count(b"\n") > self._max_batch:
            lines = self._max_batch + 1
        else:
            split = [line for line in request.body.split(b"\n") if line.strip()]
            lines = len(split)
        if lines > self._max_batch:
            reply(self._too_many_lines)
        elif not lines:
            reply(_NO_LINES)
        else:
            line = self._batch_line if self._of_address is None else partial(self._limited_line, request.address)
            _Batch(split, line, self._parts, request.connection, reply)

    def _limited_line(self, address: str, line: bytes, decided: Callable[[Response], None]) -> None:
        assert self._of_address is not None
        wait = self._of_address(address)
        if wait:
            decided(self.too_many(wait))
        else:
            self._batch_line(line, decided)

    def _batch_line(self, line: bytes, decided: Callable[[Response], None]) -> None:
        try:
            asked = _line_decoder.decode(line)
            version, data = self._check("" if asked.version is None else str(asked.version), asked.data or "")
            device, channel = self._open(asked.address())
        except msgspec.MsgspecError as error:
            decided(_refusal(NO_LINES, text=str(error)))
        except UnicodeDecodeError:
            decided(_refusal(NO_LINES, text="JSON is not UTF-8"))
        except RecursionError:
            decided(_refusal(NO_LINES, text="JSON is nested too deeply"))
        except _Refused as refused:
            decided(refused.response)
        else:
            self._ask(device, Push(channel, version, data), partial(self._pushed, decided))


class _Batch:
    """The lines of one request and their answers."""

    def __init__(
        self,
        lines: list[bytes],
        push: Callable[[bytes, Callable[[Response], None]], None],
        parts: Parts,
        connection: object,
        reply: Reply,
    ) -> None:
        self._lines = lines
        self._push = push
        self._reply = reply
        self._answers: list[bytes] = [b""] * len(lines)
        self._undecided = len(lines)
        self._decided = parts.add(connection, self._begin, len(lines))

    def _begin(self, index: int) -> None:
        line, self._lines[index] = self._lines[index], b""
        try:
            self._push(line, lambda response: self._answer(index, response))
        except Exception:  # a defect, which `Parts` logs: the other lines have their answers
            self._answer(index, _FAILED)
            raise

    def _answer(self, index: int, response: Response) -> None:
        if self._answers[index]:
            return
        self._answers[index] = _line(response)
        self._undecided -= 1
        if not self._undecided:
            self._reply(Response(200, b"\n".join(self._answers) + b"\n", "application/x-ndjson"))
        self._decided()


class _Line(msgspec.Struct):
    """One line of a batch. Null counts as not given."""

    endpoint: str | None = None
    token: str | None = None
    version: int | str | None = None
    data: str | None = None

    def address(self) -> bytes:
        """The token, from either form."""
        token = self.token or (self.endpoint or "").partition("?")[0].rpartition("/update/")[2]
        return token.encode("utf-8", "replace")


_line_decoder = msgspec.json.Decoder(_Line)


def _line(response: Response) -> bytes:
    if response.status in (200, 202):
        return b'{"status":%d}' % response.status
    return b'{"status":%d,"error":%s}' % (response.status, response.body)


def _with_headers(reply: Reply, headers: tuple[tuple[str, str], ...]) -> Reply:
    def with_headers(response: Response) -> None:
        reply(Response(response.status, response.body, response.content_type, response.headers + headers))

    return with_headers


def _multipart(body: bytes, content_type: str) -> dict[str, str]:
    """Fields of a multipart form (RFC 7578); of a broken one those before the break, as in Go."""
    boundary = parse_options_header(content_type)[1].get("boundary")
    if not boundary:
        return {}
    found: dict[str, str] = {}
    name, value = "", b""
    try:
        with PushMultipartParser(boundary, max_segment_count=_MOST_PARTS) as parser:
            for event in parser.parse(body):
                if isinstance(event, MultipartSegment):
                    name, value = event.name, b""
                elif event:
                    value += event
                else:
                    found.setdefault(name, value.decode("utf-8", "replace"))
    except (MultipartError, ValueError):  # ValueError: the boundary is none
        pass
    return found
