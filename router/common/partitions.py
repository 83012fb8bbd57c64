"""Partitions: the parts of the address map of which each has one owner at a time, a router. Pure.

A key (a device's or a channel's address, or a record's key) belongs to one partition for ever. The checksum is there
because clients choose keys: bits of a UUID are constant, or what a client likes.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

PARTITIONS: Final = 512
_MASK: Final = PARTITIONS - 1

BROADCASTS: Final = b"all"
"""The key of all broadcasts. The owner of its partition alone has them, and sends them to the workers."""


def partition(key: bytes) -> int:
    """The partition of a key, from 0 to 511."""
    return crc32(key) & _MASK


def fixed_owners(routers: int) -> tuple[int, ...]:
    """The number of the router that owns each partition, where the routers of one host share them: for each of
    them as many as for any other, or one more.

    Raises: ValueError for a number of routers that cannot have one partition each.
    """
    if not 1 <= routers <= PARTITIONS:
        raise ValueError(f"there are 1 to {PARTITIONS} routers, not {routers}")
    return tuple(number % routers for number in range(PARTITIONS))
