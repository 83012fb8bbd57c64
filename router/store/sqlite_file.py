"""The file of the store on disk: its lock, its schema, its one connection, and what an error of it means.

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
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

from router.common.files import FileError, open_own, take_folder, what_to_do
from router.common.numbers import next_epoch
from router.common.settings import StoreOptions
from router.store.base import BadBatchError, StoreError
from router.store.statements import SCHEMA, SCHEMA_VERSION, SWEPT, batch_sql, migration
from router.store.thread import StoreThread

BUSY_TIMEOUT_S: Final = 5.0
PAGE_BYTES: Final = 8192
"""Of a new file. With SQLite's own 4096 an encrypted message of usual length lies on an overflow page of its own, which
is written whole and freed by the acknowledgement: 9 us more CPU a message. A row that stands alone on its page, such as
a registration, costs 1 us more with 8192."""
# Measured with 200,000 items waiting: a checkpoint of 8 MB holds up one commit for 25 ms; one of 64 MB for 65 ms,
# for a tenth less CPU a write; 4 MB gains 2 ms and costs a sixth more CPU.
CHECKPOINT_PAGES: Final = 1000
REOPEN_AFTER_S: Final = 60.0
"""If every call of so long has failed, the connection is made anew."""

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
_PASSING: Final = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")
"""Failures that no new connection mends."""

# By the first matching start of SQLite's name for the error: what to do about it.
_ADVICE: Final = (
    ("SQLITE_FULL", "the disk is full; free some space: a farm that runs goes on without a restart"),
    ("SQLITE_BUSY", "another process keeps the database locked; stop it"),
    ("SQLITE_LOCKED", "another process keeps the database locked; stop it"),
    ("SQLITE_READONLY", "it cannot be written; give this user write access to the file and its folder"),
    ("SQLITE_CANTOPEN", "it cannot be opened; give this user write access to the file and its folder"),
    ("SQLITE_PERM", "it cannot be opened; give this user write access to the file and its folder"),
    ("SQLITE_IOERR", "the disk does not read or write; look at the kernel log and at the space left"),
    ("SQLITE_CORRUPT", "the file is damaged; stop the router, then restore a backup or move the file away"),
    ("SQLITE_NOTADB", "the file is not a store; move it away"),
)


REASONS: Final = (*_UNWRITABLE, sqlite3.Error, FileError, OSError, MemoryError)
"""What `explained` explains."""


def explained(path: Path, error: BaseException) -> StoreError:
    """What to do about an error of this file."""
    if isinstance(error, _UNWRITABLE):
        return BadBatchError(f"store {path}: the batch cannot be written: {error}")
    if isinstance(error, sqlite3.Error):
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        advice = next((text for start, text in _ADVICE if name.startswith(start)), str(error))
        return StoreError(f"store {path}: {advice} ({name})")
    if isinstance(error, FileError):
        return StoreError(f"store {error}")
    if isinstance(error, OSError):
        advice = what_to_do(error) or "; check that this user may write the folder and the file"
        return StoreError(f"store {path}: {(error.strerror or str(error)).lower()}{advice}")
    return StoreError(f"store {path}: there is no memory left")


class SqliteFile:
    """The file at `path`, for the store that has it alone. Everything but `check` runs in the thread of `run`.

    prepared: called for each connection that is made, before anything else. confirm: called when the file is locked and
    before it is made or opened; raises StoreError if it is not the file after all.
    """

    def __init__(
        self,
        options: StoreOptions,
        path: Path,
        router: int,
        unix_time: Callable[[], float],
        prepared: Callable[[sqlite3.Connection], None],
        confirm: Callable[[], object] = lambda: None,
    ) -> None:
        self._options = options
        self._path = path
        self._router = router
        self._unix_time = unix_time
        self._prepared = prepared
        self._confirm = confirm
        self._thread = StoreThread()
        self._lock: int | None = None
        self._failing_since: float | None = None
        self.connection: sqlite3.Connection | None = None

    def check(self) -> None:
        """As `check_file`."""
        check_file(self._path)

    async def run(self, function: Callable[[], T]) -> T:
        """Call it in the thread. Raises: StoreError, BadBatchError for what it raises."""
        try:
            return await self._thread.run(lambda: self._watched(function))
        except REASONS as error:
            raise explained(self._path, error) from error

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
        db, self.connection = self.connection, None
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def db(self) -> sqlite3.Connection:
        """The connection, with no transaction begun. Raises: StoreError if the file is not open."""
        db = self.connection
        if db is None:
            if self._lock is None:
                raise StoreError(f"store {self._path}: it is not open")
            db = self._connect()
        elif db.in_transaction:  # its end has failed
            db.execute("ROLLBACK")
        return db

    def open(self) -> None:
        """Make the folder (0700) and the file (0600) where they are missing, and connect."""
        if sqlite3.sqlite_version_info < (3, 38):
            raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old for the store; it needs 3.38 or newer")
        take_folder(self._path.parent)
        self._take_lock()
        self._confirm()
        # SQLite gives the files beside it the same mode. It would follow links, so these are looked at first.
        os.close(open_own(self._path, os.O_RDWR | os.O_CREAT))
        for beside in ("-wal", "-shm"):
            with suppress(FileNotFoundError):
                os.close(open_own(self._path.with_name(self._path.name + beside), os.O_RDWR))
        self._connect()

    def _connect(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        try:
            self._prepare(db)
        except BaseException:
            db.close()
            raise
        self.connection = db
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
        self._prepared(db)
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

    def _check_schema(self, db: sqlite3.Connection) -> None:
        version = check_version(self._path, db)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
        if version < 0 or (tables if version == 0 else not tables.issuperset(name for name, *_ in SWEPT)):
            raise StoreError(f"store {self._path}: the file is some other program's database; move it away")
        if 0 < version < SCHEMA_VERSION:
            (epoch,) = db.execute("SELECT epoch FROM meta").fetchone()
            db.executescript(migration(version, next_epoch(epoch, self._router, self._unix_time())))
        if version == 0:
            db.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            db.executescript(SCHEMA.format(epoch=next_epoch(0, self._router, self._unix_time())))

    def close(self) -> None:
        """Let go of the file. It may be called again."""
        db, self.connection = self.connection, None
        try:
            if db is not None:
                db.close()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def end(self) -> None:
        """Let the thread end after what it was given."""
        self._thread.end()


def check_version(path: Path, db: sqlite3.Connection) -> int:
    """The version of its schema; 0: it has none yet. Raises: StoreError if a newer release wrote it."""
    version: int
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"store {path}: a newer release wrote it (schema {version}, this release knows "
            f"{SCHEMA_VERSION}); start that release, or move the file away"
        )
    return version


def check_file(path: Path) -> None:
    """See whether a file that is there has a schema that this release knows. Raises: StoreError."""
    if not path.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            check_version(path, db)
    except sqlite3.Error as error:
        raise StoreError(f"store {path}: {error}") from None


def has_rows(path: Path) -> bool:
    """Whether the file has registrations or messages, as far as can be told: one that cannot be read counts as one that
    has."""
    if not os.path.lexists(path):
        return False
    try:
        with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            if not db.execute("PRAGMA user_version").fetchone()[0]:  # just made: its schema comes with the version
                return False
            row = db.execute("SELECT EXISTS (SELECT 1 FROM record) OR EXISTS (SELECT 1 FROM inbox)").fetchone()
    except sqlite3.Error:
        return True
    return bool(row[0])
