"""One device connection, and the table of who is attached: what a worker knows, without I/O."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from farm.dialects import Ask, Session
from farm.frames import FrameReader
from farm.wheel import Bucket
from router import vocabulary as v

HANDSHAKE: Final = 0
OPEN: Final = 1
CLOSING: Final = 2
"""Our close or answer is out, or waits in `out`; what comes is thrown away until the peer ends."""


class Connection:
    """One device connection."""

    __slots__ = ("ask", "bucket", "fd", "held", "mask", "out", "phase", "reader", "session", "since")

    def __init__(self, fd: int, mask: int, now: float) -> None:
        self.fd = fd
        self.phase = HANDSHAKE
        self.mask = mask  # what epoll watches
        self.since = now  # accepted; once open, last read
        self.session: Session | None = None
        self.reader: bytearray | FrameReader | None = None  # an incomplete request, or an incomplete message
        self.out: bytearray | None = None  # what the kernel did not take
        self.bucket: Bucket | None = None
        self.ask = 0  # the question whose answer is waited for
        self.held: list[tuple[int, bytes]] | None = None  # messages that came behind that question


class Attachments:
    """Which connection holds which device, and which questions to the router are open.

    The router hears LEAVE for a device only when nobody here holds it or is about to: a LEAVE on its way would
    otherwise take the attachment of a newer connection with it.
    """

    def __init__(self, tell: Callable[[Any], None]) -> None:
        self._tell = tell
        self.devices: dict[bytes, Connection] = {}
        self._attaching: dict[bytes, int] = {}  # device key -> attachments without an answer
        self._asks: dict[int, tuple[Connection, Ask]] = {}
        self._number = 0

    def ask(self, connection: Connection, ask: Ask) -> None:
        """Put a question to the router; the connection waits for its answer."""
        self._number = number = self._number + 1
        connection.ask = number
        self._asks[number] = (connection, ask)
        word = ask.word
        if word[0] == v.ATTACH:
            self._attaching[word[2]] = self._attaching.get(word[2], 0) + 1
        self._tell((word[0], number, *word[2:]))

    def answered(self, number: int, status: int) -> tuple[Connection, Ask, Connection | None] | None:
        """An answer has come.

        Returns: who asked, what, and an older connection of the device that has lost it to this one; None if the
        question is not open any more (said twice, because the link was renewed).
        """
        found = self._asks.pop(number, None)
        if found is None:
            return None
        connection, ask = found
        older = self._attached(connection, ask.word[2], status) if ask.word[0] == v.ATTACH else None
        return connection, ask, older

    def _attached(self, connection: Connection, key: bytes, status: int) -> Connection | None:
        left = self._attaching[key] - 1
        if left:
            self._attaching[key] = left
        else:
            del self._attaching[key]
        if status != v.OK or connection.phase != OPEN:
            self._leave(key)
            return None
        older = self.devices.get(key)
        self.devices[key] = connection
        return older if older is not connection else None

    def shed(self, key: bytes) -> Connection | None:
        """The device has a newer connection elsewhere. Returns: the one that it had here."""
        return self.devices.pop(key, None)

    def forget(self, connection: Connection) -> None:
        """The connection's session has ended: nothing is delivered to it from here on."""
        session = connection.session
        connection.session = None
        if session is not None and session.key is not None and self.devices.get(session.key) is connection:
            del self.devices[session.key]
            self._leave(session.key)

    def _leave(self, key: bytes) -> None:
        if key not in self.devices and key not in self._attaching:
            self._tell((v.LEAVE, key))
