"""The TLS wire: what a connection's two ends say to each other, over sockets that do not block."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import socket
import ssl
import sys
import termios
from collections.abc import Callable, Iterator

import pytest
from support.certificates import Files, write
from support.tls_client import TlsClient, trusting

from router.common import lifecycle
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import PLAIN, HandshakeFailed, TlsWire

VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return write(tmp_path_factory.mktemp("tls"), "localhost")


@pytest.fixture
def wire(files: Files) -> TlsWire:
    return TlsWire(Contexts(TlsOptions(certificate=(str(files.certificate),), key=(str(files.key),))).front)


@pytest.fixture
def ends() -> Iterator[tuple[int, socket.socket]]:
    """Ours, which the wire closes or the test does; the client's."""
    listener = socket.create_server(("127.0.0.1", 0))
    theirs = socket.create_connection(listener.getsockname())
    ours, _ = listener.accept()
    listener.close()
    ours.setblocking(False)
    fd = ours.detach()
    yield fd, theirs
    theirs.close()
    with contextlib.suppress(OSError):
        os.close(fd)


def shake(wire: TlsWire, fd: int, client: TlsClient) -> bytes:
    """Returns: what has come behind the handshake."""
    while True:
        client.turn()
        try:
            data = wire.handshake(fd)
        except BlockingIOError:
            continue
        client.turn()
        return data


def read(wire: TlsWire, fd: int, size: int) -> bytes:
    """So much text, as soon as the kernel reports it."""
    found = b""
    while len(found) < size:
        assert select.select([fd], [], [], 10)[0], "the kernel reports nothing more"
        with contextlib.suppress(BlockingIOError):
            part = wire.read(fd, 8192)
            assert part, "it has ended"
            found += part
    return found


def write_in_parts(
    wire: TlsWire, fd: int, client: TlsClient, data: bytes, refused: Callable[[], None] = lambda: None
) -> None:
    """Write more than the kernel takes at once; the client must have it all. refused: is called after each part, when
    the client has read."""
    with socket.socket(fileno=os.dup(fd)) as shell:
        shell.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32_768)
    left, found = bytearray(data), bytearray()
    parts = 0
    while left:
        try:
            sent = wire.write(fd, left)
        except BlockingIOError:
            parts += 1
            found += client.read() or b""
            refused()
        else:
            assert sent > 0
            del left[:sent]
    while len(found) < len(data):
        found += client.read() or b""
    assert found == data
    assert parts > 0


def received(client: TlsClient, size: int) -> bytes:
    """The same for the client."""
    found = b""
    while len(found) < size:
        assert select.select([client.end], [], [], 10)[0], "nothing more comes"
        found += client.read() or b""
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_what_is_sent_arrives(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket], version: ssl.TLSVersion
) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate, version=version))
    assert shake(wire, fd, client) == b""
    assert client.tls.selected_alpn_protocol() == "http/1.1"
    with pytest.raises(BlockingIOError):
        wire.read(fd, 8192)
    for size in (1, 125, 16_384, 16_385, 50_000):
        client.send(bytes(size))
        assert read(wire, fd, size) == bytes(size)
        assert wire.write(fd, bytes(size)) == size
        assert received(client, size) == bytes(size)


def test_each_split_of_what_comes(wire: TlsWire, files: Files, ends: tuple[int, socket.socket]) -> None:
    """Records that come in pieces, and several in one: nothing is lost, and nothing of it waits unread."""
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    for at in range(1, 80, 7):
        one = client.sealed(b"one")
        sealed = one + client.sealed(b"two") + client.sealed(b"three")
        theirs.sendall(sealed[:at])
        found = read(wire, fd, 3 * min(at // len(one), 2))
        theirs.sendall(sealed[at:])
        assert found + read(wire, fd, 11 - len(found)) == b"onetwothree"


def test_a_read_takes_no_more_from_the_kernel_than_it_was_asked_to(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket]
) -> None:
    """Whatever that is to TLS: a peer that sends what is nothing to the application has no more of a turn."""
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    sealed = b"".join(client.sealed(b"x") for _ in range(4000))
    theirs.sendall(sealed)

    def waits() -> int:
        return int.from_bytes(fcntl.ioctl(fd, termios.FIONREAD, bytes(4)), sys.byteorder)

    while waits() < len(sealed):
        pass
    before, text = waits(), wire.read(fd, 1000)
    assert before - waits() == 1000
    assert len(text) == 1000 // (len(sealed) // 4000)


@pytest.mark.parametrize("requested", [False, True])
def test_keys_that_a_client_renews_are_its_own(wire: TlsWire, files: Files, requested: bool) -> None:
    """The answer goes to whom it is for, at once, and not among what others are sent."""
    pairs = [socket.socketpair() for _ in range(2)]
    fds, clients = [], []
    for ours, theirs in pairs:
        ours.setblocking(False)
        fds.append(ours.detach())
        wire.begin(fds[-1])
        clients.append(TlsClient(theirs, trusting(files.certificate)))
        shake(wire, fds[-1], clients[-1])
    for _ in range(3):
        for _ in range(2):  # the answer to one is made when the next one comes, or with the next write
            pairs[0][1].sendall(clients[0].key_update(requested))
            with pytest.raises(BlockingIOError):
                wire.read(fds[0], 8192)
        for fd, client in zip(reversed(fds), reversed(clients), strict=True):
            client.send(b"question")
            assert read(wire, fd, 8) == b"question"
            wire.write(fd, b"answer")
            assert received(client, 6) == b"answer"
    for (_, theirs), fd in zip(pairs, fds, strict=True):
        wire.close(fd)
        theirs.close()


def test_keys_that_are_renewed_while_a_record_waits(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket]
) -> None:
    """What the caller writes again is not sent again, whenever the rest of its record has gone."""
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)

    def renew() -> None:
        theirs.sendall(client.key_update())
        assert select.select([fd], [], [], 10)[0]
        with pytest.raises(BlockingIOError):
            wire.read(fd, 8192)

    write_in_parts(wire, fd, client, os.urandom(1_000_000), renew)


def test_who_has_keys_renewed_and_does_not_read_is_ended(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket]
) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    with pytest.raises(BlockingIOError):
        while True:
            wire.write(fd, bytes(16_384))
    with pytest.raises(ConnectionResetError):
        for _ in range(10_000):
            theirs.sendall(client.key_update())
            with contextlib.suppress(BlockingIOError):
                wire.read(fd, 8192)


@pytest.mark.parametrize("texts", [False, True])
def test_who_sends_nothing_but_new_keys_is_ended(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket], texts: bool
) -> None:
    """A word in between does not buy thousands of them."""
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    with pytest.raises(ConnectionResetError, match="nothing to the application"):
        for _ in range(100):
            theirs.sendall(b"".join(client.key_update(False) for _ in range(100)))
            with contextlib.suppress(BlockingIOError):
                wire.read(fd, 8192)
            if texts:
                client.send(b"x")
                assert read(wire, fd, 1) == b"x"


def test_records_that_come_in_parts_are_texts(wire: TlsWire, files: Files, ends: tuple[int, socket.socket]) -> None:
    """However long that goes on."""
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    for size, records in ((1, 3000), (16_384, 20)):
        for _ in range(records):
            sealed = client.sealed(bytes(size))
            theirs.sendall(sealed[:-3])
            with pytest.raises(BlockingIOError):
                for _ in range(size // 8192 + 2):
                    wire.read(fd, 8192)
            theirs.sendall(sealed[-3:])
            assert read(wire, fd, size) == bytes(size)
    assert not wire._silent


def test_a_request_that_comes_with_the_end_of_the_handshake(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket]
) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate, version=ssl.TLSVersion.TLSv1_3))
    client.turn()
    with pytest.raises(BlockingIOError):
        wire.handshake(fd)
    client.receive()
    client.tls.do_handshake()
    client.tls.write(b"GET / HTTP/1.1\r\n\r\n")
    client.flush()
    assert wire.handshake(fd) == b"GET / HTTP/1.1\r\n\r\n"


def test_connections_do_not_mix(wire: TlsWire, files: Files) -> None:
    """All share two buffers: halves of records and failures of one are not seen by another."""
    pairs = [socket.socketpair() for _ in range(3)]
    fds = []
    clients = []
    for ours, theirs in pairs:
        ours.setblocking(False)
        fds.append(ours.detach())
        wire.begin(fds[-1])
        clients.append(TlsClient(theirs, trusting(files.certificate)))
    for fd, client in zip(fds, clients, strict=True):
        shake(wire, fd, client)
    sealed = [client.sealed(b"from %d" % number) for number, client in enumerate(clients)]
    for (_, theirs), data in zip(pairs, sealed, strict=True):
        theirs.sendall(data[:9])
    for fd in fds:
        with pytest.raises(BlockingIOError):
            wire.read(fd, 8192)
    pairs[1][1].sendall(bytes(100))  # no record
    with pytest.raises(OSError):
        wire.read(fds[1], 8192)
    for number in (0, 2):
        pairs[number][1].sendall(sealed[number][9:])
        assert wire.read(fds[number], 8192) == b"from %d" % number
        wire.write(fds[number], b"to %d" % number)
        assert clients[number].read() == b"to %d" % number
    for (_, theirs), fd in zip(pairs, fds, strict=True):
        wire.close(fd)
        theirs.close()
    assert len(wire) == 0


def test_what_the_kernel_does_not_take_is_written_again(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket]
) -> None:
    """The contract of write(2), as far as the caller goes: the same bytes again, from where it has got to."""
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    write_in_parts(wire, fd, client, os.urandom(2_000_000))
    assert wire.write(fd, b"") == 0


def test_an_empty_write_sends_what_waits(wire: TlsWire, files: Files, ends: tuple[int, socket.socket]) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    with pytest.raises(BlockingIOError):
        while True:
            wire.write(fd, bytes(16_384))
    with pytest.raises(BlockingIOError):
        wire.write(fd, b"")


@pytest.mark.parametrize("version", VERSIONS)
def test_the_end_of_the_clients_direction(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket], version: ssl.TLSVersion
) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate, version=version))
    shake(wire, fd, client)
    client.tls.write(b"the last")
    client.close_notify()
    assert wire.read(fd, 8192) == b"the last"
    assert wire.read(fd, 8192) == b""  # though TCP is open in both directions
    assert wire.read(fd, 8192) == b""
    if version is ssl.TLSVersion.TLSv1_3:
        assert wire.write(fd, b"an answer") == 9
        assert client.read() == b"an answer"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_end_of_our_direction(
    wire: TlsWire, files: Files, ends: tuple[int, socket.socket], version: ssl.TLSVersion
) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate, version=version))
    shake(wire, fd, client)
    wire.write(fd, b"the last")
    assert wire.shut(fd)
    assert client.read() == b"the last"
    assert client.read() is None  # a close_notify, and not a connection that was cut
    assert theirs.recv(1) == b""
    client.close_notify()
    assert wire.read(fd, 8192) == b""
    wire.close(fd)
    assert fd not in wire


def test_a_peer_that_leaves_without_a_word(wire: TlsWire, files: Files, ends: tuple[int, socket.socket]) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    shake(wire, fd, client)
    theirs.close()
    assert wire.read(fd, 8192) == b""


@pytest.mark.parametrize(
    ("sent", "plain"), [(b"GET / HTTP/1.1\r\n\r\n", True), (b"POST /x HTTP/1.1\r\n\r\n", True), (bytes(64), False)]
)
def test_what_is_no_handshake(wire: TlsWire, ends: tuple[int, socket.socket], sent: bytes, plain: bool) -> None:
    fd, theirs = ends
    wire.begin(fd)
    theirs.sendall(sent)
    with pytest.raises(HandshakeFailed) as failed:
        wire.handshake(fd)
    assert failed.value.plain_http is plain
    if plain:  # it is answered in plain text
        wire.write(fd, b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert theirs.recv(100) == b"HTTP/1.1 400 Bad Request\r\n\r\n"


def test_a_client_that_is_too_old_is_told_so(wire: TlsWire, files: Files, ends: tuple[int, socket.socket]) -> None:
    fd, theirs = ends
    wire.begin(fd)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with pytest.warns(DeprecationWarning):
        context.minimum_version = ssl.TLSVersion.TLSv1_1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    client = TlsClient(theirs, context)
    client.turn()
    with pytest.raises(HandshakeFailed, match="unsupported protocol"):
        wire.handshake(fd)
    with pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"):
        client.turn()


def test_what_a_failed_handshake_had_to_send_goes_with_it(wire: TlsWire, files: Files) -> None:
    """Its descriptor is the next connection's, which gets nothing of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    fd = ours.detach()
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, bytes(100))
    wire.begin(fd)
    theirs.sendall(TlsClient(theirs, trusting(files.certificate)).hello())
    with pytest.raises(BlockingIOError):
        wire.handshake(fd)
    assert wire.holds(fd)
    theirs.sendall(bytes(64))
    with pytest.raises(HandshakeFailed):
        wire.handshake(fd)
    assert not wire.holds(fd)
    wire.close(fd)
    theirs.close()


def test_a_server_name_that_is_not_ascii(
    wire: TlsWire, files: Files, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python has nobody to tell of it: it is a line of the log once in a while, and no trace for each client."""
    monkeypatch.setattr(sys, "unraisablehook", lifecycle._not_raised)
    for _ in range(3):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fd = ours.detach()
        wire.begin(fd)
        client = TlsClient(theirs, trusting(files.certificate))
        theirs.sendall(client.hello().replace(b"localhost", b"l\xf6calhost"))
        with pytest.raises(HandshakeFailed):
            wire.handshake(fd)
        wire.close(fd)
        theirs.close()
    assert caplog.messages == ["process.error_not_raised"]


def test_a_handshake_a_byte_at_a_time(wire: TlsWire, files: Files, ends: tuple[int, socket.socket]) -> None:
    fd, theirs = ends
    wire.begin(fd)
    client = TlsClient(theirs, trusting(files.certificate))
    for byte in client.hello():
        theirs.sendall(bytes([byte]))
        with pytest.raises(BlockingIOError):
            wire.handshake(fd)
    assert shake(wire, fd, client) == b""


def test_a_resumed_session(wire: TlsWire, files: Files) -> None:
    context = trusting(files.certificate, version=ssl.TLSVersion.TLSv1_2)
    session = None
    for _ in range(2):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fd = ours.detach()
        wire.begin(fd)
        client = TlsClient(theirs, context, session=session)
        shake(wire, fd, client)
        assert client.tls.session_reused is (session is not None)
        session = client.tls.session
        wire.close(fd)
        theirs.close()


def test_a_connection_that_speaks_no_tls_is_plain(wire: TlsWire, ends: tuple[int, socket.socket]) -> None:
    for each in (wire, PLAIN):
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        fd = ours.detach()
        theirs.sendall(b"text")
        assert each.read(fd, 8192) == b"text"
        with pytest.raises(BlockingIOError):
            each.read(fd, 8192)
        assert each.write(fd, b"answer") == 6
        assert theirs.recv(100) == b"answer"
        assert each.shut(fd)
        assert theirs.recv(100) == b""
        each.close(fd)
        theirs.close()
