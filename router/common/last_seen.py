"""When a device was last seen, as its record has it."""

from __future__ import annotations

import struct
from typing import Final

ROUNDS: Final = 3
"""In the time that a record lives, the records of devices that are connected are renewed so often."""
_DAY_S: Final = 86_400
_stamp: Final = struct.Struct(">I")


def stamp(unix_time: float, ttl: int) -> bytes:
    """When a device said hello, 4 bytes for its record, which is written anew when this has changed. That is once a
    day, or as often as a round where records live for less than three days."""
    unit = min(_DAY_S, max(1, ttl // ROUNDS)) if ttl else _DAY_S
    return _stamp.pack(int(unix_time) // unit & 0xFFFF_FFFF)
