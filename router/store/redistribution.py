"""The store of another number of routers: what is in the files is copied into new ones, before any router starts.

1. All old files are locked: no router uses them. What they hold is counted, and whether there is room for it.
2. The rows are copied into new files, in a folder of their own. What counts per file is the highest of all: a new
   sequence is above every one that was given, and a new epoch, too.
3. The new files are on the disk, and hold as many rows as were copied; then the manifest is replaced.
4. The old files are deleted; if that does not succeed, the next start tries again.

Until 3 the old files count, and nothing in them has changed. So whatever ends this, the next start begins it anew.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from router.common import logs
from router.common.files import open_own, take_folder
from router.common.numbers import next_epoch
from router.common.settings import StoreOptions
from router.store import layout
from router.store.base import StoreError
from router.store.copying import Copier, Target, count
from router.store.layout import Layout
from router.store.sqlite import highest, write_ceiling
from router.store.sqlite_file import PAGE_BYTES, REASONS, SqliteFile, explained, has_rows
from router.store.statements import SCHEMA, USED

_TELL_EVERY_S: Final = 5.0
_CACHE_MIB: Final = 32  # of all new files together
_MIB: Final = 1_048_576


class _Source(NamedTuple):
    """An old file, locked and open."""

    path: Path
    db: sqlite3.Connection
    rows: int
    used: int  # bytes
    epoch: int
    highest: int  # sequence


class Redistribution:
    """Makes the store fit for `routers`. `run` blocks, and belongs into a thread; the rest is for others meanwhile."""

    def __init__(
        self,
        options: StoreOptions,
        data: Path,
        old: Layout,
        routers: int,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._data = data
        self._old = old
        self._new = Layout(folder=old.next_folder(), routers=routers, remove=old.name)
        self._unix_time = unix_time
        self._stopped = False
        self._began = self._told = time.monotonic()
        self._rows = 0
        self._done = 0

    @property
    def copies(self) -> bool:
        """Whether rows have to be copied. Otherwise only what was left is deleted."""
        return not self._old.fits(self._new.routers)

    @property
    def state(self) -> str:
        """How far it is, in a few words."""
        return f"the store is copied for {self._new.routers} routers: {self._done:,} of {self._rows:,} rows"

    def stop(self) -> None:
        """Let `run` end soon, with an error, and leave the old files as they are."""
        self._stopped = True

    def run(self) -> None:
        """Do it. Raises: StoreError; then the old files count, as they were."""
        gone = [self._delete(name) for name in layout.leftovers(self._data, self._old)]
        if self._old.remove and all(gone):
            self._old = self._forget(self._old)
        if not self.copies:
            return
        if not all(gone):
            raise StoreError(f"store {self._data}: what was left there cannot be deleted, see above; {self._remedy()}")
        folder = self._data / self._new.folder
        try:
            self._make(folder)
        except BaseException as error:
            with contextlib.suppress(OSError):
                layout.delete(self._data, self._new.folder)
            if isinstance(error, StoreError):
                raise
            if isinstance(error, REASONS):
                raise StoreError(f"{explained(folder, error)}; {self._remedy()}") from error
            raise
        try:
            layout.write(self._data, self._new)
        except OSError as error:  # the new files may count already
            raise explained(self._data / layout.MANIFEST, error) from error
        seconds = max(time.monotonic() - self._began, 0.001)
        logs.event(
            "store.redistributed",
            routers=self._new.routers,
            before=self._old.routers,
            rows=self._done,
            seconds=round(seconds, 1),
        )
        if self._delete(self._old.name):
            with contextlib.suppress(StoreError):  # the next start tries again
                self._forget(self._new)

    def _remedy(self) -> str:
        return f"nothing has changed for router.routers={self._old.routers}"

    def _make(self, folder: Path) -> None:
        """The new files, on the disk."""
        layout.check_whole(self._data, self._old, has_rows)
        with contextlib.ExitStack() as opened:
            sources = [self._source(number, opened) for number in range(self._old.routers)]
            if layout.read(self._data) != self._old:
                raise StoreError(f"store {self._data}: another process has changed it meanwhile; start again")
            self._rows = sum(source.rows for source in sources)
            self._check_room(sum(source.used for source in sources))
            take_folder(folder)
            self._tell()
            written = self._fill(sources)
            self._check(written)
            layout.sync_folder(folder)
            layout.sync_folder(self._data)
            self._go_on()

    def _source(self, number: int, opened: contextlib.ExitStack) -> _Source:
        path = self._old.path(self._data, number)
        file = SqliteFile(self._options, path, number, self._unix_time, lambda db: None)
        opened.callback(file.close)
        self._go_on()
        try:
            file.open()
            db = file.db()
            (epoch,), (used,) = (db.execute(sql).fetchone() for sql in ("SELECT max(epoch) FROM meta", USED))
            return _Source(path, db, count(db), used, epoch, highest(db))
        except StoreError:
            raise
        except REASONS as error:
            raise explained(path, error) from error

    def _check_room(self, used: int) -> None:
        needed = layout.room(used, self._new.routers)
        free = shutil.disk_usage(self._data).free
        if free < needed:
            raise StoreError(
                f"store {self._data}: to copy it for {self._new.routers} routers takes {needed // _MIB} MiB, and its "
                f"disk has {free // _MIB} MiB left: free some space, or start with router.routers={self._old.routers}"
            )

    def _fill(self, sources: list[_Source]) -> int:
        """Make the new files. Returns: how many rows they have."""
        epoch = max(source.epoch for source in sources)
        ceiling = max(source.highest for source in sources)
        with contextlib.ExitStack() as opened:
            targets = [self._target(number, epoch, opened) for number in range(self._new.routers)]
            copier = Copier(self._old, self._new, targets, self._copied)
            for strays in (False, True):
                for number, source in enumerate(sources):
                    if copier.strays or not strays:
                        copier.copy(source.db, source.path, number, strays)
            for target in targets:
                if ceiling:
                    write_ceiling(target.db, ceiling)
                target.db.execute("COMMIT")
        if copier.strays:
            logs.warning("store.strays", rows=copier.strays, dropped=copier.doubles)
        return self._done - copier.doubles

    def _target(self, number: int, epoch: int, opened: contextlib.ExitStack) -> Target:
        """A new file with its tables, in a transaction. It is not safe against a crash until `_check` has synced it."""
        path = self._new.path(self._data, number)
        os.close(open_own(path, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        db = sqlite3.connect(path, isolation_level=None)
        opened.callback(db.close)
        for pragma in (
            f"page_size = {PAGE_BYTES}",
            "journal_mode = OFF",
            "synchronous = OFF",
            f"cache_size = {-1024 * max(1, _CACHE_MIB // self._new.routers)}",
        ):
            db.execute(f"PRAGMA {pragma}").fetchall()
        db.executescript(SCHEMA.format(epoch=next_epoch(epoch, number, self._unix_time())))
        db.execute("BEGIN")
        return Target(path, db)

    def _copied(self, rows: int) -> None:
        self._done += rows
        self._go_on()
        if time.monotonic() - self._told >= _TELL_EVERY_S:
            self._tell()

    def _go_on(self) -> None:
        if self._stopped:
            raise StoreError(f"store {self._data}: it was not copied to the end; {self._remedy()}")

    def _tell(self) -> None:
        self._told = time.monotonic()
        rate = round(self._done / max(self._told - self._began, 0.001))
        logs.event(
            "store.redistributing",
            routers=self._new.routers,
            before=self._old.routers,
            rows=self._done,
            of=self._rows,
            rows_per_s=rate,
        )

    def _check(self, written: int) -> None:
        """That the new files are on the disk, and have what was written."""
        found = 0
        for path in self._new.paths(self._data):
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
            with contextlib.closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
                found += count(db)
        if (self._done, found) != (self._rows, written):
            raise StoreError(
                f"store {self._data}: {self._rows} rows were to be copied, {self._done} were read, {written} written "
                f"and {found} are there: look at the disk and the memory of this machine; {self._remedy()}"
            )

    def _delete(self, name: str) -> bool:
        """Returns: whether it has gone."""
        try:
            layout.delete(self._data, name)
            layout.sync_folder(self._data)
        except OSError as error:
            logs.warning("store.not_deleted", path=str(self._data / name), why=error.strerror or str(error))
            return False
        return True

    def _forget(self, found: Layout) -> Layout:
        """What it has replaced is gone. Returns: the layout from now on."""
        forgotten = msgspec.structs.replace(found, remove="")
        try:
            layout.write(self._data, forgotten)
        except OSError as error:
            raise explained(self._data / layout.MANIFEST, error) from error
        return forgotten
