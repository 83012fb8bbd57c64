"""What a batch does to the entries of memcached. Pure.

| entry | value |
|---|---|
| `<prefix>i:<device>` | the inbox of a device: its items as one list in MessagePack, in order of slot |
| `<prefix>r:<space>:<key>` | a record: 8 bytes of its expiry, then the value |
| `<prefix>layout` | on each server: `LAYOUT` of the release that wrote there |

Keys stand in hexadecimal. An inbox is one entry, so that it is read and written in one step, and is lost as a whole or
not at all. An entry expires in memcached a little after what is in it has expired here. One that does not have this
form was written by somebody else, and counts as none.

All that a batch wants of one inbox or of one record is one piece of work: it is made of entries as they were read and,
where one was written meanwhile, made again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Final, NamedTuple
from urllib.parse import quote

import msgspec

from router.common.item import Item
from router.store.base import Reads, Renewal, Results, Writes
from router.store.changes import (
    Change,
    Changed,
    Put,
    PutIfAbsent,
    PutIfNewer,
    Record,
    RecordName,
    make,
    names,
)
from router.store.memcached_protocol import MAX_KEY, Entry

LAYOUT: Final = 1
"""Of all entries. It is raised when a release writes something that the one before would misread, and not else; an
older release leaves a server alone that has a newer one. memcached lists no entries, so none can be brought up to date:
a release that raises this reads both forms, or takes another name for what has changed."""
CEILING: Final = ("mark", b"seq")
"""Name of the record that holds the last `Writes.ceiling`. It is there as soon as anything is."""
GRACE_S: Final = 60
"""By this an entry outlives what is in it, for the clocks of two machines differ."""
_EXPIRY_BYTES: Final = 8
_LIST_BYTES: Final = 5
"""What a list in MessagePack begins with, at most."""
_NO_PLACE: Final = -1

_by_slot = attrgetter("slot")
_pack = msgspec.msgpack.Encoder().encode
_items_in = msgspec.msgpack.Decoder(list[Item])
_quoted = lru_cache(256)(lambda space: quote(space, safe="").encode())


class Write(NamedTuple):
    """What becomes of an entry."""

    key: bytes
    value: bytes | None  # None: it goes
    ttl: int  # seconds for which it is kept at least; 0: for ever


class Layout:
    """The keys of a farm's entries. inbox_limit: items in an inbox."""

    def __init__(self, prefix: str, inbox_limit: int) -> None:
        self.prefix = prefix.encode()
        self.inbox_limit = inbox_limit

    def inbox(self, device: bytes) -> bytes:
        """Of the inbox of a device."""
        return b"%bi:%b" % (self.prefix, device.hex().encode())

    def record(self, name: RecordName) -> bytes:
        """Of a record. Raises: ValueError if it has too long a name."""
        key = b"%br:%b:%b" % (self.prefix, _quoted(name[0]), name[1].hex().encode())
        if len(key) > MAX_KEY:
            raise ValueError(f"the name of a record makes a key of {len(key)} bytes, and memcached allows {MAX_KEY}")
        return key


class InboxWork:
    """What a batch wants of the inbox of a device."""

    __slots__ = ("_inbox_limit", "_items", "_key", "_refused", "device", "most", "puts", "removals")

    def __init__(self, layout: Layout, device: bytes) -> None:
        self._key = layout.inbox(device)
        self._inbox_limit = layout.inbox_limit
        self._items: list[Item] = []
        self._refused: list[str] = []
        self.device = device
        self.puts: list[tuple[str, Item]] = []
        self.removals: list[tuple[str, int]] = []
        self.most = 0
        """Items to read."""

    @property
    def owner(self) -> bytes:
        """The key that says where it lies, and that is named if it fails."""
        return self.device

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The entries to read."""
        return (self._key,)

    def make(self, found: Mapping[bytes, Entry], now: int, room: int) -> list[Write]:
        """What is to be written, of the entries as they are. room: bytes that the value of an entry may have."""
        entry = found.get(self._key)
        box = {item.slot: item for item in _read_items(entry) if item.expires > now}
        changed = False
        for slot, version in self.removals:
            stored = box.get(slot)
            if stored is not None and stored.version <= version:
                del box[slot]
                changed = True
        before = box
        if self.puts:
            box = dict(before)
            self._refused = self._put_all(box, now, None)
            changed = changed or len(self._refused) < len(self.puts)
        self._items = sorted(box.values(), key=_by_slot)
        if not changed:
            return []
        value = _pack(self._items)
        if len(value) > room and self.puts:
            self._refused = self._put_all(before, now, room)
            self._items = sorted(before.values(), key=_by_slot)
            value = _pack(self._items)
        if self._items:
            return [Write(self._key, value, max(item.expires for item in self._items) - now)]
        return [Write(self._key, None, 0)] if entry is not None else []

    def _put_all(self, box: dict[str, Item], now: int, room: int | None) -> list[str]:
        """Put into the box what finds a place. room: bytes; None: they are not counted. Returns: what is refused."""
        refused = []
        size = 0 if room is None else _LIST_BYTES + sum(len(_pack(item)) for item in box.values())
        for slot, item in self.puts:
            stored = box.get(slot)
            if stored is None and len(box) >= self._inbox_limit:
                refused.append(slot)
                continue
            if room is not None:
                after = size + len(_pack(item)) - (0 if stored is None else len(_pack(stored)))
                if after > room and after > size:
                    refused.append(slot)
                    continue
                size = after
            if item.expires > now:
                box[slot] = item
            else:
                box.pop(slot, None)
        return refused

    def done(self, results: Results) -> None:
        """Enter what was read and refused, when all is written."""
        results.refused.update((self.device, slot) for slot in self._refused)
        if self.most and self._items:
            results.inboxes[self.device] = self._items[: self.most]


class RecordWork:
    """What a batch wants of a record. Its steps are made in order, each on what the one before left."""

    __slots__ = ("_changed", "_keys", "_value", "name", "read", "steps")

    def __init__(self, layout: Layout, name: RecordName) -> None:
        self._keys: dict[RecordName, bytes] = {name: layout.record(name)}
        self._changed: list[tuple[int, Changed]] = []
        self._value: bytes | None = None
        self.name = name
        self.steps: list[tuple[int, Change | Renewal]] = []
        self.read = False

    def add(self, layout: Layout, change: Change | Renewal, place: int = _NO_PLACE) -> None:
        """One more step. place: of the change among those of the batch."""
        self.steps.append((place, change))
        if not isinstance(change, Renewal):
            for name in names(self.name, change):
                self._keys[name] = layout.record(name)

    @property
    def owner(self) -> bytes:
        """See `InboxWork.owner`."""
        return self.name[1]

    @property
    def keys(self) -> Iterable[bytes]:
        """See `InboxWork.keys`."""
        return self._keys.values()

    def make(self, found: Mapping[bytes, Entry], now: int, room: int) -> list[Write]:
        """See `InboxWork.make`."""
        before = {name: _read_record(found.get(key), now) for name, key in self._keys.items()}
        after = dict(before)
        self._changed = []
        for place, step in self.steps:
            if isinstance(step, Renewal):
                record = after[self.name]
                if record is not None and now < record[1] < min(step.before, step.expires):
                    after[self.name] = (record[0], step.expires)
                continue
            changed = make(self.name, step, now, after.get, after.__setitem__)
            if place != _NO_PLACE:
                self._changed.append((place, changed))
        record = after[self.name]
        self._value = None if record is None or 0 < record[1] <= now else record[0]
        # What goes comes last: a record that is taken is written under its taker first.
        some = [(self._keys[name], record) for name, record in after.items() if record != before[name]]
        some.sort(key=lambda write: write[1] is None)
        return [
            Write(key, *((None, 0) if record is None else (_pack_record(record), _ttl(record[1], now))))
            for key, record in some
            if record is not None or key in found
        ]

    def done(self, results: Results) -> None:
        """See `InboxWork.done`."""
        for place, changed in self._changed:
            results.changes[place] = changed
        if self.read and self._value is not None:
            results.records[self.name] = self._value


Work = InboxWork | RecordWork


def works(layout: Layout, writes: Writes, reads: Reads, mark: bool) -> list[Work]:
    """The work of a batch. mark: whether `CEILING` is written with the first write, if it is not there."""
    inboxes: dict[bytes, InboxWork] = {}
    records: dict[RecordName, RecordWork] = {}

    def inbox(device: bytes) -> InboxWork:
        found = inboxes.get(device)
        if found is None:
            found = inboxes[device] = InboxWork(layout, device)
        return found

    def record(name: RecordName) -> RecordWork:
        found = records.get(name)
        if found is None:
            found = records[name] = RecordWork(layout, name)
        return found

    for (device, slot), version in writes.removals.items():
        inbox(device).removals.append((slot, version))
    for (device, slot), item in writes.puts.items():
        inbox(device).puts.append((slot, item))
    for device, most in reads.inboxes.items():
        inbox(device).most = most
    for renewal in writes.renewals:
        for key in renewal.keys:
            record((renewal.space, key)).add(layout, renewal)
    for name, value in writes.records.items():
        record(name).add(layout, Put(*(value or (None, 0))))
    for place, (name, change) in enumerate(writes.changes):
        record(name).add(layout, change, place)
    if writes.ceiling:
        record(CEILING).add(layout, PutIfNewer(writes.ceiling.to_bytes(8, "big"), 0))
    elif mark and (writes.puts or writes.records or writes.changes):
        record(CEILING).add(layout, PutIfAbsent(bytes(8), 0))
    for name in reads.records:
        record(name).read = True
    return [*inboxes.values(), *records.values()]


def check(layout: Layout, writes: Writes, now: int, room: int) -> None:
    """Raises: ValueError, TypeError or OverflowError for what no memcached can hold, whatever it holds."""
    if writes.logs:
        raise ValueError("memcached keeps no logs of channels")
    _pack(list(writes.puts.values()))
    for name, value in writes.records.items():
        if value is not None and len(value[0]) + _EXPIRY_BYTES > room:
            raise ValueError(f"a record of {len(value[0])} bytes is larger than an entry of memcached may be")
        layout.record(name)
    for name, change in writes.changes:
        make(name, change, now, lambda _: None, lambda *_: None)


def layout_key(prefix: str) -> bytes:
    """Of the entry that holds `LAYOUT`."""
    return prefix.encode() + b"layout"


def layout_in(entry: Entry | None) -> int:
    """What that entry holds: without one it is the first. Of an absurd number the first digits are too new as well."""
    return int(entry.value[:9]) if entry is not None and entry.value.isdigit() else 1


def ceiling(entry: Entry | None) -> int:
    """What the record `CEILING` holds; 0 if there is none."""
    record = _read_record(entry, 0)
    return 0 if record is None else int.from_bytes(record[0], "big")


def _ttl(expires: int, now: int) -> int:
    return max(1, expires - now) if expires else 0


def _read_items(entry: Entry | None) -> list[Item]:
    if entry is None:
        return []
    try:
        return _items_in.decode(entry.value)
    except (msgspec.MsgspecError, ValueError):
        return []


def _pack_record(record: Record) -> bytes:
    return record[1].to_bytes(_EXPIRY_BYTES, "big") + record[0]


def _read_record(entry: Entry | None, now: int) -> Record | None:
    if entry is None or len(entry.value) < _EXPIRY_BYTES:
        return None
    expires = int.from_bytes(entry.value[:_EXPIRY_BYTES], "big")
    return None if 0 < expires <= now else (entry.value[_EXPIRY_BYTES:], expires)
