"""Changes of records that depend on what a record holds. Pure: what a store does in one step, on one record or two.

A store that can do so makes them inside its own commit: SQLite within one `apply`, Redis in a script. One that has only
compare-and-swap reads, calls `make` and writes, until no other write came between.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from router.common.id_set import added, count, has, removed

KEEP_EXPIRY: Final = -1
"""As the expiry of a record: the one that is stored. If none is stored, nothing is written."""

RecordName = tuple[str, bytes]
"""Space and key."""
Record = tuple[bytes, int]
"""Value, and expiry in unix seconds, 0: never."""

CHANGED: Final = 0
"""Outcome: the change was made."""
UNCHANGED: Final = 1
"""Outcome: what it depends on was not so. Of a set that the member is in it, or is not, already."""
FULL: Final = 2
"""Outcome: the set has as many members as it may have. Nothing was written."""

TAKER_BYTES: Final = 16
STAMP_BYTES: Final = 8
TAKEN_S: Final = 600
"""Seconds, at most, for which a record that was taken is kept for a repeat by its taker."""
_TAKEN: Final = "#taken"


class Put(NamedTuple):
    """Write the record, whatever it holds; None deletes it. Between other changes of the same record."""

    value: bytes | None
    expires: int


class PutIfAbsent(NamedTuple):
    """Write the record if there is none."""

    value: bytes
    expires: int


class PutIfNewer(NamedTuple):
    """Write the record if there is none, or if the first 8 bytes of its value, a number, are less than this one's."""

    value: bytes
    expires: int


class Take(NamedTuple):
    """Delete the record and get its value, once. `taker`, 16 random bytes, names the request: repeated with the
    same, because its reply did not arrive, it gets the value again."""

    taker: bytes


class SetAdd(NamedTuple):
    """Add a member to a set of ids (`router.common.id_set`), made if it is missing, and write its head and expiry anew.
    UNCHANGED if it is one already, FULL if it is none and there are `most`."""

    member: bytes
    head: bytes
    expires: int
    most: int


class SetRemove(NamedTuple):
    """Remove a member from a set of ids. UNCHANGED if it is none: of several who remove one, one is told CHANGED."""

    member: bytes


Change = Put | PutIfAbsent | PutIfNewer | Take | SetAdd | SetRemove


class Changed(NamedTuple):
    """What became of a change."""

    outcome: int
    value: bytes | None = None  # what was taken


def names(name: RecordName, change: Change) -> tuple[RecordName, ...]:
    """The records that the change reads and writes."""
    return (name, _taken(name)) if type(change) is Take else (name,)


def make(
    name: RecordName,
    change: Change,
    now: int,
    get: Callable[[RecordName], Record | None],
    put: Callable[[RecordName, Record | None], None],
) -> Changed:
    """Change a record by its store's `get`, which may give what has expired, and `put`, for which None deletes.

    Raises: ValueError for a change that cannot be one, whatever the record holds.
    """
    before = _alive(get(name), now)
    if isinstance(change, SetAdd):
        return _set_add(name, change, before, put)
    if isinstance(change, SetRemove):
        if before is None or not has(before[0], change.member):
            return Changed(UNCHANGED)
        put(name, (removed(before[0], change.member), before[1]))
        return Changed(CHANGED)
    if isinstance(change, Take):
        return _take(name, change.taker, before, now, get, put)
    value, expires = change
    if isinstance(change, PutIfAbsent) and before is not None:
        return Changed(UNCHANGED)
    if isinstance(change, PutIfNewer):
        if value is None or len(value) < STAMP_BYTES:
            raise ValueError(f"a value that may be newer begins with {STAMP_BYTES} bytes that tell")
        if before is not None and before[0][:STAMP_BYTES] >= value[:STAMP_BYTES]:
            return Changed(UNCHANGED)
    if expires == KEEP_EXPIRY:
        if before is None:
            return Changed(UNCHANGED)
        expires = before[1]
    put(name, None if value is None else (value, expires))
    return Changed(CHANGED)


def _set_add(
    name: RecordName, change: SetAdd, before: Record | None, put: Callable[[RecordName, Record | None], None]
) -> Changed:
    value = None if before is None else before[0]
    there = value is not None and has(value, change.member)
    if not there and (0 if value is None else count(value)) >= change.most:
        return Changed(FULL)
    after = (added(value, change.head, change.member), change.expires)
    if after != before:
        put(name, after)
    return Changed(UNCHANGED if there else CHANGED)


def _take(
    name: RecordName,
    taker: bytes,
    before: Record | None,
    now: int,
    get: Callable[[RecordName], Record | None],
    put: Callable[[RecordName, Record | None], None],
) -> Changed:
    if len(taker) != TAKER_BYTES:
        raise ValueError(f"a taker of {len(taker)} bytes")
    taken = _taken(name)
    if before is not None:
        value, expires = before
        put(name, None)
        put(taken, (taker + value, min(expires or now + TAKEN_S, now + TAKEN_S)))
        return Changed(CHANGED, value)
    kept = _alive(get(taken), now)
    if kept is not None and kept[0][:TAKER_BYTES] == taker:
        return Changed(CHANGED, kept[0][TAKER_BYTES:])
    return Changed(UNCHANGED)


def _alive(record: Record | None, now: int) -> Record | None:
    return None if record is None or 0 < record[1] <= now else record


def _taken(name: RecordName) -> RecordName:
    return name[0] + _TAKEN, name[1]
