"""Devices over TLS and behind proxies: a worker's sockets without its process, and clients in turns with it."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.certificates import Files, write
from support.frames import frame
from support.shard import PATIENCE_S, Shard
from support.tls_client import TlsClient, trusting

from farm.transports.frames import CLOSE, TEXT
from farm.worker.edge import Edge
from router.common import messages as m
from router.common.client_address import Networks
from router.common.openings import Openings
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import TlsWire

PROXIES = Networks(["127.0.0.1"])
NOBODY = Networks(())
UPGRADE = (
    b"GET /talk/%b HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n%b"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
V1 = b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 443\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("tls"), "localhost")


def tls_edge(files: Files, proxies: Networks = NOBODY, handshakes: int = 16, most: int = 1000) -> Edge:
    wire = TlsWire(Contexts(TlsOptions(certificate=(str(files.certificate),), key=(str(files.key),))).front)
    return Edge(wire, Openings(proxies, wire, handshakes, most))


class World:
    """A worker that speaks TLS, and its clients."""

    def __init__(self, shard: Shard, edge: Edge, files: Files) -> None:
        self.shard = shard
        self.edge = edge
        self.context = trusting(files.certificate)

    def until(self, happens: Callable[[], bool]) -> None:
        """Have the worker take turns until this is so."""
        ends = time.monotonic() + PATIENCE_S
        while True:
            self.shard.turn()
            if happens():
                return
            assert time.monotonic() < ends, "it does not happen"

    def client(self) -> TlsClient:
        """One that has shaken hands."""
        client = TlsClient(self.shard.connect(), self.context)
        self.until(client.turn)
        self.shard.turn()
        return client

    def hears(self, client: TlsClient, end: bytes) -> bytes:
        """What comes for a client, up to this end."""
        found = bytearray()

        def whole() -> bool:
            found.extend(client.read() or b"")
            return found.endswith(end)

        self.until(whole)
        return bytes(found)

    def talker(self, where: bytes = b"x") -> TlsClient:
        client = self.client()
        client.send(UPGRADE % (where, b""))
        self.hears_frame(client)
        return client

    def subscriber(self) -> TlsClient:
        client = self.client()
        client.send(UPGRADE % (b"join", b""))
        found = bytearray()

        def joined() -> bool:
            for one in self.shard.said():
                if isinstance(one, m.Call):
                    self.shard.sockets.received([m.Reply(one.number, m.OK, None)])
            found.extend(client.read() or b"")
            return found.endswith(b" null")

        self.until(joined)
        return client

    def hears_frame(self, client: TlsClient) -> bytes:
        """What has come, of which the last is a text."""
        found = bytearray()

        def whole() -> bool:
            found.extend(client.read() or b"")
            return bool(found) and not found.endswith(b"\r\n\r\n")

        self.until(whole)
        return bytes(found)

    @property
    def empty(self) -> bool:
        """Whether nothing is left of any connection."""
        tls, openings = self.edge.tls, self.edge.openings
        left = len(self.shard.sockets) or len(self.shard.sockets.addresses) or bool(openings)
        return not left and (tls is None or (len(tls) == 0 and not tls._unsent))


@pytest.fixture
def world(files: Files) -> Iterator[World]:
    edge = tls_edge(files)
    shard = Shard(edge=edge, send_buffer=16_384)
    yield World(shard, edge, files)
    shard.close()


def test_a_certificate_longer_than_what_the_kernel_takes_at_once(tmp_path: Path) -> None:
    files = write(tmp_path, "localhost", *(f"host-{number}.example.org" for number in range(1000)))
    edge = tls_edge(files)
    shard = Shard(edge=edge, send_buffer=4096)
    try:
        world = World(shard, edge, files)
        client = TlsClient(shard.connect(receive_buffer=4096), world.context)
        world.until(client.turn)
        world.until(lambda: len(shard.sockets.connections) == 1 and not edge.openings)
    finally:
        shard.close()


def test_a_device_talks_and_closes(world: World) -> None:
    client = world.talker()
    for text in (b"hello", b"x" * 5000):
        client.send(frame(TEXT, text))
        world.hears(client, text)
    client.send(frame(TEXT, b"one") + frame(TEXT, b"two"))
    world.hears(client, b"two")
    client.send(frame(CLOSE, struct.pack("!H", 1000)))
    world.hears(client, b"\x88\x02\x03\xe8")
    world.until(lambda: client.read() is None)  # close_notify
    client.close_notify()
    client.end.close()
    world.until(lambda: world.empty)
    assert (world.shard.counters.upgrades, world.shard.counters.disconnects) == (1, 1)


def test_the_worker_closes(world: World) -> None:
    client = world.talker()
    (connection,) = world.shard.sockets.open_connections()
    world.shard.sockets.let_go(connection)
    assert world.hears(client, b"come back later").startswith(b"\x88")
    client.send(frame(CLOSE, struct.pack("!H", 4100)))
    world.until(lambda: client.read() is None)
    client.end.close()
    world.until(lambda: world.empty)


def test_events_reach_all_and_who_reads_later_has_them_whole(world: World) -> None:
    clients = [world.subscriber() for _ in range(3)]
    bodies = [bytes([65 + number]) * 9000 for number in range(20)]
    for body in bodies:
        world.shard.event(body.decode())
    assert world.shard.sockets.output.budget.total > 0  # the kernel does not have it all
    for client in reversed(clients):
        assert world.hears(client, bodies[-1]) == b"".join(b"\x81\x7e\x23\x28" + body for body in bodies)
    world.until(lambda: world.shard.sockets.output.budget.total == 0)
    assert world.shard.counters.slow_closed == 0


def test_who_does_not_read_is_dropped_and_nothing_is_left(files: Files) -> None:
    edge = tls_edge(files)
    shard = Shard({"write_buffer_bytes": 20_000}, edge=edge, send_buffer=16_384)
    with contextlib.closing(shard):
        world = World(shard, edge, files)
        world.subscriber()
        for _ in range(200):
            shard.event("x" * 9000)
            if shard.counters.slow_closed:
                break
        assert shard.counters.slow_closed == 1
        assert world.empty


def test_of_too_many_handshakes_the_one_that_began_first_is_closed(files: Files) -> None:
    edge = tls_edge(files, most=2)
    shard = Shard(edge=edge)
    with contextlib.closing(shard):
        world = World(shard, edge, files)
        halves = []
        for _ in range(3):
            halves.append(client := TlsClient(shard.connect(), world.context))
            client.turn()
            world.shard.turn()
        assert shard.counters.handshakes_failed == 1
        world.until(lambda: halves[0].has_ended)
        for client in halves[1:]:
            world.until(client.turn)


def test_plain_http_is_told_that_the_port_speaks_tls(world: World) -> None:
    client = world.shard.connect()
    client.sendall(b"GET / HTTP/1.1\r\nHost: push\r\n\r\n")
    world.until(lambda: world.shard.counters.handshakes_failed == 1)
    answer = client.recv(1000)
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"this port speaks TLS\n")
    assert client.recv(1) == b""
    client.close()
    world.until(lambda: world.empty)


def test_what_is_no_tls_at_all_is_closed(world: World) -> None:
    client = world.shard.connect()
    client.sendall(bytes(100))
    world.until(lambda: world.shard.counters.handshakes_failed == 1)
    client.recv(1000)  # an alert
    client.close()
    world.until(lambda: world.empty)


def test_a_handshake_that_takes_too_long_is_ended(world: World) -> None:
    client = world.shard.connect()
    slow = TlsClient(client, world.context)
    for byte in slow.hello()[:40]:
        client.sendall(bytes([byte]))
        world.shard.turn()
        world.shard.clock.pass_by(0.25)
        world.shard.sockets.tick()
    for _ in range(3):
        world.shard.clock.pass_by(0.25)
        world.shard.sockets.tick()
    assert world.empty
    assert world.shard.counters.timeouts == 1


def test_in_a_storm_no_more_are_accepted_than_can_shake_hands_soon(files: Files) -> None:
    edge = tls_edge(files, handshakes=2)
    shard = Shard({"accept_batch": 8}, edge=edge)
    with contextlib.closing(shard):
        world = World(shard, edge, files)
        clients = [TlsClient(shard.connect(), world.context) for _ in range(60)]
        for client in clients:
            client.turn()
        left = set(clients)
        most = turns = 0
        while left:
            shard.one_turn()
            left -= {client for client in left if client.turn()}
            assert edge.tls is not None
            most = max(most, len(edge.tls) - edge.tls.handshakes)
            turns += 1
        assert most <= 16  # a batch that was accepted, and the next one
        assert turns < 400


def test_who_leaves_amid_the_handshake_leaves_nothing(world: World) -> None:
    client = world.shard.connect()
    client.sendall(TlsClient(client, world.context).hello())
    world.shard.turn()
    assert not world.empty
    client.close()
    world.until(lambda: world.empty)
    assert world.shard.counters.handshakes_failed == 1


def test_who_ends_tls_is_answered_so(world: World) -> None:
    client = world.talker()
    client.close_notify()
    world.until(lambda: client.read() is None)
    assert world.empty


def test_who_only_looks_whether_the_port_is_open_is_no_failure(world: World) -> None:
    client = world.shard.connect()
    world.shard.turn()
    client.close()
    world.until(lambda: world.shard.counters.disconnects == 1)
    assert world.empty
    assert world.shard.counters.handshakes_failed == 0


def test_who_is_cut_off_leaves_nothing(world: World) -> None:
    client = world.talker()
    client.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.end.close()
    world.until(lambda: world.empty)


def test_damaged_records_end_the_connection_alone(world: World) -> None:
    client, other = world.talker(), world.talker()
    client.end.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
    world.until(lambda: len(world.shard.sockets) == 1)
    other.send(frame(TEXT, b"still here"))
    world.hears(other, b"still here")


def test_drained_devices_are_told_and_handshakes_dropped(world: World) -> None:
    client = world.talker()
    half = world.shard.connect()
    half.sendall(TlsClient(half, world.context).hello())
    world.shard.turn()
    world.shard.sockets.drain()
    for connection in world.shard.sockets.open_connections():
        world.shard.sockets.let_go(connection)
    world.hears(client, b"come back later")
    assert len(world.shard.sockets) == 1


@pytest.mark.parametrize("speaks_tls", [False, True])
def test_the_address_that_a_proxy_names_is_the_clients(files: Files, speaks_tls: bool) -> None:
    edge = tls_edge(files, PROXIES) if speaks_tls else Edge(None, Openings(PROXIES, None, 1))
    shard = Shard(edge=edge)
    with contextlib.closing(shard):
        world = World(shard, edge, files)
        client = shard.connect()
        client.sendall(V1)
        if speaks_tls:
            device = TlsClient(client, world.context)
            world.until(device.turn)
            device.send(UPGRADE % (b"x", b""))
            world.hears_frame(device)
        else:
            client.sendall(UPGRADE % (b"x", b""))
            world.until(lambda: shard.counters.upgrades == 1)
        (fd,) = shard.sockets.connections
        assert shard.sockets.addresses.of(fd) == "198.51.100.7"
        client.close()
        world.until(lambda: world.empty)


def test_who_is_beyond_a_limit_behind_a_proxy_is_closed_before_its_handshake(files: Files) -> None:
    """What it holds open amid its handshake counts already."""
    edge = tls_edge(files, PROXIES)
    shard = Shard(limits={"connections_per_address": 1}, edge=edge, proxies=PROXIES)
    with contextlib.closing(shard):
        world = World(shard, edge, files)
        first, second = shard.connect(), shard.connect()
        for client in (first, second):
            client.sendall(V1 + TlsClient(client, world.context).hello()[:50])
        world.until(lambda: len(shard.sockets) == 1)
        assert shard.counters.limited_connections_per_address == 1
        first.close()
        world.until(lambda: world.empty)
        second.close()


@pytest.mark.parametrize("speaks_tls", [False, True])
def test_a_proxy_that_sends_no_header_is_closed(files: Files, speaks_tls: bool) -> None:
    edge = tls_edge(files, PROXIES) if speaks_tls else Edge(None, Openings(PROXIES, None, 1))
    shard = Shard(edge=edge)
    with contextlib.closing(shard):
        client = shard.connect()
        client.sendall(UPGRADE % (b"x", b""))
        World(shard, edge, files).until(lambda: shard.counters.proxy_refused == 1)
        assert len(shard.sockets) == 0
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (b"Forwarded: for=192.0.2.60;proto=https\r\n", "192.0.2.60"),
        (b"X-Forwarded-For: 203.0.113.1, 192.0.2.61\r\n", "192.0.2.61"),
        (b"", "127.0.0.1"),
    ],
)
def test_the_address_that_headers_name_is_the_clients(files: Files, header: bytes, address: str) -> None:
    edge = Edge(forwarding=PROXIES)
    shard = Shard(edge=edge)
    with contextlib.closing(shard):
        client = shard.connect()
        client.sendall(UPGRADE % (b"x", header))
        world = World(shard, edge, files)
        world.until(lambda: shard.counters.upgrades == 1)
        (fd,) = shard.sockets.connections
        assert shard.sockets.addresses.of(fd) == address
        client.close()
        world.until(lambda: world.empty)


def test_headers_that_disagree_are_refused(files: Files) -> None:
    shard = Shard(edge=Edge(forwarding=PROXIES))
    with contextlib.closing(shard):
        client = shard.connect()
        client.sendall(UPGRADE % (b"x", b"Forwarded: for=192.0.2.60\r\nX-Forwarded-For: 192.0.2.61\r\n"))
        shard.turn()
        shard.turn()
        assert client.recv(1000).startswith(b"HTTP/1.1 400 ")
