"""What the tests of stores share: a store of each kind to run in, and things to put into it."""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trio

from router.common import store_kinds
from router.common.item import Item
from router.common.memcached_settings import MemcachedOptions
from router.common.messages import EVERYTHING
from router.common.numbers import SECOND
from router.common.options import Settings
from router.common.position import ANY_EPOCH, AfterOffset, LogSlice, Position
from router.common.redis_settings import RedisOptions
from router.common.settings import Data, StoreOptions
from router.common.store_kinds import Shape
from router.store.base import LARGE_BODY, Append, LogName, Reads, Store, Writes
from router.store.memcached import MemcachedStore
from router.store.memory import MemoryStore
from router.store.redis import RedisStore
from router.store.sqlite import SqliteStore
from support.common import settings_with
from support.memcached import shared_memcached
from support.redis_servers import PRODUCTS, RedisServer, shared_server

A, B, C = b"a" * 16, b"\x00\xff" * 8, b"c" * 16
NOW = 1_000_000
LATER = NOW + 100
OPTIONS = StoreOptions(inbox_limit=3, log_limit=4)
TESTED = {
    "memory": "memory",
    "sqlite": "sqlite",
    **dict.fromkeys(PRODUCTS, "redis"),
    "memcached": "memcached",
}
"""What is tested, and the kind of store that it is."""
KINDS = tuple(TESTED)
SWEPT = tuple(kind for kind in KINDS if kind != "memcached")
"""Those that look through all that they hold. memcached drops by itself what has expired."""
ALL = AfterOffset(ANY_EPOCH, 0)
"""The position before everything."""
TEXTS = ["", "\0", "a\0b\0", "\\u0000", "\\\\u0000\0", '"\\', "é😀\u2028", "\x7f\x1f"]
"""What a store may take for something else."""
ROOMY = StoreOptions(inbox_limit=6, inbox_bytes=3 * LARGE_BODY)
"""Room for six messages, and for three times LARGE_BODY bytes of bodies."""

T = TypeVar("T")
Scenario = Callable[..., Awaitable[None]]


def new_store(kind: str, options: StoreOptions, folder: Path) -> Store:
    """One of its kind, not opened."""
    if kind == "memory":
        return MemoryStore(options, unix_time=lambda: NOW)
    if kind in PRODUCTS:
        server = shared_server(kind)
        assert server.ask("FLUSHALL") == b"OK"
        return redis_store(server, options)
    if kind == "memcached":
        return memcached_store(options, shared_memcached().name)
    return SqliteStore(options, folder / "data" / "store.sqlite3", unix_time=lambda: NOW)


def redis_store(server: RedisServer, options: StoreOptions = OPTIONS, prefix: str = "", **redis: Any) -> RedisStore:
    """One on this server, not opened. prefix: "" for one that no other store has."""
    redis = {"url": server.url, "prefix": prefix or secrets.token_hex(8), **redis}
    return RedisStore(options, RedisOptions(**redis), lambda: "test", unix_time=lambda: NOW)


def memcached_store(options: StoreOptions, *servers: str, **memcached: Any) -> MemcachedStore:
    """One whose entries have a prefix of their own, not opened."""
    return MemcachedStore(MemcachedOptions(servers, **{"prefix": f"{secrets.token_hex(8)}:", **memcached}), options)


def store_settings(kind: str, folder: Path) -> Settings:
    """The settings of one of its kind that holds nothing."""
    prefix = secrets.token_hex(8)
    changes: list[tuple[type[Any], dict[str, Any]]] = [(StoreOptions, {"kind": kind}), (Data, {"dir": str(folder)})]
    if kind == "redis":
        changes.append((RedisOptions, {"url": shared_server("valkey").url, "prefix": prefix}))
    if kind == "memcached":
        changes.append((MemcachedOptions, {"servers": (shared_memcached().name,), "prefix": prefix}))
    return settings_with(*changes)


async def with_store(store: Store, test: Callable[[Store], Awaitable[T]]) -> T:
    """Open the store for as long as the test takes."""
    await store.open()
    try:
        return await test(store)
    finally:
        await store.close()


def in_sqlite(path: Path, test: Callable[[Store], Awaitable[T]], options: StoreOptions = OPTIONS) -> T:
    """Run the test in a store on this file."""
    return trio.run(with_store, SqliteStore(options, path), test)


def able(needs: Collection[Shape], kinds: Collection[str] = KINDS) -> list[str]:
    """Those of these that can do what is needed."""
    return [kind for kind in kinds if store_kinds.by_name(TESTED[kind]).can.issuperset(needs)]


def in_store(
    options: StoreOptions = OPTIONS, *, needs: Collection[Shape] = (), kinds: Collection[str] = KINDS
) -> Callable[[Scenario], Callable[..., None]]:
    """Make a test for each kind of store of a coroutine function: its first parameter is an open one.

    needs: what the store has to be able to do. kinds: those that are looked at.
    """

    def decorate(scenario: Scenario) -> Callable[..., None]:
        def test(store_kind: str, tmp_path: Path, **parameters: Any) -> None:
            async def main(store: Store) -> None:
                await scenario(store, **parameters)

            trio.run(with_store, new_store(store_kind, options, tmp_path), main)

        known = inspect.signature(test).parameters
        parameters = [
            known["store_kind"],
            known["tmp_path"],
            *list(inspect.signature(scenario).parameters.values())[1:],
        ]
        test.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        test.__name__, test.__doc__, test.__module__ = scenario.__name__, scenario.__doc__, scenario.__module__
        test.pytestmark = list(getattr(scenario, "pytestmark", []))  # type: ignore[attr-defined]
        return pytest.mark.parametrize("store_kind", able(needs, kinds))(test)

    return decorate


def item(
    slot: str, seq: int, version: int = 1, expires: int = LATER, body: str | None = "body", urgency: int = 0
) -> Item:
    """An item of an inbox."""
    return Item(slot, version, seq, expires, urgency, body)


def event(channel: bytes, body: str = "", expires: int = LATER, sequence: int = NOW * SECOND, **more: Any) -> Append:
    """An event of a log."""
    return Append(channel, sequence, expires, body, **more)


async def read_log(store: Store, channel: bytes, position: Position = ALL, now: int = NOW, most: int = 0) -> LogSlice:
    """A log from a position."""
    name = LogName(channel, position, most)
    return (await store.apply(Writes(), Reads(logs={name}), now)).logs[name]


def bodies(part: LogSlice) -> str:
    """Of short ones, what they spell."""
    return "".join(one.body for one in part.events)


def everything(*devices: bytes) -> dict[bytes, int]:
    """Reads of whole inboxes."""
    return dict.fromkeys(devices, EVERYTHING)


def puts(device: bytes, *items: Item) -> Writes:
    """Items into one inbox."""
    return Writes(puts={(device, i.slot): i for i in items})


async def inbox(store: Store, device: bytes, now: int = NOW) -> list[Item]:
    """What it holds."""
    return (await store.apply(Writes(), Reads(inboxes=everything(device)), now)).inboxes.get(device, [])
