"""Connections of app servers on their way from a worker to the router's port, in one process: both ends are real."""

import gc
import os
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.fd_passing import DEVICE, GET, HEAD, PATIENCE_S, Client, Rig, RouterEnd

from farm.worker.fd_passing import FdSender
from farm.worker.sniff import ENOUGH
from router.common import fd_passing
from router.common.options import Settings, defaults
from router.dialects import DialectSpec, app_server_reads, switches


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(autouse=True)
def leaves_no_descriptor() -> Iterator[None]:
    gc.collect()  # what other tests have left
    before = descriptors()
    yield
    assert descriptors() == before


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    with Rig(tmp_path) as rig:
        yield rig


def test_the_router_goes_on_with_the_connection(rig: Rig) -> None:
    client = rig.client(HEAD % 5 + b"he")
    assert rig.counts == (1, 0, 1)
    assert client.silent()
    client.send(b"llo")
    rig.turn()
    assert client.answer().endswith(b"\r\n\r\nPOST hello")
    for request in (GET, HEAD % 2 + b"hi"):  # on the same connection
        client.send(request)
        rig.turn()
        assert client.answer().startswith(b"HTTP/1.1 200 OK\r\n")
    assert rig.counts == (1, 0, 1)
    client.socket.close()
    rig.turn()
    assert rig.counts == (1, 0, 0)


def test_a_request_knows_where_it_comes_from(rig: Rig) -> None:
    assert rig.router is not None
    for port, at in ((rig.worker.port, "127.0.0.7"), (rig.router.number, "127.0.0.8")):
        with socket.create_connection(("127.0.0.1", port), PATIENCE_S, (at, 0)) as client:
            client.sendall(b"GET /apps/source HTTP/1.1\r\nHost: push\r\n\r\n")
            rig.turn()
            assert client.recv(65_536).endswith(b"\r\n\r\n" + at.encode())
        rig.turn()


def test_it_waits_for_what_decides(rig: Rig) -> None:
    client = rig.client()
    for byte in GET[:9]:
        client.send(bytes([byte]))
        rig.turn()
        assert rig.counts == (0, 1, 0)
    client.send(GET[9:])
    rig.turn()
    assert rig.counts == (1, 0, 1)
    assert client.answer().endswith(b"\r\n\r\nGET ")


def test_who_does_not_decide_has_as_long_as_a_handshake(rig: Rig) -> None:
    client = rig.client(b"PO")
    rig.worker.clock.pass_by(11)
    rig.worker.sockets.tick()
    assert client.answer().startswith(b"HTTP/1.1 408 ")
    assert rig.worker.counters.handed_over == 0


def test_a_device_stays_with_the_worker(rig: Rig) -> None:
    assert rig.client(DEVICE).answer().startswith(b"HTTP/1.1 404 ")
    for cut in range(1, len(DEVICE)):
        client = rig.client(DEVICE[:cut])
        client.send(DEVICE[cut:])
        rig.turn()
        assert client.answer().startswith(b"HTTP/1.1 404 ")
    assert rig.counts[0] == rig.counts[2] == 0


def test_a_body_longer_than_all_reads(rig: Rig) -> None:
    body = os.urandom(300_000).hex().encode()
    client = rig.client()
    client.socket.setblocking(False)
    rest, answer = HEAD % len(body) + body, b""
    while not answer.endswith(body):
        if rest:
            with suppress(BlockingIOError):
                rest = rest[client.socket.send(rest) :]
        rig.turn()
        with suppress(BlockingIOError):
            answer += client.socket.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert rig.counts == (1, 0, 1)


def test_what_is_passed_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[int] = []
    give = FdSender.give

    def measured(self: FdSender, fd: int, data: bytes, address: str = "") -> bool:
        passed.append(len(data))
        return give(self, fd, data, address)

    monkeypatch.setattr(FdSender, "give", measured)
    with Rig(tmp_path) as rig:
        first, second = rig.client(HEAD % 1000 + b"x" * 1000), rig.client(b"POS")
        second.send((HEAD % 1000)[3:] + b"y" * 1000)
        rig.turn()
        assert first.answer().endswith(b"POST " + b"x" * 1000)
        assert second.answer().endswith(b"POST " + b"y" * 1000)
    assert passed == [ENOUGH, ENOUGH]  # the rest the router reads itself


def test_while_the_router_is_away_app_servers_are_told_to_come_back(rig: Rig) -> None:
    stays = rig.client(GET)
    stays.answer()
    rig.router_goes()
    assert stays.answer() == b""
    for request in (GET, HEAD % 100_000 + b"x" * 100_000):
        client = rig.client(request)
        answer = client.answer()
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: " in answer
        assert b"\r\nConnection: close\r\n" in answer
        client.socket.shutdown(socket.SHUT_WR)
        rig.turn()
        assert client.answer() == b""
    assert rig.worker.counters.upgrades_refused == 2
    rig.router_comes()
    assert rig.client(GET).answer().startswith(b"HTTP/1.1 200 ")
    assert rig.counts == (2, 0, 1)


def test_another_router_takes_what_the_favourite_cannot(tmp_path: Path) -> None:
    with Rig(tmp_path, {"routers": 2, "shard": 3}) as rig:  # whose favourite is number 1
        assert rig.client(GET).answer().startswith(b"HTTP/1.1 200 ")
        assert rig.counts == (1, 0, 1)
        other, favourite = rig.router, RouterEnd(tmp_path, 1)
        assert other is not None
        rig.router = favourite
        assert rig.client(GET).answer().startswith(b"HTTP/1.1 200 ")
        assert rig.counts == (2, 0, 1)
        rig.router_goes()
        rig.router = other
        assert rig.client(GET).answer().startswith(b"HTTP/1.1 200 ")
        assert rig.counts == (3, 0, 2)


def test_a_router_that_takes_nothing_costs_a_503_and_never_a_wait(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("farm.worker.fd_passing._SEND_BUFFER_BYTES", 65_536)
    assert rig.router is not None
    body = b"x" * 7000
    clients: list[Client] = []
    while not rig.worker.counters.upgrades_refused:
        client = Client(rig.worker.port)
        rig._clients.append(client)
        client.send(HEAD % len(body) + body)
        rig.worker.turn()
        clients.append(client)
        assert len(clients) < 1000
    assert clients.pop().answer().startswith(b"HTTP/1.1 503 ")
    assert len(clients) > 10
    rig.turn()
    for client in clients:
        assert client.answer().startswith(b"HTTP/1.1 200 ")
    assert rig.client(GET).answer().startswith(b"HTTP/1.1 200 ")


def test_what_was_passed_to_a_router_that_stops_is_answered(rig: Rig) -> None:
    rig.client(GET)  # so that the router knows the worker
    client = Client(rig.worker.port)
    rig._clients.append(client)
    client.send(GET)
    rig.worker.turn()
    assert rig.router is not None
    rig.router.port.stop_listening()
    rig.router.fd_receiver.close()
    rig.router.port.flush()
    assert client.answer().startswith(b"HTTP/1.1 200 ")
    assert rig.client(GET).answer().startswith(b"HTTP/1.1 503 ")


def test_what_a_dead_router_had_not_taken_is_closed(rig: Rig) -> None:
    client = Client(rig.worker.port)
    rig._clients.append(client)
    client.send(GET)
    rig.worker.turn()
    assert rig.worker.counters.handed_over == 1
    assert rig.router is not None
    rig.router.fd_receiver._poller.unregister(rig.router.fd_receiver._listener.fileno())
    rig.router.fd_receiver._listener.close()  # as the kernel does it
    assert client.answer() == b""


def test_there_is_one_limit_for_all_app_servers(tmp_path: Path) -> None:
    with Rig(tmp_path, max_connections=2) as rig:
        for _ in range(2):
            rig.client(HEAD % 1)  # which is not idle
        assert rig.client(GET).answer().startswith(b"HTTP/1.1 503 ")
        assert rig.counts == (3, 0, 3)


def test_connections_are_taken_behind_all_else_that_is_there(tmp_path: Path, rig: Rig) -> None:
    """By then those that have ended are closed: what was reported of them is not for who gets their descriptor."""
    assert rig.router is not None
    client, accepted = rig.client(GET), Client(rig.router.number)
    client.answer()
    rig.router.turn()
    poller = rig.router.poller
    worker, come = Client(rig.worker.port), Client(rig.router.number)
    worker.send(GET)
    rig.worker.turn()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.connect(fd_passing.socket_path(tmp_path, 0))
        client.send(GET)
        accepted.send(GET)
        reported = [fd in poller.accepting for fd, _ in poller.ready_now()]
        assert reported == [False] * 2 + [True] * 3
    rig.router_goes()
    assert not poller.accepting
    for end in (accepted, worker, come):
        end.socket.close()


def test_of_something_else_nothing_is_left(tmp_path: Path, rig: Rig) -> None:
    assert rig.router is not None
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        other.connect(fd_passing.socket_path(tmp_path, 0))
        read, write = os.pipe()
        socket.send_fds(other, [GET], [read])
        socket.send_fds(other, [GET], [read, read])
        other.send(GET)
        os.close(read)
        rig.turn()
        with pytest.raises(BrokenPipeError):
            os.write(write, b"x")
        os.close(write)
    rig.turn()
    assert rig.counts == (0, 0, 0)


def test_a_worker_without_a_descriptor_for_the_router_says_503(rig: Rig) -> None:
    client = rig.client()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = os.open("/dev/null", os.O_RDONLY)
    os.close(spare)
    resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
    try:
        client.send(GET)
        rig.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert client.answer().startswith(b"HTTP/1.1 503 ")
    assert rig.client(GET).answer().startswith(b"HTTP/1.1 200 ")


def test_out_of_descriptors_a_worker_waits(rig: Rig) -> None:
    assert rig.router is not None
    kept = rig.client()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as worker:
        spare = os.open("/dev/null", os.O_RDONLY)
        worker.connect(fd_passing.socket_path(rig.folder, 0))
        socket.send_fds(worker, [GET], [kept.socket.fileno()])
        os.close(spare)
        resource.setrlimit(resource.RLIMIT_NOFILE, (spare, limits[1]))
        try:
            rig.router.turn()  # which ends: the listener is not asked again
            assert rig.router.counters.http_connections == 0
            rig.router.fd_receiver.tick()
            rig.router.turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        rig.router.fd_receiver.tick()
        rig.router.turn()
        assert rig.router.counters.http_connections == 1


def test_it_is_wanted_where_a_dialect_that_is_on_has_it() -> None:
    def reads(paths: tuple[bytes, ...] | None) -> Callable[[Settings], tuple[bytes, ...] | None]:
        return lambda settings: paths

    one = DialectSpec(name="one", read_on_device_port=reads((b"/a", b"/b")))
    two = DialectSpec(name="two", read_on_device_port=reads((b"/b", b"/c")))
    none = DialectSpec(name="none")
    switches_of = switches((one, two, none))
    on = defaults([switches_of])
    assert app_server_reads(on, (none, one, two)) == (b"/a", b"/b", b"/c")
    assert app_server_reads(on.replace(switches_of, one=False), (none, one, two)) == (b"/b", b"/c")
    assert app_server_reads(on.replace(switches_of, one=False, two=False), (none, one, two)) is None
    assert app_server_reads(on, (none,)) is None
