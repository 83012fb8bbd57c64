"""A request of an app server and its answer, as routes have them, and the bytes of an answer."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final, Protocol

import msgspec

from router.common.answers import Answer
from router.common.http_date import http_date
from router.common.refusals import ROUTE_FAILED

REQUEST_ID: Final = b"x-request-id"
_SANE_ID: Final = re.compile(rb"[!-~]{1,128}")


def sane_id(value: bytes) -> str:
    """A request ID as an app server, or a balancer before it, has given it; "" if it is none to repeat in answers and
    logs: up to 128 printable characters of ASCII without spaces."""
    return value.decode() if _SANE_ID.fullmatch(value) else ""


@dataclass(slots=True)
class Request:
    """One whole request. Header names are in lower case; values of a repeated header are joined by a comma."""

    method: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    pending: PendingResponse | None = field(default=None, repr=False, compare=False)
    """Its answer, among those of its connection."""

    @property
    def connection(self) -> object:
        """Stands for the connection that it came by: each connection has a share of what is done at once."""
        return None if self.pending is None else self.pending.connection

    @property
    def address(self) -> str:
        """Where it comes from, without a port; "" if that is not known."""
        return "" if self.pending is None else self.pending.connection.address_of(self.headers)

    def id(self) -> str:
        """Its ID, for logs: the one that it came with, or else one that is made now, which its answer names."""
        pending = self.pending
        if pending is None:
            return ""
        if not pending.request_id:
            pending.request_id = os.urandom(8).hex()
        return pending.request_id


@dataclass(slots=True)
class Response:
    """An answer. `headers` are further header lines (name, value). Not to be changed once it has been sent."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()
    # Nearly all answers are one of a handful of constants: their bytes are made once a second.
    _encoded: bytes = field(default=b"", init=False, repr=False, compare=False)
    _date: str = field(default="", init=False, repr=False, compare=False)

    def encoded(self) -> bytes:
        """The bytes of this answer on a connection that stays."""
        date = http_date()
        if self._date is not date:
            self._encoded = encode(self, True)
            self._date = date
        return self._encoded


_REASONS = {status.value: status.phrase for status in HTTPStatus}
_REASONS[413] = "Content Too Large"


def refusal(answer: Answer, text: str = "", *headers: tuple[str, str]) -> Response:
    """The answer to a request that the port refuses: plain text. text: more particular than the row's."""
    return Response(answer.status, (text or answer.text).encode() + b"\n", "text/plain; charset=utf-8", headers)


def rejection(answer: Answer, *headers: tuple[str, str]) -> Response:
    """The answer to a whole request that no route has answered: the row's text as JSON."""
    return Response(answer.status, msgspec.json.encode(answer.text), headers=headers)


INTERNAL: Final = rejection(ROUTE_FAILED)


def encode(response: Response, keep_alive: bool, head_only: bool = False, request_id: str = "") -> bytes:
    """The bytes of an answer. request_id: that it names; "": none."""
    status, body = response.status, response.body
    text = f"HTTP/1.1 {status} {_REASONS.get(status, 'Unknown')}\r\nDate: {http_date()}\r\n"
    if body:
        text += f"Content-Length: {len(body)}\r\nContent-Type: {response.content_type}\r\n"
    elif status not in (204, 304):
        text += "Content-Length: 0\r\n"
    for name, value in response.headers:
        text += f"{name}: {value}\r\n"
    if request_id:
        text += f"X-Request-Id: {request_id}\r\n"
    head = (text + ("\r\n" if keep_alive else "Connection: close\r\n\r\n")).encode("latin-1")
    return head if head_only or not body else head + body


class Connection(Protocol):
    """What an answer knows of the connection that it goes out by."""

    def address_of(self, headers: dict[bytes, bytes]) -> str:
        """Where a request with these headers comes from, without a port; "" if that is not known."""

    def answer(self, pending: PendingResponse, size: int) -> None:
        """It has an answer, of so many bytes."""

    def end_behind(self, pending: PendingResponse) -> None:
        """This answer is to be the last one, unless other requests have come behind it."""

    def defer(self, pending: PendingResponse, make: Callable[[], None]) -> bool:
        """Whether a large answer is not to be made yet: then `make` is called when there is room."""


class PendingResponse:
    """The answer of one request, in the order of those of its connection. Called with it, once."""

    __slots__ = ("connection", "data", "head_only", "keep_alive", "request_id", "size")

    def __init__(self, http: Connection, keep_alive: bool, head_only: bool, size: int) -> None:
        self.keep_alive = keep_alive
        self.head_only = head_only
        self.data: bytes | None = None
        self.size = size
        """Bytes that wait here: the body until there is an answer, then the answer."""
        self.connection = http
        self.request_id = ""
        """That the answer is to name; "": none."""

    def __call__(self, response: Response) -> None:
        if self.data is not None:
            return  # a route that failed behind its answer
        try:
            if self.keep_alive and not self.head_only and not self.request_id:
                data = response.encoded()
            else:
                data = encode(response, self.keep_alive, self.head_only, self.request_id)
        except ValueError:  # what cannot stand in a header: a defect of the route, and the end of one request
            data = encode(INTERNAL, self.keep_alive, self.head_only, self.request_id)
        self.data = data
        self.connection.answer(self, len(data))
