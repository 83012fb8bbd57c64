"""How connections end: closes of both sides, peers that leave, and what is done for these."""

import json
import select
import socket
from collections.abc import Iterator, Sequence

import pytest
from support.pager import HELLO
from support.shard import PATIENCE_S, Shard, Talker, TalkSession

from farm.dialects import Close, Effects, Subscribed
from farm.transports.frames import CLOSE, PING, TEXT
from router.common import messages as m
from router.common.poller import ENDED, INPUT, READ


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = Shard(max_unacked=2)
    yield shard
    shard.close()


def test_who_is_let_go_hears_the_farewell_of_its_dialect(shard: Shard) -> None:
    talker, device = shard.talker(), shard.device()
    for connection in shard.sockets.open_connections():
        shard.sockets.let_go(connection)
    assert talker.frame() == (CLOSE, (4100).to_bytes(2, "big") + b"come back later")
    assert device.recv_frame().data[:2] == (1001).to_bytes(2, "big")


def closed(talker: "Talker", code: int) -> socket.socket:
    """The farm has closed with this code. Returns: the client's socket, from which nothing more can be read yet."""
    opcode, data = talker.frame()
    assert (opcode, data[:2]) == (CLOSE, code.to_bytes(2, "big"))
    client: socket.socket = talker._client.sock
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    client.settimeout(PATIENCE_S)
    return client


def masked(opcode: int, payload: bytes = b"") -> bytes:
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


def test_tcp_is_open_until_the_peer_has_closed_too(shard: Shard) -> None:
    talker = shard.talker()
    shard.sockets.let_go(shard.sockets.connections[talker.fd])
    client = closed(talker, 4100)
    for part in (masked(TEXT, b"late"), masked(PING), masked(CLOSE, b"\x10\x04")[:3]):
        client.sendall(part)
        shard.sockets.ready(talker.fd, INPUT)
    client.setblocking(False)
    with pytest.raises(BlockingIOError):
        client.recv(1)
    client.settimeout(PATIENCE_S)
    client.sendall(masked(CLOSE, b"\x10\x04")[3:])
    shard.sockets.ready(talker.fd, INPUT)
    assert client.recv(1) == b""
    assert talker.here  # it is the client's turn; nothing that was sent can be lost by a reset
    talker.go()
    assert not talker.here


def test_a_close_frame_that_came_before_ours_is_the_peer_s(shard: Shard) -> None:
    """It waited behind a question, or stood behind the message for which the connection is closed."""
    waiting = shard.talker("join")
    waiting._client.sock.sendall(masked(TEXT, b"later") + masked(CLOSE))
    shard.sockets.ready(waiting.fd, INPUT)
    defect = shard.talker()
    defect._client.sock.sendall(masked(TEXT, b"break") + masked(PING) + masked(CLOSE))
    shard.sockets.ready(defect.fd, INPUT)
    shard.sockets.let_go(shard.sockets.connections[waiting.fd])
    assert waiting.hear() == "asked"
    for talker, code in ((waiting, 4100), (defect, 1011)):
        assert talker.frame()[1][:2] == code.to_bytes(2, "big")
        shard.sockets.ready(talker.fd, INPUT)
        assert talker._client.sock.recv(1) == b""


def test_a_close_of_the_peer_is_answered_and_tcp_is_shut_by_us(shard: Shard) -> None:
    talker = shard.talker()
    talker._client.sock.sendall(masked(CLOSE, b"\x03\xe8"))
    shard.sockets.ready(talker.fd, INPUT)
    assert talker.frame() == (CLOSE, b"\x03\xe8")
    assert talker._client.sock.recv(1) == b""


def test_who_does_not_answer_a_close_is_cut_off_in_time(shard: Shard) -> None:
    talker = shard.talker()
    shard.sockets.let_go(shard.sockets.connections[talker.fd])
    client = closed(talker, 4100)
    for _ in range(3):  # what it goes on to say does not keep it
        shard.clock.pass_by(4.9 / 3)
        client.sendall(masked(TEXT, b"more") * 100)
        shard.sockets.ready(talker.fd, INPUT)
        shard.sockets.tick()
    assert talker.here
    shard.clock.pass_by(0.2)
    shard.sockets.tick()
    assert not talker.here
    assert client.recv(1) == b""


def test_a_message_too_long_is_passed_over_until_the_close_frame_behind_it(shard: Shard) -> None:
    talker = shard.talker()
    client: socket.socket = talker._client.sock
    client.sendall(b"\x82\xff" + (300_000).to_bytes(8, "big") + bytes(4))
    shard.sockets.ready(talker.fd, INPUT)
    closed(talker, 1009)
    for _ in range(50):
        client.sendall(b"x" * 6000)
        shard.sockets.ready(talker.fd, INPUT)
    client.sendall(masked(CLOSE))
    for _ in range(100):
        shard.sockets.ready(talker.fd, INPUT)
    assert client.recv(1) == b""


def test_where_no_more_frames_can_be_told_apart_tcp_is_shut_at_once(shard: Shard) -> None:
    talker = shard.talker()
    client: socket.socket = talker._client.sock
    client.sendall(b"\x83\x80\0\0\0\0")
    shard.sockets.ready(talker.fd, INPUT)
    assert talker.frame()[1][:2] == (1002).to_bytes(2, "big")
    assert client.recv(1) == b""


def ready_as_epoll_says(shard: Shard, fd: int) -> None:
    """Handle this connection's events, once what its peer has sent and its FIN are both here."""
    with select.epoll() as epoll:
        epoll.register(fd, ENDED)
        assert epoll.poll(PATIENCE_S)
        epoll.modify(fd, READ)
        ((_, events),) = epoll.poll(PATIENCE_S)
    shard.sockets.ready(fd, events)


def test_a_device_that_has_left_is_not_attached(shard: Shard) -> None:
    fd, client = shard.open("/")
    client.send(json.dumps(HELLO))
    client.sock.shutdown(socket.SHUT_WR)  # or close: it has waited for too long
    ready_as_epoll_says(shard, fd)
    assert shard.said() == []
    assert len(shard.sockets) == 0


def test_what_a_device_says_before_it_leaves_is_handled(shard: Shard) -> None:
    talker = shard.talker("join")
    shard.answer()
    client = talker._client
    assert talker.hear() == "asked"
    assert talker.hear().startswith("joined")
    client.send("echo")
    client.sock.shutdown(socket.SHUT_WR)
    ready_as_epoll_says(shard, talker.fd)
    assert talker.hear() == "echo"


def test_a_request_whose_client_has_left_is_not_answered(shard: Shard) -> None:
    with socket.create_connection(("127.0.0.1", shard._port)) as client:
        client.sendall(
            b"GET / HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        client.shutdown(socket.SHUT_WR)
        shard.sockets.ready(shard._listener.fileno(), INPUT)
        (fd,) = shard.sockets.connections
        ready_as_epoll_says(shard, fd)
        assert client.recv(1) == b""
    assert len(shard.sockets) == 0


class Leaver(TalkSession):
    """Closes when it is subscribed."""

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        return (b"last", Close(4001, "enough"), b"late")


def test_nothing_is_sent_behind_a_close(shard: Shard) -> None:
    talker = shard.talker()
    connection = shard.sockets.connections[talker.fd]
    connection.session = Leaver(talker.socket_id, "/talk/x", 2)
    talker.say("join")
    assert talker.hear() == "asked"
    (call,) = shard.said()
    shard.event("held meanwhile")
    shard.sockets.received([m.Reply(call.number, m.OK, None)])
    assert talker.hear() == "last"
    assert talker.frame() == (CLOSE, (4001).to_bytes(2, "big") + b"enough")
