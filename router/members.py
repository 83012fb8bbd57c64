"""Records that list members: a head of 4 bytes, then 16 bytes for each member, in the order in which they came.

Pure functions on the bytes of such a record. What the head means is its dialect's business.
"""

from __future__ import annotations

from typing import Final

HEAD_BYTES: Final = 4
MEMBER_BYTES: Final = 16


def count(value: bytes) -> int:
    """How many members there are."""
    return max(0, len(value) - HEAD_BYTES) // MEMBER_BYTES


def members(value: bytes) -> list[bytes]:
    """All of them."""
    end = HEAD_BYTES + count(value) * MEMBER_BYTES
    return [value[at : at + MEMBER_BYTES] for at in range(HEAD_BYTES, end, MEMBER_BYTES)]


def has(value: bytes, member: bytes) -> bool:
    """Whether it is one of the members."""
    return _find(value, member) >= 0


def added(value: bytes | None, head: bytes, member: bytes) -> bytes:
    """The record with this head and with this member, which is there once. None: there is no record yet."""
    if len(head) != HEAD_BYTES or len(member) != MEMBER_BYTES:
        raise ValueError(f"a head of {len(head)} and a member of {len(member)} bytes")
    if value is None:
        return head + member
    rest = value[HEAD_BYTES : HEAD_BYTES + count(value) * MEMBER_BYTES]
    return head + rest if has(value, member) else head + rest + member


def removed(value: bytes, member: bytes) -> bytes:
    """The record without this member."""
    at = _find(value, member)
    return value if at < 0 else value[:at] + value[at + MEMBER_BYTES :]


def _find(value: bytes, member: bytes) -> int:
    """Where the member stands, or -1."""
    if len(member) != MEMBER_BYTES:
        return -1
    at = value.find(member, HEAD_BYTES)
    while at >= 0 and (at - HEAD_BYTES) % MEMBER_BYTES:  # the end of one member and the beginning of the next
        at = value.find(member, at + 1)
    return at
