"""Partitions: the parts of the address map of which each has one owner at a time, a router. Pure.

A key (a device's or a channel's address, or a record's key) belongs to one partition for ever. The checksum is there
because clients choose keys: bits of a UUID are constant, or what a client likes.
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

PARTITIONS: Final = 512
KEY_BYTES: Final = 16
_MASK: Final = PARTITIONS - 1
_TAIL_BYTES: Final = 2

BROADCASTS: Final = b"all"
"""The key of all broadcasts. The owner of its partition alone has them, and sends them to the workers."""


def partition(key: bytes) -> int:
    """The partition of a key, from 0 to 511."""
    return crc32(key) & _MASK


def key_in(number: int, label: bytes) -> bytes:
    """A key in the partition of this number. label: its first bytes, 14 of which count.

    For a record that belongs to something with another key: so it has the same owner, and is in the same file.
    """
    head = label[: KEY_BYTES - _TAIL_BYTES].ljust(KEY_BYTES - _TAIL_BYTES, b"\0")
    return head + _TAILS[number ^ partition(head + bytes(_TAIL_BYTES))]


def _tails() -> tuple[bytes, ...]:
    """The end of a key by the bits of its partition that it changes: CRC-32 is linear, so whatever comes before."""
    zero, found = partition(bytes(KEY_BYTES)), dict[int, bytes]()
    for number in range(1 << 8 * _TAIL_BYTES):
        tail = number.to_bytes(_TAIL_BYTES, "big")
        found.setdefault(zero ^ partition(bytes(KEY_BYTES - _TAIL_BYTES) + tail), tail)
        if len(found) == PARTITIONS:
            break
    return tuple(found[bits] for bits in range(PARTITIONS))


_TAILS: Final = _tails()


def fixed_owners(routers: int) -> tuple[int, ...]:
    """The number of the router that owns each partition, where the routers of one host share them: for each of
    them as many as for any other, or one more.

    Raises: ValueError for a number of routers that cannot have one partition each.
    """
    if not 1 <= routers <= PARTITIONS:
        raise ValueError(f"there are 1 to {PARTITIONS} routers, not {routers}")
    return tuple(number % routers for number in range(PARTITIONS))
