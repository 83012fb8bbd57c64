"""One connection of a device: its state, without I/O."""

from __future__ import annotations

from typing import Final

import msgspec

from farm.dialects import Session
from farm.transports import HTTP, Finder, Reader, Transport
from farm.worker.wheel import Bucket

HANDSHAKE: Final = 0
"""Its request has not come, or is not answered yet."""
OPEN: Final = 1
CLOSING: Final = 2
"""Our close frame or answer is out, or waits in `out`. What comes is thrown away; while the peer has not closed too,
`reader` looks for that. Then the peer ends the connection."""
IDLE: Final = 3
"""An answer was given, and another request may come."""


class Connection(msgspec.Struct, gc=False, eq=False):
    """One device connection.

    The garbage collector does not see it, nor a session (`farm.dialects.Session`): nothing that one of them refers to
    may refer back to it. Data that belongs to a connection is in a table of the worker, and closing removes it.
    """

    fd: int
    mask: int  # what epoll watches
    since: float  # accepted, or the last answer given; once open, the last tick before it was read
    transport: Transport = HTTP
    phase: int = HANDSHAKE
    session: Session | None = None
    # An incomplete request, an incomplete message, or what looks for the peer's close.
    reader: bytearray | Reader | Finder | None = None
    out: bytearray | None = None  # what the kernel did not take
    bucket: Bucket | None = None
    call: int = 0  # number of the call whose reply is awaited
