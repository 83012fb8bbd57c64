"""The two stores beside each other, and SQLite on a file that is not as it was left.

What is done to the stores is taken from the bytes, a choice after the other; what is done to the file is a list of
changes, each an offset of 3 bytes and 8 bytes to be there.
"""

from __future__ import annotations

import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import trio

import router.store.memory
import router.store.memory_log
import router.store.sqlite
import router.store.sqlite_file
import router.store.sqlite_reads
from fuzz.engine import Target
from router.common.item import Item
from router.common.messages import EVERYTHING
from router.common.position import ANY_EPOCH, LIVE, AfterId, AfterOffset, Last
from router.common.settings import StoreOptions
from router.store.base import ANY_VERSION, Append, ExpireLog, LogName, Reads, Results, StoreError, Writes
from router.store.changes import KEEP_EXPIRY, Put, PutIfAbsent, PutIfNewer, SetAdd, SetRemove, Take
from router.store.memory import MemoryStore
from router.store.sqlite import SqliteStore

_OPTIONS: Final = StoreOptions(inbox_limit=4, log_limit=3, inbox_bytes=65_536)
_NOW: Final = 1_000_000
_DEVICES: Final = (b"a" * 16, b"\0\xff" * 8, b"c" * 16)
_SLOTS: Final = ("", "a", "b", "#x", "\0", "\u20ac", "\\u0000", "z" * 300)
_SPACES: Final = ("", "a", "dialect.device", "\u20ac")  # a dialect's own words: no U+0000 in them
_BODIES: Final = (None, "", "body", "\0", "\\\0\\u0000", "\u20ac\U0001f600", "x" * 20_000)
_VERSIONS: Final = (0, 1, 2, 2**31, 2**53 + 1, ANY_VERSION)
_CHANGES: Final = (
    Put(None, 0),
    Put(b"kept", KEEP_EXPIRY),
    PutIfAbsent(b"absent", _NOW + 2),
    PutIfNewer(b"\0" * 8, 0),
    PutIfNewer(b"\xff" * 8, KEEP_EXPIRY),
    Take(b"1" * 16),
    Take(b"2" * 16),
    *(SetAdd(member, b"head", _NOW + 2, 2) for member in _DEVICES),
    *(SetRemove(member) for member in _DEVICES),
)
_IDS: Final = ("", "a", "\u20ac")
_POSITIONS: Final = (LIVE, *map(Last, range(4)), *map(AfterId, _IDS), AfterOffset(1, 2))
_folder = tempfile.TemporaryDirectory(prefix="fuzz-")


class _Choices:
    """What bytes stand for."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        return self._at >= len(self._data)

    def below(self, most: int) -> int:
        if self.over:
            return 0
        self._at += 1
        return self._data[self._at - 1] % most

    def one(self, of: Any) -> Any:
        return of[self.below(len(of))]


def _batch(choices: _Choices, sequence: int) -> tuple[Writes, Reads]:
    writes, reads = Writes(), Reads()
    for number in range(1 + choices.below(5)):
        device, slot = choices.one(_DEVICES), choices.one(_SLOTS)
        what = choices.below(8)
        if what <= 1:
            expires = _NOW + choices.below(6) - 1
            version, urgency, body = choices.one(_VERSIONS), choices.below(5), choices.one(_BODIES)
            writes.removals.pop((device, slot), None)
            writes.puts[device, slot] = Item(slot, version, sequence * 10 + number, expires, urgency, body)
        elif what == 2 and (device, slot) not in writes.puts:
            writes.removals[device, slot] = choices.one(_VERSIONS)
        elif what == 3:
            value = choices.one((None, (b"", 0), (b"\0v", _NOW + 2), (b"kept", KEEP_EXPIRY), (b"old", _NOW - 1)))
            name = (choices.one(_SPACES), device)
            if all(changed != name for changed, _ in writes.changes):
                writes.records[name] = value
        elif what == 4:
            expires, offset = _NOW + choices.below(6) - 1, choices.below(6)
            body, name = choices.one(_BODIES) or "", choices.one(_IDS)
            most = choices.below(4)
            if choices.below(5):
                exact = offset > 0 and choices.below(2) > 0
                event = Append(device, sequence, expires, body, name, {name: body[:9]}, offset, exact, most)
                writes.logs.append(event if "\0" not in body[:9] else event._replace(headers={}))
            else:
                writes.logs.append(ExpireLog(device, expires))
        elif what == 5:
            name = (choices.one(_SPACES), device)
            if name not in writes.records:
                writes.changes.append((name, choices.one(_CHANGES)))
        elif what == 6:
            reads.inboxes[device] = choices.one((1, 2, EVERYTHING))
        else:
            reads.records.add((choices.one(_SPACES), device))
            reads.logs.add(LogName(device, choices.one(_POSITIONS), choices.one((0, 1, 250))))
            reads.logs.add(LogName(device, AfterOffset(ANY_EPOCH, choices.below(6))))
    return writes, reads


def stores(data: bytes) -> None:
    """The same batches for both."""

    async def main() -> None:
        path = Path(_folder.name) / "both" / "store.sqlite3"
        shutil.rmtree(path.parent, ignore_errors=True)
        choices, memory, sqlite = _Choices(data), MemoryStore(_OPTIONS), SqliteStore(_OPTIONS, path)
        await memory.open()
        await sqlite.open()
        try:
            for sequence in range(12):
                if choices.over:
                    break
                writes, reads = _batch(choices, sequence)
                now = _NOW + choices.below(4)
                one = await memory.apply(writes, reads, now)
                assert _plain(one) == _plain(await sqlite.apply(writes, reads, now)), (sequence, writes, reads, now)
                if choices.below(8) == 1:
                    await memory.sweep(now, 1000)
                    await sqlite.sweep(now, 1000)
        finally:
            await sqlite.close()
            await memory.close()

    trio.run(main)


def _plain(results: Results) -> Any:
    logs = {name: part._replace(epoch=0) for name, part in results.logs.items()}
    ends = [end and end.offset for end in results.appended]
    return results.refused, results.evicted, ends, results.changes, results.inboxes, results.records, logs


def damaged(data: bytes) -> None:
    """A database whose bytes have changed."""
    path = Path(_folder.name) / "damaged" / "store.sqlite3"
    shutil.rmtree(path.parent, ignore_errors=True)
    path.parent.mkdir()
    whole = bytearray(_template())
    for at in range(0, min(len(data), 330), 11):
        offset = int.from_bytes(data[at : at + 3], "big") % len(whole)
        change = data[at + 3 : at + 11]
        whole[offset : offset + len(change)] = change
    path.write_bytes(whole)

    async def main() -> None:
        store = SqliteStore(_OPTIONS, path)
        try:
            await store.open()
        except StoreError:
            return
        try:
            reads = Reads(dict.fromkeys(_DEVICES, EVERYTHING), {("s", _DEVICES[0])}, {LogName(_DEVICES[0], Last(9))})
            item = Item("new", 1, 99, _NOW + 9, 1, "x")
            for writes in (
                Writes(),
                Writes(puts={(_DEVICES[0], "new"): item}, records={("s", _DEVICES[1]): (b"v", 0)}),
            ):
                with suppress(StoreError):
                    await store.apply(writes, reads, _NOW)
            with suppress(StoreError):
                await store.sweep(_NOW + 5, 100)
        finally:
            await store.close()

    trio.run(main)


_made: list[bytes] = []


def _template() -> bytes:
    if not _made:
        path = Path(_folder.name) / "template" / "store.sqlite3"

        async def main() -> None:
            store = SqliteStore(_OPTIONS, path)
            await store.open()
            writes = Writes()
            for place, device in enumerate(_DEVICES):
                writes.puts[device, "slot"] = Item("slot", 1, place + 1, _NOW + 9, 1, "body")
                writes.records["s", device] = (b"value", 0)
                writes.logs.append(Append(device, place, _NOW + 9, "event"))
            await store.apply(writes, Reads(), _NOW)
            await store.close()

        trio.run(main)
        _made.append(path.read_bytes())
    return _made[0]


def _change(offset: int, data: bytes) -> bytes:
    return offset.to_bytes(3, "big") + data.ljust(8, b"\0")[:8]


TARGETS = (
    Target(
        "stores",
        stores,
        (router.store.memory, router.store.memory_log, router.store.sqlite, router.store.sqlite_reads),
        (bytes(range(60)), b"\3\0\1\0\2\1\2\3\4\5" * 5, b"\4\1\2\4\3\2\1\5\6" * 6),
    ),
    Target(
        "store-file",
        damaged,
        (router.store.sqlite, router.store.sqlite_file, router.store.sqlite_reads),
        (b"", _change(0, b"nothing"), _change(18, b"\2\2"), _change(60, b"\xff" * 8), _change(4096, b"\r\0\0\0\1")),
    ),
)
