"""Connections of app servers that came to the device port with TLS, or through a proxy, on their way to the router."""

from __future__ import annotations

import errno
import gc
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from support.certificates import Files, write
from support.fd_passing import DEVICE, GET, HEAD, PATIENCE_S, Rig
from support.plain_dialect import Plain
from support.tls_client import TlsClient, trusting

from farm.worker.clock import Clock
from farm.worker.edge import Edge
from farm.worker.relays import Relays
from router.common.client_address import Networks
from router.common.fd_passing import packed, unpacked
from router.common.log_forms import FIELDS
from router.common.metrics import WorkerCounters
from router.common.openings import Openings
from router.common.poller import READ, Poller
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import PLAIN, PlainWire, TlsWire

SOURCE = b"GET /apps/source HTTP/1.1\r\nHost: push\r\n\r\n"
PROXIED = b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 443\r\n"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture(autouse=True)
def leaves_no_descriptor(files: Files) -> Iterator[None]:
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


def edge(files: Files, proxies: tuple[str, ...] = (), most: int = 10) -> Edge:
    wire = TlsWire(Contexts(TlsOptions(certificate=(str(files.certificate),), key=(str(files.key),))).front)
    return Edge(wire, Openings(Networks(proxies), wire, 16), max_relayed=most)


class TlsRig(Rig):
    """With clients that speak TLS."""

    def __init__(self, folder: Path, files: Files, used: Edge, devices: float = 0.0) -> None:
        dialects = {"/plain/**": Plain()}
        super().__init__(folder, {"edge": used, "dialects": dialects, "close_timeout": 5, "devices": devices})
        self.context = trusting(files.certificate)
        self.used = used

    def until(self, happens: Callable[[], bool]) -> None:
        ends = time.monotonic() + PATIENCE_S
        while True:
            self.turn()
            if happens():
                return
            assert time.monotonic() < ends, "it does not happen"

    def connected(self, before: bytes = b"") -> TlsClient:
        end = socket.create_connection(("127.0.0.1", self.worker.port), PATIENCE_S)
        end.sendall(before)
        client = TlsClient(end, self.context)
        self.until(client.turn)
        return client

    def answer(self, client: TlsClient, end: bytes) -> bytes:
        found = bytearray()

        def whole() -> bool:
            found.extend(client.read() or b"")
            return found.endswith(end)

        self.until(whole)
        return bytes(found)

    @property
    def relays(self) -> int:
        assert self.worker.sockets.relays is not None
        return len(self.worker.sockets.relays)

    def tick(self, seconds: float = 0.25) -> None:
        self.worker.clock.pass_by(seconds)
        self.worker.sockets.tick()


@pytest.fixture
def rig(tmp_path: Path, files: Files) -> Iterator[TlsRig]:
    with TlsRig(tmp_path, files, edge(files)) as rig:
        yield rig
        assert rig.used.tls is not None
        rig.worker.close()
        assert len(rig.used.tls) == 0


def test_a_packet_says_where_a_connection_comes_from() -> None:
    assert packed("", b"GET /") == b"GET /"  # as a router of another version has it
    for address in ("192.0.2.1", "2001:db8::1"):
        assert unpacked(packed(address, b"GET /")) == (address, b"GET /")
        assert unpacked(packed(address, b"")) == (address, b"")
    assert unpacked(packed("", b"")) == ("", b"")
    assert unpacked(b"GET /") == ("", b"GET /")
    for wrong in (b"\0", b"\0\4\1\2\3", b"\0\3\1\2\3"):
        with pytest.raises(ValueError):
            unpacked(wrong)


def test_an_app_server_is_relayed(rig: TlsRig) -> None:
    client = rig.connected()
    client.send(HEAD % 5 + b"he")
    rig.until(lambda: rig.relays == 1)
    client.send(b"llo")
    rig.answer(client, b"POST hello")
    client.send(GET + GET)
    rig.answer(client, b"GET ")
    client.send(SOURCE)
    rig.answer(client, b"\r\n\r\n127.0.0.1")
    assert rig.counts == (1, 0, 1)
    client.close_notify()
    rig.until(lambda: client.read() is None)
    rig.until(lambda: rig.relays == 0)
    assert rig.counts == (1, 0, 0)
    client.end.close()


def test_the_log_says_that_it_was_passed_on(tmp_path: Path, files: Files, caplog: pytest.LogCaptureFixture) -> None:
    with TlsRig(tmp_path, files, edge(files), devices=1.0) as rig, caplog.at_level("INFO", "farm"):
        client = rig.connected()
        client.send(GET)
        rig.until(lambda: rig.relays == 1)
        client.end.close()
        rig.until(lambda: rig.relays == 0)
    (ended,) = [getattr(record, FIELDS) for record in caplog.records if record.message == "device.ended"]
    assert (ended["by"], ended["reason"]) == ("server", "passed on to a router")


def test_bodies_longer_than_all_buffers(rig: TlsRig) -> None:
    client = rig.connected()
    body = os.urandom(250_000).hex().encode()
    rest, found = HEAD % len(body) + body, b""
    sealed = b""
    while not found.endswith(body):
        if rest:
            sealed += client.sealed(rest[:16_384])
            rest = rest[16_384:]
        with suppress(BlockingIOError):
            sealed = sealed[client.end.send(sealed) :] if sealed else b""
        rig.turn()
        found += client.read() or b""
    assert rig.counts == (1, 0, 1)
    client.end.close()
    rig.until(lambda: rig.relays == 0)


def test_devices_stay(rig: TlsRig) -> None:
    client = rig.connected()
    client.send(DEVICE)
    assert rig.answer(client, b"\n").startswith(b"HTTP/1.1 404 ")
    assert rig.relays == 0
    client.end.close()


def test_who_is_cut_off(rig: TlsRig) -> None:
    client = rig.connected()
    client.send(HEAD % 5 + b"he")
    rig.until(lambda: rig.relays == 1)
    client.end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.end.close()
    rig.until(lambda: rig.counts == (1, 0, 0))
    assert rig.relays == 0


def test_the_router_ends_and_the_answer_still_arrives(rig: TlsRig) -> None:
    client = rig.connected()
    client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    rig.answer(client, b"GET ")
    rig.until(lambda: client.read() is None)
    assert rig.relays == 1  # the client has not ended
    rig.tick(5.25)
    assert rig.relays == 0
    client.end.close()
    rig.turn()


@pytest.mark.parametrize("takes_a_part", [False, True])
def test_a_client_that_does_not_take_what_the_router_has_left(takes_a_part: bool) -> None:
    """It keeps its place for a limited time, which begins anew with each part that it takes."""
    poller, clock = Poller(), Clock(lambda: 0.0)
    relays = Relays(poller, PLAIN, 1, clock, 5.0, WorkerCounters())
    ours, client = socket.socketpair()
    router_end, router = relays.pair() or pytest.fail("there is room")
    for end in (ours, client):
        end.setblocking(False)
    poller.register(ours.fileno(), READ)
    relays.begin(ours.detach(), READ, router_end, b"")

    def turn() -> None:
        while found := poller.ready_now():
            for fd, events in found:
                relays.ready(fd, events)

    for _ in range(100):  # until nothing takes any more
        with suppress(BlockingIOError):
            router.send(bytes(65_536))
        turn()
    router.close()
    turn()
    clock.now += 4.0
    relays.tick()
    assert len(relays) == 1
    if takes_a_part:
        with suppress(BlockingIOError):
            while client.recv(65_536):
                pass
        turn()
        clock.now += 4.0
        relays.tick()
        assert len(relays) == 1
    clock.now += 5.0
    relays.tick()
    assert len(relays) == 0
    client.close()
    poller.close()


def test_an_error_ends_one_relay_and_no_other() -> None:
    class Defective(PlainWire):
        @staticmethod
        def read(fd: int, size: int) -> bytes:
            data = os.read(fd, size)
            return bytes(1 // (data != b"defect"))

    poller, counters = Poller(), WorkerCounters()
    relays = Relays(poller, Defective(), 2, Clock(lambda: 0.0), 5.0, counters)
    clients, routers = [], []
    for _ in range(2):
        ours, client = socket.socketpair()
        router_end, router = relays.pair() or pytest.fail("there is room")
        ours.setblocking(False)
        poller.register(ours.fileno(), READ)
        relays.begin(ours.detach(), READ, router_end, b"")
        clients.append(client)
        routers.append(router)
    clients[0].send(b"defect")
    for fd, events in poller.ready_now():
        relays.ready(fd, events)
    assert (len(relays), counters.connections_failed) == (1, 1)
    assert clients[0].recv(1) == routers[0].recv(1) == b""
    relays.close()
    poller.close()
    for end in (*clients, *routers):
        end.close()


def test_the_router_dies(rig: TlsRig) -> None:
    client = rig.connected()
    client.send(GET)
    rig.answer(client, b"GET ")
    rig.router_goes()
    rig.until(lambda: client.read() is None)
    client.close_notify()
    rig.until(lambda: rig.relays == 0)
    client.end.close()
    other = rig.connected()
    other.send(GET)
    assert rig.answer(other, b"\n").startswith(b"HTTP/1.1 503 ")
    other.end.close()


def test_there_are_no_more_than_may_be(tmp_path: Path, files: Files) -> None:
    with TlsRig(tmp_path, files, edge(files, most=1)) as rig:
        first, second = rig.connected(), rig.connected()
        first.send(GET)
        rig.answer(first, b"GET ")
        second.send(GET)
        assert rig.answer(second, b"\n").startswith(b"HTTP/1.1 503 ")
        first.end.close()
        second.end.close()
        rig.until(lambda: rig.relays == 0)


def test_no_memory_to_watch_another_descriptor(rig: TlsRig, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, mask: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    client = rig.connected()
    with monkeypatch.context() as patched:
        patched.setattr(rig.worker.poller, "register", full)
        client.send(GET)
        assert rig.answer(client, b"\n").startswith(b"HTTP/1.1 503 ")
    assert rig.counts == (0, 1, 0)  # it reads until the client ends
    client.end.close()
    rig.turn()
    assert rig.counts == (0, 0, 0)


def test_a_drain_ends_those_that_have_their_answers(rig: TlsRig) -> None:
    idle, busy = rig.connected(), rig.connected()
    idle.send(GET)
    rig.answer(idle, b"GET ")
    busy.send(HEAD % 5 + b"he")
    rig.until(lambda: rig.relays == 2)
    rig.worker.sockets.drain()
    rig.tick()
    rig.until(lambda: idle.read() is None)
    idle.end.close()
    rig.until(lambda: rig.relays == 1)
    busy.send(b"llo")
    rig.answer(busy, b"POST hello")
    rig.tick()
    rig.until(lambda: busy.read() is None)
    busy.end.close()
    rig.until(lambda: not rig.worker.sockets.relaying)


@pytest.mark.parametrize("speaks_tls", [False, True])
def test_the_router_knows_whom_a_proxy_has_named(tmp_path: Path, files: Files, speaks_tls: bool) -> None:
    proxies = Networks(("127.0.0.1",))
    used = edge(files, ("127.0.0.1",)) if speaks_tls else Edge(None, Openings(proxies, None, 1))
    with TlsRig(tmp_path, files, used) as rig:
        if speaks_tls:
            client = rig.connected(PROXIED)
            client.send(SOURCE)
            rig.answer(client, b"\r\n\r\n198.51.100.7")
            client.end.close()
            rig.until(lambda: rig.relays == 0)
        else:
            plain = rig.client(PROXIED + SOURCE)
            rig.turn()
            assert plain.answer().endswith(b"\r\n\r\n198.51.100.7")
        assert rig.worker.counters.handed_over == 1


@pytest.mark.parametrize("speaks_tls", [False, True])
def test_what_a_proxy_said_of_a_device_is_not_said_of_an_app_server(
    tmp_path: Path, files: Files, speaks_tls: bool
) -> None:
    """Whose request comes next on the same connection of the proxy."""
    used = replace(edge(files) if speaks_tls else Edge(), forwarding=Networks(("127.0.0.1",)))
    poll = b"GET /plain/poll?said HTTP/1.1\r\nHost: push\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n"
    with TlsRig(tmp_path, files, used) as rig:
        if speaks_tls:
            client = rig.connected()
            client.send(poll)
            rig.answer(client, b"said\n")
            client.send(SOURCE)
            rig.answer(client, b"\r\n\r\n127.0.0.1")
            client.end.close()
            rig.until(lambda: rig.relays == 0)
        else:
            plain = rig.client(poll)
            assert plain.answer().endswith(b"said\n")
            plain.send(SOURCE)
            rig.turn()
            assert plain.answer().endswith(b"\r\n\r\n127.0.0.1")
        assert rig.worker.counters.handed_over == 1
