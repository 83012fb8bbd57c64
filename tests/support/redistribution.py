"""A store with something of everything in it, and what there is to read in the files of any number of routers."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import trio

from router.common.item import Item
from router.common.messages import EVERYTHING
from router.common.numbers import SECOND
from router.common.options import Settings, defaults
from router.common.partitions import fixed_owners, partition
from router.common.settings import SECTIONS, Data, RouterOptions, StoreOptions
from router.store import layout
from router.store.base import Append, ExpireLog, LogName, Reads, Store, Writes
from router.store.changes import Put, SetAdd, Take
from router.store.redistribution import Redistribution
from router.store.registry import open_store, preparation
from support.stores import ALL, NOW

T = TypeVar("T")
_owners = cache(fixed_owners)
CEILING = (NOW + 1000) * SECOND
SPACES = ("s", "t", "t#taken", "set")
_TABLES = ("inbox", "record", "head", "event")
_TEXTS = ("", "a", "é\0", "\\u0000", "x" * 40, "y" * 20_000)


def settings(data: Path, routers: int) -> Settings:
    """Of a farm with so many routers."""
    return defaults(SECTIONS).replace(Data, dir=str(data)).replace(RouterOptions, routers=routers)


def owner(key: bytes, routers: int) -> int:
    """The router that has this key."""
    return _owners(routers)[partition(key)]


def in_each_store(data: Path, routers: int, test: Callable[[Store, int], Awaitable[T]]) -> list[T]:
    """Run the test in the store of each router."""
    results: list[T] = []

    async def main() -> None:
        for number in range(routers):
            store = open_store(settings(data, routers), number)
            await store.open()
            results.append(await test(store, number))
            await store.close()

    trio.run(main)
    return results


def fill(data: Path, routers: int, seed: int, number: int = 60) -> list[bytes]:
    """Put something of everything into the stores of so many routers. Returns: the keys there may be."""
    chance = random.Random(seed)
    keys = [chance.randbytes(16) for _ in range(number)] + [b"all", b""]
    batches = [_batch(chance, keys) for _ in range(12)]

    async def put(store: Store, router: int) -> None:
        for batch in batches:
            await store.apply(_part(batch, router, routers), Reads(), NOW)

    in_each_store(data, routers, put)
    return keys


def _batch(chance: random.Random, keys: list[bytes]) -> Writes:
    writes = Writes()

    def some(most: int) -> list[bytes]:
        return chance.sample(keys, chance.randrange(most))

    for key in some(40):
        slot = chance.choice("abc\0")
        body = chance.choice([None, *_TEXTS])
        seq = (NOW + chance.randrange(900)) * SECOND
        writes.puts[key, slot] = Item(slot, chance.randrange(9), seq, NOW + chance.randrange(1, 99), 0, body)
    for key in some(20):
        writes.removals[key, chance.choice("abc")] = 9
    for key in some(30):
        writes.records["s", key] = (chance.randbytes(chance.randrange(50)), chance.choice([0, NOW + 50, NOW - 1]))
    for key in some(20):
        writes.changes.append((("t", key), chance.choice([Put(b"v" * 9, NOW + 60), Take(b"t" * 16)])))
    for key in some(20):
        writes.changes.append((("set", key), SetAdd(chance.randbytes(16), b"head", NOW + 70, 9)))
    for key in some(30):
        expires = NOW + chance.randrange(-3, 90)
        sequence = (NOW + chance.randrange(900)) * SECOND
        exact = chance.random() < 0.3
        offset = chance.randrange(1, 30) if exact else 0
        headers: dict[str, str] = chance.choice([{}, {"a": "é\n"}])
        body, name = chance.choice(_TEXTS), chance.choice(["", "id"])
        writes.logs.append(Append(key, sequence, expires, body, name, headers, offset, exact, chance.randrange(6)))
    for key in some(6):
        writes.logs.append(ExpireLog(key, chance.choice([0, NOW + 40, NOW - 1])))
    writes.ceiling = chance.choice([0, CEILING - chance.randrange(1000)])
    return writes


def _part(batch: Writes, router: int, routers: int) -> Writes:
    """What of the batch is this router's."""

    def mine(key: bytes) -> bool:
        return owner(key, routers) == router

    return Writes(
        {name: value for name, value in batch.puts.items() if mine(name[0])},
        {name: value for name, value in batch.removals.items() if mine(name[0])},
        {name: value for name, value in batch.records.items() if mine(name[1])},
        [change for change in batch.changes if mine(change[0][1])],
        [write for write in batch.logs if mine(write.channel)],
        ceiling=batch.ceiling,
    )


def content(data: Path, routers: int, keys: list[bytes], now: int = NOW) -> dict[str, Any]:
    """All there is to read of these keys. Each is looked for in the files of all routers, and may be in its owner's
    alone."""
    reads = Reads(
        dict.fromkeys(keys, EVERYTHING),
        {(space, key) for space in SPACES for key in keys},
        {LogName(key, ALL) for key in keys},
        set(keys),
    )
    found: dict[str, Any] = {"inboxes": {}, "records": {}, "logs": {}, "log_sizes": {}}

    async def read(store: Store, number: int) -> None:
        results = await store.apply(Writes(), reads, now)
        logs = {name.channel: part for name, part in results.logs.items() if name.channel in results.log_sizes}
        of_keys = {*results.inboxes, *(name[1] for name in results.records), *logs}
        assert {owner(key, routers) for key in of_keys} <= {number}
        for kind, part in (("inboxes", results.inboxes), ("records", results.records), ("logs", logs)):
            found[kind] |= part
        found["log_sizes"] |= results.log_sizes

    in_each_store(data, routers, read)
    return found


def rows(data: Path) -> list[tuple[Any, ...]]:
    """All rows of the files that count, but for those about the files themselves."""
    found: list[tuple[Any, ...]] = []
    there = layout.read(data)
    assert there is not None
    for path in there.paths(data):
        # What was killed may have left a log that only who may write can read.
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True)) as db:
            for table in _TABLES:
                found += [(table, *row) for row in db.execute(f"SELECT * FROM {table}")]
    return sorted((row for row in found if row[1] not in ("mark", "probe")), key=repr)


def redistribute(data: Path, routers: int) -> None:
    """As a start with so many routers does."""
    job = preparation(settings(data, routers))
    if job is not None:
        job.run()


def redistribution(data: Path, routers: int, **options: Any) -> Redistribution:
    """One that is to be run."""
    found = layout.read(data)
    assert found is not None
    return Redistribution(StoreOptions(), data, found, routers, **options)
