"""Bytes of a socket: frames beside wsproto, requests beside h11, and the same result however the bytes are cut."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import h11
from support.common import settings_with
from support.frames import MAX_MESSAGE, by_oracle, read

import farm.transports.frames
import farm.transports.request
import farm.transports.websocket
import router.common.http_head
import router.http.http1
from farm.transports.frames import CLOSE, TEXT, CloseFinder, short_texts
from farm.transports.request import Refusal
from farm.transports.websocket import WEBSOCKET
from fuzz.engine import Target
from router.common.close_codes import TOO_BIG
from router.common.settings import EndpointOptions
from router.http.http1 import HttpConnection
from router.http.message import Response


def pieces(data: bytes) -> Iterator[bytes]:
    """The bytes in reads that depend on them alone."""
    chance = random.Random(data)
    at = 0
    while at < len(data):
        to = at + chance.choice((1, 1, 2, 3, 7, 50))
        yield data[at:to]
        at = to


# ---------------------------------------------------------------------- frames


def frames(data: bytes) -> None:
    """A stream of frames of a client."""
    whole = read(data)
    assert read(*pieces(data)) == whole, "another result when it is cut"
    short = short_texts(data, MAX_MESSAGE, 1 << 30)
    assert short is None or whole == ([(TEXT, text) for text in short[0]], None), "the fast path decides otherwise"
    finder = CloseFinder()
    found = [finder.feed(piece) for piece in pieces(data)]
    assert any(found) == CloseFinder().feed(data), "a close frame is found only when it is cut, or only when not"
    messages, code = whole
    ended = next((place for place, (opcode, _) in enumerate(messages) if opcode == CLOSE), None)
    if ended is not None:
        messages, code = messages[: ended + 1], None
    if code != TOO_BIG:
        its_messages, its_code = by_oracle(data)
        assert messages == its_messages, "wsproto reads other messages"
        if code != its_code:  # one refuses a frame before it is whole, and the other waits for it
            padded = data + bytes(MAX_MESSAGE + 20)
            code, its_code = read(padded)[1], by_oracle(padded)[1]
            assert code in (its_code, TOO_BIG), "wsproto refuses otherwise"


def _frame(first: int, payload: bytes, mask: bytes = b"\1\2\3\4", form: int = 0) -> bytes:
    size = len(payload)
    if form == 2 or (not form and 126 <= size < 65_536):
        head = bytes((first, 0x80 | 126)) + size.to_bytes(2, "big")
    elif form == 8 or size >= 65_536:
        head = bytes((first, 0x80 | 127)) + size.to_bytes(8, "big")
    else:
        head = bytes((first, 0x80 | size))
    return head + mask + bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


_FRAMES = (
    _frame(0x81, b"hello"),
    _frame(0x81, "\u00e4\u20ac".encode()),
    _frame(0x82, b"\xff\0"),
    _frame(0x01, b"\xe2") + _frame(0x80, b"\x82\xac"),
    _frame(0x01, b"a") + _frame(0x89, b"p") + _frame(0x00, b"b") + _frame(0x80, b"c"),
    _frame(0x88, b"\x03\xe8bye"),
    _frame(0x88, b""),
    _frame(0x8A, b"pong"),
    _frame(0x81, b"x" * 200),
    _frame(0x81, b"y", form=2),
    _frame(0x81, b"z", form=8),
)

# ---------------------------------------------------------------------- requests of devices

_SMALL = 600


def upgrade(data: bytes) -> None:
    """The request of a device."""
    whole = _upgrade(data)
    seen, so_far, cut = 0, b"", None
    for piece in pieces(data):
        so_far += piece
        cut = _upgrade(so_far, seen)
        if cut is not None:
            break
        seen = len(so_far)
    if whole is None or cut is None or "status" in whole or "status" in cut:
        assert (whole is None) == (cut is None), "whole only when it is cut, or only when not"
        if whole is not None and cut is not None:
            assert ("status" in whole) == ("status" in cut), (whole, cut)
        return
    assert whole == cut, "another request when it is cut"
    if _h11_is_right(data):
        assert _first_head_by_h11(data) == whole["method"], "h11 refuses it"


def _upgrade(data: bytes, seen: int = 0) -> dict[str, Any] | None:
    try:
        parsed = farm.transports.request.parse(data, _SMALL, 16, seen)
        if parsed is None:
            return None
        request = parsed[0]
        try:
            farm.transports.request.check_plain(request)
            farm.transports.request.offered_subprotocols(request)
            WEBSOCKET.check(request)
            assert WEBSOCKET.head(request, None, ()).startswith(b"HTTP/1.1 101 ")
        except Refusal as refusal:
            assert refusal.encode().startswith(b"HTTP/1.1 ")
    except Refusal as refusal:
        assert refusal.encode().startswith(b"HTTP/1.1 ")
        return {"status": refusal.status}
    return {"method": request.method, "path": request.path, "query": request.query, "headers": request.headers}


_UPGRADE = (
    b"GET /app/key?protocol=7 HTTP/1.1\r\nHost: push.example.org\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: push-notification, other\r\nOrigin: http://a\r\n\r\n"
)
_HEADERS = (
    b"Host: a\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length : 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"Transfer-Encoding: identity\r\n",
    b"Connection: close, Upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Expect: 100-continue\r\n",
    b" folded\r\n",
    b"HTTP/1.0",
    b"HTTP/1.1",
    b"HTTP/2.0",
    b"OPTIONS * ",
    b"http://other.example/",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nTTL: 60\r\n\r\n",
    b';ext="a"',
    b"\r\n\r\n",
    b"\r",
    b"[::1]",
)

# ---------------------------------------------------------------------- requests of app servers

_LIMITS = settings_with(
    (EndpointOptions, {"max_header_bytes": _SMALL, "max_headers": 12, "max_body_bytes": 60, "max_pipelined": 8})
).get(EndpointOptions)
Asked = list[tuple[bytes, bytes, bytes, dict[bytes, bytes], bytes]]


def http(data: bytes) -> None:
    """A connection of an app server."""
    asked, sent = _receive([data])
    asked_cut, sent_cut = _receive(list(pieces(data)))
    assert asked == asked_cut, "other requests when they are cut"
    assert _statuses(sent)[:-1] == _statuses(sent_cut)[:-1], "other answers when they are cut"
    assert len(_statuses(sent)) == len(_statuses(sent_cut)), "another number of answers when they are cut"
    found = _by_h11(data)
    for place, (method, path, query, _, body) in enumerate(asked):
        if place >= len(found):
            assert not _h11_is_right(data), f"h11 refuses request {place}"
            break
        its_method, target, its_body = found[place]
        assert (its_method, its_body) == (method, body), "h11 reads another request"
        if target.startswith(b"/"):
            assert target.partition(b"#")[0] == path + (b"?" + query if b"?" in target else b""), "another target"


def _receive(parts: list[bytes]) -> tuple[Asked, bytes]:
    connection = HttpConnection(_LIMITS)
    asked: Asked = []
    sent = b""
    for part in parts:
        taken = connection.receive(part)
        while True:
            for request, place in taken:
                asked.append((request.method, request.path, request.query, request.headers, request.body))
                place(Response(200, b"{}"))
            sent += connection.take()
            if not connection.more:
                break
            taken = connection.receive(b"")
    return asked, sent


def _statuses(sent: bytes) -> list[bytes]:
    return [line[9:12] for line in sent.split(b"\r\n") if line.startswith(b"HTTP/1.1 ") and line[9:12] != b"100"]


def _by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Method, target and body of every request, up to what h11 does not like."""
    found = []
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    method = target = body = b""
    try:
        while True:
            event = server.next_event()
            if isinstance(event, h11.Request):
                method, target, body = event.method, event.target, b""
                # What is behind the head does not matter to a head.
                if server.they_are_waiting_for_100_continue:
                    server.send(h11.InformationalResponse(status_code=100, headers=[]))
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((method, target, body))
                server.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
                server.send(h11.EndOfMessage())
                server.start_next_cycle()
            else:
                return found
    except (h11.RemoteProtocolError, h11.LocalProtocolError):
        return found


def _first_head_by_h11(data: bytes) -> bytes | None:
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    server.receive_data(data)
    try:
        event = server.next_event()
    except h11.RemoteProtocolError:
        return None
    return event.method if isinstance(event, h11.Request) else None


def _h11_is_right(data: bytes) -> bool:
    """Without what h11 refuses and RFC 9112 does not: empty lines before a request, and offers to upgrade."""
    return not data.startswith((b"\r", b"\n")) and b"\n\r\n\r\n" not in data and b"upgrade" not in data.lower()


_REQUESTS = (
    b"PUT /update/token?a=1 HTTP/1.1\r\nHost: push\r\nContent-Length: 9\r\n\r\nversion=7",
    b"PUT /u HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nvers\r\n5;e=1\r\nion=7\r\n0\r\nT: x\r\n\r\n",
    b"GET /status/ HTTP/1.1\r\nHost: push\r\n\r\n" * 2,
    b"POST / HTTP/1.1\r\nHost: push\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    b"\r\n\r\nHEAD http://a:1/b?c HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
)

TARGETS = (
    Target("frames", frames, (farm.transports.frames,), _FRAMES, words=_FRAMES),
    Target(
        "upgrade",
        upgrade,
        (farm.transports.request, farm.transports.websocket, router.common.http_head),
        (_UPGRADE, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
        _HEADERS,
    ),
    Target("http", http, (router.http.http1, router.common.http_head), _REQUESTS, words=_HEADERS),
)
