"""How the bench speaks SimplePush: its devices and its app servers."""

import json
from typing import Any
from urllib.parse import parse_qsl

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.bench import said

from bench.load.frames import PeerError
from bench.load.http_bytes import payload_of
from bench.load.protocols import protocol_of, registering
from bench.load.protocols.base import DONE, PONG, Protocol, Scenario
from bench.load.protocols.simplepush import (
    Batch,
    Update,
    batch_request,
    head_of_batch,
    head_of_push,
    push_request,
    updates_of,
)
from bench.load.samples import (
    DATA_MISSING,
    DATA_RIGHT,
    DATA_WRONG,
)

CHANNEL = b"0f9e8d7c-6b5a-4433-8221-100f0e0d0c0b"
NOTE = b'{"messageType":"notification","updates":[{"channelID":"%b","version":%d}]}'
UAID = bytes(range(16))


def simplepush(channels: int = 1, payload: int = 0, seed: bytes = b"123456789") -> Protocol:
    return protocol_of("simplepush", Scenario("h", channels=channels, payload=payload, seed=seed), {})


def note(*updates: dict[str, Any]) -> bytes:
    return json.dumps({"messageType": "notification", "updates": updates}, separators=(",", ":")).encode()


def channel_of(protocol: Protocol, device: int, number: int) -> str:
    """The channel that a device registers as its `number`-th."""
    step = protocol.answered(device, 0, b'{"messageType":"hello","uaid":"a","status":200}', b"")
    for _ in range(number):
        assert step is not None
        answer = b'{"messageType":"register","status":200,"pushEndpoint":"http://h/u"}'
        step = protocol.answered(device, step.step, answer, b"")
    assert step is not None
    (message,) = said(step.send)
    assert message["messageType"] == "register"
    return str(message["channelID"])


def test_notifications_in_every_shape() -> None:
    fast = NOTE % (CHANNEL, 1234567890123)
    assert updates_of(fast) == [Update(CHANNEL, 1234567890123)]
    spaced = json.dumps(json.loads(fast), indent=1).encode()
    assert updates_of(spaced) == [Update(CHANNEL, 1234567890123)]
    data = fast.replace(b"}]}", b',"data":"a]}"}]}')
    assert updates_of(data) == [Update(CHANNEL, 1234567890123, b"a]}")]
    for text in ("", 'a"b', "\\\\"):
        escaped = fast.replace(b"}]}", b',"data":%b}]}' % json.dumps(text).encode())
        assert updates_of(escaped) == [Update(CHANNEL, 1234567890123, text.encode())]
    two = fast.replace(b"}]}", b'},{"version":2,"channelID":"b"}]}')
    assert updates_of(two) == [Update(CHANNEL, 1234567890123), Update(b"b", 2)]
    assert updates_of(b'{"messageType":"notification","expired":["b"]}') == []
    assert updates_of(b"{}") is None
    for bad in (b"nonsense", b"[]", b'{"messageType":"notification","updates":[{"version":1}]}'):
        with pytest.raises(PeerError):
            updates_of(bad)


def test_answers_to_hello_and_register() -> None:
    assert registering.uaid_of(b'{"messageType":"hello","uaid":"a","status":200}') == b"a"
    assert registering.uaid_of(b'{ "status" : 200, "uaid" : "a", "messageType" : "hello" }') == b"a"
    assert registering.uaid_of(b'{"messageType":"hello","status":200}') == b""
    assert registering.uaid_of(b"{}") is None
    with pytest.raises(PeerError, match="status 503"):
        registering.uaid_of(b'{"messageType":"hello","status":503}')
    answer = {"messageType": "register", "status": 200, "pushEndpoint": "http://h/u/t"}
    assert registering.endpoint_of(json.dumps(answer, separators=(",", ":")).encode()) == b"http://h/u/t"
    assert registering.endpoint_of(json.dumps(answer).replace("/", "\\/").encode()) == b"http://h/u/t"
    assert registering.endpoint_of(b"{}") is None
    for bad in (b'{"messageType":"register","status":401}', b'{"messageType":"register","status":200}'):
        with pytest.raises(PeerError):
            registering.endpoint_of(bad)


def test_pushes_are_what_h11_reads() -> None:
    server = h11.Connection(h11.SERVER)
    server.receive_data(push_request(b"/update/token", head_of_push("farm:8081"), 42))
    request = server.next_event()
    assert isinstance(request, h11.Request)
    assert (request.method, request.target) == (b"PUT", b"/update/token")
    assert dict(request.headers)[b"content-type"] == b"application/x-www-form-urlencoded"
    body = server.next_event()
    assert isinstance(body, h11.Data) and body.data == b"version=42"
    assert isinstance(server.next_event(), h11.EndOfMessage)


@given(st.integers(0, 2**63 - 1), st.integers(1, 5000))
def test_the_data_of_a_push_is_its_versions_own(version: int, size: int) -> None:
    data = payload_of(version, size)
    assert len(data) == size and data == payload_of(version, size)
    if size > 20:
        assert data != payload_of(version + 1, size)
    request = push_request(b"/update/t", head_of_push("farm:8081"), version, size)
    head, _, body = request.partition(b"\r\n\r\n")
    assert b"\r\nContent-Length: %d" % len(body) in head
    assert parse_qsl(body.decode()) == [("version", str(version)), ("data", data.decode())]
    assert json.loads(b'"%b"' % data).encode() == data


def test_a_batch_is_a_line_for_each_push_and_answered_so() -> None:
    paths = [b"/update/a-_b", b"/update/c"]
    head, _, body = batch_request(paths, head_of_batch("farm:8081"), [7, 9], 20).partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/push HTTP/1.1\r\n") and b"\r\nContent-Length: %d" % len(body) in head
    assert [json.loads(line) for line in body.splitlines()] == [
        {"token": "a-_b", "version": 7, "data": payload_of(7, 20).decode()},
        {"token": "c", "version": 9, "data": payload_of(9, 20).decode()},
    ]
    assert json.loads(batch_request(paths[1:], b"", [9]).partition(b"\r\n\r\n")[2]) == {"token": "c", "version": 9}
    lines = b'{"status":200}\n{"status":503,"error":"{\\"status\\":200"}\n{"status":202}\n'
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(lines), lines)
    assert Batch("farm").response(answer[:-1]) is None
    assert Batch("farm").response(answer) == (200, len(answer), False, (200, 503, 202))
    refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    assert Batch("farm").response(refused) == (413, len(refused), False, ())


def test_a_simplepush_device_registers_all_its_channels() -> None:
    protocol = simplepush(channels=3)
    step = protocol.opened(7, b"")
    assert said(step.send) == [{"messageType": "hello", "uaid": "", "channelIDs": []}]
    assert protocol.answered(7, step.step, b"{}", b"") is None
    hello = {"messageType": "hello", "uaid": UAID.hex(), "status": 200}
    answered = protocol.answered(7, step.step, json.dumps(hello).encode(), b"")
    endpoints, channels = {}, []
    while answered is not None and answered.step != DONE:
        (message,) = said(answered.send)
        channels.append(message["channelID"])
        reply = {"messageType": "register", "status": 200, "pushEndpoint": f"http://h/{len(channels)}"}
        answered = protocol.answered(7, answered.step, json.dumps(reply).encode(), b"")
        assert answered is not None
        endpoints[answered.channel] = answered.endpoint
    assert endpoints == {21: b"http://h/1", 22: b"http://h/2", 23: b"http://h/3"}
    assert len(set(channels)) == 3 and all(len(channel) == 36 and channel[14] == "4" for channel in channels)


def test_channels_of_a_simplepush_device_are_known_again() -> None:
    protocol = simplepush(channels=2)
    mine, other = channel_of(protocol, 5, 1), channel_of(protocol, 6, 0)
    alien = channel_of(simplepush(channels=2, seed=b"987654321"), 5, 1)
    received = protocol.received(5, note({"channelID": mine, "version": 9}))
    assert received is not None and received.updates == ((11, 9, DATA_RIGHT),) and not received.strays
    assert said(received.reply) == [{"messageType": "ack", "updates": [{"channelID": mine, "version": 9}]}]
    for wrong in (other, alien, "x", mine[:-1] + "x"):
        received = protocol.received(5, note({"channelID": wrong, "version": 9}))
        assert received is not None and received.strays == 1 and not received.updates and not received.reply
    both = protocol.received(5, note({"channelID": mine, "version": 1}, {"channelID": other, "version": 2}))
    assert both is not None and (len(both.updates), both.strays) == (1, 1)
    assert protocol.received(5, b"{}") is protocol.received(5, b'{"messageType":"ping","status":200}') is PONG
    assert protocol.received(5, b'{"messageType":"unregister","status":200}') is None


def test_the_data_of_an_update_is_looked_at() -> None:
    protocol = simplepush(payload=30)
    channel = channel_of(protocol, 3, 0)
    right = payload_of(77, 30).decode()
    for data, code in ((right, DATA_RIGHT), (right[:-1], DATA_WRONG), ("", DATA_MISSING), (None, DATA_MISSING)):
        update = {"channelID": channel, "version": 77} | ({} if data is None else {"data": data})
        received = protocol.received(3, note(update))
        assert received is not None and received.updates == ((3, 77, code),)


@pytest.mark.parametrize("uaid", [UAID.hex(), "00010203-0405-0607-0809-0a0b0c0d0e0f"])
def test_a_simplepush_device_comes_back_as_itself(uaid: str) -> None:
    protocol = simplepush(channels=2)
    hello = json.dumps({"messageType": "hello", "uaid": uaid, "status": 200}).encode()
    first = protocol.answered(4, 0, hello, b"")
    assert first is not None and first.identity == UAID
    (again,) = said(protocol.opened(4, UAID).send)
    assert again == {
        "messageType": "hello",
        "uaid": uaid,
        "channelIDs": [channel_of(protocol, 4, 0), channel_of(protocol, 4, 1)],
    }
    # asking for the channels above was one more hello, with a uaid that is none
    protocol.answered(4, 0, hello, b"")
    back = protocol.answered(4, 0, hello, UAID)
    assert back is not None and back.step == DONE and not back.send
    other = protocol.answered(4, 0, hello, bytes(16))
    assert other is not None and other.step != DONE and other.identity == UAID
