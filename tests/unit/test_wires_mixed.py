"""TLS connections over the buffers that they share, at random: each is sent what is its own, whole and in order."""

from __future__ import annotations

import contextlib
import random
import select
import socket
from pathlib import Path

import pytest
from support.certificates import write
from support.tls_client import TlsClient, trusting

from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import TlsWire

CONNECTIONS = 5
STEPS = 1500


class Pair:
    """A connection from both sides, and what each is still to get."""

    def __init__(self, wire: TlsWire, client_context: object, chance: random.Random) -> None:
        ours, self.theirs = socket.socketpair()
        ours.setblocking(False)
        for end in (ours, self.theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 9000)
        self.fd = ours.detach()
        self.wire = wire
        self.chance = chance
        self.client = TlsClient(self.theirs, client_context)  # type: ignore[arg-type]
        self.out = bytearray()  # of the server, as a connection's buffer
        self.sealed = bytearray()  # of the client, not sent yet
        self.to_client, self.to_server = bytearray(), bytearray()
        self.open = False
        wire.begin(self.fd)

    def step(self) -> None:
        self.chance.choice((self.server_writes, self.server_reads, self.client_writes, self.client_reads, self.send))()

    def send(self) -> None:
        """Some of what the client has sealed, cut anywhere."""
        with contextlib.suppress(BlockingIOError):
            del self.sealed[: self.theirs.send(self.sealed[: self.chance.choice((1, 50, 5000))])]

    def handshake(self) -> None:
        self.client.receive()
        with contextlib.suppress(OSError):
            self.client.tls.do_handshake()
        self.sealed += self.client._out.read()
        self.send()
        with contextlib.suppress(BlockingIOError):
            self.took(self.wire.handshake(self.fd))
            self.open = True

    def took(self, data: bytes) -> None:
        assert self.to_server.startswith(data)
        del self.to_server[: len(data)]

    def server_writes(self) -> None:
        if self.chance.random() < 0.5 and len(self.out) < 60_000:
            data = self.chance.randbytes(self.chance.choice((1, 200, 40_000)))
            self.out += data
            self.to_client += data
        if self.out or self.chance.random() < 0.1:
            with contextlib.suppress(BlockingIOError):
                del self.out[: self.wire.write(self.fd, self.out)]

    def server_reads(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self.took(self.wire.read(self.fd, self.chance.choice((1, 100, 8192))))

    def client_writes(self) -> None:
        if len(self.sealed) > 20_000:
            return
        if self.chance.random() < 0.3:
            self.sealed += self.client.key_update(self.chance.random() < 0.7)
        else:
            data = self.chance.randbytes(self.chance.choice((1, 300, 16_384)))
            self.to_server += data
            self.sealed += self.client.sealed(data)

    def client_reads(self) -> None:
        found = self.client.read()
        assert found is not None
        assert self.to_client.startswith(found)
        del self.to_client[: len(found)]
        self.sealed += self.client._out.read()


@pytest.mark.parametrize("seed", range(3))
def test_each_has_its_own(tmp_path: Path, seed: int) -> None:
    files = write(tmp_path, "localhost")
    wire = TlsWire(Contexts(TlsOptions(certificate=(str(files.certificate),), key=(str(files.key),))).front)
    chance = random.Random(seed)
    pairs = [Pair(wire, trusting(files.certificate), chance) for _ in range(CONNECTIONS)]
    for _ in range(STEPS):
        pair = chance.choice(pairs)
        if pair.open:
            pair.step()
        else:
            pair.handshake()
        assert not (wire._in.pending or wire._out.pending)
    for pair in pairs:
        while not pair.open:
            pair.handshake()
        while pair.out or pair.sealed or pair.to_client or pair.to_server:
            select.select([pair.fd, pair.theirs], [], [], 0.01)
            pair.send()
            pair.server_reads()
            with contextlib.suppress(BlockingIOError):
                del pair.out[: wire.write(pair.fd, pair.out)]
            pair.client_reads()
        wire.close(pair.fd)
        pair.theirs.close()
    assert len(wire) == len(wire._unsent) == 0
