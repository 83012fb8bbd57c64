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

JSON's weak spot is U+0000: SQLite ends a text there. Where a batch holds one, a stand-in travels instead.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import sqlite3
from collections.abc import Callable
from operator import itemgetter
from pathlib import Path
from typing import Final, TypeVar

import msgspec
import trio

from router.settings import StoreOptions
from router.store.base import Item, LogSlice, Reads, Results, StoreError, Writes
from router.store.memory import next_epoch
from router.store.statements import READ, SCHEMA, SCHEMA_VERSION, SWEPT, WRITE, WRITE_NUL, batch_sql
from router.store.thread import StoreThread
from router.vocabulary import EVERYTHING

BUSY_TIMEOUT_S: Final = 5.0
# Measured with 200,000 items waiting: a checkpoint holds up one commit for 25 ms; at 16,000 pages that is 65 ms,
# for a tenth less CPU a write; 1000, the default, gains 2 ms and costs a sixth more CPU.
CHECKPOINT_PAGES: Final = 2000

# An escaped U+0000: the backslashes before it pair up, so that its own is none of the text's.
_NUL: Final = re.compile(rb"(?<!\\)((?:\\\\)*)\\u0000")
_inboxes_in = msgspec.json.Decoder(list[tuple[bytes, Item]])
_records_in = msgspec.json.Decoder(list[tuple[tuple[str, bytes], bytes]])
_logs_in = msgspec.json.Decoder(list[tuple[bytes, LogSlice]])
_last_in = msgspec.json.Decoder(list[tuple[bytes, int]])
_refused_in = msgspec.json.Decoder(set[tuple[bytes, str]])
_encode = msgspec.json.Encoder().encode
_by_slot = itemgetter(0)

T = TypeVar("T")

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

    def __init__(self, options: StoreOptions, path: Path) -> None:
        self._options = options
        self._path = path
        self._thread = StoreThread()
        self._lock: int | None = None
        self._connection: sqlite3.Connection | None = None
        self._refusals = False
        # Stands for U+0000. Nobody outside can know it, so no text holds it.
        self._nul = f"<NUL {secrets.token_hex(16)}>"
        self._cursor: tuple[int, tuple[str | int, ...]] = (0, SWEPT[0][2])

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

    async def close(self) -> None:
        """See `Store.close`. May be called at any time, and again."""
        with trio.CancelScope(shield=True):
            await self._run(self._close)
            self._thread.end()

    async def _run(self, function: Callable[[], T]) -> T:
        try:
            return await self._thread.run(function)
        except sqlite3.Error as e:
            name = getattr(e, "sqlite_errorname", None) or type(e).__name__
            advice = next((text for start, text in _ADVICE if name.startswith(start)), str(e))
            raise StoreError(f"store {self._path}: {advice} ({name})") from e
        except OSError as e:
            raise StoreError(
                f"store {self._path}: {e.strerror}; check that this user may write the folder and the file"
            ) from e
        except (UnicodeError, OverflowError, MemoryError) as e:
            raise StoreError(f"store {self._path}: the batch cannot be written: {e}") from e

    def _db(self) -> sqlite3.Connection:
        if self._connection is None:
            raise StoreError(f"store {self._path}: it is not open")
        return self._connection

    def _open(self) -> None:
        if sqlite3.sqlite_version_info < (3, 38):
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old for the store; it needs 3.38 or newer")
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._take_lock()
        # SQLite gives the log beside it the same mode.
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        db = self._connection = sqlite3.connect(
            self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
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
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
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

    def _check_schema(self, db: sqlite3.Connection) -> None:
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"store {self._path}: a newer release wrote it (schema {version}, this release knows "
                f"{SCHEMA_VERSION}); start that release, or move the file away"
            )
        if version == 0:
            if db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                raise StoreError(f"store {self._path}: the file is some other program's database; move it away")
            db.executescript(SCHEMA.format(epoch=next_epoch(0)))

    def _close(self) -> None:
        try:
            if self._connection is not None:
                self._connection.close()
        finally:
            self._connection = None
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def _note_refusal(self) -> None:
        self._refusals = True

    def _apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        db = self._db()
        results = Results()
        if writes:
            self._write(db, writes, now, results)
        if reads or writes.events:
            self._read(db, writes, reads, now, results)
        return results

    def _write(self, db: sqlite3.Connection, writes: Writes, now: int, results: Results) -> None:
        if self._refusals:
            db.execute("DELETE FROM refused")
            db.execute("DELETE FROM evicted")
            self._refusals = False
        rows = (
            _encode(list(writes.removals.items())),
            _encode(list(writes.puts.items())),
            _encode(list(writes.records.items())),
            _encode(writes.events),
        )
        if any(b"\\u0000" in part for part in rows):
            stand_in = b"\\1" + self._nul.encode()
            db.execute(WRITE_NUL, (*(_NUL.sub(stand_in, part) for part in rows), now, self._nul))
        else:
            db.execute(WRITE, (*rows, now))
        if self._refusals:
            refused, results.evicted = db.execute(
                "SELECT (SELECT json_group_array(json_array(device, slot)) FROM refused),"
                " (SELECT coalesce(sum(number), 0) FROM evicted)"
            ).fetchone()
            results.refused = _refused_in.decode(refused)

    def _read(self, db: sqlite3.Connection, writes: Writes, reads: Reads, now: int, results: Results) -> None:
        appended = {channel for channel, _, _ in writes.events}
        parts = [most for most in reads.inboxes.values() if most < EVERYTHING]
        row = db.execute(
            READ,
            (
                _encode(list(reads.inboxes.items())),
                _encode(reads.records),
                _encode(list(reads.logs.items())),
                _encode(appended),
                now,
                max(parts, default=1) - 1,
            ),
        ).fetchone()
        for device, item in _inboxes_in.decode(row[0]):
            results.inboxes.setdefault(device, []).append(item)
        for device, items in results.inboxes.items():
            items.sort(key=_by_slot)
            del items[reads.inboxes[device] :]
        results.records = dict(_records_in.decode(row[1]))
        results.logs = dict(_logs_in.decode(row[2]))
        # A channel's events of this batch are its newest, so its last offset tells all of them: count back.
        last = dict(_last_in.decode(row[3]))
        for channel, _, _ in reversed(writes.events):
            results.offsets.append(last[channel])
            last[channel] -= 1
        results.offsets.reverse()

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
                self._forget_channels(db, condition, values)
            else:
                deleted += db.execute(f"DELETE FROM {name} WHERE {condition}", values).rowcount
            if end is not None:
                return deleted, (table, end)
            table += 1
            if table == len(SWEPT):
                return deleted, (0, SWEPT[0][2])
            start = SWEPT[table][2]

    def _forget_channels(self, db: sqlite3.Connection, condition: str, values: dict[str, str | int]) -> None:
        """A channel that begins anew counts from 1: under another epoch, with none of its old events."""
        db.execute(f"DELETE FROM event WHERE channel IN (SELECT channel FROM head WHERE {condition})", values)
        if db.execute(f"DELETE FROM head WHERE {condition}", values).rowcount:
            (epoch,) = db.execute("SELECT epoch FROM meta").fetchone()
            db.execute("UPDATE meta SET epoch = ?", (next_epoch(epoch),))
