"""The app servers' HTTP: bytes in, requests out, answers in, bytes out. h11's client reads what is answered."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import cuts, growth
from support.http1 import CHUNKED, GET, PUT, AppServer, answers, head, options

from router.common.refusals import TOO_MANY
from router.http.http1 import HttpConnection
from router.http.message import Request, Response, encode


@pytest.mark.parametrize("data", [PUT, CHUNKED])
def test_a_request_comes_in_any_two_pieces(data: bytes) -> None:
    whole = AppServer().send(data)
    assert [(r.method, r.path, r.body) for r in whole] == [(b"PUT", b"/update/token", b"version=7")]
    for first, second in cuts(data):
        server = AppServer()
        assert server.send(first) == []
        assert server.http.in_request
        assert server.send(second) == whole
        assert not server.http.in_request
    assert AppServer().send(*(data[i : i + 1] for i in range(len(data)))) == whole


def test_what_a_request_holds() -> None:
    (request,) = AppServer().send(PUT.replace(b"Host", b"X-One: a\r\nhOsT").replace(b"token?a=1", b"t%3D?b=%26&c"))
    assert request == Request(
        b"PUT", b"/update/t%3D", b"b=%26&c", {b"x-one": b"a", b"host": b"push", b"content-length": b"9"}, b"version=7"
    )


@given(st.lists(st.sampled_from([PUT, CHUNKED, GET]), min_size=1, max_size=5), st.data())
def test_pipelined_requests_are_read_however_they_are_cut(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    server = AppServer()
    server.send(*(stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)))
    assert [request.method for request, _ in server.asked] == [data[:3] for data in requests]


@given(st.permutations(range(4)))
def test_answers_go_out_in_the_order_of_the_requests(order: list[int]) -> None:
    server = AppServer()
    server.send(PUT * 4)
    given_so_far: set[int] = set()
    for number in order:
        assert server.http.waiting
        server.answer(number, Response(200, b'"%d"' % number))
        given_so_far.add(number)
        sent = next(i for i in range(5) if i not in given_so_far)
        assert [body for _, body in answers(server.sent, *["PUT"] * sent)] == [b'"%d"' % i for i in range(sent)]
    assert not server.http.waiting


def test_it_is_full_until_some_are_answered() -> None:
    server = AppServer(max_pipelined=2)
    server.send(PUT)
    assert not server.http.full
    server.send(PUT)
    assert server.http.full
    server.answer(1, Response(202))
    assert server.http.full
    server.answer(0, Response(202))
    assert not server.http.full


def test_it_stops_at_its_share_and_goes_on_in_order() -> None:
    server = AppServer(max_pipelined=5)
    stream = b"".join(PUT.replace(b"token", b"%d" % i) for i in range(12)) + GET[:-1]
    paths = [b"/update/%d" % i for i in range(12)]
    found = server.http.receive(stream, 3)
    assert [request.path for request, _ in found] == paths[:3] and server.http.more and not server.http.in_request
    found += server.http.receive(b"", 3)
    assert [request.path for request, _ in found] == paths[:5] and server.http.more and server.http.full
    assert server.http.receive(b"", 3) == []
    while len(found) < 12:
        for _, place in found[-5:]:
            if place.data is None:
                place(Response(200))
        server.http.take()
        found += server.http.receive(b"", 3)
    assert [request.path for request, _ in found] == paths
    for _, place in found:
        if place.data is None:
            place(Response(200))
    assert server.http.receive(b"") == [] and server.http.in_request and not server.http.more
    ((request, _),) = server.http.receive(GET[-1:])
    assert request.path == b"/status/"


@pytest.mark.parametrize(
    "offer",
    [
        (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA"),
        (b"Connection: Upgrade", b"Upgrade: websocket"),
        (b"Connection: upgrade", b"Upgrade: TLS/1.0, h2c"),
        (b"Upgrade: h2c",),
    ],
)
def test_an_upgrade_that_is_not_wanted_is_ignored(offer: tuple[bytes, ...]) -> None:
    for data in (head(*offer, b"Content-Length: 9") + b"version=7", head(*offer, line=b"GET /status/ HTTP/1.1")):
        server = AppServer()
        requests = server.send(data + GET)
        assert [request.path for request in requests] == [data.split()[1], b"/status/"]
        assert requests[0].body in (b"version=7", b"")
        assert not server.http.finished


@pytest.mark.parametrize(
    ("line", "path", "query", "host"),
    [
        (b"PUT http://other/update/token HTTP/1.1", b"/update/token", b"", b"other"),
        (b"PUT HTTPS://other:8081/update/t%2F?a=http://b HTTP/1.1", b"/update/t%2F", b"a=http://b", b"other:8081"),
        (b"GET http://[::1]:80 HTTP/1.1", b"/", b"", b"[::1]:80"),
        (b"GET http://other?a HTTP/1.1", b"/", b"a", b"other"),
        (b"OPTIONS http://other HTTP/1.1", b"*", b"", b"other"),
        (b"OPTIONS * HTTP/1.1", b"*", b"", b"push"),
        (b"OPTIONS http://other/ HTTP/1.1", b"/", b"", b"other"),
        (b"GET //a//b HTTP/1.1", b"//a//b", b"", b"push"),
        (b"GET /a?b?c HTTP/1.9", b"/a", b"b?c", b"push"),
    ],
)
def test_targets(line: bytes, path: bytes, query: bytes, host: bytes) -> None:
    server = AppServer()
    one, other = server.send(head(line=line) + head(line=b"GET /next HTTP/1.1"))
    assert (one.path, one.query, one.headers[b"host"]) == (path, query, host)
    assert (other.path, other.headers[b"host"]) == (b"/next", b"push")


@pytest.mark.parametrize("host", [b"", b"a", b"a:80", b"a_b.example.:", b"127.0.0.1:8081", b"[::1]:8081", b"%41"])
def test_hosts(host: bytes) -> None:
    assert AppServer().send(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") != []


@pytest.mark.parametrize(
    "host", [b"a b", b"a/b", b"me@a", b"a:b", b"a:123456", b"[::1", b"[z]", b"[:::]", b"a%2", b"\xe4", b'"a"']
)
def test_what_is_no_host(host: bytes) -> None:
    for version in (b"1.0", b"1.1"):
        server = AppServer()
        assert server.send(b"GET / HTTP/" + version + b"\r\nHost: " + host + b"\r\n\r\n") == []
        assert server.statuses("GET") == [400]


def test_empty_lines_before_a_request_are_passed_over() -> None:
    for data in (b"\r\n" + PUT, b"\r\n\r\n" + PUT + b"\r\n" + PUT + b"\r\n"):
        for parts in ((data,), tuple(data[i : i + 1] for i in range(len(data)))):
            server = AppServer()
            assert {request.path for request in server.send(*parts)} == {b"/update/token"}
            assert not server.http.in_request
    server = AppServer()
    assert server.send(*[b"\r\n" * 1000] * 100) == [] and server.http.idle and server.http.held == 0


@pytest.mark.parametrize("zeros", [1, 4300, 4301, 16_000])
def test_a_content_length_with_zeros_before_it(zeros: int) -> None:
    (request,) = AppServer().send(head(b"Content-Length: " + b"0" * zeros + b"5") + b"abcde")
    assert request.body == b"abcde"


def test_trailers_are_no_headers() -> None:
    chunked = head(b"Transfer-Encoding: chunked") + b"3;a=1\r\nabc\r\n0;b\r\nTTL: 60\r\nHost: x\r\nTopic: y\r\n\r\n"
    one, other = AppServer().send(chunked + PUT)
    assert one.headers == {b"host": b"push", b"transfer-encoding": b"chunked"}
    assert (one.body, other.body) == (b"abc", b"version=7")
    assert AppServer(max_headers=4).send(chunked) == []
    assert AppServer(max_headers=5).send(chunked) != []


def test_what_is_neither_body_nor_headers_waits_nowhere() -> None:
    for endless in (
        b"1;" + b"a" * 60_000,
        b"0\r\n" + b"X: a\r\n" * 9000,
        b"1;" + b"a" * 90 + b"\r\nx\r\n" + b"1;a\r\nx\r\n" * 6000,
    ):
        server = AppServer(max_headers=10_000, max_header_bytes=5000)
        server.send(head(b"Transfer-Encoding: chunked"))
        most = 0
        for at in range(0, len(endless), 10):
            server.send(endless[at : at + 10])
            most = max(most, server.http.held)
        assert server.http.finished and server.statuses("PUT") == [431]
        assert most < 8000 and server.http.held == 0


_BY_CHUNKS = head(b"Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda n: _BY_CHUNKS + b"1\r\nx\r\n" * (n // 6), id="chunks"),
        pytest.param(lambda n: _BY_CHUNKS + b"1;" + b"a=;" * (n // 3), id="extension"),
        pytest.param(lambda n: _BY_CHUNKS + b"0" * n, id="zeros"),
        pytest.param(lambda n: _BY_CHUNKS + b"0\r\n" + b"X: a\r\n" * (n // 6), id="trailers"),
        pytest.param(lambda n: _BY_CHUNKS + b"0\r\nX" + b"\t" * n, id="trailer"),
        pytest.param(lambda n: head(b"Content-Length: %d" % n) + b"x" * n, id="body"),
        pytest.param(lambda n: GET * (n // len(GET)), id="pipeline"),
        pytest.param(lambda n: b"\r\n" * (n // 2), id="empty lines"),
        pytest.param(lambda n: b"GET /" + b"x" * n, id="target"),
        pytest.param(lambda n: head()[:-2] + b"X: a\r\n" * (n // 6), id="headers"),
    ],
)
@pytest.mark.parametrize("piece", [7, 16_384])
def test_what_is_four_times_as_long_takes_four_times_as_long(made: Callable[[int], bytes], piece: int) -> None:
    def act(size: int) -> None:
        data = made(size)
        http = HttpConnection(limits)
        for at in range(0, len(data), piece):
            http.receive(data[at : at + piece])

    limits = options(max_header_bytes=65_536, max_headers=100_000)
    assert growth(act, 12_000) < 10


def test_a_body_in_the_smallest_chunks_is_read() -> None:
    (request,) = AppServer().send(head(b"Transfer-Encoding: chunked") + b"1\r\nx\r\n" * 20_000 + b"0\r\n\r\n")
    assert request.body == b"x" * 20_000


def test_what_waits_is_counted() -> None:
    server = AppServer()
    server.send(PUT[:-1])
    assert server.http.held == len(PUT) - 1
    server.send(PUT[-1:] + PUT[:20])
    assert server.http.held == 9 + 20
    server.asked[0][1](Response(200, b"x" * 1000))
    assert 1020 < server.http.held < 1300
    server.http.take()
    assert server.http.held == 20
    server.http.give_up(TOO_MANY, "full")
    server.http.take()
    assert server.http.held == 0 and not server.http.waiting


def test_a_second_answer_to_a_request_is_none() -> None:
    server = AppServer()
    server.send(PUT)
    for status in (200, 500):
        server.answer(0, Response(status))
    assert server.statuses("PUT") == [200]
    assert server.http.held == 0


def test_an_answer_that_cannot_be_written_is_a_500() -> None:
    server = AppServer()
    server.send(PUT)
    server.answer(0, Response(200, b"", headers=(("Location", "\u20ac"),)))
    assert server.statuses("PUT") == [500]


@pytest.mark.parametrize("given", [b"a", b"7f3e/=+!", b"x" * 128])
def test_an_answer_names_the_request_id_that_its_request_came_with(given: bytes) -> None:
    server = AppServer()
    server.send(head(b"X-Request-Id: " + given), PUT)
    data = server.answer(0, Response(200, b"{}"))
    assert data.count(b"\r\nX-Request-Id: " + given + b"\r\n") == 1
    assert server.asked[0][0].id() == given.decode()
    assert b"X-Request-Id" not in server.answer(1, Response(200, b"{}"))


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 129, b"\xe4", b"a, b"])
def test_a_request_id_that_is_none_to_repeat_is_not_repeated(given: bytes) -> None:
    server = AppServer()
    (request,) = server.send(head(b"X-Request-Id: " + given))
    assert b"X-Request-Id" not in server.answer(0, Response(200))
    assert request.path == b"/update/token"


def test_a_request_id_that_is_made_for_a_log_is_in_the_answer_too() -> None:
    server = AppServer()
    (request,) = server.send(PUT)
    made = request.id()
    assert re.fullmatch("[0-9a-f]{16}", made)
    assert request.id() == made
    assert f"\r\nX-Request-Id: {made}\r\n".encode() in server.answer(0, Response(200))


def test_a_connection_is_kept() -> None:
    server = AppServer()
    for number in range(3):
        server.send(PUT)
        assert b"onnection: close" not in server.answer(number, Response(200, b"{}"))
        assert not server.http.finished
    assert server.statuses("PUT", "PUT", "PUT") == [200] * 3


@pytest.mark.parametrize(
    "data",
    [
        PUT.replace(b"Host", b"Connection: close\r\nHost"),
        PUT.replace(b"1.1", b"1.0"),
        PUT.replace(b"1.1", b"1.0").replace(b"Host: push\r\n", b""),
    ],
)
def test_a_connection_ends_after_the_last_request(data: bytes) -> None:
    server = AppServer()
    server.send(PUT, data)
    assert server.http.finished
    assert server.http.waiting
    assert server.send(PUT) == []
    server.answer(0, Response(200, b"{}"))
    assert b"Connection: close\r\n" in server.answer(1, Response(202, b"{}"))
    assert server.statuses("PUT", "PUT") == [200, 202]
    assert not server.http.waiting


def test_what_stands_behind_the_last_request_is_not_looked_at() -> None:
    server = AppServer()
    (request,) = server.send(GET.replace(b"Host", b"Connection: close\r\nHost") + PUT + b"garbage")
    assert request.method == b"GET"
    server.answer(0, Response(200, b"{}"))
    assert server.statuses("GET") == [200]
    assert not server.http.waiting


def test_head_is_answered_without_a_body() -> None:
    server = AppServer()
    server.send(GET.replace(b"GET", b"HEAD") + GET)
    server.answer(0, Response(200, b'{"a":1}'))
    server.answer(1, Response(200, b'{"a":1}'))
    assert answers(server.sent, "HEAD", "GET") == [(200, b""), (200, b'{"a":1}')]
    assert server.sent.count(b"Content-Length: 7\r\n") == 2


def test_the_same_answer_is_the_same_bytes_and_another_is_another() -> None:
    for response in (Response(503, b"{}", headers=(("Retry-After", "5"),)), Response(503, b"{}"), Response(200, b"{}")):
        server = AppServer()
        server.send(PUT + PUT)
        assert server.answer(0, response) == server.answer(1, response) == encode(response, True)


def test_an_empty_answer_says_its_length() -> None:
    assert answers(encode(Response(200), True), "OPTIONS") == [(200, b"")]
    assert b"Content-Length: 0\r\n" in encode(Response(200), True)
    assert b"Content-Length" not in encode(Response(204), True)


def test_100_continue_is_said_once_and_only_while_the_body_is_missing() -> None:
    head, body = PUT.replace(b"Host", b"Expect: \t100-Continue \t\r\nHost").split(b"\r\n\r\n")
    server = AppServer()
    server.send(head + b"\r\n\r\n")
    assert server.sent == b"HTTP/1.1 100 Continue\r\n\r\n"
    server.send(body[:4], body[4:])
    server.answer(0, Response(200, b"{}"))
    assert server.sent.count(b"100 Continue") == 1
    assert server.statuses("PUT") == [200]

    whole = AppServer()
    whole.send(head + b"\r\n\r\n" + body)
    assert whole.sent == b""


def test_nothing_can_be_expected_in_http_1_0() -> None:
    for expected in (b"100-continue", b"anything"):
        server = AppServer()
        data = PUT.replace(b"1.1", b"1.0").replace(b"Host", b"Expect: " + expected + b"\r\nHost")
        assert len(server.send(data[:-9], data[-9:])) == 1
        assert server.sent == b""


def test_every_answer_has_a_date() -> None:
    server = AppServer()
    server.send(PUT + GET.replace(b"GET", b"HEAD") + b"PUT garbage\r\n")
    server.answer(0, Response(200))
    server.answer(1, Response(204))
    dates = [line for line in server.sent.split(b"\r\n") if line.startswith(b"Date: ")]
    assert len(dates) == 3
    for date in dates:
        then = parsedate_to_datetime(date[6:].decode())
        assert abs((datetime.now(UTC) - then).total_seconds()) < 60 and date.endswith(b" GMT")


def test_100_continue_waits_for_the_answers_before_it() -> None:
    head = PUT.replace(b"Host", b"Expect: 100-continue\r\nHost").split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    server = AppServer()
    server.send(PUT + head)
    assert server.sent == b""
    server.answer(0, Response(202, b"{}"))
    server.sent += server.http.take()
    assert server.sent.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert server.sent.startswith(b"HTTP/1.1 202 ")
