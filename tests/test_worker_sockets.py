"""The device sockets of a worker, with a real device and a router that the test plays."""

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
import websocket
from support import Clock, settings_with

from farm.dialects import Context
from farm.dialects.webpush import WebPushDialect, dialect
from farm.settings import WorkerOptions
from farm.worker.sockets import Sockets
from router import vocabulary as v
from router.dialects.webpush import WebPushOptions, plain_slot
from router.lot import READ, Lot
from router.metrics import WorkerCounters
from router.token import Tokens

UAID = "0123456789abcdef0123456789abcdef"
KEY = bytes.fromhex(UAID)
CHANNEL = "11111111-2222-3333-4444-555555555555"
HELLO = {"messageType": "hello", "uaid": UAID, "use_webpush": True, "broadcasts": {"a": "1"}}
PATIENCE_S = 20


class Shard:
    """One worker's sockets without its process: the test says what epoll would say."""

    def __init__(self, **options: Any) -> None:
        self.words: list[Any] = []
        self.clock = Clock()
        settings = settings_with((WebPushOptions, options))
        counters = WorkerCounters()
        made: WebPushDialect = dialect(Context(settings, Tokens([b"k" * 32]), counters, self.clock.unix))
        self._lot = Lot()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._listener.getsockname()[1]
        self.sockets = Sockets(
            self._lot,
            settings.get(WorkerOptions),
            {"/": made},
            counters,
            100,
            self.words.append,
            self.clock.monotonic,
            {"webpush": made},
        )
        self.sockets.listen(self._listener)
        self._clients: list[socket.socket] = []

    def close(self) -> None:
        self.sockets.drop_all()
        self._lot.close()
        for client in self._clients:
            client.close()

    def device(self) -> websocket.WebSocket:
        """A device that has said hello to a router that knows it."""
        client = socket.create_connection(("127.0.0.1", self._port), timeout=PATIENCE_S)
        self._clients.append(client)
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        known = set(self.sockets._connections)
        self.sockets.ready(self._listener.fileno(), READ)
        (fd,) = set(self.sockets._connections) - known
        self.sockets.ready(fd, READ)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += client.recv(1)
        device = websocket.WebSocket()
        device.sock = client
        device.connected = True
        device.send(json.dumps(HELLO))
        self.sockets.ready(fd, READ)
        (attach,) = self.said()
        self.sockets.heard([(v.ANSWER, attach[1], v.OK, [[], None])])
        assert json.loads(device.recv())["status"] == 200
        return device

    def said(self) -> list[Any]:
        """What was said to the router since the last time."""
        found = self.words[:]
        self.words.clear()
        return found


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = Shard(max_unacked=2)
    yield shard
    shard.close()


def test_a_delivery_without_a_number_has_no_result(shard: Shard) -> None:
    device = shard.device()
    shard.sockets.heard([(v.DELIVER, 0, KEY, plain_slot(1, CHANNEL), 1, None), (v.DELIVER, 0, b"x" * 16, ":", 1, None)])
    assert json.loads(device.recv())["channelID"] == CHANNEL
    assert shard.said() == []


def test_a_delivery_with_a_number_has_one_also_where_the_device_cannot_take_it_now(shard: Shard) -> None:
    device = shard.device()
    shard.sockets.heard([(v.DELIVER, number, KEY, plain_slot(number, CHANNEL), number, None) for number in (1, 2, 3)])
    shard.sockets.heard([(v.DELIVER, 4, b"x" * 16, ":", 1, None)])
    assert [json.loads(device.recv())["version"] for _ in range(2)] == [f"{number:016x}" for number in (1, 2)]
    assert shard.said() == [
        (v.RESULT, 1, v.WRITTEN),
        (v.RESULT, 2, v.WRITTEN),
        (v.RESULT, 3, v.NOT_HERE),
        (v.RESULT, 4, v.NOT_HERE),
    ]


def test_notices_are_told_at_the_next_tick_and_compared_when_the_link_is_new(shard: Shard) -> None:
    device = shard.device()
    shard.sockets.heard([(v.NOTICE, "webpush", "a", "2"), (v.NOTICE, "nobody's", "a", "3")])
    shard.sockets.tick()
    assert json.loads(device.recv()) == {"messageType": "broadcast", "broadcasts": {"a": "2"}}
    assert list(shard.sockets.welcomed()) == [KEY]
    shard.sockets.heard([(v.NOTICE, "webpush", "a", "2")])
    shard.sockets.tick()
    shard.sockets.heard([(v.NOTICE, "webpush", "a", "3"), (v.NOTICES_TOLD,)])
    shard.sockets.tick()
    assert json.loads(device.recv()) == {"messageType": "broadcast", "broadcasts": {"a": "3"}}
    assert shard.said() == []


def test_a_notice_that_the_router_does_not_tell_again_is_no_more(shard: Shard) -> None:
    shard.sockets.heard([(v.NOTICE, "webpush", "a", "2"), (v.NOTICES_TOLD,)])
    shard.sockets.welcomed()
    shard.sockets.heard([(v.NOTICES_TOLD,)])
    device = shard.device()
    shard.sockets.heard([(v.NOTICE, "webpush", "a", "2")])  # new again: so it is told, though the version is the same
    shard.sockets.tick()
    assert json.loads(device.recv()) == {"messageType": "broadcast", "broadcasts": {"a": "2"}}
