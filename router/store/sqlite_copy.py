"""Copies of the store's files: made while a router writes to them, checked, and made ready for use."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final

from router.common.files import open_own
from router.common.numbers import next_epoch
from router.store.base import StoreError
from router.store.sqlite_file import BUSY_TIMEOUT_S, REASONS, check_version, explained

_STEP_PAGES: Final = 1024
_OF_WRITING: Final = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_TRUNCATE", "SQLITE_IOERR_FSYNC")
"""Failures of the copy, which alone is written."""


def copy(source: Path, target: Path, copied: Callable[[int, int], None]) -> None:
    """Copy a file as it is at one moment, whoever writes to it meanwhile. The copy is not synced to the disk.

    copied: called now and then with the bytes that are done, and all.
    Raises: StoreError.
    """
    try:
        os.close(open_own(target, os.O_RDWR | os.O_CREAT | os.O_EXCL))
        with (
            contextlib.closing(_read_only(source)) as old,
            contextlib.closing(sqlite3.connect(target, isolation_level=None)) as new,
        ):
            # The read transaction keeps the moment. Without it each commit of the router would begin the copy anew.
            old.execute("BEGIN")
            (page,) = old.execute("PRAGMA page_size").fetchone()
            check_version(source, old)
            old.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            for pragma in ("journal_mode = OFF", "synchronous = OFF"):
                new.execute(f"PRAGMA {pragma}").fetchall()
            old.backup(
                new, pages=_STEP_PAGES, progress=lambda _, left, total: copied((total - left) * page, total * page)
            )
    except REASONS as error:
        name = getattr(error, "sqlite_errorname", None) or ""
        raise explained(target if name in _OF_WRITING else source, error) from error


def check(path: Path, source: Path) -> int:
    """Look at all of a copy, which nobody may write to meanwhile. Returns: the version of its schema; 0: it is empty.

    source: what it is a copy of, for the error.
    Raises: StoreError if it is damaged, or a newer release wrote it, or it has a trigger or a view: no release makes
    these, and they do other things than what is asked for.
    """
    try:
        with contextlib.closing(_read_only(path, "&immutable=1")) as db:
            version = check_version(source, db)
            foreign = db.execute("SELECT type, name FROM sqlite_schema WHERE type IN ('trigger', 'view')").fetchone()
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.Error as error:
        raise StoreError(f"store {source}: it is damaged, or no store ({error})") from None
    if foreign is not None:
        raise StoreError(f"store {source}: it has a {foreign[0]} ({foreign[1]:.40}), which no release makes")
    if found != "ok":
        raise StoreError(f"store {source}: it is damaged ({found})")
    return version


def begin_anew(path: Path, router: int, unix_time: float) -> None:
    """Give the logs of a copy that is put back another epoch.

    After the copy was made their offsets went on, and clients may have seen these: now they are given out again, for
    other events. In another epoch such a client is told of a gap.
    Raises: StoreError.
    """
    try:
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as db:
            if not check_version(path, db):
                return
            (last,) = db.execute(
                "SELECT max(epoch) FROM (SELECT epoch FROM meta UNION ALL SELECT epoch FROM head)"
            ).fetchone()
            db.execute("PRAGMA journal_mode = DELETE").fetchall()  # so that all is in this file
            epoch = next_epoch(last, router, unix_time)
            db.execute("BEGIN IMMEDIATE")
            db.execute("UPDATE meta SET epoch = ?", (epoch,))
            db.execute("UPDATE head SET epoch = ?", (epoch,))
            db.execute("COMMIT")
    except REASONS as error:
        raise explained(path, error) from error


def _read_only(path: Path, more: str = "") -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro{more}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
