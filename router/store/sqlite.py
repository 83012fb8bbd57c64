"""The store on disk: SQLite, one group commit an `apply`.

Theory of operation
-------------------
The router's main thread is busy with Python all the time, so what costs here is the interpreter lock: each
time the store's thread gives it up, it waits for a whole switch interval and more to get it back. `executemany` does
so at every row. Therefore **an `apply` is one statement for all its writes and one for all its reads**:

- Rows go in as JSON (keys as base64, which is what msgspec makes of bytes); `json_each` takes them apart.
- They are inserted into the temporary view `batch`, whose triggers do the work of each kind of row. That
  statement is its own transaction: no BEGIN, no COMMIT, and an error undoes all of it.
- A full inbox is found inside the trigger. The refused rows and the number of those that gave their place to
  others go to temporary tables, and only the first of a batch calls back into Python, to say that there is something
  to fetch.
- Reads come back as one row of JSON texts.
- Changes that depend on what a record holds are made in this thread between two statements: one reads those records,
  and what they become is written with the rest. Nobody else writes to the file, so nothing comes between.

JSON's weak spot is U+0000: SQLite ends a text there. Where a batch holds one, a stand-in travels instead.
"""

from __future__ import annotations

import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from router.common.errors import MendableError
from router.common.item import Item
from router.common.options import Settings
from router.common.settings import Data, RouterOptions, StoreOptions
from router.store import layout
from router.store.base import CEILING_SPACE, Append, Gone, Reads, Renewal, Results, Store, Writes
from router.store.changes import Record, RecordName, make, names
from router.store.findings import Finding
from router.store.log_rows import log_row
from router.store.sqlite_file import SqliteFile, check_file, has_rows
from router.store.sqlite_gone import GoneRows
from router.store.sqlite_reads import read, read_tables
from router.store.sqlite_sweep import Sweeper
from router.store.statements import READ_RECORDS, RENEW, USED, WRITE, WRITE_NUL

CEILING: Final = (CEILING_SPACE, b"seq")
"""Name of the record that holds the last `Writes.ceiling`."""
_MEASURE_EVERY: Final = 256  # commits
_ROW_BYTES: Final = 160
"""Of a row besides its texts: a guess, on the high side, until what is used is measured again."""

# An escaped U+0000: the backslashes before it pair up, so that its own is none of the text's.
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_changing_in = msgspec.json.Decoder(list[tuple[tuple[str, bytes], tuple[bytes, int]]])
_refused_in = msgspec.json.Decoder(set[tuple[bytes, str]])
_encode = msgspec.json.Encoder().encode


class SqliteStore:
    """A `Store` in one SQLite file. Every call is one hop to a thread that is this store's alone.

    `Writes` and `Reads` are read in that thread: they must stay as they are until the answer is there."""

    forgets = False
    lease = None

    def __init__(
        self,
        options: StoreOptions,
        path: Path,
        router: int = 0,
        unix_time: Callable[[], float] = time.time,
        confirm: Callable[[], object] = lambda: None,
    ) -> None:
        """confirm: called when the file is locked and before it is opened. Raises: StoreError if it is not the file."""
        self._options = options
        self._refusals = False
        # Stands for U+0000. Nobody outside can know it, so no text holds it.
        self._nul = f"<NUL {secrets.token_hex(16)}>"
        self._sweeper = Sweeper(router)
        self._gone: GoneRows | None = None
        self._unmeasured = 0  # commits since `used` was measured
        self.file = SqliteFile(options, path, router, unix_time, self._prepared, confirm)
        self.used = 0
        survives = "a power cut" if options.synchronous == "full" else "a crash of any process, not a power cut"
        self.promise = f"on the disk of this machine: what is accepted survives {survives}"

    def check(self) -> None:
        """See `Store.check`: a file that is there has a schema that this release knows."""
        self.file.check()

    def watch(self, gone: Gone) -> None:
        """See `Store.watch`."""
        self._gone = GoneRows(gone)

    async def open(self) -> None:
        """See `Store.open`. Makes the folder (0700) and the file (0600) where they are missing."""
        try:
            await self.file.run(self._open)
        except BaseException:
            await self.close()
            raise

    async def run(self) -> None:
        """See `Store.run`: nothing."""
        await trio.sleep_forever()

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        """See `Store.apply`. A cancellation that comes while it is under way takes effect afterwards."""
        return await self.file.run(lambda: self._apply(writes, reads, now))

    async def sweep(self, now: int, budget: int) -> int:
        """See `Store.sweep`. A sweep ends early where a round through all tables ends."""
        return await self.file.run(lambda: self._sweep(now, budget))

    async def highest(self) -> int:
        """See `Store.highest`."""
        return await self.file.run(lambda: highest(self.file.db()))

    async def close(self) -> None:
        """See `Store.close`. May be called at any time, and again."""
        with trio.CancelScope(shield=True):
            await self.file.run(self.file.close)
            self.file.end()

    def _prepared(self, db: sqlite3.Connection) -> None:
        self._refusals = False
        db.create_function("note_refusal", 0, self._note_refusal)

    def _open(self) -> None:
        self.file.open()
        self._measure(self.file.db())

    def _sweep(self, now: int, budget: int) -> int:
        db = self.file.db()
        if self._gone is not None:
            self._gone.begin(db)
        deleted = self._sweeper.sweep(db, now, budget)
        if self._gone is not None:
            self._gone.tell("expired")
        self._measure(db)
        return deleted

    def _note_refusal(self) -> None:
        self._refusals = True

    def _apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        db = self.file.db()
        if self._gone is not None:
            self._gone.begin(db)
        results = Results()
        for renewal in writes.renewals:
            self._renew(db, renewal, now)
        records = self._changed(db, writes, now, results) if writes.changes else writes.records
        if writes.ceiling:
            records = records | {CEILING: (writes.ceiling.to_bytes(8, "big"), 0)}
        if writes.puts or writes.removals or records or writes.logs:
            self._write(db, writes, records, now, results)
            self._guess(db, writes, records)
        if reads or writes.logs:
            read(db, writes, reads, now, results)
        return results

    def _changed(
        self, db: sqlite3.Connection, writes: Writes, now: int, results: Results
    ) -> dict[RecordName, Record | None]:
        """Make the conditional changes. Returns: all records that are to be written."""
        wanted = {name for changed, change in writes.changes for name in names(changed, change)}
        found = _changing_in.decode(db.execute(READ_RECORDS, (_encode(wanted),)).fetchone()[0])
        known: dict[RecordName, Record | None] = dict(found)
        records = dict(writes.records)

        def put(name: RecordName, record: Record | None) -> None:
            known[name] = records[name] = record

        results.changes = [make(name, change, now, known.get, put) for name, change in writes.changes]
        return records

    def _renew(self, db: sqlite3.Connection, renewal: Renewal, now: int) -> None:
        db.execute(RENEW, (renewal.space, _encode(renewal.keys), renewal.expires, renewal.before, now))

    def _guess(self, db: sqlite3.Connection, writes: Writes, records: dict[RecordName, Record | None]) -> None:
        """What is used now, at most. To measure it costs statements, so that is done rarely, or close to the limit."""
        rows = len(writes.puts) + len(records) + len(writes.logs)
        chars = sum(len(item.body) for item in writes.puts.values() if item.body is not None)
        chars += sum(len(value[0]) for value in records.values() if value is not None)
        chars += sum(len(event.body) for event in writes.logs if isinstance(event, Append))
        self.used += _ROW_BYTES * rows + chars
        self._unmeasured += 1
        if self._unmeasured >= _MEASURE_EVERY or (0 < self._options.max_bytes <= self.used):
            self._measure(db)

    def _measure(self, db: sqlite3.Connection) -> None:
        (self.used,) = db.execute(USED).fetchone()
        self._unmeasured = 0

    def _write(
        self,
        db: sqlite3.Connection,
        writes: Writes,
        records: dict[RecordName, Record | None],
        now: int,
        results: Results,
    ) -> None:
        if writes.logs:
            db.execute("DELETE FROM appended")
        if self._refusals:
            db.execute("DELETE FROM refused")
            db.execute("DELETE FROM evicted")
            self._refusals = False
        puts, bodies = _apart(writes.puts)
        rows = (
            _encode(list(writes.removals.items())),
            _encode(puts),
            _encode(list(records.items())),
            _encode([log_row(place, write, self._options) for place, write in enumerate(writes.logs)]),
        )
        if any(b"\\u0000" in part for part in rows):
            stand_in = b"\\1" + self._nul.encode()
            db.execute(WRITE_NUL, (*(_NUL.sub(stand_in, part) for part in rows), now, bodies, self._nul))
        else:
            db.execute(WRITE, (*rows, now, bodies))
        if self._gone is not None:  # it is committed, whatever becomes of the answer
            self._gone.tell("evicted", writes.removals)
        if self._refusals:
            refused, results.evicted = db.execute(
                "SELECT (SELECT json_group_array(json_array(device, slot)) FROM refused),"
                " (SELECT coalesce(sum(number), 0) FROM evicted)"
            ).fetchone()
            results.refused = _refused_in.decode(refused)


def highest(db: sqlite3.Connection) -> int:
    """See `Store.highest`."""
    results = Results()
    read_tables(db, Reads(records={CEILING}), 0, results)
    if (value := results.records.get(CEILING)) is not None:
        return int.from_bytes(value, "big")
    return int(db.execute("SELECT coalesce(max(seq), 0) FROM inbox").fetchone()[0])


def write_ceiling(db: sqlite3.Connection, ceiling: int) -> None:
    """Into a file that has none: what `highest` answers from now on."""
    texts = msgspec.to_builtins((CEILING, ceiling.to_bytes(8, "big")))
    (space, key), value = texts
    db.execute("INSERT INTO record (space, key, expires, value) VALUES (?, ?, 0, ?)", (space, key, value))


def _apart(puts: dict[tuple[bytes, str], Item]) -> tuple[list[Any], bytes]:
    """The rows of items with, instead of the body, where it begins in the blob of all bodies (from 1 on), and its
    length in bytes."""
    rows: list[Any] = []
    bodies = [b" "]  # not nothing: of that, a part would be NULL
    at = 2
    for key, item in puts.items():
        body = item.body
        if body is None:
            rows.append((key, item))
        else:
            data = body.encode()
            rows.append((key, (*item[:5], at, len(data))))
            bodies.append(data)
            at += len(data)
    return rows, b"".join(bodies)


def new_store(settings: Settings, router: int) -> Store:
    """See `router.store.registry.StoreModule`. Raises: StoreError, FileError if the files are of other settings."""
    place = layout.Place(Path(settings.get(Data).dir), settings.get(RouterOptions).routers, router)
    return SqliteStore(settings.get(StoreOptions), place.path, router, confirm=lambda: place.confirm(has_rows))


def keeps(settings: Settings) -> tuple[str, str] | None:
    """See `router.store.registry.StoreModule`. A file that cannot be read counts as one that has something.

    Raises: StoreError if a restore was cut short.
    """
    data = Path(settings.get(Data).dir)
    layout.check_restored(data)
    try:
        found = layout.read(data)
    except MendableError:
        return f"{layout.MANIFEST} beside it", f"move {layout.MANIFEST} and the folders of stores away"
    if found is None or not any(map(has_rows, found.paths(data))):
        return None
    names = f"{layout.MANIFEST} and {found.name}" if found.folder else found.name
    return f"{found.name} beside it", f"move {names} away"


def look_over(settings: Settings) -> list[Finding]:
    """See `router.store.registry.StoreModule`: whether the files are those of this number of routers, and of no newer
    release."""
    data, routers = Path(settings.get(Data).dir), settings.get(RouterOptions).routers
    name, needed = "files of the store", f"those of router.routers={routers}"
    try:
        found = layout.read(data)
        if found is None:
            return []
        layout.check_whole(data, found, has_rows)
        there = f"those of router.routers={found.routers}"
        if found.routers != routers:
            room = layout.room(sum(path.stat().st_size for path in found.paths(data) if path.exists()), routers)
            free = shutil.disk_usage(data).free
            needed += f": farm start copies the store, which takes up to {room >> 20:,} MiB"
            if free < room:
                remedy = f"more room on that disk; or --set router.routers={found.routers}"
                return [Finding(name, "fail", f"{there}, and {free >> 20:,} MiB on the disk", needed, remedy)]
        for path in found.paths(data):
            check_file(path)
    except (MendableError, OSError) as error:
        return [Finding(name, "fail", "cannot be used", needed, str(error))]
    return [Finding(name, "ok", there, needed)]
