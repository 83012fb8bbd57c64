"""What comes before HTTP: a PROXY header, a TLS handshake, or both, in pieces and all at once."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator

import pytest
from support.certificates import Files, write
from support.tls_client import TlsClient, trusting

from router.common.client_address import Networks
from router.common.openings import PROXY, TLS, Opening, OpeningFailed, Openings
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import TlsWire

PROXIES = Networks(["10.0.0.0/8"])
PROXY_PEER, OTHER_PEER = "10.1.2.3", "192.0.2.1"
V1 = b"PROXY TCP4 198.51.100.7 10.0.0.1 4711 443\r\n"
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c" + bytes([203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xBB])
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def wire(files: Files) -> TlsWire:
    return TlsWire(Contexts(TlsOptions(certificate=(str(files.certificate),), key=(str(files.key),))).front)


@pytest.fixture
def ends() -> Iterator[tuple[int, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    fd = ours.detach()
    yield fd, theirs
    theirs.close()
    with contextlib.suppress(OSError):
        os.close(fd)


def test_who_begins_at_once() -> None:
    openings = Openings(PROXIES, None, 1)
    assert not openings.begin(3, OTHER_PEER, False)
    assert not openings.begin(3, "", False)
    assert not openings
    assert openings.begin(3, PROXY_PEER, False)
    assert openings
    assert 3 in openings
    openings.forget(3)
    openings.forget(3)
    assert 3 not in openings


@pytest.mark.parametrize(("header", "address"), [(V1, "198.51.100.7"), (V2, "203.0.113.9"), (LOCAL, None)])
def test_a_header_is_read_and_nothing_behind_it(
    ends: tuple[int, socket.socket], header: bytes, address: str | None
) -> None:
    fd, theirs = ends
    openings = Openings(PROXIES, None, 1)
    openings.begin(fd, PROXY_PEER, False)
    assert openings.go_on(fd) is None
    for at in range(len(header) - 1):
        theirs.sendall(header[at : at + 1])
        assert openings.go_on(fd) is None
        with pytest.raises(BlockingIOError):
            os.read(fd, 1)  # what has come would be reported again and again
    theirs.sendall(header[-1:] + b"GET /")
    assert openings.go_on(fd) == Opening(b"", address)
    assert fd not in openings
    assert os.read(fd, 100) == b"GET /"


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"PROXY TCP4 nonsense\r\n", b"\r\n\r\nx", b"PROXY", b""])
def test_a_proxy_without_its_header(ends: tuple[int, socket.socket], sent: bytes) -> None:
    fd, theirs = ends
    openings = Openings(PROXIES, None, 1)
    openings.begin(fd, PROXY_PEER, False)
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    with pytest.raises(OpeningFailed) as failed:
        for _ in range(2):
            openings.go_on(fd)
    assert (failed.value.step, failed.value.silent) == (PROXY, not sent)


@pytest.mark.parametrize("header", [b"", LOCAL])
@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01"])
def test_who_only_looks_whether_the_port_is_open(
    wire: TlsWire, ends: tuple[int, socket.socket], header: bytes, hello: bytes
) -> None:
    fd, theirs = ends
    openings = Openings(PROXIES, wire, 9)
    openings.begin(fd, PROXY_PEER if header else OTHER_PEER, True)
    theirs.sendall(header + hello)
    if header or hello:
        assert openings.go_on(fd) is None
    theirs.close()
    with pytest.raises(OpeningFailed) as failed:
        openings.go_on(fd)
    assert (failed.value.step, failed.value.silent) == (TLS, not hello)


def test_a_header_and_then_tls(wire: TlsWire, files: Files, ends: tuple[int, socket.socket]) -> None:
    fd, theirs = ends
    openings = Openings(PROXIES, wire, 1)
    openings.begin(fd, PROXY_PEER, True)
    client = TlsClient(theirs, trusting(files.certificate))
    theirs.sendall(V2 + client.hello())
    for _ in range(2):
        assert openings.go_on(fd) is None
        openings.begin_turn()
    client.turn()
    assert openings.go_on(fd) == Opening(b"", "203.0.113.9")
    client.send(b"text")
    assert wire.read(fd, 100) == b"text"


def test_of_too_many_handshakes_the_one_that_began_first_has_to_go(wire: TlsWire, files: Files) -> None:
    openings = Openings(PROXIES, wire, 99, 2)
    pairs = [socket.socketpair() for _ in range(4)]
    fds = [ours.fileno() for ours, _ in pairs]
    for ours, _ in pairs:
        ours.setblocking(False)
        openings.begin(ours.fileno(), OTHER_PEER, True)
    found = []
    for fd, (_, theirs) in zip(fds[1:], pairs[1:], strict=True):  # the first sends nothing, which takes no memory
        theirs.sendall(TlsClient(theirs, trusting(files.certificate)).hello())
        assert openings.go_on(fd) is None
        found.append(openings.excess)
    assert found == [None, None, fds[1]]
    openings.forget(fds[1])
    assert openings.excess is None
    for ours, theirs in pairs:
        wire.close(ours.detach())
        theirs.close()


def test_steps_of_handshakes_are_limited_in_a_turn(wire: TlsWire, files: Files) -> None:
    openings = Openings(PROXIES, wire, 2)
    pairs = [socket.socketpair() for _ in range(3)]
    for ours, theirs in pairs:
        ours.setblocking(False)
        openings.begin(ours.fileno(), OTHER_PEER, True)
        theirs.sendall(TlsClient(theirs, trusting(files.certificate)).hello())
    for ours, _ in pairs:
        assert openings.go_on(ours.fileno()) is None
    answered = []
    for _, theirs in pairs:
        theirs.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            answered.append(theirs.recv(10))
    assert len(answered) == 2
    openings.begin_turn()
    assert openings.go_on(pairs[2][0].fileno()) is None
    assert pairs[2][1].recv(10)
    for ours, theirs in pairs:
        wire.close(ours.detach())
        theirs.close()


def test_a_part_of_a_hello_is_no_step(wire: TlsWire, files: Files) -> None:
    """Those who send theirs a byte at a time do not take the turns of others."""
    openings = Openings(PROXIES, wire, 1)
    pairs = [socket.socketpair() for _ in range(3)]
    for number, (ours, theirs) in enumerate(pairs):
        ours.setblocking(False)
        openings.begin(ours.fileno(), OTHER_PEER, True)
        theirs.sendall(TlsClient(theirs, trusting(files.certificate)).hello()[: None if number == 2 else 9])
        assert openings.go_on(ours.fileno()) is None
    pairs[2][1].settimeout(5)
    assert pairs[2][1].recv(10)
    openings.begin_turn()
    assert not openings.behind
    for ours, theirs in pairs:
        wire.close(ours.detach())
        theirs.close()


@pytest.mark.parametrize(("header", "address"), [(b"", None), (V2, "203.0.113.9")])
def test_plain_http_instead_of_tls(
    wire: TlsWire, ends: tuple[int, socket.socket], header: bytes, address: str | None
) -> None:
    fd, theirs = ends
    openings = Openings(PROXIES, wire, 2)
    openings.begin(fd, PROXY_PEER if header else OTHER_PEER, True)
    theirs.sendall(header + b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(OpeningFailed) as failed:
        for _ in range(2):
            openings.go_on(fd)
    assert (failed.value.step, failed.value.plain_http, failed.value.address) == (TLS, True, address)


def test_junk_that_comes_with_the_end_of_a_handshake(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket]
) -> None:
    fd, theirs = ends
    openings = Openings(PROXIES, wire, 2)
    openings.begin(fd, OTHER_PEER, True)
    client = TlsClient(theirs, trusting(files.certificate, version=ssl.TLSVersion.TLSv1_3))
    client.turn()
    assert openings.go_on(fd) is None
    client.receive()
    client.tls.do_handshake()
    theirs.sendall(client.sealed(b"") + bytes(64))
    with pytest.raises(OpeningFailed) as failed:
        openings.go_on(fd)
    assert failed.value.step == TLS
    assert wire.handshakes == 0  # it counts as one that has failed
