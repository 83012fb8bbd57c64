"""The TLS of a load process's devices: an `ssl.SSLObject` each, and two buffers for all of them. Bytes in, bytes out.

Devices take any certificate, since the server makes its own for the run, and resume no session: each handshake is a
whole one.
"""

import ssl
from typing import Final

_RECORD_BYTES: Final = 16_384


class TlsClients:
    """Connections by their descriptors."""

    def __init__(self) -> None:
        self._context = context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_alpn_protocols(["http/1.1"])
        self._in, self._out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._open: dict[int, ssl.SSLObject] = {}
        self._shaking: set[int] = set()

    def begin(self, descriptor: int) -> bytes:
        """A new connection. Returns: what it sends first."""
        self._open[descriptor] = self._context.wrap_bio(self._in, self._out, server_hostname="localhost")
        self._shaking.add(descriptor)
        self._shake(descriptor)
        return self._out.read()

    def _shake(self, descriptor: int) -> bool:
        try:
            self._open[descriptor].do_handshake()
        except ssl.SSLWantReadError:
            return False
        self._shaking.discard(descriptor)
        return True

    def received(self, descriptor: int, data: bytes) -> tuple[bytes, bytes, bool]:
        """What has come. Returns: its text, what is to be sent, and whether the handshake is done now.

        Raises:
          OSError: the server does not speak TLS, or broke it off.
        """
        self._in.write(data)
        done = descriptor in self._shaking and self._shake(descriptor)
        parts: list[bytes] = []
        if descriptor not in self._shaking:
            tls = self._open[descriptor]
            try:
                while self._in.pending and (part := tls.read(_RECORD_BYTES)):
                    parts.append(part)
            except ssl.SSLWantReadError:
                pass
        if self._in.pending:
            self._in.read()
        return b"".join(parts), self._out.read(), done

    def seal(self, descriptor: int, data: bytes) -> bytes:
        """What is sent for these bytes."""
        self._open[descriptor].write(data)
        return self._out.read()

    def forget(self, descriptor: int) -> None:
        """It is closed."""
        self._open.pop(descriptor, None)
        self._shaking.discard(descriptor)
