"""Which store the settings ask for."""

from __future__ import annotations

from pathlib import Path

from router.options import Settings
from router.settings import Data, StoreOptions
from router.store.base import Store
from router.store.memory import MemoryStore
from router.store.sqlite import SqliteStore

STORE_FILE = "store.sqlite3"


def open_store(settings: Settings) -> Store:
    """The store of `store.kind`, not yet opened: its `open` is awaited by the owner."""
    options = settings.get(StoreOptions)
    if options.kind == "memory":
        return MemoryStore(options)
    return SqliteStore(options, Path(settings.get(Data).dir) / STORE_FILE)
