"""Below HTTP and WebSocket: how bytes get to and from a descriptor, as they are or in TLS.

A wire has read, write, shut and close, by descriptor. Those of the plain wire are the functions of the kernel, which
whoever reads and writes takes once: a plain connection costs nothing more than without a wire.

The TLS wire keeps one `ssl.SSLObject` a connection and nothing else: the two buffers between TLS and the descriptors
are shared by all connections, and are empty between calls. What was read from a descriptor is decrypted at once and as
a whole, so nothing is ever here that epoll does not report. A read takes so much from a descriptor and no more,
whatever it means to TLS: a peer that sends KeyUpdates without end gets its turn like others. (An `ssl.SSLSocket` would
be larger by its own socket, and would read on until there is a byte for the application, which such a peer never
sends.)

A record that the kernel does not take whole counts as not written: the caller has to write the same bytes again, as it
has to on a plain connection, and it is not encrypted a second time.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Final, NoReturn, Protocol

from router.common.poller import half_close

_RECORD_BYTES: Final = 16_384
"""Of text in one record, at most (RFC 8446, 5.1)."""
_MOST_UNSENT: Final = 65_536
"""Bytes of TLS's own that wait for a peer which does not read: beyond, the connection ends."""
_MOST_SILENT: Final = 65_536
"""Bytes of a peer's that are no text: beyond, the connection ends. New keys, for one, take 20 us each, and count for no
limit of what a device may send."""
_SILENT_A_TEXT: Final = 64
"""So many of them, and twice what it is long, go with a text: as where each record comes in two parts."""
_HANDSHAKE_BYTES: Final = 16_384
"""That are read at once."""
_PLAIN_HTTP: Final = ("HTTP_REQUEST", "HTTPS_PROXY_REQUEST")

Buffer = bytes | bytearray | memoryview


class Wire(Protocol):
    """What reads and writes descriptors, which do not block."""

    @property
    def read(self) -> Callable[[int, int], bytes]:
        """Read at most about so many bytes; b"" when the peer sends no more. Raises: BlockingIOError when nothing has
        come, OSError when the connection is broken."""

    @property
    def write(self) -> Callable[[int, Buffer], int]:
        """Write, and give the number of bytes that were taken; what was not has to be written again, with the same
        bytes at its beginning. Raises: BlockingIOError when none was taken, OSError when the connection is broken."""

    @property
    def shut(self) -> Callable[[int], bool]:
        """End our direction, once all is written. Returns: whether the connection was still there."""

    @property
    def close(self) -> Callable[[int], None]:
        """Close the descriptor."""


class PlainWire:
    """Bytes as they are."""

    read = staticmethod(os.read)
    write = staticmethod(os.write)
    shut = staticmethod(half_close)
    close = staticmethod(os.close)


PLAIN: Final = PlainWire()


class HandshakeFailed(ConnectionError):
    """A TLS handshake has failed, and the peer was told why. Its text is for the log. The connection is plain now.

    plain_http: the peer has sent a plain HTTP request instead, and may be answered so. ended: it has left.
    """

    def __init__(self, why: str, plain_http: bool = False, ended: bool = False) -> None:
        super().__init__(why)
        self.plain_http = plain_http
        self.ended = ended


class TlsWire:
    """TLS for those connections for which it was begun. All others are plain."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._in = ssl.MemoryBIO()
        self._out = ssl.MemoryBIO()
        self._open: dict[int, ssl.SSLObject] = {}
        self._unsent: dict[int, tuple[bytes, int]] = {}
        """Bytes that the kernel has not taken, and how many of the caller's they stand for."""
        self._silent: dict[int, int] = {}
        """Bytes that were read without any text."""
        self.handshakes = 0
        """That are done."""
        self.resumed = 0
        """Those of them that resumed a session."""
        self.answered = False
        """Whether the last step of a handshake had an answer: if not, it was a part of a message, and no work."""

    def __contains__(self, fd: object) -> bool:
        """Whether this connection speaks TLS."""
        return fd in self._open

    def __len__(self) -> int:
        """The number of connections that speak TLS."""
        return len(self._open)

    def holds(self, fd: int) -> bool:
        """Whether something waits here that the kernel has not taken: an empty write sends it."""
        return fd in self._unsent

    # ------------------------------------------------------------------ the handshake

    def begin(self, fd: int) -> None:
        """A client's handshake comes next on this connection."""
        self._open[fd] = self._context.wrap_bio(self._in, self._out, server_side=True)

    def handshake(self, fd: int) -> bytes:
        """Read, and go on with the handshake. Returns once it is done: what has come behind it.

        Raises: BlockingIOError when there is more to come, HandshakeFailed.
        """
        tls = self._open[fd]
        self.answered = False
        try:
            data = os.read(fd, _HANDSHAKE_BYTES)
        except BlockingIOError:
            raise
        except OSError as error:
            raise HandshakeFailed(error.strerror or str(error), ended=True) from None
        if not data:
            raise HandshakeFailed("the peer has left", ended=True)
        self._in.write(data)
        try:
            tls.do_handshake()
        except ssl.SSLWantReadError:
            self.answered = self._out.pending > 0
            self._send_or_fail(fd)
            raise BlockingIOError from None
        except ssl.SSLError as error:
            self._fail(fd, error)
        except BaseException:
            self._empty()
            raise
        text = self._behind(fd, tls) if self._in.pending else b""
        self._send_or_fail(fd)
        self.handshakes += 1
        self.resumed += bool(tls.session_reused)
        return text

    def _behind(self, fd: int, tls: ssl.SSLObject) -> bytes:
        try:
            return self._decrypt(fd, tls)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise HandshakeFailed(error.strerror or str(error)) from None

    def _fail(self, fd: int, error: ssl.SSLError) -> NoReturn:
        alert = self._empty()
        why = (error.reason or str(error)).lower().replace("_", " ")
        del self._open[fd]
        self._unsent.pop(fd, None)
        plain_http = error.reason in _PLAIN_HTTP
        if not plain_http:
            with contextlib.suppress(OSError):
                os.write(fd, alert)
        raise HandshakeFailed(why, plain_http)

    def _empty(self) -> bytes:
        """Whatever has happened, nothing of one connection stays in the buffers for the next. Returns: what was to be
        sent."""
        self._in.read()
        return self._out.read()

    def _send_or_fail(self, fd: int) -> None:
        try:
            self._send(fd)
        except OSError as error:
            raise HandshakeFailed(error.strerror or str(error)) from None

    # ------------------------------------------------------------------ reading

    def read(self, fd: int, size: int) -> bytes:
        """As `Wire` has it. A little more than `size` may be returned: the end of a record that had begun before."""
        tls = self._open.get(fd)
        data = os.read(fd, size)
        if tls is None or not data:
            return data
        self._in.write(data)
        try:
            text = self._decrypt(fd, tls)
            if self._silent and fd in self._silent:
                self._less_silent(fd, len(text))
            return text
        except BlockingIOError:
            self._more_silent(fd, len(data))
            raise
        finally:  # there may be an answer to something that is nothing to the caller
            if self._out.pending or fd in self._unsent:
                self._send(fd)

    def _more_silent(self, fd: int, size: int) -> None:
        """Raises: ConnectionResetError."""
        size += self._silent.get(fd, 0)
        if size > _MOST_SILENT:
            raise ConnectionResetError("the peer sends what is nothing to the application, and too much of it")
        self._silent[fd] = size

    def _less_silent(self, fd: int, size: int) -> None:
        left = self._silent[fd] - _SILENT_A_TEXT - 2 * size
        if left > 0:
            self._silent[fd] = left
        else:
            del self._silent[fd]

    def _decrypt(self, fd: int, tls: ssl.SSLObject) -> bytes:
        """All that is in the buffer."""
        parts: list[bytes] = []
        ended = False
        try:
            while self._in.pending:
                part = tls.read(_RECORD_BYTES)
                if not part:
                    ended = True
                    break
                parts.append(part)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                os.write(fd, self._out.read())  # the alert that says why
            raise
        finally:
            if self._in.pending:
                self._in.read()
        if not ended:
            if not parts:
                raise BlockingIOError
        elif parts:
            _end_input(fd)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    # ------------------------------------------------------------------ writing

    def write(self, fd: int, data: Buffer) -> int:
        """As `Wire` has it."""
        tls = self._open.get(fd)
        if tls is None:
            return os.write(fd, data)
        done = self._resume(fd) if fd in self._unsent else 0
        size = len(data)
        while done < size:
            part = data if not done and size <= _RECORD_BYTES else bytes(data[done : done + _RECORD_BYTES])
            try:
                tls.write(part)
            except BaseException:
                self._empty()
                raise
            if not self._give(fd, self._out.read(), len(part)):
                if not done:
                    raise BlockingIOError
                break
            done += len(part)
        return done

    def _give(self, fd: int, sealed: bytes, stands_for: int) -> bool:
        """Returns: whether the kernel has taken it. Otherwise the rest is kept."""
        try:
            sent = os.write(fd, sealed)
        except BlockingIOError:
            sent = 0
        if sent == len(sealed):
            return True
        self._unsent[fd] = (sealed[sent:], stands_for)
        return False

    def _resume(self, fd: int) -> int:
        """Write what was left. Returns: for how many of the caller's bytes it stood. Raises: BlockingIOError."""
        sealed, stood_for = self._unsent.pop(fd)
        if not self._give(fd, sealed, stood_for):
            raise BlockingIOError
        return stood_for

    def _send(self, fd: int) -> None:
        """Write what TLS itself has to say. Raises: ConnectionError if too much of it waits."""
        sealed = self._out.read()
        before, stands_for = self._unsent.pop(fd, (b"", 0))
        if not self._give(fd, before + sealed, stands_for):
            if len(self._unsent[fd][0]) > _MOST_UNSENT:
                raise ConnectionResetError("the peer does not read what TLS has to say")
        elif stands_for:  # the caller has to be told, when it writes these again
            self._unsent[fd] = (b"", stands_for)

    # ------------------------------------------------------------------ the end

    def shut(self, fd: int) -> bool:
        """As `Wire` has it: our close_notify, and the end of our direction."""
        tls = self._open.get(fd)
        if tls is not None:
            with contextlib.suppress(OSError):
                try:
                    tls.unwrap()
                finally:
                    self._send(fd)
        return half_close(fd)

    def close(self, fd: int) -> None:
        """As `Wire` has it. Our close_notify goes out before, if the peer can have it."""
        tls = self._open.pop(fd, None)
        if self._silent:
            self._silent.pop(fd, None)
        if tls is not None and self._unsent.pop(fd, None) is None:
            with contextlib.suppress(OSError):
                try:
                    tls.unwrap()
                finally:
                    if sealed := self._out.read():
                        os.write(fd, sealed)
        os.close(fd)


def _end_input(fd: int) -> None:
    """The peer has said that no more comes, behind something that is to be handled first: have the kernel report an end
    once that is done."""
    shell = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        shell.shutdown(socket.SHUT_RD)
    except OSError:  # then it is broken, which is reported, too
        pass
    finally:
        shell.detach()
