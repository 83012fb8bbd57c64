"""gopush2's TCP protocol: what a worker makes of its bytes, and what a client gets."""

import json
import socket
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gopush2_device import EPOCH, made
from support.plain_http import Client
from support.shard import Shard

from farm.dialects.gopush2.tcp import GOPUSH_TCP, NO_HTTP, HeartbeatReader
from farm.transports.frames import TEXT
from farm.transports.request import Refusal
from router.common import messages as m
from router.common.operation import encoded
from router.common.position import LogEvent
from router.dialects.gopush2.protocol import (
    BAD_HEARTBEAT,
    ENTERED,
    TOKEN_REFUSED,
    Entry,
    channel_address,
)

COMMAND = b"*5\r\n$3\r\nsub\r\n$9\r\nTerry-Mao\r\n$1\r\n7\r\n$2\r\n30\r\n$4\r\ntest\r\n"
ADDRESS = channel_address("Terry-Mao")


# ---------------------------------------------------------------------- bytes


def test_a_command_is_a_request() -> None:
    found = GOPUSH_TCP.request(COMMAND + b"h", 8192, 64, 0)
    assert found is not None
    request, rest = found
    assert (request.path, request.version, rest) == ("/sub", NO_HTTP, b"h")
    assert request.query == "key=Terry-Mao&mid=7&heartbeat=30&token=test"


def test_an_argument_is_no_part_of_another_one() -> None:
    found = GOPUSH_TCP.request(b"*3\r\n$3\r\nsub\r\n$9\r\na&mid=1#\xff\r\n$1\r\n0\r\n", 8192, 64, 0)
    assert found is not None
    assert found[0].query == "key=a%26mid%3D1%23%FF&mid=0"


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\r\n\r\n", b"*3\r\n$3\r\npub\r\n$1\r\na\r\n$1\r\n0\r\n"])
def test_what_is_no_such_command_gets_no_answer(data: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        GOPUSH_TCP.request(data, 8192, 64, 0)
    assert GOPUSH_TCP.refusal(refused.value, None) == b""


@given(st.lists(st.integers(1, 40), max_size=10), st.integers(1, 8))
def test_heartbeats_are_one_byte_each_however_they_come(reads: list[int], most: int) -> None:
    reader = HeartbeatReader()
    heard = 0
    for size in reads:
        heard += len(reader.feed(b"h" * size, most))
        while reader.more:
            found = reader.feed(b"", most)
            assert 0 < len(found) <= most
            heard += len(found)
    assert heard == sum(reads)
    assert reader.idle


def test_what_is_kept_is_looked_at_in_the_next_turn() -> None:
    reader = HeartbeatReader()
    reader.keep(b"hh")
    assert (reader.more, reader.kept, reader.idle) == (True, 2, False)
    assert len(reader.feed(b"h", 8)) == 3 and reader.idle


@given(st.integers(0, 20), st.binary(min_size=1, max_size=20), st.integers(1, 8))
def test_behind_heartbeats_whatever_else_is_an_error(beats: int, rest: bytes, most: int) -> None:
    reader = HeartbeatReader()
    data = b"h" * beats + rest
    expected = len(data) - len(data.lstrip(b"h"))
    found = reader.feed(data, most)
    while reader.more:
        found += reader.feed(b"", most)
    assert found == [(TEXT, b"h")] * expected
    if expected == len(data):
        assert reader.error is None
    else:
        assert reader.error is not None
        assert reader.error.code == BAD_HEARTBEAT


def test_what_it_sends() -> None:
    assert GOPUSH_TCP.text(b"h") == b"h"
    assert GOPUSH_TCP.text('{"mid":1,"msg":"€"}'.encode()) == b'$21\r\n{"mid":1,"msg":"\xe2\x82\xac"}\r\n'
    assert GOPUSH_TCP.close(4401, "why") == GOPUSH_TCP.ping(b"x") == b""


# ---------------------------------------------------------------------- in a worker


@pytest.fixture
def shard() -> Iterator[Shard]:
    dialect = made()
    shard = Shard(more={"/sub": dialect}, named={"gopush2": dialect})
    yield shard
    shard.close()


@pytest.fixture
def listener(shard: Shard) -> socket.socket:
    """A port of its own."""
    listener = socket.create_server(("127.0.0.1", 0))
    shard.sockets.listen(listener, GOPUSH_TCP)
    return listener


def answered(shard: Shard, outcome: int = ENTERED, *events: LogEvent) -> None:
    """The router answers all that is asked."""
    while calls := [one for one in shard.said() if isinstance(one, m.Call)]:
        for call in calls:
            payload: object = None
            if isinstance(call.request, m.Invoke):
                payload = encoded(Entry(outcome, 3600))
            elif isinstance(call.request, m.ReadLog):
                payload = [EPOCH, 9, True, [list(event) for event in events]]
            shard.sockets.received([m.Reply(call.number, m.OK, payload)])


def logged(mid: int, message: str) -> LogEvent:
    return LogEvent(mid, 1_700_000_000, mid, 2_000_000_000, "", {}, json.dumps(message))


def test_a_device_gets_what_it_missed_and_what_comes(shard: Shard, listener: socket.socket) -> None:
    client = Client(shard, b"", listener=listener)
    for at in range(len(COMMAND)):
        client.send(COMMAND[at : at + 1])
    answered(shard, ENTERED, logged(8, "missed"))
    assert client.until(b"}\r\n") == b'h$24\r\n{"mid":8,"msg":"missed"}\r\n'
    shard.sockets.received([m.LoggedEvent(ADDRESS, EPOCH, logged(10, "new"), "")])
    assert client.until(b"}\r\n") == b'$22\r\n{"mid":10,"msg":"new"}\r\n'
    client.send(b"hhh")
    assert client.until(b"hhh") == b"hhh"
    assert client.nothing()


def test_heartbeats_that_come_with_the_command_are_answered_behind_the_greeting(
    shard: Shard, listener: socket.socket
) -> None:
    client = Client(shard, COMMAND + b"hh", listener=listener)
    assert client.nothing()
    answered(shard, ENTERED, logged(8, "missed"))
    shard.sockets.turn()
    assert client.until(b"}\r\nhh") == b'h$24\r\n{"mid":8,"msg":"missed"}\r\nhh'


def test_websockets_and_tcp_are_in_one_channel(shard: Shard, listener: socket.socket) -> None:
    _, device = shard.open("/sub?key=Terry-Mao&mid=7&token=test")
    client = Client(shard, COMMAND, listener=listener)
    answered(shard)
    assert (device.recv(), client.until(b"h")) == ("h", b"h")
    shard.sockets.received([m.LoggedEvent(ADDRESS, EPOCH, logged(10, "new"), "")])
    assert device.recv() == '{"mid":10,"msg":"new"}'
    assert client.until(b"}\r\n") == b'$22\r\n{"mid":10,"msg":"new"}\r\n'


@pytest.mark.parametrize("heartbeats", [b"x", b"hx", b"h\r\n", b"\xff" * 5000])
def test_a_device_that_sends_anything_else_is_closed_without_a_word(
    shard: Shard, listener: socket.socket, heartbeats: bytes
) -> None:
    client = Client(shard, COMMAND, listener=listener)
    answered(shard)
    assert client.until(b"h") == b"h"
    client.send(heartbeats)
    for _ in range(3):
        shard.sockets.turn()
    assert client.rest().strip(b"h") == b""


@pytest.mark.parametrize(
    "sent", [b"*9\r\n", b"*3\r\n$3\r\nsub\r\n$1\r\na\r\n$1\r\nx\r\n", b"*3\r\n$3\r\nsub\r\n$0\r\n\r\n$1\r\n0\r\n"]
)
def test_a_command_that_cannot_be_is_closed_without_a_word(shard: Shard, listener: socket.socket, sent: bytes) -> None:
    client = Client(shard, sent, listener=listener)
    assert client.rest() == b""
    assert shard.said() == []


def test_a_token_that_is_refused_is_closed_without_a_word(shard: Shard, listener: socket.socket) -> None:
    client = Client(shard, COMMAND, listener=listener)
    answered(shard, TOKEN_REFUSED)
    assert client.rest() == b""


@pytest.mark.parametrize("sent", [b"", COMMAND[:10]])
def test_a_command_is_there_within_five_seconds(shard: Shard, listener: socket.socket, sent: bytes) -> None:
    client = Client(shard, sent, listener=listener)
    _, websocket = shard.open("/sub?key=a&mid=0")
    for _ in range(9):
        shard.clock.pass_by(0.5)
        shard.sockets.tick()
    assert client.nothing()
    for _ in range(4):
        shard.clock.pass_by(0.5)
        shard.sockets.tick()
    assert client.rest() == b""
    assert websocket.connected
