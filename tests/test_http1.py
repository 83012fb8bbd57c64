"""The app servers' HTTP: bytes in, requests out, answers in, bytes out. h11's client reads what is answered."""

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import cuts, settings_with

from router.http1 import HttpConnection, Place, Request, Response, encode
from router.settings import EndpointOptions

PUT = b"PUT /update/token?a=1 HTTP/1.1\r\nHost: push\r\nContent-Length: 9\r\n\r\nversion=7"
CHUNKED = (
    b"PUT /update/token HTTP/1.1\r\nHost: push\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\nvers\r\n5;ext=1\r\nion=7\r\n0\r\nTrailer: x\r\n\r\n"
)
GET = b"GET /status/ HTTP/1.1\r\nHost: push\r\n\r\n"


def options(**changes: object) -> EndpointOptions:
    return settings_with((EndpointOptions, changes)).get(EndpointOptions)


class AppServer:
    """One connection with both its ends: what was asked, and what h11 makes of the answers."""

    def __init__(self, **changes: object) -> None:
        self.http = HttpConnection(options(**changes))
        self.asked: list[tuple[Request, Place]] = []
        self.sent = b""

    def send(self, *parts: bytes) -> list[Request]:
        """Returns: the requests that became whole by these reads."""
        before = len(self.asked)
        for part in parts:
            self.asked += self.http.receive(part)
            self.sent += self.http.take()
        return [request for request, _ in self.asked[before:]]

    def answer(self, number: int, response: Response) -> bytes:
        """Returns: what is sent because of it."""
        self.asked[number][1](response)
        data = self.http.take()
        self.sent += data
        return data

    def statuses(self, *methods: str) -> list[int]:
        """What a client that sent requests by these methods hears: one status each, and nothing more."""
        return [status for status, _ in answers(self.sent, *methods)]


def answers(data: bytes, *methods: str) -> list[tuple[int, bytes]]:
    """Status and body of each answer, as h11 reads them; the bytes must hold exactly as many."""
    found = []
    client = h11.Connection(h11.CLIENT)
    client.receive_data(data)
    for method in methods:
        client.send(h11.Request(method=method, target="/", headers=[("Host", "a")]))
        client.send(h11.EndOfMessage())
        while True:
            event = client.next_event()
            if isinstance(event, h11.Response):
                status, body = event.status_code, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                assert isinstance(event, h11.InformationalResponse), event
        found.append((status, body))
        if client.their_state is h11.DONE:
            client.start_next_cycle()
    assert client.trailing_data[0] == b""
    return found


# ---- requests


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


# ---- keep-alive


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


# ---- answers


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
    head, body = PUT.replace(b"Host", b"Expect: 100-Continue\r\nHost").split(b"\r\n\r\n")
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


def test_100_continue_waits_for_the_answers_before_it() -> None:
    head = PUT.replace(b"Host", b"Expect: 100-continue\r\nHost").split(b"\r\n\r\n")[0] + b"\r\n\r\n"
    server = AppServer()
    server.send(PUT + head)
    assert server.sent == b""
    server.answer(0, Response(202, b"{}"))
    server.sent += server.http.take()
    assert server.sent.endswith(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert server.sent.startswith(b"HTTP/1.1 202 ")


# ---- refusals


def head(*headers: bytes, line: bytes = b"PUT /update/token HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: push", *headers, b"", b""))


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, b"PUT garbage\r\n\r\n"),
        (400, b"PUT / HTTP/1.1\rHost: push\r\r"),
        (501, b"garbage\r\n\r\n"),
        (501, b"\x16\x03\x01\x02\x00\x01"),
        (400, PUT.replace(b"Host: push\r\n", b"")),
        (400, head(b"Content-Length: 1", b"Content-Length: 2")),
        (400, head(b"Content-Length: 3", b"Transfer-Encoding: chunked")),
        (400, head(b"Transfer-Encoding: chunked", b"Content-Length: 3")),
        (400, head(b"Transfer-Encoding: gzip") + b"x"),
        (400, head(b"Content-Length: 1e3")),
        (400, head(b"Content-Length: -1")),
        (400, head(b"Content-Length: " + b"9" * 30)),
        (400, head(b"Content-Length: " + b"9" * 5000)),
        (400, head(b"X-Space : a")),
        (400, head(b"X-Nul: a\0b")),
        (400, head(b"Transfer-Encoding: chunked") + b"zz\r\n"),
        (400, head(b"Upgrade: websocket", b"Connection: Upgrade", line=b"GET / HTTP/1.1")),
        (400, head(b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: 1") + b"x"),
        (400, head(line=b"CONNECT push:443 HTTP/1.1")),
        (400, head(line=b"PUT /update/token HTTP/3.7")),
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
    server.http.give_up(408, "Request Timeout")
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
    refused = server.sent.count(b"HTTP/1.1 4") + server.sent.count(b"HTTP/1.1 501 ")
    assert refused <= 1
    assert server.sent.count(b"HTTP/1.1 ") == len(server.asked) + refused + server.sent.count(b"HTTP/1.1 100 ")
    assert not server.http.waiting
