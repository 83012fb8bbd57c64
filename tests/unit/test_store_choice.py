"""Which store the settings choose, and what the one in memory counts."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import trio
from support.stores import (
    NOW,
    OPTIONS,
    A,
    event,
    inbox,
    item,
    puts,
    with_store,
)

from router.common.options import defaults
from router.common.settings import SECTIONS, Data, StoreOptions
from router.store.base import (
    ANY_VERSION,
    Reads,
    Store,
    Writes,
)
from router.store.memory import MemoryStore
from router.store.registry import open_store
from router.store.sqlite import SqliteStore


def test_settings_choose_the_store(tmp_path: Path) -> None:
    tree = defaults(SECTIONS).replace(Data, dir=str(tmp_path / "new"))
    assert isinstance(open_store(tree.replace(StoreOptions, kind="memory")), MemoryStore)
    store = open_store(tree)
    assert isinstance(store, SqliteStore)
    trio.run(with_store, store, partial(inbox, device=A))
    assert (tmp_path / "new" / "store.sqlite3").exists()


def test_memory_store_counts_what_it_holds() -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, MemoryStore)
        writes = puts(A, item("x", 1), item("y", 2, expires=NOW + 1))
        writes.records["s", A] = (b"", 0)
        writes.logs = [event(A)] * 3
        await store.apply(writes, Reads(), NOW)
        await store.apply(puts(A, item("x", 3)), Reads(), NOW)
        assert dict(store.sizes()) == {"inbox": 2, "log": 3, "table": 1}
        await store.sweep(NOW + 1, 100)
        await store.apply(Writes(removals={(A, "x"): ANY_VERSION}), Reads(), NOW)
        assert dict(store.sizes()) == {"inbox": 0, "log": 3, "table": 1}

    trio.run(with_store, MemoryStore(OPTIONS), test)
