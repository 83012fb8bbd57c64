"""Which store the settings ask for."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from router.common.options import Settings
from router.common.settings import Data, StoreOptions
from router.store.base import Store
from router.store.memory import MemoryStore
from router.store.sqlite import SqliteStore

STORE_FILE = "store.sqlite3"


def open_store(settings: Settings, router: int = 0) -> Store:
    """The store of `store.kind` for the router of this number, not yet opened: its `open` is awaited by the owner."""
    options = settings.get(StoreOptions)
    if options.kind == "memory":
        return MemoryStore(options, router)
    return SqliteStore(options, Path(settings.get(Data).dir) / STORE_FILE, router)


def keeps_something(settings: Settings) -> bool:
    """Whether a store that outlives its router has registrations or messages, as far as can be told: a file that cannot
    be read counts as one that has."""
    path = Path(settings.get(Data).dir) / STORE_FILE
    if settings.get(StoreOptions).kind == "memory" or not os.path.lexists(path):
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            if not db.execute("PRAGMA user_version").fetchone()[0]:  # just made: its schema comes with the version
                return False
            row = db.execute("SELECT EXISTS (SELECT 1 FROM record) OR EXISTS (SELECT 1 FROM inbox)").fetchone()
    except sqlite3.Error:
        return True
    return bool(row[0])
