"""The main server decides before a client is answered, and again when what it has granted expires."""

from collections.abc import Iterator
from typing import Any

import pytest
from support.granted import DENIED, Granted
from support.plain_http import Client, get
from support.shard import Shard

from farm.transports.frames import encode_close, encode_text
from farm.worker.connection import IDLE
from router.common import messages as m

UPGRADE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version: 13",
)
NOT_DECIDED = m.Verdict(503, body=b"the main server cannot be reached")


def granting(dialect: Granted, **options: Any) -> Shard:
    return Shard(
        {"admission_timeout": 10, "retry_after": 7, **options.pop("worker", {})},
        more={"/granted/*": dialect},
        auth={"grace": 60, **options},
        asked_about={dialect: "granted"},
    )


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = granting(Granted())
    yield shard
    shard.close()


@pytest.fixture
def messaging() -> Iterator[Shard]:
    """Of which messages are asked about."""
    shard = granting(Granted(of_messages=True))
    yield shard
    shard.close()


def asked(shard: Shard) -> tuple[int, m.Authorise]:
    """The one question."""
    (call,) = shard.said()
    assert isinstance(call, m.Call)
    assert isinstance(call.request, m.Authorise)
    return call.number, call.request


def decided(shard: Shard, verdict: m.Verdict | None, status: int = m.OK) -> m.Authorise:
    """The one question has this answer."""
    number, question = asked(shard)
    payload = None if verdict is None else [getattr(verdict, name) for name in verdict.__struct_fields__]
    shard.sockets.received([m.Reply(number, status, payload)])
    return question


def pass_by(shard: Shard, seconds: float) -> None:
    for _ in range(int(seconds * 4)):
        shard.clock.pass_by(0.25)
        shard.sockets.begin_turn(shard.clock.monotonic())
        shard.sockets.tick()


def opened(shard: Shard, verdict: m.Verdict, path: str = "/granted/ws?channels=a/b") -> Client:
    client = Client(shard, get(path, *UPGRADE))
    decided(shard, verdict)
    client.until(b"\r\n\r\n")
    client.until(b"!")
    return client


# ---- before a client is answered


def test_the_question_has_what_the_client_asks_for_and_who_it_says_that_it_is(shard: Shard) -> None:
    headers = ("Cookie: a=b", "Authorization: Bearer c", "X-More: d")
    client = Client(shard, get("/granted/stream?_=17&channels=a/b&x=%20", *headers))
    assert client.nothing()
    _, question = asked(shard)
    shown = [(b"cookie", b"a=b"), (b"authorization", b"Bearer c")]
    expected = m.Authorise(
        "granted", m.CONNECT, "GET", "/granted/stream?channels=a/b&x=%20", shown, "127.0.0.1", ["a", "b"]
    )
    assert question == expected


def test_other_headers_may_be_shown() -> None:
    shard = granting(Granted(), headers=("x-more", "x-none"))
    try:
        Client(shard, get("/granted/stream", "Cookie: a=b", "X-More: d"))
        assert asked(shard)[1].headers == [(b"x-more", b"d")]
    finally:
        shard.close()


@pytest.mark.parametrize(
    ("verdict", "grant"),
    [
        (m.Verdict(200), (None, "", "", 0)),
        (m.Verdict(200, ["x"], "", "ann", 60, '{"a":1}'), (("x",), "ann", '{"a":1}', 60)),
        (m.Verdict(200, []), ((), "", "", 0)),
        (m.Verdict(200, ["x"], "/ws?channels=y/z"), (("y", "z"), "", "", 0)),
        (m.Verdict(200, None, "/ws"), ((), "", "", 0)),
    ],
)
def test_what_is_granted_is_in_the_request(shard: Shard, verdict: m.Verdict, grant: tuple[Any, ...]) -> None:
    client = Client(shard, get("/granted/ws", *UPGRADE))
    decided(shard, verdict)
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
    assert client.until(b"!").endswith(f"{grant}!".encode())


def test_a_dialect_that_is_not_asked_about_has_no_grant() -> None:
    shard = Shard(more={"/granted/*": Granted()})
    try:
        assert Client(shard, get("/granted/ws", *UPGRADE)).until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        assert shard.said() == []
    finally:
        shard.close()


def test_a_refusal_is_the_main_server_s(shard: Shard) -> None:
    verdict = m.Verdict(401, content_type="text/html", body=b"<p>no", headers=[(b"www-authenticate", b"Basic")])
    client = Client(shard, get("/granted/ws", *UPGRADE))
    decided(shard, verdict)
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert b"\r\nwww-authenticate: Basic\r\n" in head
    assert b"\r\nContent-Type: text/html\r\n" in head
    assert body == b"<p>no"
    assert shard.counters.upgrades_refused == 1


@pytest.mark.parametrize(
    ("verdict", "status", "expected"),
    [
        (NOT_DECIDED, m.OK, (503, NOT_DECIDED.body)),
        (m.Verdict(504, body=b"late"), m.OK, (504, b"late")),
        (m.Verdict(502, body=b"what?"), m.OK, (502, b"what?")),
        (None, m.FAILED, (503, b"the main server cannot be asked now")),
    ],
)
def test_what_is_not_decided_is_not_allowed(
    shard: Shard, verdict: m.Verdict | None, status: int, expected: tuple[int, bytes]
) -> None:
    client = Client(shard, get("/granted/ws", *UPGRADE))
    decided(shard, verdict, status)
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % expected[0])
    assert (b"\r\nRetry-After: " in head) == (expected[0] == 503)
    assert body == expected[1] + b"\n"


def test_a_client_that_asks_for_what_there_is_not_is_not_asked_about(shard: Shard) -> None:
    assert Client(shard, get("/granted/ws?refused", *UPGRADE)).rest().startswith(b"HTTP/1.1 400 ")
    assert shard.said() == []


def test_what_a_browser_asks_beforehand_is_answered_and_begins_nothing(shard: Shard) -> None:
    headers = ("Origin: http://push", "Access-Control-Request-Method: GET")
    assert Client(shard, get("/granted/stream", *headers, method="OPTIONS")).rest().startswith(b"HTTP/1.1 204 ")
    assert Client(shard, get("/granted/session", *headers, method="OPTIONS")).rest().startswith(b"HTTP/1.1 500 ")
    assert shard.said() == []


def test_a_router_that_is_new_is_asked_again(shard: Shard) -> None:
    client = Client(shard, get("/granted/ws", *UPGRADE))
    gone = Client(shard, get("/granted/ws", *UPGRADE))
    before, other = shard.said()
    shard.sockets.output.drop(shard.sockets.connections[gone.fd])
    assert shard.said() == [m.Withdraw(other.number)]
    list(shard.sockets.welcomed())
    number, question = asked(shard)
    assert (number, question) == (before.number, before.request)
    shard.sockets.received([m.Reply(number, m.OK, [200])] * 2)
    assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        (("Cookie: a=b",), True),
        (("Cookie: a=b", "Origin: http://push"), True),
        (("Cookie: a=b", "Origin: https://push:443"), True),
        (("Cookie: a=b", "Referer: https://push/page?x"), True),
        (("Cookie: a=b", "Sec-Fetch-Site: same-origin"), True),
        (("Cookie: a=b", "Sec-Fetch-Site: none"), True),
        (("Origin: https://other",), True),
        (("Cookie: a=b", "Origin: https://other"), False),
        (("Cookie: a=b", "Origin: https://push:8443"), False),
        (("Cookie: a=b", "Origin: null"), False),
        (("Cookie: a=b", "Referer: https://other/push"), False),
        (("Cookie: a=b", "Sec-Fetch-Site: cross-site"), False),
        (("Cookie: a=b", "Sec-Fetch-Site: same-site"), False),
        (("Authorization: Basic YTpi", "Origin: https://other"), False),
    ],
)
@pytest.mark.parametrize("kind", ["ws", "stream", "poll"])
def test_a_page_of_another_host_cannot_use_the_cookies_of_its_visitor(
    shard: Shard, headers: tuple[str, ...], allowed: bool, kind: str
) -> None:
    client = Client(shard, get(f"/granted/{kind}", *headers, *UPGRADE))
    assert len(shard.said()) == allowed
    if not allowed:
        head, _, body = client.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 403 ")
        assert b"worker.origins" in body


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        (("Cookie: a=b",), False),
        (("Cookie: a=b", "Referer: about:blank"), False),
        (("Cookie: a=b", "Sec-Fetch-Site: same-site"), False),
        (("Cookie: a=b", "Sec-Fetch-Site: same-origin"), True),
        (("Cookie: a=b", "Referer: http://push/page"), True),
        (("X-No: cookie",), True),
    ],
)
def test_a_script_is_for_a_page_that_is_known_if_there_are_cookies(
    shard: Shard, headers: tuple[str, ...], allowed: bool
) -> None:
    Client(shard, get("/granted/script", *headers))
    assert len(shard.said()) == allowed


def test_pages_that_are_named_may_use_cookies() -> None:
    shard = granting(Granted(), worker={"origins": ("https://a",)})
    try:
        Client(shard, get("/granted/ws", "Cookie: a=b", "Origin: https://a", *UPGRADE))
        asked(shard)
        client = Client(shard, get("/granted/ws", "Cookie: a=b", "Origin: http://push", *UPGRADE))
        assert client.rest().startswith(b"HTTP/1.1 403 ")
    finally:
        shard.close()


# ---- messages


def test_a_message_is_asked_about_and_what_follows_waits(messaging: Shard) -> None:
    client = opened(messaging, m.Verdict(200, None, "", "ann", 0, "[1]"))
    client.send(frame(b"publish hello") + frame(b"after"))
    client.look()
    number, question = asked(messaging)
    assert (question.action, question.message, question.channels) == (m.PUBLISH, "hello", ["a", "b"])
    assert (question.user, question.data, question.uri) == ("ann", "[1]", "/granted/ws?channels=a/b")
    assert client.nothing()
    messaging.sockets.received([m.Reply(number, m.OK, [200])])
    messaging.sockets.turn()
    assert client.until(b"after") == encode_text(b"hello 200") + encode_text(b"after")
    client.send(frame(b"to c"))
    question = decided(messaging, m.Verdict(403))
    assert (question.channels, question.message) == (["c"], "c")
    assert client.until(b"403") == encode_text(b"c 403")
    client.send(frame(b"publish hello"))
    list(messaging.sockets.welcomed())
    first, again = messaging.said()
    assert first == again
    messaging.sockets.received([m.Reply(first.number, m.FAILED, None)])
    assert client.until(b"asked") == encode_text(b"not asked")


def test_a_dialect_that_does_not_ask_of_messages_cannot(shard: Shard) -> None:
    client = opened(shard, m.Verdict(200))
    client.send(frame(b"publish hello"))
    assert shard.said() == []
    assert client.until(b"internal error") == encode_close(1011, "internal error")


# ---- grants that expire


def test_who_has_no_end_costs_nothing(shard: Shard) -> None:
    opened(shard, m.Verdict(200))
    pass_by(shard, 100)
    assert shard.said() == []
    assert len(shard.sockets.grants.kept) == 0


def test_a_grant_is_renewed_before_it_expires_and_the_connection_goes_on(shard: Shard) -> None:
    client = opened(shard, m.Verdict(200, None, "", "ann", 40))
    for _ in range(3):
        pass_by(shard, 35)
        assert shard.said() == []
        pass_by(shard, 6)
        client.send(frame(b"meanwhile"))
        assert client.until(b"meanwhile") == encode_text(b"meanwhile")
        question = decided(shard, m.Verdict(200, None, "", "ann", 40))
        assert (question.action, question.user, question.channels) == (m.REFRESH, "ann", ["a", "b"])
    assert shard.counters.grants_renewed == 3
    pass_by(shard, 41)
    decided(shard, m.Verdict(200))
    pass_by(shard, 1000)
    assert shard.said() == []
    assert client.here


@pytest.mark.parametrize(
    ("before", "verdict", "closed"),
    [
        (None, m.Verdict(403), DENIED),
        (None, m.Verdict(200, ["a", "b", "c"], "", "", 40), None),
        (None, m.Verdict(200, ["a"], "", "", 40), (1001, "other channels are granted now: connect again")),
        (["c"], m.Verdict(200, ["c", "d"]), None),
        (["c"], m.Verdict(200), None),
        (["c"], m.Verdict(200, None, "/?channels=c"), None),
        (["c", "d"], m.Verdict(200, ["d"]), (1001, "other channels are granted now: connect again")),
    ],
)
def test_who_is_refused_then_is_closed(
    shard: Shard, before: list[str] | None, verdict: m.Verdict, closed: tuple[int, str] | None
) -> None:
    client = opened(shard, m.Verdict(200, before, "", "", 40))
    pass_by(shard, 41)
    decided(shard, verdict)
    if closed is None:
        assert client.nothing()
    else:
        assert client.until(closed[1].encode()) == encode_close(*closed)
    assert shard.counters.grants_ended == (closed is not None)


def test_while_the_main_server_is_away_a_connection_is_kept_for_the_grace(shard: Shard) -> None:
    client = opened(shard, m.Verdict(200, None, "", "", 40))
    pass_by(shard, 41)
    decided(shard, NOT_DECIDED)
    for _ in range(5):
        pass_by(shard, 8)
        decided(shard, None, m.FAILED)
    assert client.nothing()
    pass_by(shard, 60)
    assert client.until(b"allowed") == encode_close(
        1013, "the main server cannot be asked whether this is still allowed"
    )
    assert shard.counters.grants_ended == 1


def test_it_may_come_back_in_time(shard: Shard) -> None:
    client = opened(shard, m.Verdict(200, None, "", "", 40))
    pass_by(shard, 41)
    decided(shard, NOT_DECIDED)
    pass_by(shard, 8)
    decided(shard, m.Verdict(200))
    pass_by(shard, 200)
    assert client.here


def test_in_a_short_grace_it_is_tried_several_times() -> None:
    shard = granting(Granted(), grace=4)
    try:
        client = opened(shard, m.Verdict(200, None, "", "", 40))
        pass_by(shard, 40)
        for _ in range(2):
            decided(shard, NOT_DECIDED)
            pass_by(shard, 1.75)
        decided(shard, m.Verdict(200))
        pass_by(shard, 10)
        assert client.nothing()
    finally:
        shard.close()


def test_a_renewal_without_a_reply_is_put_to_the_next_router_and_has_an_end(shard: Shard) -> None:
    client = opened(shard, m.Verdict(200, None, "", "", 40))
    pass_by(shard, 41)
    (before,) = shard.said()
    pass_by(shard, 30)
    assert shard.said() == []
    list(shard.sockets.welcomed())
    assert shard.said() == [before]
    pass_by(shard, 30)
    client.until(b"allowed")
    shard.sockets.received([m.Reply(before.number, m.OK, [200])])  # too late
    assert len(shard.sockets.grants.kept) == 0


def test_who_goes_is_forgotten_and_a_reply_about_it_is_nobody_s(shard: Shard) -> None:
    clients = [opened(shard, m.Verdict(200, None, "", "", 40)) for _ in range(90)]
    for client in clients[1:]:
        shard.sockets.output.drop(shard.sockets.connections[client.fd])
    assert len(shard.sockets.grants._timers) < 70
    pass_by(shard, 41)
    number, _ = asked(shard)
    shard.sockets.output.drop(shard.sockets.connections[clients[0].fd])
    shard.sockets.received([m.Reply(number, m.OK, [200])])
    assert len(shard.sockets.grants.kept) == 0
    assert shard.sockets.grants._armed == shard.sockets.grants._renewals == {}


@pytest.mark.parametrize("path", ["/granted/ws", "/granted/stream", "/granted/poll"])
@pytest.mark.parametrize("behind", [b"", b"\x81"])
def test_a_client_that_goes_while_it_waits_is_not_waited_for(shard: Shard, path: str, behind: bytes) -> None:
    client = Client(shard, get(path, *(UPGRADE if path.endswith("ws") else ())))
    number, _ = asked(shard)
    if behind:
        client.send(behind)
        client.look()
    assert client.here
    client.socket.close()
    client.look()
    assert not client.here
    assert shard.said() == [m.Withdraw(number)]
    shard.sockets.received([m.Reply(number, m.OK, [200])])  # it was on its way
    list(shard.sockets.welcomed())
    assert shard.said() == []


def test_a_request_that_is_answered_without_the_main_server_is_not_waited_for(shard: Shard) -> None:
    client = Client(shard, get("/granted/stream"))
    number, _ = asked(shard)
    pass_by(shard, 11)
    assert client.rest().startswith(b"HTTP/1.1 504 ")
    assert shard.said() == [m.Withdraw(number)]


def test_a_renewal_of_a_connection_that_ends_is_not_waited_for(shard: Shard) -> None:
    client = opened(shard, m.Verdict(200, None, "", "", 40))
    pass_by(shard, 41)
    number, _ = asked(shard)
    client.socket.close()
    client.look()
    assert shard.said() == [m.Withdraw(number)]


def test_a_poll_is_asked_about_each_time(shard: Shard) -> None:
    client = Client(shard, get("/granted/poll"))
    for _ in range(2):
        decided(shard, m.Verdict(200, None, "", "", 40))
        client.until(b"!\n")
        assert shard.sockets.connections[client.fd].phase == IDLE
        assert len(shard.sockets.grants.kept) == 0
        client.send(get("/granted/poll"))


def test_what_waits_for_the_main_server_is_answered_when_the_worker_goes(shard: Shard) -> None:
    client = Client(shard, get("/granted/stream"))
    shard.sockets.let_go(shard.sockets.connections[client.fd])
    assert client.rest().startswith(b"HTTP/1.1 503 ")


def frame(text: bytes) -> bytes:
    """A masked text frame."""
    return bytes((0x81, 0x80 | len(text), 0, 0, 0, 0)) + text
