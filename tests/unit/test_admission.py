"""A request before it is answered: it may wait for the router, and a dialect accepts, refuses or redirects it."""

from collections.abc import Iterator

import h11
import pytest
from support.plain_dialect import MAX_BODY, Plain
from support.plain_http import Client, get
from support.shard import Shard

from farm.transports.frames import encode_text
from router.common import messages as m
from router.common.poller import READ

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
HELLO = b"\x81\x85\0\0\0\0hello"
"""A frame of a client."""


@pytest.fixture
def dialect() -> Plain:
    return Plain()


@pytest.fixture
def shard(dialect: Plain) -> Iterator[Shard]:
    shard = Shard({"admission_timeout": 10}, more={"/plain/**": dialect})
    yield shard
    shard.close()


def answer(client: Client) -> tuple[h11.Response, bytes]:
    """A whole answer as h11's client reads it, after which the connection ends."""
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(client.rest())
    peer.receive_data(b"")
    response = peer.next_event()
    assert isinstance(response, h11.Response)
    body = b""
    while isinstance(event := peer.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return response, body


def headers(response: h11.Response) -> dict[bytes, bytes]:
    return dict(response.headers)


def replied(shard: Shard, payload: object = None, status: int = m.OK) -> None:
    """The router replies to the one call."""
    (call,) = shard.said()
    assert isinstance(call.request, m.Invoke)
    shard.sockets.received([m.Reply(call.number, status, payload)])


# ---- asked first


@pytest.mark.parametrize("kind", ["ws", "stream"])
def test_a_request_waits_for_the_router_and_is_accepted_with_headers(shard: Shard, dialect: Plain, kind: str) -> None:
    client = Client(shard, get(f"/plain/asked/{kind}?hi", *UPGRADE))
    assert client.nothing()
    assert dialect.sessions == []
    assert shard.sockets.connections[client.fd].session is None
    replied(shard, b"ann")
    head = client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 " if kind == "ws" else b"HTTP/1.1 200 ")
    assert b"\r\nSet-Cookie: user=ann\r\n" in head
    said = encode_text(b"hi") if kind == "ws" else b"2\r\nhi\r\n"
    assert client.until(said) == said
    assert len(dialect.sessions) == 1


def test_what_came_meanwhile_is_heard_in_order_and_then_what_waits_in_the_kernel(shard: Shard) -> None:
    client = Client(shard, get("/plain/asked/ws", *UPGRADE) + HELLO)
    client.send(b"\x81\x85\0\0\0\0again")
    client.look()
    assert client.nothing()
    replied(shard, b"ann")
    client.until(b"\r\n\r\n")
    client.look()
    assert client.until(b"again") == encode_text(b"hello") + encode_text(b"again")


@pytest.mark.parametrize(
    ("payload", "status", "expected"),
    [
        (b"no", m.OK, (403, {b"x-reason": b"secret", b"content-type": b"application/json"}, b'{"error":"no"}')),
        (b"elsewhere", m.OK, (302, {b"location": b"/plain/login"}, b"")),
        (None, m.FAILED, (503, {b"retry-after": b"7"}, b"nobody knows\n")),
        (b"defect", m.OK, (500, {}, b"internal error\n")),
        (b"a\r\nb", m.OK, (500, {}, b"internal error\n")),
    ],
)
def test_what_the_dialect_makes_of_the_reply_is_the_answer(
    shard: Shard, payload: bytes, status: int, expected: tuple[int, dict[bytes, bytes], bytes]
) -> None:
    client = Client(shard, get("/plain/asked/ws", *UPGRADE))
    replied(shard, payload, status)
    response, body = answer(client)
    assert (response.status_code, body) == (expected[0], expected[2])
    assert expected[1].items() <= headers(response).items()
    assert shard.counters.upgrades_refused == (expected[0] != 302)
    client.socket.close()
    client.look()
    assert not client.here


def test_the_reply_may_decide_the_transport(shard: Shard) -> None:
    client = Client(shard, get("/plain/asked/stream?hi"))
    replied(shard, b"poll")
    assert client.until(b"hi\n").endswith(b"\r\nContent-Length: 3\r\n\r\nhi\n")


def test_more_may_be_asked_within_the_same_time(shard: Shard) -> None:
    client = Client(shard, get("/plain/asked/ws", *UPGRADE))
    for _ in range(3):
        shard.clock.pass_by(3)
        shard.sockets.tick()
        replied(shard, b"again")
    assert client.nothing()
    for _ in range(8):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    response, body = answer(client)
    assert (response.status_code, body) == (504, b"this was not decided in time\n")
    assert shard.counters.timeouts == 1


def test_a_reply_that_comes_too_late_is_nobody_s(shard: Shard, dialect: Plain) -> None:
    client = Client(shard, get("/plain/asked/ws", *UPGRADE))
    (sent,) = shard.said()
    number = sent.number
    for _ in range(44):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    assert answer(client)[0].status_code == 504
    shard.sockets.received([m.Reply(number, m.OK, b"ann")])
    assert dialect.sessions == []


def test_who_goes_while_it_waits_is_forgotten(shard: Shard, dialect: Plain) -> None:
    client = Client(shard, get("/plain/asked/ws", *UPGRADE))
    shard.sockets.output.drop(shard.sockets.connections[client.fd])
    replied(shard, b"ann")
    assert dialect.sessions == []
    assert not len(shard.sockets)


def test_many_requests_may_wait_at_once_and_the_replies_come_in_any_order(shard: Shard) -> None:
    clients = [Client(shard, get(f"/plain/asked/stream?{number}", *UPGRADE)) for number in range(3)]
    numbers = [one.number for one in shard.said()]
    assert len(numbers) == 3
    shard.sockets.received([m.Reply(number, m.OK, b"x") for number in reversed(numbers)])
    for number, client in enumerate(clients):
        assert client.until(b"\r\n\r\n%x\r\n" % 1 + b"%d" % number)


def test_what_cannot_be_asked_of_the_router_is_a_defect(shard: Shard) -> None:
    assert answer(Client(shard, get("/plain/wrong/ws", *UPGRADE)))[0].status_code == 500
    assert shard.said() == []


def test_a_defect_and_a_header_of_two_lines_are_answered_500(shard: Shard, dialect: Plain) -> None:
    for path in ("/plain/defect", "/plain/two-lines", "/plain/two-lines/ws"):
        assert answer(Client(shard, get(path, *UPGRADE)))[0].status_code == 500
    assert [session.closes for session in dialect.sessions] == [1, 1]


# ---- what a dialect sees


def test_the_client_s_address_is_part_of_the_request_and_nobody_keeps_it(shard: Shard, dialect: Plain) -> None:
    Client(shard, get("/plain/stream"))
    assert dialect.requests[0].address == "127.0.0.1"
    assert len(shard.sockets.addresses) == 0
    half = Client(shard, b"GET /plain")
    assert len(shard.sockets.addresses) == 1
    half.socket.close()
    half.look()
    assert len(shard.sockets.addresses) == 0


def test_a_request_may_have_a_body_that_comes_in_pieces(shard: Shard) -> None:
    body = b"x" * (MAX_BODY - 4) + b"\r\n\r\n"
    request = get("/plain", f"Content-Length: {len(body)}", method="POST").replace(b"/plain ", b"/plain/a/b ")
    client = Client(shard, b"")
    for byte in request[:-1] + request[-1:] + body[:-1]:
        client.send(bytes([byte]))
        assert client.nothing()
    assert shard.sockets.output.budget.total > MAX_BODY
    client.send(body[-1:])
    response, found = answer(client)
    assert (response.status_code, found) == (200, body)
    assert headers(response)[b"x-address"] == b"127.0.0.1"
    assert shard.sockets.output.budget.total == 0


def test_who_waits_for_100_continue_gets_it_once(shard: Shard) -> None:
    client = Client(shard, get("/plain/x", "Content-Length: 3", "Expect: 100-continue", method="POST"))
    assert client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"ab")
    assert client.nothing()
    client.send(b"c")
    assert answer(client)[1] == b"abc"


def test_what_waits_for_the_router_counts_and_is_answered_when_the_worker_goes(shard: Shard) -> None:
    clients = [Client(shard, get("/plain/asked", "Content-Length: 500", method="POST") + b"x" * 520) for _ in range(2)]
    assert shard.sockets.output.budget.total == 2 * (520 + 100)
    shard.sockets.let_go(shard.sockets.connections[clients[0].fd])
    assert shard.sockets.output.budget.total == 520 + 100
    response, _ = answer(clients[0])
    assert (response.status_code, int(headers(response)[b"retry-after"]) in range(15, 46)) == (503, True)
    shard.sockets.received([m.Reply(one.number, m.OK, b"no") for one in shard.said()])  # also to the one that has gone
    assert answer(clients[1])[0].status_code == 403
    assert shard.sockets.output.budget.total == 0


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (404, get("/plainly")),
        (405, get("/plain/x", method="DELETE")),
        (405, get("/plain/stream", method="HEAD")),
        (411, get("/plain/x", "Transfer-Encoding: chunked", method="POST")),
        (413, get("/plain/x", f"Content-Length: {MAX_BODY + 1}", method="POST")),
        (426, get("/plain/ws")),
        (405, get("/talk/x", method="POST")),
        (413, get("/talk/x", "Content-Length: 1", *UPGRADE)),
        (426, get("/talk/x")),
    ],
)
def test_what_a_dialect_does_not_take_is_refused_before_it_sees_it(
    shard: Shard, dialect: Plain, status: int, request_: bytes
) -> None:
    client = Client(shard, request_)
    head, _, _ = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status)
    if b"HEAD" not in request_:
        assert dialect.requests == []


def test_a_body_that_does_not_come_is_late(shard: Shard) -> None:
    client = Client(shard, get("/plain/x", "Content-Length: 3", method="POST"))
    for _ in range(44):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    assert answer(client)[0].status_code == 408


def test_origins_hold_for_every_transport(dialect: Plain) -> None:
    shard = Shard({"origins": ("https://a",)}, more={"/plain/**": dialect})
    try:
        for path in ("/plain/stream", "/plain/poll?x", "/plain/ws"):
            assert answer(Client(shard, get(path, "Origin: https://b", *UPGRADE)))[0].status_code == 403
            head = Client(shard, get(path, "Origin: https://a", *UPGRADE)).until(b"\r\n\r\n")
            assert head.startswith((b"HTTP/1.1 101 ", b"HTTP/1.1 200 "))
    finally:
        shard.close()


def test_a_request_that_waits_is_parked(shard: Shard) -> None:
    client = Client(shard, get("/plain/asked/ws", *UPGRADE))
    client.send(HELLO)
    connection = shard.sockets.connections[client.fd]
    assert not connection.mask & READ
    assert (connection.reader, connection.out, connection.session) == (None, None, None)
    replied(shard, b"ann")
    assert connection.mask & READ
    client.until(b"\r\n\r\n")
    client.look()
    assert client.until(b"hello") == encode_text(b"hello")
