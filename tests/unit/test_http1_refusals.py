"""Requests that the app servers' port refuses; h11's server end says what must be refused."""

import re

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.http1 import CHUNKED, GET, PUT, AppServer, head

from router.common.refusals import REQUEST_TIMEOUT
from router.http.message import Response


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"PUT garbage\r\n\r\n"),
        (400, b"PUT / HTTP/1.1\rHost: push\r\r"),
        (400, b"garbage\r\n\r\n"),
        (400, b"\x16\x03\x01\x02\x00\x01"),
        (400, PUT.replace(b"Host: push\r\n", b"")),
        (400, head(b"Content-Length: 1", b"Content-Length: 2")),
        (400, head(b"Content-Length: 3", b"Transfer-Encoding: chunked")),
        (400, head(b"Transfer-Encoding: chunked", b"Content-Length: 3")),
        (400, head(b"Transfer-Encoding: gzip") + b"x"),
        (400, head(b"Content-Length: 1e3")),
        (400, head(b"Content-Length: -1")),
        (400, head(b"Content-Length: 1", b"Content-Length: 1")),
        (400, head(b"Content-Length: 1, 1")),
        (400, head(b"Content-Length: +1")),
        (400, head(b"Content-Length:")),
        (400, head(b"Content-Length: \xb2")),
        (413, head(b"Content-Length: " + b"9" * 30)),
        (413, head(b"Content-Length: " + b"9" * 5000)),
        (413, head(b"Content-Length: " + b"0" * 5000 + b"1001")),
        (400, head(b"Transfer-Encoding: chunked, chunked") + b"0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked, gzip") + b"0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: identity") + b"0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: ,chunked") + b"0\r\n\r\n"),
        (400, head(b"Transfer-Encoding:") + b"0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked", line=b"PUT / HTTP/1.0") + b"0\r\n\r\n"),
        (501, head(b"Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
        (501, head(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked") + b"0\r\n\r\n"),
        (417, head(b"Expect: 200-ok", b"Content-Length: 1")),
        (417, head(b"Expect: 100-continue, other", b"Content-Length: 1")),
        (400, head(b"Host: push")),
        (400, head(b"Host: push", line=b"PUT / HTTP/1.0")),
        (400, head(b"X-Space : a")),
        (400, head(b"X-Nul: a\0b")),
        (400, head(b"Transfer-Encoding: chunked") + b"zz\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"1 \r\nx\r\n0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"1\nx\r\n0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"0x1\r\nx\r\n0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"-1\r\nx\r\n0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"\r\nx\r\n0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"1;a=\0\r\nx\r\n0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"1\r\nxy0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"0" * 17 + b"1\r\nx\r\n0\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"0\r\nno trailer\r\n\r\n"),
        (400, head(b"Transfer-Encoding: chunked") + b"0\r\n folded: 1\r\n\r\n"),
        (413, head(b"Transfer-Encoding: chunked") + b"f" * 16 + b"\r\n"),
        (431, head(b"Transfer-Encoding: chunked") + b"1;" + b"a" * 2000),
        (431, head(b"Transfer-Encoding: chunked") + b"1;aaaaaaaaaaaaaaaa\r\nx\r\n" * 100),
        (431, head(b"Transfer-Encoding: chunked") + b"0\r\n" + b"X: a\r\n" * 20 + b"\r\n"),
        (431, head(b"Transfer-Encoding: chunked") + b"0\r\nX: " + b"a" * 2000),
        (400, head(line=b"CONNECT push:443 HTTP/1.1")),
        (400, head(line=b"GET * HTTP/1.1")),
        (400, head(line=b"GET ftp://push/status/ HTTP/1.1")),
        (400, head(line=b"GET http://me@push/status/ HTTP/1.1")),
        (400, head(line=b"GET http:///status/ HTTP/1.1")),
        (400, head(line=b"GET /status/#top HTTP/1.1")),
        (400, head(line=b"GET status HTTP/1.1")),
        (400, head(line=b"GET /status/ http/1.1")),
        (400, head(line=b"GET /status/ HTTP/1.12")),
        (400, head(line=b"GET /status/")),
        (505, head(line=b"PUT /update/token HTTP/3.7")),
        (505, head(line=b"PUT /update/token HTTP/2.0")),
        (505, head(line=b"PUT /update/token HTTP/0.9")),
        (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
        (413, head(b"Content-Length: 2000")),
        (413, head(b"Transfer-Encoding: chunked") + b"7d0\r\n" + b"x" * 1001),
        (413, head(b"Transfer-Encoding: chunked") + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n" + b"x" * 501),
        (431, head(*[b"X-%d: a" % i for i in range(20)])),
        (431, head(b"X-Long: " + b"x" * 2000)),
        (431, head(b"x" * 2000 + b": a")),
        (501, head(line=b"FETCH / HTTP/1.1")),
    ],
)
def test_refusals(status: int, data: bytes) -> None:
    limits = {"max_body_bytes": 1000, "max_header_bytes": 1500, "max_headers": 20}
    if len(data) > 4000:
        limits["max_header_bytes"] = 16_384
    for parts in ((data,), tuple(data[i : i + 1] for i in range(len(data)))):
        server = AppServer(**limits)
        assert server.send(*parts) == []
        assert server.http.finished
        assert server.statuses("PUT") == [status]
        assert b"Connection: close\r\n" in server.sent
        assert server.send(PUT) == []


def test_a_head_without_end_is_refused_at_its_limit() -> None:
    for endless in (b"PUT /" + b"x" * 5000, head()[:-2] + b"X-Endless: " + b"x" * 5000, head()[:-2] + b"y" * 5000):
        server = AppServer(max_header_bytes=1000)
        taken = 0
        for i in range(len(endless)):
            server.send(endless[i : i + 1])
            taken += 1
            if server.http.finished:
                break
        assert taken <= 1002
        assert server.statuses("PUT")[0] in (414, 431)


def test_a_long_path_is_refused() -> None:
    assert AppServer(max_header_bytes=1000).send(b"PUT /" + b"x" * 900 + b" HTTP/1.1\r\nHost: push\r\n\r\n") != []
    server = AppServer(max_header_bytes=1000)
    assert server.send(b"PUT /" + b"x" * 1001 + b" HTTP/1.1\r\nHost: push\r\n\r\n") == []
    assert server.statuses("PUT") == [414]


def test_the_limits_are_for_each_request() -> None:
    server = AppServer(max_header_bytes=300, max_headers=4, max_body_bytes=9)
    assert len(server.send(PUT * 50)) == 50
    assert len(server.send(*[PUT] * 50)) == 50
    assert not server.http.finished


def test_a_refusal_waits_for_the_answers_before_it() -> None:
    server = AppServer()
    server.send(PUT + b"PUT garbage\r\n")
    assert server.sent == b""
    server.answer(0, Response(202, b"{}"))
    assert server.statuses("PUT", "PUT") == [202, 400]


def test_an_unfinished_request_can_be_given_up() -> None:
    server = AppServer()
    server.send(PUT[:20])
    server.http.give_up(REQUEST_TIMEOUT)
    server.sent += server.http.take()
    assert server.statuses("PUT") == [408]
    assert server.send(PUT[20:]) == []


@given(
    st.binary(max_size=100) | st.builds(lambda a, b: PUT[:a] + b + PUT[a:], st.integers(0, 70), st.binary(max_size=4))
)
def test_no_bytes_whatever_do_more_than_be_refused(data: bytes) -> None:
    server = AppServer(max_header_bytes=300, max_body_bytes=50)
    server.send(data)
    for number in range(len(server.asked)):
        server.answer(number, Response(200, b"{}"))
    refused = server.sent.count(b"HTTP/1.1 4") + server.sent.count(b"HTTP/1.1 50")
    assert refused <= 1
    assert server.sent.count(b"HTTP/1.1 ") == len(server.asked) + refused + server.sent.count(b"HTTP/1.1 100 ")
    assert not server.http.waiting


_SEEDS = (
    PUT,
    CHUNKED.replace(b"Trailer: x\r\n", b""),
    GET,
    PUT.replace(b"1.1", b"1.0"),
    PUT.replace(b"Host", b"Expect: 100-continue\r\nHost"),
)
_ODD = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"-", b"\x0b", b"\xff"]
)
_LINES = st.sampled_from(
    [
        b"Content-Length: 0\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Host: b\r\n",
    ]
)


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """Requests in which something was put in or left out."""
    data = b"".join(draw(st.lists(st.sampled_from(_SEEDS), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(1, len(data)))  # h11 does not know empty lines before a request
        data = data[:place] + draw(_ODD | _LINES | st.just(b"")) + data[place + draw(st.integers(0, 3)) :]
    return data


def by_h11(data: bytes) -> list[tuple[bytes, bytes, bytes]]:
    """Method, target and body of the requests that h11 finds before it finds a fault."""
    found: list[tuple[bytes, bytes, bytes]] = []
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    try:
        while (event := server.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                found.append((request.method, request.target, body))
                if server.their_state is not h11.DONE:
                    break
                server.send(h11.Response(status_code=204, headers=[]))
                server.send(h11.EndOfMessage())
                server.start_next_cycle()
    except h11.RemoteProtocolError:
        pass
    return found


@given(nearly_requests(), st.data())
def test_we_read_what_h11_reads_or_refuse_it(data: bytes, draws: st.DataObject) -> None:
    cut = draws.draw(st.integers(0, len(data)))
    whole, pieces = AppServer(), AppServer()
    requests = whole.send(data)
    assert pieces.send(data[:cut], data[cut:]) == requests
    ours = [(r.method, r.path + (b"?" + r.query if r.query else b""), r.body) for r in requests]
    theirs = [(method, target.removesuffix(b"?"), body) for method, target, body in by_h11(data)]
    if re.search(rb"\r\n0+[^\n]*\r\n[^\r]", data):  # trailers: h11 refuses some that we drop
        theirs += ours[len(theirs) :]
    assert ours == theirs[: len(ours)]
