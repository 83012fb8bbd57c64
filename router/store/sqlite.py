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

When the disk fails
-------------------
A statement that fails is undone by SQLite, and the next one tries again. What a failed commit left in the log beside
the file is written over by the next: its frames are found by an index in memory, which names only what was committed
and synced. So nothing is opened anew after one failure; that would read the log again, and could find there a batch
that was answered with an error. If nothing works for long the connection itself may be what is wrong (the folder was
mounted again, a page that was read wrong is remembered): then it is closed and opened anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import trio

from router.common.files import FileError, open_own, take_folder
from router.common.messages import EVERYTHING
from router.common.numbers import next_epoch
from router.common.options import Settings
from router.common.position import AfterOffset, Last
from router.common.settings import Data, StoreOptions
from router.store.base import Append, BadBatchError, Item, LogName, Reads, Renewal, Results, Store, StoreError, Writes
from router.store.changes import Record, RecordName, make, names
from router.store.log_rows import LogRow, log_row, position_row
from router.store.log_statements import MIGRATE_1, NOTE_SWEPT, READ_APPENDED, READ_LOGS
from router.store.statements import (
    READ,
    READ_RECORDS,
    RENEW,
    SCHEMA,
    SCHEMA_VERSION,
    SWEPT,
    USED,
    WRITE,
    WRITE_NUL,
    batch_sql,
)
from router.store.thread import StoreThread

STORE_FILE: Final = "store.sqlite3"
"""In the data folder."""
BUSY_TIMEOUT_S: Final = 5.0
# Measured with 200,000 items waiting: a checkpoint holds up one commit for 25 ms; at 16,000 pages that is 65 ms,
# for a tenth less CPU a write; 1000, the default, gains 2 ms and costs a sixth more CPU.
CHECKPOINT_PAGES: Final = 2000
REOPEN_AFTER_S: Final = 60.0
"""If every call of so long has failed, the connection is made anew."""
CEILING: Final = ("mark", b"seq")
"""Name of the record that holds the last `Writes.ceiling`."""
_MEASURE_EVERY: Final = 256  # commits
_ROW_BYTES: Final = 160
"""Of a row besides its texts: a guess, on the high side, until what is used is measured again."""

# An escaped U+0000: the backslashes before it pair up, so that its own is none of the text's.
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_inboxes_in = msgspec.json.Decoder(list[tuple[bytes, Item]])
_records_in = msgspec.json.Decoder(list[tuple[tuple[str, bytes], bytes]])
_changing_in = msgspec.json.Decoder(list[tuple[tuple[str, bytes], tuple[bytes, int]]])
_logs_in = msgspec.json.Decoder(list[tuple[int, LogRow]])
_appended_in = msgspec.json.Decoder(list[tuple[int, AfterOffset]])
_refused_in = msgspec.json.Decoder(set[tuple[bytes, str]])
_encode = msgspec.json.Encoder().encode
_by_slot = itemgetter(0)

T = TypeVar("T")

_UNWRITABLE: Final = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    TypeError,
    ValueError,  # UnicodeError and those of msgspec among them
    OverflowError,
    RecursionError,
)
"""What is wrong is what was to be written."""
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, KeyError)
"""What is wrong is what was stored."""
_PASSING: Final = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")
"""Failures that no new connection mends."""

# By the first matching start of SQLite's name for the error: what to do about it.
_ADVICE: Final = (
    ("SQLITE_FULL", "the disk is full; free some space, no restart is needed"),
    ("SQLITE_BUSY", "another process keeps the database locked; stop it"),
    ("SQLITE_LOCKED", "another process keeps the database locked; stop it"),
    ("SQLITE_READONLY", "it cannot be written; give this user write access to the file and its folder"),
    ("SQLITE_CANTOPEN", "it cannot be opened; give this user write access to the file and its folder"),
    ("SQLITE_PERM", "it cannot be opened; give this user write access to the file and its folder"),
    ("SQLITE_IOERR", "the disk does not read or write; look at the kernel log and at the space left"),
    ("SQLITE_CORRUPT", "the file is damaged; stop the router, then restore a backup or move the file away"),
    ("SQLITE_NOTADB", "the file is not a store; move it away"),
)


class SqliteStore:
    """A `Store` in one SQLite file. Every call is one hop to a thread that is this store's alone.

    `Writes` and `Reads` are read in that thread: they must stay as they are until the answer is there."""

    def __init__(
        self, options: StoreOptions, path: Path, router: int = 0, unix_time: Callable[[], float] = time.time
    ) -> None:
        self._router = router
        self._options = options
        self._unix_time = unix_time
        self._path = path
        self._thread = StoreThread()
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._refusals = False
        # Stands for U+0000. Nobody outside can know it, so no text holds it.
        self._nul = f"<NUL {secrets.token_hex(16)}>"
        self._cursor: tuple[int, tuple[str | int, ...]] = (0, SWEPT[0][2])
        self._failing_since: float | None = None
        self._unmeasured = 0  # commits since `used` was measured
        self.used = 0

    def check(self) -> None:
        """See `Store.check`: a file that is there has a schema that this release knows."""
        if not self._path.exists():
            return
        try:
            with contextlib.closing(sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=ro", uri=True)) as db:
                self._check_version(db)
        except sqlite3.Error as error:
            raise StoreError(f"store {self._path}: {error}") from None

    async def open(self) -> None:
        """See `Store.open`. Makes the folder (0700) and the file (0600) where they are missing."""
        try:
            await self._run(self._open)
        except BaseException:
            await self.close()
            raise

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        """See `Store.apply`. A cancellation that comes while it is under way takes effect afterwards."""
        return await self._run(lambda: self._apply(writes, reads, now))

    async def sweep(self, now: int, budget: int) -> int:
        """See `Store.sweep`. A sweep ends early where a round through all tables ends."""
        return await self._run(lambda: self._sweep(now, budget))

    async def highest(self) -> int:
        """See `Store.highest`."""
        return await self._run(self._highest)

    async def close(self) -> None:
        """See `Store.close`. May be called at any time, and again."""
        with trio.CancelScope(shield=True):
            await self._run(self._close)
            self._thread.end()

    async def _run(self, function: Callable[[], T]) -> T:
        try:
            return await self._thread.run(lambda: self._watched(function))
        except _UNWRITABLE as e:
            raise BadBatchError(f"store {self._path}: the batch cannot be written: {e}") from e
        except sqlite3.Error as e:
            name = getattr(e, "sqlite_errorname", None) or type(e).__name__
            advice = next((text for start, text in _ADVICE if name.startswith(start)), str(e))
            raise StoreError(f"store {self._path}: {advice} ({name})") from e
        except FileError as e:
            raise StoreError(f"store {e}") from e
        except OSError as e:
            raise StoreError(
                f"store {self._path}: {e.strerror}; check that this user may write the folder and the file"
            ) from e
        except MemoryError as e:
            raise StoreError(f"store {self._path}: there is no memory left") from e

    def _watched(self, function: Callable[[], T]) -> T:
        """In the thread: call it, and make the connection anew if all calls have failed for long."""
        try:
            result = function()
        except _UNWRITABLE:
            raise
        except sqlite3.Error as error:
            now = time.monotonic()
            if self._failing_since is None or (getattr(error, "sqlite_errorname", None) or "").startswith(_PASSING):
                self._failing_since = now
            elif now - self._failing_since >= REOPEN_AFTER_S:
                self._failing_since = None
                self._let_go()
            raise
        self._failing_since = None
        return result

    def _let_go(self) -> None:
        """Close the connection, but not the lock: the next call opens it anew."""
        db, self._connection = self._connection, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def _db(self) -> sqlite3.Connection:
        db = self._connection
        if db is None:
            if self._lock is None:
                raise StoreError(f"store {self._path}: it is not open")
            db = self._connect()
        elif db.in_transaction:  # its end has failed
            db.execute("ROLLBACK")
        return db

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < (3, 38):
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old for the store; it needs 3.38 or newer")
        take_folder(self._path.parent)
        self._take_lock()
        # SQLite gives the files beside it the same mode. It would follow links, so these are looked at first.
        os.close(open_own(self._path, os.O_RDWR | os.O_CREAT))
        for beside in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.close(open_own(self._path.with_name(self._path.name + beside), os.O_RDWR))
        self._measure(self._connect())

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self._refusals = False
        self._connection = db
        return db

    def _prepare(self, db: sqlite3.Connection) -> None:
        self._check_schema(db)
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise StoreError(f"store {self._path}: no write-ahead log on this file system; use a local disk")
        for pragma in (
            f"synchronous = {self._options.synchronous.upper()}",
            f"wal_autocheckpoint = {CHECKPOINT_PAGES}",
            f"cache_size = {-1024 * self._options.cache_mib}",
            "temp_store = MEMORY",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.create_function("note_refusal", 0, self._note_refusal)
        db.executescript(batch_sql(self._options))

    def _take_lock(self) -> None:
        """One router a file. The lock goes with the process, however that ends; the file stays."""
        path = self._path.with_name(self._path.name + ".lock")
        self._lock = open_own(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip() or "?"
            raise StoreError(
                f"store {self._path}: another router uses it (process {holder}); stop that one, "
                "or give this one its own data.dir"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _check_version(self, db: sqlite3.Connection) -> int:
        version: int
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"store {self._path}: a newer release wrote it (schema {version}, this release knows "
                f"{SCHEMA_VERSION}); start that release, or move the file away"
            )
        return version

    def _check_schema(self, db: sqlite3.Connection) -> None:
        version = self._check_version(db)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if version < 0 or (tables if version == 0 else not tables.issuperset(name for name, *_ in SWEPT)):
            raise StoreError(f"store {self._path}: the file is some other program's database; move it away")
        if version == 1:
            (epoch,) = db.execute("SELECT epoch FROM meta").fetchone()
            db.executescript(MIGRATE_1.format(epoch=next_epoch(epoch, self._router, self._unix_time())))
        if version == 0:
            db.executescript(SCHEMA.format(epoch=next_epoch(0, self._router, self._unix_time())))

    def _close(self) -> None:
        db, self._connection = self._connection, None
        try:
            if db is not None:
                db.close()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _note_refusal(self) -> None:
        self._refusals = True

    def _apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        db = self._db()
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
            try:
                self._read(db, writes, reads, now, results)
            except _UNREADABLE:
                self._read_apart(db, writes, reads, now, results)
        return results

    def _highest(self) -> int:
        db = self._db()
        results = Results()
        self._read_tables(db, Reads(records={CEILING}), 0, results)
        if (value := results.records.get(CEILING)) is not None:
            return int.from_bytes(value, "big")
        return int(db.execute("SELECT coalesce(max(seq), 0) FROM inbox").fetchone()[0])

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
        if self._refusals:
            refused, results.evicted = db.execute(
                "SELECT (SELECT json_group_array(json_array(device, slot)) FROM refused),"
                " (SELECT coalesce(sum(number), 0) FROM evicted)"
            ).fetchone()
            results.refused = _refused_in.decode(refused)

    def _read(self, db: sqlite3.Connection, writes: Writes, reads: Reads, now: int, results: Results) -> None:
        if writes.logs:
            found = dict(_appended_in.decode(db.execute(READ_APPENDED).fetchone()[0]))
            results.appended = [found.get(place) for place in range(len(writes.logs))]
        if reads.inboxes or reads.records:
            self._read_tables(db, reads, now, results)
        if reads.logs:
            names = list(reads.logs)
            newest = max((position.number for _, position in names if isinstance(position, Last)), default=0)
            asked = _encode([position_row(channel, position) for channel, position in names])
            for place, row in _logs_in.decode(db.execute(READ_LOGS, (asked, now, newest)).fetchone()[0]):
                results.logs[names[place]] = row.slice(names[place][1])

    def _read_tables(self, db: sqlite3.Connection, reads: Reads, now: int, results: Results) -> None:
        parts = [most for most in reads.inboxes.values() if most < EVERYTHING]
        row = db.execute(
            READ,
            (_encode(list(reads.inboxes.items())), _encode(reads.records), now, max(parts, default=1) - 1),
        ).fetchone()
        results.inboxes.clear()
        for device, item in _inboxes_in.decode(row[0]):
            results.inboxes.setdefault(device, []).append(item)
        for device, items in results.inboxes.items():
            items.sort(key=_by_slot)
            del items[reads.inboxes[device] :]
        results.records = dict(_records_in.decode(row[1]))

    def _read_apart(self, db: sqlite3.Connection, writes: Writes, reads: Reads, now: int, results: Results) -> None:
        """Something that was stored is damaged: read each on its own, so that only who asked for that must do without.
        The places of this batch's events come by themselves, too."""
        found = Results()
        self._read(db, writes, Reads(), now, found)
        results.appended = found.appended
        results.inboxes, results.records, results.logs = {}, {}, {}
        parts: list[tuple[bytes | RecordName | LogName, Reads]]
        parts = [(device, Reads(inboxes={device: most})) for device, most in reads.inboxes.items()]
        parts += [(name, Reads(records={name})) for name in reads.records]
        parts += [(log, Reads(logs={log})) for log in reads.logs]
        for name, part in parts:
            found = Results()
            try:
                self._read(db, Writes(), part, now, found)
            except _UNREADABLE:
                results.unreadable.add(name)
                continue
            results.inboxes |= found.inboxes
            results.records |= found.records
            results.logs |= found.logs

    def _sweep(self, now: int, budget: int) -> int:
        db = self._db()
        db.execute("BEGIN IMMEDIATE")
        try:
            deleted, cursor = self._sweep_tables(db, now, budget)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._cursor = cursor
        self._measure(db)
        return deleted

    def _sweep_tables(
        self, db: sqlite3.Connection, now: int, budget: int
    ) -> tuple[int, tuple[int, tuple[str | int, ...]]]:
        """Returns: how many were deleted, and where to go on."""
        table, start = self._cursor
        deleted = 0
        while True:
            name, columns, _, expired = SWEPT[table]
            key = ", ".join(columns)
            after = f"({key}) > ({', '.join(f':a{i}' for i in range(len(columns)))})"
            values: dict[str, str | int] = {f"a{i}": part for i, part in enumerate(start)}
            end = db.execute(
                f"SELECT {key} FROM {name} WHERE {after} ORDER BY {key} LIMIT 1 OFFSET :skip",
                values | {"skip": budget - 1},
            ).fetchone()
            part = after
            if end is not None:
                part += f" AND ({key}) <= ({', '.join(f':b{i}' for i in range(len(columns)))})"
                values |= {f"b{i}": value for i, value in enumerate(end)}
            else:
                budget -= db.execute(f"SELECT count(*) FROM {name} WHERE {after}", values).fetchone()[0]
            condition = f"{part} AND {expired}"
            values["now"] = now
            if name == "head":
                self._forget_channels(db, condition, values, now)
            else:
                if name == "event":
                    db.execute(NOTE_SWEPT.format(condition=condition), values)
                deleted += db.execute(f"DELETE FROM {name} WHERE {condition}", values).rowcount
            if end is not None:
                return deleted, (table, end)
            table += 1
            if table == len(SWEPT):
                return deleted, (0, SWEPT[0][2])
            start = SWEPT[table][2]

    def _forget_channels(self, db: sqlite3.Connection, condition: str, values: dict[str, str | int], now: int) -> None:
        """A channel that begins anew counts from 1: under another epoch, with none of its old events."""
        db.execute(f"DELETE FROM event WHERE channel IN (SELECT channel FROM head WHERE {condition})", values)
        if db.execute(f"DELETE FROM head WHERE {condition}", values).rowcount:
            (epoch,) = db.execute("SELECT epoch FROM meta").fetchone()
            db.execute("UPDATE meta SET epoch = ?", (next_epoch(epoch, self._router, now),))


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
    """See `router.store.registry.StoreModule`."""
    return SqliteStore(settings.get(StoreOptions), Path(settings.get(Data).dir) / STORE_FILE, router)


def keeps(settings: Settings) -> tuple[str, str] | None:
    """See `router.store.registry.StoreModule`. A file that cannot be read counts as one that has something."""
    path = Path(settings.get(Data).dir) / STORE_FILE
    if not os.path.lexists(path):
        return None
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            if not db.execute("PRAGMA user_version").fetchone()[0]:  # just made: its schema comes with the version
                return None
            row = db.execute("SELECT EXISTS (SELECT 1 FROM record) OR EXISTS (SELECT 1 FROM inbox)").fetchone()
            if not row[0]:
                return None
    except sqlite3.Error:
        pass
    return f"{STORE_FILE} beside it", f"move {STORE_FILE} away"
