"""One device connection: what a worker knows of it, without I/O."""

from __future__ import annotations

from typing import Final

from farm.dialects import Session
from farm.frames import CloseFinder, FrameReader
from farm.wheel import Bucket

HANDSHAKE: Final = 0
OPEN: Final = 1
CLOSING: Final = 2
"""Our close frame or answer is out, or waits in `out`. What comes is thrown away; while the peer has not sent its close
frame, `reader` looks for that. Then the peer ends the connection."""


class Connection:
    """One device connection."""

    __slots__ = ("ask", "bucket", "fd", "held", "mask", "out", "phase", "reader", "session", "since")

    def __init__(self, fd: int, mask: int, now: float) -> None:
        self.fd = fd
        self.phase = HANDSHAKE
        self.mask = mask  # what epoll watches
        self.since = now  # accepted; once open, last read
        self.session: Session | None = None
        # An incomplete request, an incomplete message, or what looks for the peer's close frame.
        self.reader: bytearray | FrameReader | CloseFinder | None = None
        self.out: bytearray | None = None  # what the kernel did not take
        self.bucket: Bucket | None = None
        self.ask = 0  # the question whose answer is waited for
        self.held: list[tuple[int, bytes]] | None = None  # messages that came behind that question
