"""Which store the settings choose, and what the one in memory counts."""

from __future__ import annotations

import socket
from functools import partial
from pathlib import Path

import trio
import zmq
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

from farm.sections import all_sections
from router.common.options import defaults
from router.common.settings import SECTIONS, Data, RouterOptions, StoreOptions
from router.process import RouterProcess
from router.store.base import (
    ANY_VERSION,
    Reads,
    Store,
    Writes,
)
from router.store.memory import MemoryStore
from router.store.registry import for_one, open_store
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


def test_a_router_with_a_store_of_its_own_has_its_part_of_what_may_be_stored() -> None:
    for most, routers, part in ((0, 3, 0), (900, 1, 900), (901, 3, 301)):
        tree = defaults(SECTIONS).replace(RouterOptions, routers=routers)
        for kind in ("sqlite", "memory"):
            found = for_one(tree.replace(StoreOptions, kind=kind, max_bytes=most))
            assert found.get(StoreOptions).max_bytes == part


def test_a_router_goes_by_its_part(tmp_path: Path) -> None:
    tree = defaults(all_sections()).replace(Data, dir=str(tmp_path))
    tree = tree.replace(RouterOptions, routers=3).replace(StoreOptions, kind="memory", max_bytes=7)
    with socket.create_server(("127.0.0.1", 0)) as listener, zmq.Context() as context:
        process = RouterProcess(tree, 1, listener, context)

        async def main() -> None:
            stop = trio.Event()
            stop.set()
            await process.run(stop)

        process.committer._store.used = 3
        assert process.committer.refusing.endswith("store.max_bytes allows 3")
        trio.run(main)
