"""Push stream, device side: requests in, bytes out, in each of the modes."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
import websocket
from support.pushstream_shard import DATE, TIME, Answer, Site, logged, site

from farm.transports.frames import CLOSE, PING
from router.common import messages as m
from router.common.close_codes import GOING_AWAY
from router.common.operation import encoded
from router.common.position import AfterTime, Last
from router.dialects.pushstream.protocol import (
    DELETED,
    NAME,
    NOT_AUTHORIZED,
    NOT_READ,
    TOO_MANY_CHANNELS,
    TOO_MANY_SUBSCRIBERS,
    Admit,
    Publish,
    channel_address,
    refusal_text,
    subscribers_address,
)

SINCE = (f"If-Modified-Since: {DATE}", "If-None-Match: W/1")
BARE = {"message_template": "~text~"}


def chunked(*parts: str) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part.encode()), part.encode()) for part in parts)


def close_of(client: websocket.WebSocket) -> tuple[int, str]:
    """Code and reason of the close, which must be what comes next; 0: it has none."""
    frame = client.recv_frame()
    assert frame.opcode == CLOSE
    return (int.from_bytes(frame.data[:2], "big"), frame.data[2:].decode())


def told(client: websocket.WebSocket) -> tuple[int, str]:
    found = json.loads(client.recv())
    return found["id"], found["text"]


# ---------------------------------------------------------------------- what stays


def test_a_websocket_has_what_it_missed_and_what_comes() -> None:
    with site() as here:
        client = here.socket("/ws/a.b2/b")
        here.answer({"a": [logged(2), logged(5)], "b": [logged(3, "live")]})
        assert here.asked == {"a": Last(2)}
        here.publish("b", logged(6))
        assert [told(client) for _ in range(3)] == [(2, "text 2"), (5, "text 5"), (6, "text 6")]
        here.publish("a", logged(9, 'a "quoted" text', id="mine"))
        assert json.loads(client.recv()) == {
            "id": 9,
            "channel": "a",
            "text": 'a "quoted" text',
            "tag": "9",
            "time": DATE,
            "eventid": "mine",
        }


def test_several_channels_are_merged_in_the_order_in_which_events_came() -> None:
    with site() as here:
        client = here.plain("/sub/a/b/c", *SINCE)
        logs = {"a": [logged(2), logged(5)], "b": [logged(3), logged(4)], "c": [logged(1, time=TIME + 1)]}
        here.answer(logs)
        client.until(b"\r\n\r\n")
        assert set(here.asked.values()) == {AfterTime(TIME, 1)}
        found = [json.loads(client.until(b"\r\n\r\n").splitlines()[1])["text"] for _ in range(5)]
        assert found == ["text 2", "text 3", "text 4", "text 5", "text 1"]


def test_what_comes_while_logs_are_read_is_merged_too() -> None:
    """One channel is wanted from a position, the others from now on."""
    with site(**BARE) as here:
        client = here.plain("/sub/a.b3/b/c", version="1.0")
        calls = [call for call in here.shard.said() if isinstance(call, m.Call)]
        opened = {call.request.channel: call.number for call in calls if isinstance(call.request, m.Subscribe)}
        (read,) = [call.number for call in calls if isinstance(call.request, m.ReadLog)]
        one, two, three = (m.Reply(opened[channel_address(name)], m.OK, None) for name in "abc")
        found = m.Reply(read, m.OK, [7, 3, True, [[*logged(2)], [*logged(3)]], False])
        here.shard.sockets.received([one, two])
        here.publish("b", logged(8))
        here.shard.sockets.received([found])
        here.publish("a", logged(9))
        here.publish("b", logged(10))
        here.shard.sockets.received([three])
        here.shard.sockets.speak()
        assert client.until(b"\r\n\r\n")
        assert [client.until(b"\r\n") for _ in range(5)] == [b"text %d\r\n" % at for at in (2, 3, 8, 9, 10)]


def test_a_stream_is_a_line_for_each_message() -> None:
    with site(**BARE, header_template="HEAD", footer_template="FOOT") as here:
        client = here.plain("/sub/a")
        assert client.nothing()
        here.answer()
        head = client.until(b"\r\n\r\n")
        assert b"\r\nTransfer-Encoding: chunked\r\n" in head
        assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in head
        here.publish("a", logged(1))
        here.shard.sockets.received([m.Terminate(channel_address("a"), DELETED, "")])
        assert client.rest() == chunked("HEAD\r\n", "text 1\r\n", "FOOT") + b"0\r\n\r\n"


def test_a_stream_over_http_1_0_has_no_chunks() -> None:
    with site(**BARE) as here:
        client = here.plain("/sub/a", version="1.0")
        here.answer()
        assert b"chunked" not in client.until(b"\r\n\r\n")
        here.publish("a", logged(1))
        here.shard.sockets.received([m.Terminate(channel_address("a"), DELETED, "")])
        assert client.rest() == b"text 1\r\n"


def test_an_event_source_has_ids_that_it_comes_again_with() -> None:
    with site(**BARE) as here:
        client = here.plain("/ev/a", version="1.0")
        here.answer()
        assert b"\r\nContent-Type: text/event-stream; charset=utf-8\r\n" in client.until(b"\r\n\r\n")
        here.publish("a", logged(1))
        here.publish("a", logged(2, "two\nlines", id="mine", headers={"type": "news"}))
        here.publish("a", logged(0, "unstored", headers={"id": "3"}))
        here.shard.sockets.received([m.Terminate(channel_address("a"), DELETED, "")])
        assert client.rest().decode().replace("\r\n", "\n") == (
            f": \n\nid: {TIME}:1\ndata: text 1\n\n"
            f"id: mine\nevent: news\ndata: two\ndata: lines\n\nid: {TIME}:2\n\n"
            f"id: {TIME}:0\ndata: unstored\n\n"
        )
        again = here.plain("/ev/a.b5", f"Last-Event-ID: {TIME}:1", version="1.0")
        here.answer({"a": [logged(2)]})
        again.until(b"\r\n\r\n")
        assert again.until(b"text 2\r\n\r\n").decode() == f": \r\n\r\nid: {TIME}:2\r\ndata: text 2\r\n\r\n"


def test_of_an_id_that_one_channel_knows_the_others_have_nothing_that_is_missing() -> None:
    with site(**BARE) as here:
        client = here.plain("/sub/a/b", "Last-Event-Id: mine", version="1.0")
        here.answer({"a": [logged(5)], "b": [logged(1), logged(6)]}, recovered=["a"])
        client.until(b"\r\n\r\n")
        here.publish("b", logged(7))
        assert client.until(b"7\r\n") == b"text 5\r\ntext 7\r\n"
        client = here.plain("/sub/a/b", "Last-Event-Id: mine", version="1.0")
        here.answer({"a": [logged(5)], "b": [logged(1), logged(6)]}, recovered=[])
        client.until(b"\r\n\r\n")
        assert client.until(b"6\r\n") == b"text 1\r\ntext 5\r\ntext 6\r\n"


def test_a_setting_tells_that_messages_are_missing() -> None:
    with site(missed_message="some are missing") as here:
        client = here.socket("/ws/a?eventid=gone")
        here.answer({"a": [logged(5)]}, recovered=[])
        assert [told(client) for _ in range(2)] == [(-4, "some are missing"), (5, "text 5")]


def test_pings_and_the_end_of_a_connection() -> None:
    with site(**BARE, ping_message_interval=10, subscriber_connection_ttl=25, ping_message_text="beat") as here:
        streams = [here.plain(f"/{path}/a", version="1.0") for path in ("sub", "ev")]
        client = here.socket("/ws/a")
        here.answer()
        here.pass_by(25)
        assert [client.recv_frame().opcode for _ in range(2)] == [PING, PING]
        assert close_of(client) == (0, "")
        for stream, body in zip(streams, (b"beat\r\n" * 2, b": \r\n\r\n" + b": -1\r\n\r\n" * 2), strict=True):
            assert stream.rest().partition(b"\r\n\r\n")[2] == body


def test_a_connection_without_pings_and_end_has_no_timer() -> None:
    with site() as here:
        for path in ("sub", "ev", "lp"):
            here.plain(f"/{path}/a")
        here.socket("/ws/a")
        here.answer()
        here.pass_by(20)  # the time that it may take to be subscribed
        assert [connection.bucket for connection in here.shard.sockets.open_connections()] == [None] * 4


ALL_MODES = ("ws", "ev", "sub", "lp")


def refused(here: Site, path: str) -> Callable[[], tuple[int, str | None]]:
    """A client of any mode. Returns: what gives status and explanation of the answer that refuses it."""
    if path.startswith("/ws"):
        socket = here.socket(path)

        def closed() -> tuple[int, str | None]:
            code, reason = close_of(socket)
            found = json.loads(reason)
            assert code == (1013 if found["http_status"] == 503 else 1008)
            return found["http_status"], found["explain"]

        return closed
    client = here.plain(path)

    def answered() -> tuple[int, str | None]:
        answer = Answer(client)
        assert ("retry-after" in answer.headers) == (answer.status == 503)
        return answer.status, answer.headers.get("x-nginx-pushstream-explain")

    return answered


@pytest.mark.parametrize("mode", ALL_MODES)
def test_a_client_whose_channels_cannot_be_read_may_come_again(mode: str) -> None:
    with site() as here:
        answers = [refused(here, f"/{mode}/a.b1")]
        here.answer(status=m.FAILED)
        answers.append(refused(here, f"/{mode}/a"))
        here.pass_by(20)
        answers.append(refused(here, f"/{mode}/a"))
        for connection in here.shard.sockets.open_connections():
            here.shard.sockets.let_go(connection)
        for answer in answers:
            assert answer() == (503, NOT_READ.text)


@pytest.mark.parametrize("mode", ALL_MODES)
def test_channels_and_subscribers_have_limits_that_the_router_knows(mode: str) -> None:
    with site(max_subscribers_per_channel=7) as here:
        answer = refused(here, f"/{mode}/a")
        here.answer(full=m.Subscribe)
        assert answer() == (403, TOO_MANY_CHANNELS.text)
        answer = refused(here, f"/{mode}/b")
        calls = [call.request for call in here.shard.said() if isinstance(call, m.Call)]
        (joins,) = [call for call in calls if isinstance(call, m.PresenceJoin)]
        assert (joins.channel, joins.most) == (subscribers_address("b"), 7)
        assert len(here.shard.sockets.subscriptions) == 2
        answer = refused(here, f"/{mode}/a")
        here.answer(full=m.PresenceJoin)
        assert answer() == (403, TOO_MANY_SUBSCRIBERS.text)
        refused(here, f"/{mode}/c")
        here.answer()
        here.shard.said()
        for connection in here.shard.sockets.open_connections():
            here.shard.sockets.close(connection, 1000, "")
        left = {one.channel for one in here.shard.said() if isinstance(one, m.PresenceLeave)}
        assert left == {subscribers_address("b"), subscribers_address("c")}


# ---------------------------------------------------------------------- polls


def test_a_poll_is_answered_with_what_came_since() -> None:
    with site(**BARE) as here:
        client = here.plain("/lp/a/b", *SINCE, "X-Nginx-PushStream-Mode: polling")
        here.answer({"a": [logged(2), logged(5)], "b": [logged(3)]})
        answer = Answer(client)
        assert (answer.status, answer.body, answer.place) == (200, b"text 2text 3text 5", (DATE, "W/5"))
        assert (answer.phrase, answer.headers["cache-control"][:8]) == ("OK", "no-cache")
        client.send(f"GET /lp/a HTTP/1.1\r\nHost: push\r\nIf-Modified-Since: {DATE}\r\nIf-None-Match: W/5\r\n".encode())
        client.send(b"X-Nginx-PushStream-Mode: polling\r\n\r\n")
        here.answer()
        assert here.asked == {"a": AfterTime(TIME, 5)}
        answer = Answer(client)
        assert (answer.status, answer.body, answer.place) == (304, b"", (DATE, "W/5"))


def test_a_first_poll_learns_where_the_logs_stand() -> None:
    with site() as here:
        client = here.plain("/sub/a/b", "X-Nginx-PushStream-Mode: polling")
        here.answer({"a": [logged(7)], "b": [logged(3)]})
        answer = Answer(client)
        assert (answer.status, answer.place) == (304, (DATE, "W/7"))
        client = here.plain("/sub/a/b", "X-Nginx-PushStream-Mode: polling")
        here.answer()
        assert Answer(client).place == ("Thu, 01 Jan 1970 00:00:00 GMT", "W/0")


def test_a_long_poll_waits_for_an_event() -> None:
    with site(**BARE) as here:
        client = here.plain("/lp/a/b", *SINCE)
        here.answer()
        assert client.nothing()
        here.publish("b", logged(4))
        answer = Answer(client)
        assert (answer.status, answer.body, answer.place) == (200, b"text 4", (DATE, "W/4"))
        assert len(here.shard.sockets.subscriptions) == 0


def test_an_answer_that_is_a_part_of_what_there_is_says_where_that_ends() -> None:
    with site(**BARE) as here:
        client = here.plain("/lp/a.b9/b")
        calls = [message for message in here.shard.said() if isinstance(message, m.Call)]
        slices = {"a": [7, 3, True, [[*logged(3)]], True], "b": [7, 9, True, [[*logged(9)]], False]}
        names = {channel_address(name): name for name in slices}
        for call in calls:
            found = slices[names[call.request.channel]] if isinstance(call.request, m.ReadLog) else None
            here.shard.sockets.received([m.Reply(call.number, m.OK, found)])
        here.shard.sockets.speak()
        answer = Answer(client)
        assert (answer.body, answer.place) == (b"text 3", (DATE, "W/3"))


def test_an_event_that_comes_while_a_long_poll_is_being_subscribed_is_its_answer() -> None:
    with site(**BARE) as here:
        client = here.plain("/lp/a", *SINCE)
        calls = [message for message in here.shard.said() if isinstance(message, m.Call)]
        replies = [m.Reply(calls[0].number, m.OK, None), m.Reply(calls[1].number, m.OK, [7, 0, True, []])]
        here.shard.sockets.received([*replies, m.LoggedEvent(channel_address("a"), 7, logged(4), "")])
        here.shard.sockets.speak()
        answer = Answer(client)
        assert (answer.body, answer.place) == (b"text 4", (DATE, "W/4"))


@pytest.mark.parametrize("with_body", [False, True])
def test_a_long_poll_for_which_nothing_came(with_body: bool) -> None:
    with site(longpolling_connection_ttl=30, subscriber_connection_ttl=5, timeout_with_body=with_body) as here:
        client = here.plain("/lp/a", *SINCE)
        here.answer()
        here.pass_by(20)
        assert client.nothing()
        here.pass_by(10)
        answer = Answer(client)
        assert (answer.status, answer.place) == (200 if with_body else 304, (DATE, "W/1"))
        if with_body:
            found = json.loads(answer.body)
            assert (found["id"], found["text"]) == (-3, "Timed out")


def test_a_time_without_a_tag_stays_one() -> None:
    with site() as here:
        client = here.plain("/sub/a", SINCE[0], "X-Nginx-PushStream-Mode: polling")
        here.answer()
        assert Answer(client).place == (DATE, None)


def test_jsonp() -> None:
    with site() as here:
        client = here.plain("/lp/a.b1?callback=page.took")
        here.answer({"a": [logged(2)]})
        answer = Answer(client)
        assert answer.headers["content-type"] == "application/javascript; charset=utf-8"
        assert json.loads(answer.body.removeprefix(b"page.took(").removesuffix(b");\r\n"))[0]["text"] == "text 2"


@pytest.mark.parametrize("seed", range(8))
def test_events_of_several_channels_come_in_their_order_however_many_are_on_their_way(seed: int) -> None:
    """A client that comes back behind the last event that it had must have had all before that."""
    chance = random.Random(seed)
    with site(chance.choice([1, 2, 3]), **BARE) as here:
        for name in "abc":
            for _ in range(chance.randrange(1, 6)):
                here.socket(f"/ws/{name}")
        several = [here.plain(f"/sub/{path}", version="1.0") for path in ("a/b", "b/c/a", "a/b/c", "c/b")]
        sockets = [here.socket("/ws/a/b/c"), here.socket("/ws/c/a")]
        poll = here.plain("/lp/a/b/c", *SINCE)
        here.answer()
        for number in range(2, 40):
            here.publish(chance.choice("abc"), logged(number), speak=chance.random() < 0.6)
        while here.shard.sockets.speaking:
            here.shard.sockets.speak()
        for client in several:
            client.until(b"\r\n\r\n")
        here.shard.sockets.drop_all()
        for client in several:
            numbers = [int(line.split()[1]) for line in client.rest().splitlines()]
            assert len(numbers) > 5
            assert numbers == sorted(set(numbers))
        for socket in sockets:
            numbers = []
            with suppress(websocket.WebSocketConnectionClosedException):
                while True:
                    numbers.append(int(str(socket.recv()).split()[1]))
            assert len(numbers) > 5
            assert numbers == sorted(set(numbers))
        answer = Answer(poll)
        polled = [int(number) for number in answer.body.decode().replace("text", "").split()]
        assert polled == list(range(2, polled[-1] + 1))
        assert answer.place == (DATE, f"W/{polled[-1]}")


# ---------------------------------------------------------------------- what is refused


def test_refusals_are_explained() -> None:
    with site() as here:
        answer = Answer(here.plain("/lp/ALL"))
        assert (answer.status, answer.headers["x-nginx-pushstream-explain"]) == (403, NOT_AUTHORIZED.text)
        assert Answer(here.plain("/lp/a?callback=1")).status == 400
        client = here.socket("/ws/ALL")
        code, reason = close_of(client)
        assert code == 1008
        assert json.loads(reason) == {"http_status": 403, "explain": NOT_AUTHORIZED.text}
        assert here.dialect.counters.commands_refused == 3


def test_the_router_says_which_channels_are_open() -> None:
    with site(authorized_channels_only=True) as here:
        question = m.Invoke(NAME, channel_address("a"), encoded(Admit(["a", "b"])))
        poll = here.plain("/lp/a/b")
        (call,) = here.shard.said()
        assert call.request == question
        here.shard.sockets.received([m.Reply(call.number, m.OK, encoded(refusal_text(NOT_AUTHORIZED)))])
        assert Answer(poll).status == 403
        stream = here.plain("/sub/a")
        here.shard.answer(encoded(""))
        here.answer()
        assert stream.until(b"\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        for status, payload in ((m.FAILED, None), (m.OK, None)):
            here.shard.said()
            poll = here.plain("/lp/a")
            here.shard.answer(payload, status)
            assert Answer(poll).status == 503


@pytest.mark.parametrize(
    ("origins", "page", "allowed"),
    [
        ((), "https://a.example", None),
        (("*",), "https://a.example", "*"),
        (("https://a.example", "https://b.example"), "https://b.example", "https://b.example"),
        (("https://a.example",), "https://c.example", None),
    ],
)
def test_pages_of_other_origins(origins: tuple[str, ...], page: str, allowed: str | None) -> None:
    with site(allowed_origins=origins) as here:
        answers = [
            Answer(here.plain("/lp/a", f"Origin: {page}", method="OPTIONS")),
            Answer(here.plain("/lp/ALL", f"Origin: {page}")),
        ]
        poll = here.plain("/lp/a.b1", f"Origin: {page}")
        here.answer({"a": [logged(1)]})
        answers.append(Answer(poll))
        assert [answer.headers.get("access-control-allow-origin") for answer in answers] == [allowed] * 3
        assert [answer.status for answer in answers] == [200, 403, 200]
        client = here.plain("/ev/a", f"Origin: {page}")
        here.answer()
        stream = client.until(b"\r\n\r\n").decode()
        assert (f"\r\nAccess-Control-Allow-Origin: {allowed}\r\n" in stream) == (allowed is not None)


# ---------------------------------------------------------------------- what a WebSocket sends


def test_what_a_websocket_sends_is_published_if_it_may() -> None:
    with site(websocket_allow_publish=True) as here:
        client = here.socket("/ws/a/b")
        here.answer()
        client.send_binary(b"no text")
        client.send("héllo")
        here.look()
        (call,) = here.shard.said()
        assert call.request.key == channel_address("a")
        assert call.request.arguments == encoded(Publish(["a", "b"], "héllo"))
        here.shard.sockets.received([m.Reply(call.number, m.OK, encoded(""))])
        assert here.dialect.counters.commands_refused == 0
        client.send("x" * 65_530)
        for _ in range(20):
            here.look()
        assert close_of(client)[0] == 1009


def test_what_a_websocket_sends_is_ignored_otherwise() -> None:
    with site() as here:
        client = here.socket("/ws/a")
        here.answer()
        client.send("hello")
        here.look()
        assert here.shard.said() == []
        here.publish("a", logged(1))
        assert told(client) == (1, "text 1")


@pytest.mark.parametrize("path", ALL_MODES)
def test_a_worker_that_stops_lets_subscribers_go(path: str) -> None:
    with site(**BARE) as here:
        client: Any = here.socket("/ws/a") if path == "ws" else here.plain(f"/{path}/a", *SINCE)
        here.answer()
        for connection in here.shard.sockets.open_connections():
            here.shard.sockets.let_go(connection)
        if path == "ws":
            assert close_of(client)[0] == GOING_AWAY
        elif path == "lp":
            assert Answer(client).place == (DATE, "W/1")
        else:
            assert client.rest().endswith(b"0\r\n\r\n")
