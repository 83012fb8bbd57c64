"""How the bench speaks push stream: its subscribers, in each of their ways."""

import json
from typing import Any

import pytest

from bench.load.frames import PeerError
from bench.load.http_bytes import payload_of
from bench.load.protocols import protocol_of
from bench.load.protocols.base import DONE, Protocol, Received, Scenario
from bench.load.samples import DATA_RIGHT, DATA_WRONG

SCENARIO = Scenario("h:1", payload=60, shared=4)
TIME = "Sun, 06 Nov 1994 08:49:37 GMT"
ARGUMENTS = b"?tag=3&time=Sun%2C%2006%20Nov%201994%2008%3A49%3A37%20GMT&eventid="
HEADERS = b"If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT\r\nIf-None-Match: W/3\r\n"


def subscriber(mode: str) -> Protocol:
    return protocol_of("pushstream", SCENARIO, {"channel": "c-", "mode": mode})


def message(version: int = 9, channel: str = "c-1", size: int = 60, **other: Any) -> bytes:
    said = {"id": 1, "channel": channel, "text": payload_of(version, size).decode(), "tag": "3", "time": TIME}
    return json.dumps(said | other).encode()


def answer(body: bytes, status: int = 200, head: bytes = b"Last-Modified: %b\r\nETag: W/3\r\n") -> bytes:
    if b"%b" in head:
        head %= TIME.encode()
    length = b"Content-Length: %d\r\n" % len(body) if status != 304 else b""
    return b"HTTP/1.1 %d X\r\n%b%b\r\n%b" % (status, head, length, body)


@pytest.mark.parametrize(
    ("mode", "path", "position", "resumed"),
    [
        ("ws", b"/ws/c-1", ARGUMENTS, b"GET /ws/c-1" + ARGUMENTS + b" HTTP/1.1\r\n"),
        ("stream", b"/sub/c-1", ARGUMENTS, b"GET /sub/c-1" + ARGUMENTS + b" HTTP/1.1\r\n"),
        ("sse", b"/ev/c-1", b"Last-Event-Id: 7:3\r\n", b"GET /ev/c-1 HTTP/1.1\r\nHost: h:1\r\nLast-Event-Id: 7:3\r\n"),
        ("long-poll", b"/lp/c-1", HEADERS, b"GET /lp/c-1 HTTP/1.1\r\nHost: h:1\r\n" + HEADERS),
    ],
)
def test_a_message_says_where_to_go_on(mode: str, path: bytes, position: bytes, resumed: bytes) -> None:
    protocol = subscriber(mode)
    assert protocol.request(5).startswith(b"GET %b HTTP/1.1\r\nHost: h:1\r\n" % path)
    assert protocol.resume(5, position).startswith(resumed) and protocol.resume(5, position).endswith(b"\r\n\r\n")
    shapes = {"sse": b"id: 7:3\r\ndata: %b\r\n\r\n", "stream": b"%b\r\n", "ws": b"%b"}
    payload = answer(message()) if mode == "long-poll" else shapes[mode] % message()
    received = protocol.received(5, payload)
    assert received is not None
    assert (received.updates, received.position) == (((1, 9, DATA_RIGHT),), position)
    assert received.reply == (protocol.resume(5, position) if mode == "long-poll" else b"")


@pytest.mark.parametrize("mode", ["ws", "sse", "stream"])
def test_a_stream_is_set_up_when_it_is_accepted(mode: str) -> None:
    assert subscriber(mode).opened(5, b"").step == DONE


def test_a_poll_is_set_up_when_one_that_does_not_wait_is_answered() -> None:
    protocol = subscriber("long-poll")
    assert b"X-Nginx-PushStream-Mode: polling\r\n" in protocol.request(5)
    empty = answer(b"", 304)
    step = protocol.answered(5, 0, empty, b"")
    assert step is not None and step.step == DONE and step.again and not step.send
    received = protocol.received(5, empty)
    assert received == Received((), protocol.resume(5, HEADERS), position=HEADERS)
    nowhere = protocol.received(5, answer(b"", 304, b""))
    assert nowhere is not None and nowhere.reply == protocol.resume(5, b"") and not nowhere.position
    for status in (403, 500):
        with pytest.raises(PeerError, match=f"HTTP {status}"):
            protocol.answered(5, 0, answer(b"", status), b"")
        with pytest.raises(PeerError, match=f"HTTP {status}"):
            protocol.received(5, answer(b"", status))


def test_an_answer_may_hold_several_messages_and_is_read_once_for_all() -> None:
    protocol = subscriber("long-poll")
    several = answer(message(9) + message(10) + b"\r\n" + message(11, size=59) + message(12, "c-2"))
    received = protocol.received(5, several)
    assert received is not None and received.strays == 1
    assert received.updates == ((1, 9, DATA_RIGHT), (1, 10, DATA_RIGHT), (1, 11, DATA_WRONG))
    assert protocol.received(1, several) is received
    other = protocol.received(6, several)  # of another channel
    assert other is not None and other.updates == ((2, 12, DATA_RIGHT),) and other.strays == 3


def test_what_is_no_message() -> None:
    events = subscriber("sse")
    assert events.received(5, b": \r\n\r\n") is None and events.received(5, b"id: 7:3\r\n\r\n") is None
    ws = subscriber("ws")
    assert ws.received(5, message(id=-1, text="")) is None
    assert ws.received(5, message(channel="c-2")) == Received(strays=1)
    for bad, text in (
        (b"{{", "not JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "bad message"),
        (b'"a"', "not a JSON"),
    ):
        with pytest.raises(PeerError, match=text):
            ws.received(5, bad)


@pytest.mark.parametrize(
    ("scenario", "arguments", "text"),
    [(Scenario("h", channels=2), {}, "one channel"), (Scenario("h"), {"mode": "tcp"}, "no mode 'tcp'")],
)
def test_subscribers_that_can_not_be(scenario: Scenario, arguments: dict[str, str], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        protocol_of("pushstream", scenario, arguments)
