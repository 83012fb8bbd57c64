"""How the bench speaks gopush2: its devices, over WebSocket and TCP, and its app servers."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import frames
from bench.load.frames import TEXT, Message, PeerError
from bench.load.http_bytes import payload_of
from bench.load.protocols import protocol_of
from bench.load.protocols.base import DONE, PONG, Received, Scenario
from bench.load.protocols.gopush2 import BULK, Pub
from bench.load.samples import DATA_RIGHT, DATA_WRONG

SCENARIO = Scenario("h:1", payload=60, shared=4)
HEARTBEATS_AND_MESSAGES = b"h$5\r\nhello\r\nh$0\r\n\r\n"


def message(mid: int, text: bytes) -> bytes:
    return json.dumps({"mid": mid, "msg": text.decode()}).encode()


def test_a_device_over_websocket() -> None:
    protocol = protocol_of("gopush2", SCENARIO, {"key": "k-", "mode": "ws"})
    assert protocol.request(5).startswith(b"GET /sub?key=k-1&mid=0&heartbeat=")
    assert protocol.resume(5, b"77").startswith(b"GET /sub?key=k-1&mid=77&heartbeat=")
    waiting = protocol.opened(5, b"")
    assert waiting.step != DONE and not waiting.send
    done = protocol.answered(5, waiting.step, b"h", b"")
    assert done is not None and done.step == DONE
    assert protocol.ping == frames.client_frame(b"h") and protocol.received(5, b"h") is PONG


def test_a_device_over_tcp() -> None:
    protocol = protocol_of("gopush2", SCENARIO, {"key": "k-", "mode": "tcp"})
    head = b"*4\r\n$3\r\nsub\r\n$3\r\nk-1\r\n$2\r\n77\r\n$5\r\n"
    assert protocol.resume(5, b"77").startswith(head) and protocol.resume(5, b"77").endswith(b"\r\n")
    assert protocol.transport is BULK and BULK.head_end is None and protocol.ping == b"h"


@pytest.mark.parametrize("mode", ["ws", "tcp"])
def test_messages_are_checked_and_say_where_to_go_on(mode: str) -> None:
    protocol = protocol_of("gopush2", SCENARIO, {"mode": mode})
    right = payload_of(9, 60)
    assert protocol.received(5, message(9, right)) == Received(((1, 9, DATA_RIGHT),), position=b"9")
    assert protocol.received(5, message(9, right[:-1])) == Received(((1, 9, DATA_WRONG),), position=b"9")
    assert protocol.received(5, message(8, right)) == Received(((1, 9, DATA_WRONG),), position=b"9")
    for bad in (b"{", b"[]", b'{"mid":1}', b'{"mid":1,"msg":3}', b'{"mid":1,"msg":"x"}'):
        with pytest.raises(PeerError, match="bad message"):
            protocol.received(5, bad)
    with pytest.raises(PeerError, match="before the greeting"):
        protocol.answered(5, 0, b"{}", b"")


@given(st.lists(st.integers(0, len(HEARTBEATS_AND_MESSAGES))))
def test_bytes_of_the_tcp_protocol_are_the_same_however_they_are_cut(cuts: list[int]) -> None:
    found: list[Message] = []
    rest = b""
    for start, end in pairwise([0, *sorted(cuts), len(HEARTBEATS_AND_MESSAGES)]):
        more, rest = BULK.split(rest + HEARTBEATS_AND_MESSAGES[start:end], [])
        found += more
    assert not rest and [one.payload for one in found] == [b"h", b"hello", b"h", b""]
    assert {one.opcode for one in found} == {TEXT}


def test_one_whole_message_of_the_tcp_protocol() -> None:
    for data, payload in ((b"h", b"h"), (b"$5\r\nhello\r\n", b"hello")):
        assert BULK.single(data) == payload == BULK.payload(data)
        assert BULK.end(b"?" + data + b"h", 1) == 1 + len(data)
        assert BULK.single(data + b"h") is None
    for bad in (b"$x\r\n", b"?5\r\nhello\r\n", b"$5\r\nhelloXX", b"$" + b"1" * 30):
        with pytest.raises(PeerError, match="bad message"):
            BULK.split(bad, [])


def test_a_push_of_an_app_server() -> None:
    wire = Pub("h:1")
    request = wire.request(b"/pub?key=k-3", 9, 40)
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /pub?key=k-3&mid=9 HTTP/1.1\r\nHost: h:1\r\n") and body == payload_of(9, 40)
    assert head.endswith(b"Content-Length: 40")


@pytest.mark.parametrize(
    ("status", "body", "seen"),
    [
        (200, b'{"msg":"ok","ret":0}', 200),
        (200, b'{"msg":"can\'t get a subscriber","ret":3}', 500),
        (405, b"Method Not Allowed", 405),
    ],
)
def test_what_counts_is_ret(status: int, body: bytes, seen: int) -> None:
    answer = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    for cut in range(len(answer)):
        assert Pub("").response(answer[:cut]) is None
    response = Pub("").response(answer)
    assert response is not None and (response.status, response.size) == (seen, len(answer))


def test_an_answer_that_says_nothing_is_refused() -> None:
    with pytest.raises(PeerError, match="without ret"):
        Pub("").response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


@pytest.mark.parametrize(
    ("scenario", "arguments", "text"),
    [(Scenario("h", channels=2), {}, "one channel"), (Scenario("h"), {"mode": "udp"}, "no mode 'udp'")],
)
def test_devices_that_can_not_be(scenario: Scenario, arguments: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        protocol_of("gopush2", scenario, arguments)
