"""How the bench speaks to other servers, and protocols that cannot be."""

from typing import Any

import pytest
from support.bench import unmasked

from bench.errors import BenchError
from bench.farm_process import attach
from bench.load import frames
from bench.load.frames import PeerError
from bench.load.http_bytes import payload_of, split_endpoint
from bench.load.protocols import protocol_of
from bench.load.protocols.base import DONE, PONG, Received, Scenario
from bench.load.protocols.nats import Publish
from bench.load.protocols.subscribe import Plain, Post
from bench.load.samples import DATA_RIGHT, DATA_WRONG
from bench.load.transports.chunks import BARE_EVENT_STREAM, EVENT_STREAM
from bench.runs.load import Load
from bench.runs.load_processes import LoadProcesses
from bench.runs.virtual_users import VirtualUsers

SCENARIO = Scenario("peer:80")
SHARED = Scenario("h:1", payload=60, shared=4)


def test_pushes_of_each_kind() -> None:
    put, post, nats = Plain("a:1"), Post("a:1"), Publish("")
    head = b" HTTP/1.1\r\nHost: a:1\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\n123"
    assert put.request(b"/push/7", 123, 0) == b"PUT /push/7" + head
    assert post.request(b"/push/7", 123, 0) == b"POST /push/7" + head
    assert nats.request(b"/d.7", 123, 0) == b"PUB d.7 3\r\n123\r\nPING\r\n"
    assert split_endpoint(b"nats://127.0.0.1:4222/d.7") == ("127.0.0.1", 4222, "127.0.0.1:4222", b"/d.7")


@pytest.mark.parametrize(("status", "seen"), [(200, 200), (201, 200), (202, 202), (404, 404)])
def test_created_is_as_good_as_ok(status: int, seen: int) -> None:
    answer = b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n\r\nok" % status
    for cut in range(len(answer)):
        assert Post("").response(answer[:cut]) is None
    response = Post("").response(answer)
    assert response is not None
    assert (response.status, response.size) == (seen, len(answer))


@pytest.mark.parametrize("answer", [b"PONG\r\n", b"PING\r\nPONG\r\n", b"PONG\r\nPING\r\n", b"+OK\r\nPONG\r\n"])
def test_a_flush_of_nats_at_every_boundary(answer: bytes) -> None:
    wire = Publish("")
    response = wire.response(answer)
    assert response is not None
    assert (response.status, response.size, response.closes) == (200, len(answer), False)
    for cut in range(len(answer)):
        before = wire.response(answer[:cut])
        assert before is None or b"PONG\r\n" in answer[:cut]


def test_what_is_no_flush_of_nats() -> None:
    with pytest.raises(PeerError, match="Maximum Payload"):
        Publish("").response(b"-ERR 'Maximum Payload Violation'\r\n")
    with pytest.raises(PeerError, match="without end"):
        Publish("").response(b"x" * 70_000)


def test_a_nats_device() -> None:
    protocol = protocol_of("nats", SCENARIO, {"endpoint": "nats://h:1/d."})
    assert protocol.request(5).startswith(b"GET / HTTP/1.1\r\n")
    opened = protocol.opened(5, b"")
    assert opened.step != DONE
    lines = b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1","protocol":0}\r\n'
    lines += b"SUB d.5 1\r\nPING\r\n"
    assert opened.send == frames.client_frame(lines, frames.BINARY)
    pong = frames.client_frame(b"PONG\r\n", frames.BINARY)
    assert protocol.answered(5, opened.step, b'INFO {"a":1}\r\n', b"") is None
    waiting = protocol.answered(5, opened.step, b"PING\r\n", b"")
    assert waiting is not None
    assert (waiting.send, waiting.step) == (pong, opened.step)
    done = protocol.answered(5, opened.step, b"PING\r\nPONG\r\n", b"")
    assert done is not None
    assert (done.step, done.send, done.channel, done.endpoint) == (DONE, pong, 5, b"nats://h:1/d.5")
    assert protocol.received(5, b"PONG\r\n") == PONG
    several = b"MSG d.5 1 3\r\n101\r\nPING\r\nMSG d.5 1 4\r\n1024\r\nMSG d.6 1 1\r\n7\r\n+OK\r\n"
    assert protocol.received(5, several) == Received(((5, 101, 0), (5, 1024, 0)), pong, 1)


@pytest.mark.parametrize(
    "payload",
    [
        b"-ERR 'no'\r\n",
        b"MSG d.5 1 3\r\n101",
        b"MSG d.5 1 3\r\n1019\r",
        b"MSG d.5 1 x\r\n1\r\n",
        b"MSG\r\n",
        b"HELO\r\n",
        b"PING",
    ],
)
def test_what_a_nats_device_refuses(payload: bytes) -> None:
    with pytest.raises(PeerError):
        protocol_of("nats", SCENARIO, {}).received(5, payload)


def test_a_nats_device_has_one_channel() -> None:
    with pytest.raises(ValueError, match="one channel"):
        protocol_of("nats", Scenario("h", channels=2), {})


def test_events_for_other_servers() -> None:
    assert Plain("h").request(b"/push/1", 5, 30).endswith(b"Content-Length: 30\r\n\r\n" + payload_of(5, 30))
    assert Publish("").request(b"/d.1", 5, 30) == b"PUB d.1 30\r\n%b\r\nPING\r\n" % payload_of(5, 30)


def test_devices_that_share_channels_of_other_servers() -> None:
    nats = protocol_of("nats", SHARED, {})
    subscribe = frames.client_frame(
        b'CONNECT {"verbose":false,"pedantic":false,"lang":"python","version":"1",'
        b'"protocol":0}\r\nSUB d.1 1\r\nPING\r\n',
        frames.BINARY,
    )
    assert nats.opened(5, b"").send == subscribe
    assert nats.received(5, b"MSG d.1 1 60\r\n%b\r\n" % payload_of(9, 60)) == Received(((1, 9, DATA_RIGHT),))
    assert nats.received(5, b"MSG d.1 1 2\r\n9.\r\n") == Received(((1, 9, DATA_WRONG),))
    plain = protocol_of("subscribe", SHARED, {"path": "/sub/{channel}", "first": "{index} {channel}"})
    assert plain.request(6).startswith(b"GET /sub/2 ") and plain.opened(6, b"").send == frames.client_frame(b"6 2")
    assert plain.received(6, payload_of(9, 60)) == Received(((2, 9, DATA_RIGHT),))
    assert plain.received(6, payload_of(9, 60)[:-1] + b"x") == Received(((2, 9, DATA_WRONG),))


def test_a_device_that_subscribes() -> None:
    arguments = {"path": "/sub/{index}", "first": "SUB {index}", "answer": "+OK", "endpoint": "http://h/pub/{index}"}
    protocol = protocol_of("subscribe", Scenario("h"), {**arguments, "after": "\r\n", "replies": {"PING": "PONG"}})
    assert protocol.request(8).startswith(b"GET /sub/8 HTTP/1.1\r\n")
    assert b"Sec-WebSocket-Protocol" not in protocol.request(8)
    step = protocol.opened(8, b"")
    assert step.step != DONE and unmasked(step.send) == [b"SUB 8"]
    assert protocol.answered(8, 0, b"INFO", b"") is None
    pinged = protocol.answered(8, 0, b"PING", b"")
    assert pinged is not None and pinged.step == 0 and unmasked(pinged.send) == [b"PONG"]
    done = protocol.answered(8, 0, b"...+OK", b"")
    assert done is not None and (done.step, done.channel, done.endpoint) == (DONE, 8, b"http://h/pub/8")
    received = protocol.received(8, b"MSG a 9\r\n1234.5")
    assert received is not None and received.updates == ((8, 1234, DATA_RIGHT),) and not received.reply
    assert protocol.received(8, b"1234") is None
    plain = protocol_of("subscribe", Scenario("h", "/x"), {"ping": "p", "pong": "q"})
    assert plain.request(1).startswith(b"GET /x ") and plain.opened(1, b"").step == DONE
    assert plain.received(1, b"q") is PONG and plain.received(1, b"word") is None
    assert plain.ping == frames.client_frame(b"p")


@pytest.mark.parametrize(
    ("name", "scenario", "arguments", "text"),
    [
        ("morse", Scenario("h"), {}, "no protocol 'morse'"),
        ("subscribe", Scenario("h"), {"colour": "red"}, "colour"),
        ("subscribe", Scenario("h", channels=2), {}, "one channel"),
        ("bare", Scenario("h", channels=0), {}, "channels"),
    ],
)
def test_protocols_that_can_not_be(name: str, scenario: Scenario, arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        protocol_of(name, scenario, arguments)
    with LoadProcesses() as processes, pytest.raises(BenchError, match=text):
        load = Load(1, protocol=name, arguments=arguments, channels=scenario.channels)
        VirtualUsers.of(processes, load, attach("ws://127.0.0.1:1/", ""))


@pytest.mark.parametrize("chunked", [True, False])
def test_a_subscriber_by_an_event_stream(chunked: bool) -> None:
    protocol = protocol_of("eventsource", SHARED, {"path": "/sub/{channel}", "chunked": chunked})
    head = b"GET /sub/1 HTTP/1.1\r\nHost: h:1\r\nAccept: text/event-stream\r\n"
    assert protocol.request(5) == head + b"\r\n"
    assert protocol.resume(5, b"7:1") == head + b"Last-Event-ID: 7:1\r\n\r\n"
    assert protocol.opened(5, b"").step == DONE
    event = b"id: 7:1\ndata: %b\n\n"
    assert protocol.received(5, event % payload_of(9, 60)) == Received(((1, 9, DATA_RIGHT),), position=b"7:1")
    assert protocol.received(5, event % payload_of(9, 59)) == Received(((1, 9, DATA_WRONG),), position=b"7:1")
    assert protocol.received(5, b": hi\n\n") is None
    assert protocol.transport is (EVENT_STREAM if chunked else BARE_EVENT_STREAM)
    with pytest.raises(ValueError, match="one channel"):
        protocol_of("eventsource", Scenario("h", channels=2), {})
