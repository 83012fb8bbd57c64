"""The upgrade request, with h11 as the oracle: what h11 refuses is refused here too."""

from collections.abc import Callable
from contextlib import suppress

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.common import cuts, growth
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection
from wsproto.events import Request as WsRequest

from farm.transports.request import Refusal, Request, check_origin, check_plain, offered_subprotocols, parse
from farm.transports.websocket import WEBSOCKET

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3
ANSWER = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MAX_BYTES = 8192
MAX_HEADERS = 64

USUAL = (
    b"Host: push.example.org",
    b"Upgrade: websocket",
    b"Connection: Upgrade",
    b"Sec-WebSocket-Version: 13",
    b"Sec-WebSocket-Key: " + KEY,
)


def request(*headers: bytes, line: bytes = b"GET / HTTP/1.1", end: bytes = b"\r\n") -> bytes:
    return end.join((line, *headers, b"", b""))


def without(name: bytes) -> tuple[bytes, ...]:
    return tuple(header for header in USUAL if not header.lower().startswith(name.lower() + b":"))


def through(data: bytes, origins: tuple[str, ...] = ()) -> tuple[Request, bytes] | None:
    """All the checks of a request that names a known path. Returns: the request and its answer."""
    parsed = parse(data, MAX_BYTES, MAX_HEADERS)
    if parsed is None:
        return None
    check_plain(parsed[0])
    WEBSOCKET.check(parsed[0])
    check_origin(parsed[0], origins)
    return parsed[0], WEBSOCKET.head(parsed[0], None, ())


def status_of(data: bytes, origins: tuple[str, ...] = ()) -> int:
    """101, or the status of the refusal."""
    try:
        assert through(data, origins) is not None
    except Refusal as refusal:
        assert head_of(refusal).status_code == refusal.status
        return refusal.status
    return 101


def head_of(refusal: Refusal) -> h11.Response:
    """The refusal as h11's client reads it: the whole of its bytes must be one answer that ends the connection."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    client.receive_data(refusal.encode())
    response = client.next_event()
    assert isinstance(response, h11.Response)
    body = client.next_event()
    assert isinstance(body, h11.Data)
    assert bytes(body.data) == refusal.text.encode() + b"\n"
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    return response


def by_h11(data: bytes) -> h11.Request | None:
    """None: h11 refuses it, or waits for more."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    try:
        event = server.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


# ---- what is accepted


def test_the_example_of_the_standard() -> None:
    parsed = parse(request(*USUAL) + b"rest", MAX_BYTES, MAX_HEADERS)
    assert parsed is not None
    found, rest = parsed
    assert rest == b"rest"
    assert (found.method, found.path, found.query, found.version) == (b"GET", "/", "", (1, 1))
    check_plain(found)
    WEBSOCKET.check(found)
    head = WEBSOCKET.head(found, "chat", (("X-One", "1"), ("X-Two", "2")))
    assert head.split(b"\r\n") == [
        b"HTTP/1.1 101 Switching Protocols",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
        b"Sec-WebSocket-Accept: " + ANSWER,
        b"X-One: 1",
        b"X-Two: 2",
        b"Sec-WebSocket-Protocol: chat",
        b"",
        b"",
    ]


def test_a_request_comes_in_any_two_pieces() -> None:
    data = request(*USUAL, line=b"GET /a/b?c=%20d HTTP/1.1")
    whole = through(data)
    assert whole is not None
    for first, _ in cuts(data):
        assert parse(first, MAX_BYTES, MAX_HEADERS) is None
    assert (whole[0].path, whole[0].query) == ("/a/b", "c=%20d")


def test_the_answer_opens_wsprotos_client() -> None:
    for protocol in (None, "push-notification"):
        client = WSConnection(ConnectionType.CLIENT)
        offered = ["push-notification", "other"]
        data = client.send(WsRequest(host="push.example.org", target="/", subprotocols=offered))
        found = through(data)
        assert found is not None
        assert offered_subprotocols(found[0]) == offered
        client.receive_data(WEBSOCKET.head(found[0], protocol, ()))
        (event,) = client.events()
        assert isinstance(event, AcceptConnection)
        assert event.subprotocol == protocol


def test_a_target_in_absolute_form() -> None:
    found = through(request(*USUAL, line=b"GET http://other:80/a?b HTTP/1.1"))
    assert found is not None
    assert (found[0].path, found[0].query, found[0].headers[b"host"]) == ("/a", "b", b"other:80")


def test_a_head_request_is_answered_without_a_body() -> None:
    refusal = Refusal(426, "no")
    assert refusal.encode(head_only=True) == refusal.encode().partition(b"\r\n\r\n")[0] + b"\r\n\r\n"


def test_names_are_in_lower_case_and_values_are_trimmed_and_joined() -> None:
    parsed = parse(request(b"HoSt:\t a \t", b"X-One: 1", b"x-ONE:2", b"X-Empty:"), MAX_BYTES, MAX_HEADERS)
    assert parsed is not None
    assert parsed[0].headers == {b"host": b"a", b"x-one": b"1, 2", b"x-empty": b""}


@pytest.mark.parametrize(
    "headers",
    [
        (*without(b"connection"), b"Connection: keep-alive, Upgrade"),
        (*without(b"connection"), b"Connection: keep-alive", b"Connection: upgrade"),
        (*without(b"upgrade"), b"Upgrade: WebSocket"),
        (*without(b"upgrade"), b"Upgrade: h2c, websocket"),
        (*USUAL, b"Content-Length: 0"),
        (*USUAL, b"Content-Length: 000"),
        (*USUAL, b"Content-Length: " + b"0" * 5000),
        (*USUAL, b"Expect: 100-continue"),
        (*USUAL, b"X-Name: \xc3\xbc"),
        (*USUAL, b"Sec-WebSocket-Extensions: permessage-deflate"),
    ],
)
def test_other_spellings_of_the_same(headers: tuple[bytes, ...]) -> None:
    assert status_of(request(*headers)) == 101


# ---- what is refused


@pytest.mark.parametrize(
    ("status", "data"),
    [
        (400, request(*USUAL, line=b"GET ftp://a/ HTTP/1.1")),
        (400, request(*USUAL, line=b"GET http://me@a/ HTTP/1.1")),
        (400, request(*USUAL, line=b"GET  / HTTP/1.1")),
        (400, request(*USUAL, line=b"GET / HTTP/1.1 ")),
        (400, request(*USUAL, line=b" GET / HTTP/1.1")),
        (400, request(*USUAL, line=b"GET /")),
        (505, request(*USUAL, line=b"GET / HTTP/2.0")),
        (505, request(*USUAL, line=b"GET / HTTP/0.9")),
        (400, request(*USUAL, line=b"GET / http/1.1")),
        (400, request(*USUAL, line=b"GET /\xc3\xbc HTTP/1.1")),
        (400, request(*USUAL, line=b"GET /a b HTTP/1.1")),
        (400, request(*USUAL, line=b"G(T / HTTP/1.1")),
        (400, b"\n" + request(*USUAL)),
        (400, request(*without(b"host"))),
        (400, request(*without(b"host"), b"Host: a b")),
        (400, request(*without(b"host"), b"Host: a/b")),
        (400, request(*USUAL, b"Host: other", line=b"GET / HTTP/1.0")),
        (417, request(*USUAL, b"Expect: tea")),
        (501, request(*USUAL, b"Transfer-Encoding: gzip, chunked")),
        (426, request(b"Host: a", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA")),
        (426, request(b"Host: a", line=b"HEAD / HTTP/1.1")),
        (200, request(b"Host: a", line=b"OPTIONS * HTTP/1.1")),
        (400, request(*USUAL, b"Host: other")),
        (400, request(*USUAL, b"hOsT: push.example.org")),
        (400, request(*USUAL, b"Sec-WebSocket-Key: " + KEY)),
        (400, request(*USUAL, b"Sec-WebSocket-Version: 13")),
        (400, request(*USUAL, b"Content-Length: 0", b"Content-Length: 0")),
        (400, request(*USUAL, b"Content-Length: 1", b"Content-Length: 2")),
        (400, request(*USUAL, b"Content-Length: 0, 0")),
        (400, request(*USUAL, b"Content-Length: -1")),
        (400, request(*USUAL, b"Content-Length: 0x0")),
        (400, request(*USUAL, b"Content-Length:")),
        (400, request(*USUAL, b"X-Folded: a\r\n b")),
        (400, request(*USUAL, b" X-Indented: a")),
        (400, request(*USUAL, b"X-Space : a")),
        (400, request(*USUAL, b"X Space: a")),
        (400, request(*USUAL, b"X-None")),
        (400, request(*USUAL, b": empty")),
        (400, request(*USUAL, b"X-Nul: a\0b")),
        (400, request(*USUAL, b"X-Nul\0: a")),
        (400, request(*USUAL, b"X-Return: a\rb")),
        (400, request(*USUAL, b"X-Line: a\nX-Smuggled: b")),
        (400, request(*USUAL, b"X-Delete: \x7f")),
        (400, request(*USUAL, b"X-N\xc3\xbc: a")),
        (400, request(*without(b"sec-websocket-key"))),
        (400, request(*without(b"sec-websocket-key"), b"Sec-WebSocket-Key: ")),
        (400, request(*without(b"sec-websocket-key"), b"Sec-WebSocket-Key: AAAA")),
        (400, request(*without(b"sec-websocket-key"), b"Sec-WebSocket-Key: " + KEY[:-2])),
        (400, request(*without(b"sec-websocket-key"), b"Sec-WebSocket-Key: *" + KEY[1:])),
        (400, request(*without(b"sec-websocket-key"), b"Sec-WebSocket-Key: " + KEY + b" " + KEY)),
        (405, request(*USUAL, line=b"POST / HTTP/1.1")),
        (501, request(*USUAL, line=b"get / HTTP/1.1")),
        (413, request(*USUAL, b"Content-Length: 1")),
        (413, request(*USUAL, b"Content-Length: " + b"1" * 5000)),
        (413, request(*USUAL, b"Transfer-Encoding: chunked")),
        (400, request(*USUAL, b"Transfer-Encoding: identity", b"Content-Length: 0")),
        (426, request(b"Host: a")),
        (426, request(*USUAL, line=b"GET / HTTP/1.0")),
        (426, request(*without(b"host"), line=b"GET / HTTP/1.0")),
        (426, request(*without(b"upgrade"))),
        (426, request(*without(b"upgrade"), b"Upgrade: websockets")),
        (426, request(*without(b"connection"))),
        (426, request(*without(b"connection"), b"Connection: close")),
        (426, request(*without(b"sec-websocket-version"))),
        (426, request(*without(b"sec-websocket-version"), b"Sec-WebSocket-Version: 8")),
        (426, request(*without(b"sec-websocket-version"), b"Sec-WebSocket-Version: 13, 8")),
    ],
)
def test_refusals(status: int, data: bytes) -> None:
    assert status_of(data) == status


def test_bare_line_feeds_are_no_line_ends() -> None:
    with pytest.raises(Refusal) as refused:
        parse(request(*USUAL, end=b"\n"), MAX_BYTES, MAX_HEADERS)
    assert refused.value.status == 400
    with pytest.raises(Refusal) as refused:
        parse(b"GET / HTTP/1.1\r\n" + b"\n".join(USUAL) + b"\r\n\r\n", MAX_BYTES, MAX_HEADERS)
    assert refused.value.status == 400


def test_426_says_what_is_spoken_and_405_what_is_allowed() -> None:
    def headers(data: bytes) -> dict[bytes, bytes]:
        with pytest.raises(Refusal) as refused:
            through(data)
        return dict(head_of(refused.value).headers)

    plain = headers(request(b"Host: a"))
    assert plain[b"upgrade"] == b"websocket"
    assert b"Upgrade" in plain[b"connection"]
    assert headers(request(*without(b"sec-websocket-version")))[b"sec-websocket-version"] == b"13"
    assert headers(request(*USUAL, line=b"PUT / HTTP/1.1"))[b"allow"] == b"GET, HEAD"
    assert headers(request(b"Host: a", line=b"OPTIONS * HTTP/1.1"))[b"allow"] == b"GET, HEAD"
    assert b"date" in plain


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (b"Origin: https://a", 101),
        (b"Origin: http://b:81", 101),
        (b"Origin: https://a:443", 403),
        (b"Origin: http://a", 403),
        (b"Origin: https://A", 403),
        (b"Origin: null", 403),
        (b"Origin: \xff", 403),
        (b"Origin:", 403),
        (b"X-Origin: https://a", 403),
    ],
)
def test_origins_are_compared_exactly(origin: bytes, status: int) -> None:
    assert status_of(request(*USUAL, origin), ("https://a", "http://b:81")) == status
    assert status_of(request(*USUAL, origin)) == 101
    assert status_of(request(*USUAL, origin, origin), ("https://a",)) == 400 or b"X-" in origin


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ((b"Referer: https://a/page?x#y",), 101),
        ((b"Referer: http://b:81",), 101),
        ((b"Referer: https://b/https://a/",), 403),
        ((b"Referer: https://a.b/",), 403),
        ((b"Referer: about:client",), 403),
        ((b"Origin: https://c", b"Referer: https://a/"), 403),
        ((b"Origin: null", b"Sec-Fetch-Site: same-origin"), 403),
        ((b"Sec-Fetch-Site: same-origin",), 403),
        ((b"Sec-Fetch-Site: same-origin", b"Host: A"), 101),
        ((b"Sec-Fetch-Site: same-origin", b"Host: b:81"), 101),
        ((b"Sec-Fetch-Site: same-origin", b"Host: b"), 403),
        ((b"Sec-Fetch-Site: same-site", b"Host: a"), 403),
    ],
)
def test_a_page_of_the_own_host_sends_no_origin_with_a_get(headers: tuple[bytes, ...], status: int) -> None:
    usual = [line for line in USUAL if not (line.startswith(b"Host:") and any(h.startswith(b"Host:") for h in headers))]
    assert status_of(request(*usual, *headers), ("https://a", "http://b:81")) == status


# ---- limits, and what is not HTTP at all


def test_a_head_of_exactly_the_limit_is_read_and_one_more_byte_is_not() -> None:
    data = request(*USUAL)
    found = parse(data + b"x" * 500, len(data), MAX_HEADERS)
    assert found is not None
    assert found[1] == b"x" * 500
    for size in (len(data) - 1, 300):
        filled = request(*USUAL, b"X-Fill: " + b"x" * 300)
        with pytest.raises(Refusal) as refused:
            parse(data if size == len(data) - 1 else filled, size, MAX_HEADERS)
        assert refused.value.status == 431


def test_an_unfinished_head_is_refused_when_it_reaches_the_limit() -> None:
    start = b"GET / HTTP/1.1\r\nX-Fill: "
    assert parse(start + b"x" * (MAX_BYTES - len(start) - 1), MAX_BYTES, MAX_HEADERS) is None
    with pytest.raises(Refusal) as refused:
        parse(start + b"x" * (MAX_BYTES - len(start)), MAX_BYTES, MAX_HEADERS)
    assert refused.value.status == 431


def test_values_of_a_header_that_is_repeated_are_joined() -> None:
    parsed = parse(request(*USUAL, b"Cookie: a=1", b"X-A: 1", b"cookie: b=2", b"X-A: 2"), MAX_BYTES, MAX_HEADERS)
    assert parsed is not None
    headers = parsed[0].headers
    assert (headers[b"cookie"], headers[b"x-a"]) == (b"a=1; b=2", b"1, 2")


def test_headers_are_counted() -> None:
    many = [b"X-%d: 1" % i for i in range(MAX_HEADERS - len(USUAL))]
    assert status_of(request(*USUAL, *many)) == 101
    assert status_of(request(*USUAL, *many, b"X-One-More: 1")) == 431
    assert status_of(request(*USUAL, *[b"X-Same: 1"] * MAX_HEADERS)) == 431


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01",
        b"\x16",
        b"\0",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"GET /\r\n",
        b"GET / HTTP/1.1\n",
        b"GET / HTTP/1.1\nHost: a\n",
        b"(",
        b'{"messageType":"hello"}',
    ],
)
def test_what_is_no_request_is_refused_at_once(data: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        parse(data, MAX_BYTES, MAX_HEADERS)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda n: request(*USUAL, b"X: a" + b"\t" * n + b"b"), id="tabs"),
        pytest.param(lambda n: request(*USUAL, b"X:" + b" " * n), id="blanks"),
        pytest.param(lambda n: request(*USUAL, b"X: " + b"a\t" * (n // 2) + b"\x01"), id="bad value"),
        pytest.param(lambda n: request(*USUAL, b"X" * n), id="no colon"),
        pytest.param(lambda n: request(*USUAL, b"X" * n + b" : a"), id="blank before the colon"),
        pytest.param(lambda n: request(*USUAL, *[b"X: a"] * (n // 6)), id="one header again and again"),
        pytest.param(lambda n: request(*USUAL, b"A: " * (n // 3), line=b"GET / HTTP/1.1"), id="colons"),
        pytest.param(lambda n: request(*USUAL, line=b"GET /" + b"?" * n + b" HTTP/1.1"), id="query"),
        pytest.param(lambda n: request(*USUAL, line=b"GET " + b"a" * n + b" HTTP/1.1"), id="target"),
        pytest.param(lambda n: request(*USUAL, line=b"GET http://" + b"%41" * (n // 3) + b" HTTP/1.1"), id="authority"),
        pytest.param(lambda n: request(b"Host: " + b"a." * (n // 2) + b"/"), id="host"),
        pytest.param(lambda n: request(b"Host: [" + b":" * n + b"]"), id="address"),
        pytest.param(lambda n: request(*without(b"connection"), b"Connection: " + b"a," * (n // 2)), id="connection"),
        pytest.param(lambda n: request(*USUAL, b"Transfer-Encoding: " + b"chunked," * (n // 8)), id="codings"),
        pytest.param(lambda n: request(*USUAL, b"Content-Length: " + b"0" * n), id="zeros"),
        pytest.param(lambda n: request(*USUAL, b"Content-Length: " + b"9" * n), id="nines"),
        pytest.param(lambda n: b"\r\n" * (n // 2), id="empty lines"),
        pytest.param(lambda n: b"G" * n, id="method"),
        pytest.param(lambda n: b"GET /" + b"\r" * n, id="returns"),
    ],
)
def test_what_is_four_times_as_long_takes_four_times_as_long(made: Callable[[int], bytes]) -> None:
    def act(size: int) -> None:
        with suppress(Refusal):
            found = parse(made(size), 1 << 20, 1 << 20)
            if found is not None:
                WEBSOCKET.check(found[0])
                WEBSOCKET.head(found[0], None, ())

    assert growth(act, 16_000) < 10


# ---- h11 decides

_odd = st.sampled_from(
    [b"\0", b"\n", b"\r", b" ", b"\t", b":", b"\x7f", b"\xff", b",", b"\x0b", b"\x0c", b"\x1f", b"a"]
)
_lines = st.sampled_from(
    [
        *USUAL,
        b"Host: other",
        b"Content-Length: 0",
        b"Content-Length: 5",
        b"Content-Length: 0, 0",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Origin: https://a",
        b" folded",
        b"\tfolded",
        b"X-Space : 1",
        b"",
    ]
)


@st.composite
def nearly_requests(draw: st.DrawFn) -> bytes:
    """A request in which some headers were added, left out, or had a byte put in or taken away."""
    headers = draw(st.lists(_lines, max_size=3))
    headers = [header for header in USUAL if draw(st.integers(0, 9))] + headers
    line = draw(st.sampled_from([b"GET / HTTP/1.1", b"GET /a?b HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/2.0"]))
    data = request(*draw(st.permutations(headers)), line=line)
    for _ in range(draw(st.integers(0, 2))):
        place = draw(st.integers(0, len(data)))
        data = data[:place] + draw(_odd) + data[place + draw(st.integers(0, 1)) :]
    return data


@given(nearly_requests())
@example(request(*USUAL, b"Content-Length: " + b"1" * 5000))
@example(request(*USUAL, b"Transfer-Encoding: gzip"))
@example(request(*USUAL, b"X: a\x0bb"))
def test_what_h11_refuses_we_refuse(data: bytes) -> None:
    try:
        ours = through(data)
    except Refusal as refusal:
        head_of(refusal)
        return
    if ours is None:
        return
    oracle = by_h11(data)
    assert oracle is not None
    target = ours[0].path + ("?" + ours[0].query if ours[0].query else "")
    assert (oracle.method, oracle.target) == (ours[0].method, target.encode())
    joined: dict[bytes, bytes] = {}
    for name, value in oracle.headers:
        joined[name] = joined[name] + b", " + value if name in joined else value
    assert joined == ours[0].headers


@given(nearly_requests(), st.data())
def test_where_it_is_cut_changes_nothing(data: bytes, draws: st.DataObject) -> None:
    """A prefix is refused or waited for, never accepted; and refused only if the whole is."""
    end = data.find(b"\r\n\r\n")
    cut = draws.draw(st.integers(0, end + 3 if end >= 0 else len(data)))
    try:
        assert parse(data[:cut], MAX_BYTES, MAX_HEADERS) is None
    except Refusal:
        with pytest.raises(Refusal):
            parse(data, MAX_BYTES, MAX_HEADERS)


@given(st.binary(max_size=200))
def test_no_bytes_whatever_do_more_than_be_refused(data: bytes) -> None:
    try:
        parsed = parse(data, MAX_BYTES, MAX_HEADERS)
    except Refusal as refusal:
        assert refusal.status in (400, 431, 501, 505)
    else:
        assert parsed is None or by_h11(data) is not None
