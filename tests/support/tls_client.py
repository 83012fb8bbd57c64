"""A TLS client over a socket that does not block, turn by turn: Python's own, with its bytes in memory."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import socket
import ssl
from pathlib import Path


def trusting(*certificates: Path, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    """A client's context that trusts these alone. version: the only one that it speaks."""
    context = ssl.create_default_context()
    for certificate in certificates:
        context.load_verify_locations(certificate)
    context.set_alpn_protocols(["http/1.1"])
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


@functools.cache
def _libssl() -> ctypes.CDLL:
    """The library that Python's ssl has loaded."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "/libssl" in line:
            return ctypes.CDLL(line.split()[-1])
    raise AssertionError("Python's ssl has no library of its own")


class TlsClient:
    """One connection."""

    def __init__(
        self,
        end: socket.socket,
        context: ssl.SSLContext,
        name: str = "localhost",
        session: ssl.SSLSession | None = None,
    ) -> None:
        end.setblocking(False)
        self.end = end
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self._out, server_hostname=name, session=session)

    def turn(self) -> bool:
        """Do what can be done of the handshake, and send it. Returns: whether it is done."""
        self.receive()
        done = True
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            done = False
        self.flush()
        return done

    def hello(self) -> bytes:
        """Its first message, which is not sent."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        return self._out.read()

    @property
    def has_ended(self) -> bool:
        """Whether the other side has closed the connection; what came before that is thrown away."""
        try:
            while self.end.recv(65_536):
                pass
        except BlockingIOError:
            return False
        except ConnectionError:
            pass
        return True

    def receive(self) -> int:
        """Take what has come, undecrypted. Returns: how many bytes."""
        total = 0
        with contextlib.suppress(BlockingIOError):
            while data := self.end.recv(65_536):
                self._in.write(data)
                total += len(data)
        return total

    def flush(self) -> None:
        """Send what is sealed."""
        if data := self._out.read():
            self.end.sendall(data)

    def send(self, data: bytes) -> None:
        """Seal and send."""
        self.tls.write(data)
        self.flush()

    def sealed(self, data: bytes) -> bytes:
        """Seal, and give what is to be sent."""
        self.tls.write(data)
        return self._out.read()

    def read(self) -> bytes | None:
        """What has come, as text; None: the server has sent its close_notify, and nothing before it."""
        self.receive()
        found = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                try:
                    part = self.tls.read(65_536)
                except ssl.SSLZeroReturnError:
                    part = b""
                if not part:
                    return found or None
                found += part
        return found

    def key_update(self, requested: bool = True) -> bytes:
        """A KeyUpdate (RFC 8446, 4.6.3), which is to be sent. requested: whether the server has to answer with one."""
        # Python has no function for it. Behind the head of its object stand its socket and then OpenSSL's SSL.
        (session,) = ctypes.cast(id(self.tls._sslobj) + 24, ctypes.POINTER(ctypes.c_void_p))[:1]
        assert _libssl().SSL_key_update(ctypes.c_void_p(session), int(requested)) == 1
        assert _libssl().SSL_do_handshake(ctypes.c_void_p(session)) == 1
        return self._out.read()

    def close_notify(self) -> None:
        """Say that no more comes."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.flush()
