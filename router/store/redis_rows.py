"""How items, records and events lie in Redis: packed as bytes that the scripts read too. Pure.

| of | bytes, numbers with the highest byte first |
|---|---|
| item | version 8, sequence 8, expiry 8, urgency 1, 1 if it has a body 1, the body |
| record | expiry 8, the value |
| event | offset 8, sequence 8, expiry 8, bytes it counts for 4, length of its ID 2, ID, |
| | length of its headers 4, headers as JSON, the body |

The scripts (`redis_lua/`) know these places. Lua's numbers are doubles, so they take a number of 8 bytes as two of 4.

Beside its own expiry, by which the owner of a partition goes, a key has a time to live of Redis': GRACE_S longer, for
the clock of Redis is another one. It only cleans up.
"""

from __future__ import annotations

from collections.abc import Iterator
from struct import Struct
from typing import Any, Final

import msgspec

from router.common.item import Item
from router.common.numbers import SECOND
from router.common.position import LogEvent
from router.store.base import Append, event_bytes
from router.store.changes import Record

GRACE_S: Final = 60
_LONGEST_S: Final = 10**9
"""What lives for longer gets no time to live: Redis counts in milliseconds."""

_ITEM: Final = Struct(">QQQBB")
_NUMBER: Final = Struct(">Q")
_EVENT: Final = Struct(">QQIH")
_EVENT_FROM: Final = Struct(">QQQIH")
_LENGTH: Final = Struct(">I")
ITEM_HEAD: Final = _ITEM.size
_pack_item = _ITEM.pack

_encode = msgspec.json.Encoder().encode
_headers_in = msgspec.json.Decoder(dict[str, str])

number = _NUMBER.pack


def time_to_live(expires: int, now: int) -> int:
    """Of the key, in seconds; 0: it has none."""
    left = expires - now + GRACE_S
    return 0 if left > _LONGEST_S else max(left, 1)


def item_head(item: Item) -> bytes:
    """All but the body. Raises: struct.error for a number out of range."""
    return _pack_item(item[1], item[2], item[3], item[4], item[5] is not None)


def items_of(flat: list[bytes], now: int) -> list[Item]:
    """Those that have not expired, in order of slot. flat: slots and values, by turns.

    Raises: ValueError for what is damaged.
    """
    found = []
    for at in range(0, len(flat), 2):
        value = flat[at + 1]
        try:
            version, seq, expires, urgency, has_body = _ITEM.unpack_from(value)
        except Exception as error:
            raise ValueError(f"an item of {len(value)} bytes") from error
        if expires > now:
            body = value[ITEM_HEAD:].decode() if has_body else None
            found.append(Item(flat[at].decode(), version, seq, expires, urgency, body))
    found.sort()
    return found


def record_value(record: Record) -> bytes:
    """Raises: struct.error for an expiry out of range."""
    return number(record[1]) + record[0]


def live_value(stored: bytes, now: int) -> bytes | None:
    """The value of a record that has not expired."""
    (expires,) = _NUMBER.unpack_from(stored)
    return None if 0 < expires <= now else stored[8:]


def event_value(event: Append) -> bytes:
    """All but the offset, which is perhaps not known yet."""
    name = event.id.encode()
    headers = _encode(event.headers) if event.headers else b""
    head = _EVENT.pack(event.sequence, event.expires, event_bytes(event), len(name))
    return b"".join((head, name, _LENGTH.pack(len(headers)), headers, event.body.encode()))


def events_of(members: list[bytes]) -> Iterator[LogEvent]:
    """Raises: ValueError for what is damaged."""
    for member in members:
        try:
            yield _event(member)
        except Exception as error:
            raise ValueError(f"an event of {len(member)} bytes") from error


def _event(member: bytes) -> LogEvent:
    offset, sequence, expires, _, length = _EVENT_FROM.unpack_from(member)
    at = _EVENT_FROM.size
    name = member[at : at + length].decode()
    at += length
    (length,) = _LENGTH.unpack_from(member, at)
    at += _LENGTH.size
    headers: Any = _headers_in.decode(member[at : at + length]) if length else {}
    time, tag = divmod(sequence, SECOND)
    return LogEvent(offset, time, tag, expires, name, headers, member[at + length :].decode())
