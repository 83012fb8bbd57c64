"""What one device may have of a worker: turns, memory, commands a second, and its own defects for itself."""

import base64
import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from support.pager import CHANNEL, KEY
from support.shard import PATIENCE_S, ROOM, Shard

from farm.capacity import REFUSAL_ROOM
from farm.dialects import DeviceSession
from farm.settings import WorkerOptions
from farm.transports.frames import CLOSE
from farm.worker.main import connection_limit
from farm.worker.rates import Rates
from router.common import messages as m
from router.common.close_codes import POLICY, TRY_LATER
from router.common.item import Item
from router.common.poller import INPUT, READ

MASK = b"\0\0\0\0"
ANSWERED = b"\x8a"  # a pong


def frame(opcode: int, payload: bytes = b"", final: bool = True) -> bytes:
    """One masked frame of a client (RFC 6455 section 5.2)."""
    head = bytes([opcode | 0x80 * final])
    size = len(payload)
    if size < 126:
        return head + bytes([0x80 | size]) + MASK + payload
    if size < 65536:
        return head + b"\xfe" + size.to_bytes(2, "big") + MASK + payload
    return head + b"\xff" + size.to_bytes(8, "big") + MASK + payload


class Raw:
    """A client of the shard that sends bytes."""

    def __init__(self, shard: Shard, path: str = "/talk/x") -> None:
        self.shard = shard
        self.fd, client = shard.open(path)
        if path != "/":
            client.recv()
        self.client = client
        self.socket: socket.socket = client.sock

    def send(self, data: bytes) -> None:
        """Sends; the shard reads as long as something is there, but gives no turn."""
        view = memoryview(data)
        while view:
            done = self.socket.send(view[:8192])
            view = view[done:]
            if self.shard.sockets.connections[self.fd].mask & READ:
                self.shard.sockets.ready(self.fd, INPUT)

    def come(self) -> bytes:
        """What is here already."""
        self.socket.setblocking(False)
        got = b""
        try:
            while part := self.socket.recv(65536):
                got += part
        except BlockingIOError:
            pass
        finally:
            self.socket.settimeout(PATIENCE_S)
        return got

    def frame(self) -> tuple[int, bytes]:
        found = self.client.recv_frame()
        return found.opcode, found.data


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = Shard({"max_buffered_bytes": 1_000_000, "frames_a_turn": 4, "max_message_bytes": 262_144})
    yield shard
    shard.close()


# ---------------------------------------------------------------------- turns


@pytest.mark.parametrize("one", [frame(9), frame(1, b"hello")], ids=["pings", "texts"])
def test_a_flood_is_handled_a_few_frames_a_turn_and_in_order(shard: Shard, one: bytes) -> None:
    flood, other = Raw(shard), Raw(shard)
    flood.send(one * 50)
    size = len(flood.come())
    assert size in (4 * 2, 4 * 7)  # four answers
    assert shard.sockets.waiting
    other.send(frame(1, b"honest"))
    assert other.frame() == (1, b"honest")
    turns = 0
    while shard.sockets.waiting:
        shard.sockets.turn()
        turns += 1
        assert len(flood.come()) <= size
    assert 11 <= turns <= 13
    flood.send(frame(1, b"last"))
    assert flood.frame() == (1, b"last")


def test_fragments_have_turns_too(shard: Shard) -> None:
    client = Raw(shard)
    client.send(frame(1, b"a", final=False) + frame(0, b"b", final=False) * 48 + frame(0, b"c"))
    turns = 0
    while shard.sockets.waiting:
        shard.sockets.turn()
        turns += 1
    assert 11 <= turns <= 13
    assert client.frame() == (1, b"a" + b"b" * 48 + b"c")


def test_what_comes_behind_a_question_is_handled_in_order_and_a_few_frames_a_turn(shard: Shard) -> None:
    client = Raw(shard)
    client.send(frame(1, b"call") + b"".join(frame(1, b"%d" % n) for n in range(30)) + frame(9, b"p"))
    assert client.come() == b""
    assert not shard.sockets.waiting
    shard.answer(b"value")
    while shard.sockets.waiting:
        shard.sockets.turn()
    assert [client.frame()[1] for _ in range(32)] == [b"took value", *(b"%d" % n for n in range(30)), b"p"]


def test_a_close_behind_a_flood_is_found(shard: Shard) -> None:
    client = Raw(shard)
    client.send(frame(1, b"x") * 9 + frame(8, b"\x03\xe8"))
    while shard.sockets.waiting:
        shard.sockets.turn()
    assert [client.frame()[0] for _ in range(10)] == [*[1] * 9, CLOSE]


def test_a_flood_behind_our_close_frame_is_looked_at_a_part_a_tick(shard: Shard) -> None:
    client = Raw(shard)
    connection = shard.sockets.connections[client.fd]
    shard.sockets.close(connection, 1001, "bye")
    assert client.frame()[0] == CLOSE
    client.send(frame(1, b"x") * 3000 + frame(8, b"\x03\xe9"))
    assert not connection.mask & READ
    ticks = 0
    while connection.reader is not None:
        shard.sockets.tick()
        ticks += 1
        shard.sockets.ready(client.fd, INPUT)
    assert ticks >= 2
    assert client.socket.recv(10) == b""  # its close frame was found


# ---------------------------------------------------------------------- memory


def test_of_unfinished_messages_the_largest_goes_first(shard: Shard) -> None:
    small = [Raw(shard) for _ in range(3)]
    for client in small:
        client.send(frame(1, b"s" * 5000)[:-1])
    large = [Raw(shard) for _ in range(6)]
    for client in large:
        client.send(frame(1, b"l" * 200_000)[:-1])
    assert shard.sockets.output.budget.total <= 1_000_000
    assert shard.counters.given_up == 2
    closed = [client for client in large if client.come().startswith(b"\x88")]
    assert len(closed) == 2
    for client in (*small, *(client for client in large if client not in closed)):
        client.send(b"!")
        assert client.frame()[0] == 1
    shard.sockets.tick()
    assert shard.counters.buffered == 0


def test_who_is_given_up_hears_why(shard: Shard) -> None:
    clients = [Raw(shard) for _ in range(5)]
    for client in clients:
        client.send(frame(1, b"l" * 250_000)[:-1])
    open_still = {connection.fd for connection in shard.sockets.turns._unfinished}
    told = [client.frame() for client in clients if client.fd not in open_still]
    assert [(opcode, int.from_bytes(data[:2], "big")) for opcode, data in told] == [(CLOSE, TRY_LATER)] * 2


def test_fragments_of_a_byte_count_for_what_they_take(shard: Shard) -> None:
    client = Raw(shard)
    client.send(frame(1, b"a", final=False) + frame(0, b"b", final=False) * 200)
    while shard.sockets.waiting:
        shard.sockets.turn()
    assert shard.sockets.output.budget.total > 200 * 50


def test_an_unfinished_message_has_a_deadline_that_pings_do_not_move(shard: Shard) -> None:
    client, other = Raw(shard), Raw(shard)
    client.send(frame(1, b"a", final=False))
    for _ in range(3):
        shard.clock.pass_by(9)
        client.send(frame(9, b"p"))
        shard.sockets.tick()
        assert client.frame() == (10, b"p")
    other.send(frame(1, b"x" * 300)[:-1])
    shard.clock.pass_by(4)
    shard.sockets.tick()
    opcode, data = client.frame()
    assert (opcode, int.from_bytes(data[:2], "big")) == (CLOSE, POLICY)
    other.send(b"!")
    assert other.frame()[0] == 1


def test_a_message_that_waits_for_the_router_is_not_late(shard: Shard) -> None:
    client = Raw(shard)
    client.send(frame(1, b"call") + frame(1, b"x" * 300)[:-1])
    shard.sockets.ready(client.fd, INPUT)  # what epoll says once more; from now on it is not asked
    client.send(b"!")
    shard.clock.pass_by(100)
    shard.sockets.tick()
    shard.answer(b"value")
    shard.sockets.ready(client.fd, INPUT)
    assert [client.frame()[0] for _ in range(2)] == [1, 1]


def test_unfinished_requests_are_counted(shard: Shard) -> None:
    client = socket.create_connection(("127.0.0.1", shard._port))
    shard._clients.append(client)
    client.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 3000)
    known = set(shard.sockets.connections)
    shard.sockets.ready(shard._listener.fileno(), INPUT)
    (fd,) = set(shard.sockets.connections) - known
    shard.sockets.ready(fd, INPUT)
    assert shard.sockets.output.budget.total > 3000
    key = base64.b64encode(b"k" * 16)
    client.sendall(b"\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n")
    client.sendall(b"Sec-WebSocket-Key: " + key + b"\r\n\r\n")
    shard.sockets.ready(fd, INPUT)
    assert shard.sockets.output.budget.total == 0


# ---------------------------------------------------------------------- rates


def test_a_rate_has_a_burst_and_a_second_pays_off_the_rate() -> None:
    rates = Rates(10, 5)
    assert all(rates.spend(3) for _ in range(60))  # this second's, and the burst
    assert not rates.spend(3)
    assert rates.spend(4)
    rates.second()
    assert rates.may(3)
    assert [rates.spend(3) for _ in range(12)].count(True) == 9  # one was spent before
    for _ in range(6):
        rates.second()
    assert not rates._counts
    assert not rates._debts


def test_who_asks_little_leaves_nothing_behind() -> None:
    rates = Rates(10, 5)
    for fd in range(1000):
        rates.spend(fd)
    rates.second()
    assert not rates._counts
    assert not rates._debts


def test_no_limit_is_none() -> None:
    rates = Rates(0, 10)
    assert all(rates.spend(3) for _ in range(10_000))


def test_commands_beyond_the_rate_wait_for_their_second() -> None:
    shard = Shard({"frames_a_turn": 4}, limits={"commands_per_second": 10, "burst_seconds": 1})
    try:
        client, other = Raw(shard), Raw(shard)
        client.send(frame(1, b"x") * 100)
        while shard.sockets.waiting:
            shard.sockets.turn()
        assert 20 <= len(client.come()) // 3 <= 24
        assert shard.counters.limited_commands_per_second == 1
        other.send(frame(1, b"honest"))
        assert other.frame() == (1, b"honest")
        heard = 0
        for _ in range(4):
            shard.sockets.tick()
        while shard.sockets.waiting:
            shard.sockets.turn()
        heard = len(client.come()) // 3
        assert 8 <= heard <= 14
    finally:
        shard.close()


def test_registrations_have_a_rate_of_their_own() -> None:
    shard = Shard(limits={"registrations_per_second": 2, "burst_seconds": 1})
    try:
        device = shard.device()
        (fd,) = [fd for fd, one in shard.sockets.connections.items() if one.session is not None]
        for number in range(6):
            channel = f"11111111-2222-3333-4444-{number:012x}"
            device.send(json.dumps({"messageType": "register", "channelID": channel}))
            if shard.sockets.connections[fd].mask & READ:
                shard.sockets.ready(fd, INPUT)
            for word in shard.said():
                if isinstance(word, m.Call):
                    shard.sockets.received([m.Reply(word.number, m.OK, None)])
        device.sock.setblocking(False)
        assert device.sock.recv(65536).count(b'"status":200') == 5
        assert shard.counters.limited_registrations_per_second == 1
    finally:
        shard.close()


def test_an_ack_counts_as_often_as_it_names_updates() -> None:
    shard = Shard(limits={"commands_per_second": 10, "burst_seconds": 1})
    try:
        device = shard.device()
        (fd,) = [fd for fd, one in shard.sockets.connections.items() if one.session is not None]
        update = {"channelID": CHANNEL, "version": 1}
        device.send(json.dumps({"messageType": "ack", "updates": [update] * 8}))
        shard.sockets.ready(fd, INPUT)
        assert shard.counters.limited_commands_per_second == 0
        device.send(json.dumps({"messageType": "ack", "updates": [update] * 15}))
        shard.sockets.ready(fd, INPUT)
        assert shard.counters.limited_commands_per_second == 1
        assert [len(one.updates) for one in shard.said() if isinstance(one, m.Ack)] == [8, 15]
        for _ in range(4):
            shard.sockets.tick()
        assert shard.sockets.waiting
        shard.sockets.turn()
        assert shard.sockets.connections[fd].mask & READ
    finally:
        shard.close()


def test_fragments_count_too() -> None:
    shard = Shard({"frames_a_turn": 4}, limits={"commands_per_second": 10, "burst_seconds": 1})
    try:
        client = Raw(shard)
        client.send(frame(1, b"a", final=False) + frame(0, b"b", final=False) * 60)
        while shard.sockets.waiting:
            shard.sockets.turn()
        assert shard.counters.limited_commands_per_second == 1
    finally:
        shard.close()


def test_while_nothing_may_be_heard_what_waits_goes_out_and_who_is_closing_ends(shard: Shard) -> None:
    open_one, closing = Raw(shard), Raw(shard)
    shard.sockets.close(shard.sockets.connections[closing.fd], 1001, "bye")
    assert closing.frame()[0] == CLOSE
    closing.socket.sendall(frame(8, b"\x03\xe9"))
    open_one.socket.sendall(frame(1, b"x"))
    for client in (closing, open_one):
        shard.sockets.ready_but_not_read(client.fd, READ)
    assert closing.socket.recv(10) == b""
    assert open_one.come() == b""
    shard.sockets.ready(open_one.fd, INPUT)
    assert open_one.frame() == (1, b"x")


def test_a_message_behind_a_question_is_not_late_while_the_answer_is_awaited(shard: Shard) -> None:
    client = Raw(shard)
    client.send(frame(1, b"call") + frame(1, b"x" * 300)[:-1])
    shard.clock.pass_by(100)
    shard.sockets.tick()
    shard.answer(b"value")
    shard.sockets.turn()
    client.send(b"!")
    assert [client.frame()[0] for _ in range(2)] == [1, 1]


# ---------------------------------------------------------------------- defects


class Broken(DeviceSession):
    """A session whose every method fails, but for the one that opened it."""

    key = KEY

    def _fail(self, *_: Any) -> Any:
        raise ZeroDivisionError

    received = replied = delivered = stored = tick = _fail


@pytest.mark.parametrize(
    "word",
    [
        m.Deliver(7, KEY, "s", 1, None),
        m.DeliverStored(KEY, [Item("s", 1, 1, 2**40, 0, None)]),
        m.DeliverStored(KEY, [("too", "short")]),
        m.Event(ROOM, 17, ""),
        ("nonsense",),
        17,
    ],
    ids=repr,
)
def test_a_word_that_cannot_be_acted_on_costs_no_other(shard: Shard, word: Any) -> None:
    client = shard.talker("join")
    shard.answer()
    assert client.hear() == "asked"
    assert client.hear().startswith("joined")
    broken = Raw(shard)
    connection = shard.sockets.connections[broken.fd]
    connection.session = Broken()  # type: ignore[assignment]
    shard.sockets.devices[KEY] = connection
    shard.sockets.received([word, m.Event(ROOM, "on", "")])
    assert client.hear() == "on"
    if isinstance(word, m.Deliver):
        assert m.Result(7, m.NOT_HERE) in shard.said()
        assert broken.frame()[0] == CLOSE


def test_a_tick_or_a_read_that_fails_ends_that_connection_alone(shard: Shard) -> None:
    ticked, read = Raw(shard), Raw(shard)
    other = Raw(shard)
    for client in (ticked, read):
        shard.sockets.connections[client.fd].session = Broken()  # type: ignore[assignment]
    connection = shard.sockets.connections[ticked.fd]
    connection.bucket = shard.sockets.wheel.arm(ticked.fd, 1)
    for _ in range(12):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    assert ticked.frame()[0] == CLOSE
    read.send(frame(1, b"x"))
    assert read.frame()[0] == CLOSE
    other.send(frame(1, b"here"))
    assert other.frame() == (1, b"here")


def test_an_error_of_the_worker_itself_ends_that_connection_alone(shard: Shard) -> None:
    client, other = Raw(shard), Raw(shard)
    shard.sockets.connections[client.fd].reader = object()  # type: ignore[assignment]
    client.send(frame(1, b"x"))
    assert shard.counters.connections_failed == 1
    assert client.socket.recv(10) == b""
    other.send(frame(1, b"here"))
    assert other.frame() == (1, b"here")


# ---------------------------------------------------------------------- descriptors


def test_descriptors_are_left_for_more_than_those_that_are_told_that_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (512, 512))
    assert connection_limit(WorkerOptions(), 1) + REFUSAL_ROOM <= 512 - 64
    assert connection_limit(WorkerOptions(), 9) + REFUSAL_ROOM <= 512 - 64 - 8 * 3
