"""Records that list ids: a head of 4 bytes, then 16 bytes for each id, in the order in which they came.

Pure functions on the bytes of such a record. What the head means is its dialect's business.
"""

from __future__ import annotations

from typing import Final

HEAD_BYTES: Final = 4
ID_BYTES: Final = 16


def count(value: bytes) -> int:
    """How many ids there are."""
    return max(0, len(value) - HEAD_BYTES) // ID_BYTES


def ids(value: bytes) -> list[bytes]:
    """All of them."""
    end = HEAD_BYTES + count(value) * ID_BYTES
    return [value[at : at + ID_BYTES] for at in range(HEAD_BYTES, end, ID_BYTES)]


def has(value: bytes, one: bytes) -> bool:
    """Whether it is one of the ids."""
    return _find(value, one) >= 0


def added(value: bytes | None, head: bytes, one: bytes) -> bytes:
    """The record with this head and with this id, which is there once. None: there is no record yet."""
    if len(head) != HEAD_BYTES or len(one) != ID_BYTES:
        raise ValueError(f"a head of {len(head)} and an id of {len(one)} bytes")
    if value is None:
        return head + one
    rest = value[HEAD_BYTES : HEAD_BYTES + count(value) * ID_BYTES]
    return head + rest if has(value, one) else head + rest + one


def removed(value: bytes, one: bytes) -> bytes:
    """The record without this id."""
    at = _find(value, one)
    return value if at < 0 else value[:at] + value[at + ID_BYTES :]


def _find(value: bytes, one: bytes) -> int:
    """Where the id stands, or -1."""
    if len(one) != ID_BYTES:
        return -1
    at = value.find(one, HEAD_BYTES)
    while at >= 0 and (at - HEAD_BYTES) % ID_BYTES:  # the end of one and the beginning of the next
        at = value.find(one, at + 1)
    return at
