"""The layout of what is in Redis and memcached: that of an earlier release is taken, that of a newer one left alone.

The earlier one's entries were written by the stores of a release that marked no layout, and read out of the server
(`tests/data/store-*-layout-1.json.gz`: key, time to live in milliseconds, and the value; in Redis as DUMP gives it).
"""

from __future__ import annotations

import gzip
import json
import signal
import threading
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
from support.common import settings_with
from support.farm_fixture import until
from support.memcached import Memcached, running_memcached
from support.redis_servers import PRODUCTS, RedisServer
from support.stores import ALL, NOW, OPTIONS, A, B, C, bodies, everything, item, memcached_store, puts, with_store

from router.common.item import Item
from router.common.memcached_settings import MemcachedOptions
from router.common.redis_settings import RedisOptions
from router.common.settings import StoreOptions
from router.store.base import LogName, Reads, Store, StoreError, Writes
from router.store.memcached_work import LAYOUT as MEMCACHED_LAYOUT
from router.store.redis import RedisStore
from router.store.redis_connection import ConnectionLost
from router.store.redis_keys import LAYOUT, bases, fence
from router.store.redis_ownership import Newer, Ownership, check_free
from router.store.redis_scripts import ownership_script
from router.store.registry import look_over

DATA = Path(__file__).parents[1] / "data"
FIRST = fence(bases("farm")[0])
FAR = NOW + 10**9
"""When it expires."""


def rows(kind: str) -> list[tuple[bytes, int, bytes]]:
    found = json.loads(gzip.decompress((DATA / f"store-{kind}-layout-1.json.gz").read_bytes()))
    return [(b64decode(key), ttl, b64decode(value)) for key, ttl, value in found]


@pytest.fixture(params=PRODUCTS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> RedisServer:
    started = RedisServer(request.param, tmp_path)
    request.addfinalizer(lambda: started.stop(signal.SIGKILL))
    replies = started.calls(*(("RESTORE", *row) for row in rows("redis")))
    assert set(replies) == {b"OK"}
    return started


@pytest.fixture
def memcached() -> Iterator[Memcached]:
    with running_memcached() as started:
        for key, _, value in rows("memcached"):
            assert started.ask(b"set %b 0 0 %d\r\n%b\r\n" % (key, len(value), value), b"\r\n") == b"STORED\r\n"
        yield started


def redis_of(server: RedisServer, holder: str = "test") -> RedisStore:
    options = RedisOptions(url=server.url, lease=1.0)
    return RedisStore(OPTIONS, options, lambda: holder, unix_time=lambda: NOW)


async def content(store: Store, *, logs: bool) -> None:
    """That of the data, and that it can be written to."""
    names = {("s", A), ("s", B), ("set", A), ("t", B)}
    reads = Reads(everything(A, B, C), names, {LogName(key, ALL) for key in (A, B)} if logs else set())
    found = await store.apply(Writes(), reads, NOW)
    assert found.inboxes[A] == [Item("#b", 7, 2, FAR, 0, "nul \0 é"), Item("a", 1, 1, FAR, 0, "body")]
    assert found.inboxes[B] == [Item("none", 1, 4, FAR, 0, None)]
    set_of_two = b"day1" + b"1" * 16 + b"2" * 16
    assert found.records == {("s", A): b"for ever", ("s", B): b"\0\xff", ("set", A): set_of_two}
    if logs:
        assert [(i.slot, i.urgency, i.body) for i in found.inboxes[C]] == [("high", 3, "high"), ("low", 1, "low")]
        log = found.logs[LogName(A, ALL)]
        assert (bodies(log), log.offset, log.recovered) == ("2345", 6, False)
        assert next((one.tag, one.id, one.headers) for one in log.events) == (2, "id2", {"h": "v"})
        assert bodies(found.logs[LogName(B, ALL)]) == "nul \0 é"
    assert await store.highest() == 5000
    await store.apply(puts(A, item("new", 6000, expires=FAR)), Reads(), NOW)
    assert [i.slot for i in (await store.apply(Writes(), Reads(everything(A)), NOW)).inboxes[A]] == ["#b", "a", "new"]


def layouts(server: RedisServer) -> set[Any]:
    return set(server.calls(*(("HGET", fence(base), "v") for base in bases("farm"))))


async def nothing(store: Store) -> None:
    await trio.lowlevel.checkpoint()


def test_what_an_earlier_release_has_in_redis_is_taken_and_marked(server: RedisServer) -> None:
    assert layouts(server) == {None}
    trio.run(with_store, redis_of(server), lambda store: content(store, logs=True))
    assert layouts(server) == {b"%d" % LAYOUT}


def test_what_a_newer_release_has_in_redis_is_left_alone(server: RedisServer) -> None:
    settings = settings_with((StoreOptions, {"kind": "redis"}), (RedisOptions, {"url": server.url}))
    newer = fence(bases("farm")[300])
    trio.run(with_store, redis_of(server), nothing)
    server.ask("HSET", newer, "v", LAYOUT + 1)
    before = server.ask("HGETALL", newer), server.ask("HGETALL", FIRST)
    match = (
        rf"^Redis 127\.0\.0\.1:{server.port}: a newer release wrote what is under the prefix farm "
        rf"\(layout {LAYOUT + 1}, this release knows {LAYOUT}\): start that release, "
        r"or give this farm a redis\.prefix of its own$"
    )
    for holder in ("test", "another"):
        with pytest.raises(StoreError, match=match):
            trio.run(redis_of(server, holder).open)
    with pytest.raises(StoreError, match=match):
        redis_of(server).check()
    assert (server.ask("HGETALL", newer), server.ask("HGETALL", FIRST)) == before
    (row,) = [one for one in look_over(settings) if one.name == "Redis data"]
    assert (row.status, row.found) == ("fail", f"layout {LAYOUT + 1}, a newer release's")
    server.ask("HSET", newer, "v", LAYOUT)
    assert ("Redis data", "ok") in [(one.name, one.status) for one in look_over(settings)]


def test_a_router_whose_partitions_a_newer_release_takes_ends_and_does_not_come_back(server: RedisServer) -> None:
    """As in a cluster, where a router has moved to a host that was upgraded."""

    async def main() -> None:
        store = redis_of(server)
        await store.open()

        async def ends() -> None:
            with pytest.raises(StoreError, match="another router has taken"):
                await store.run()
            nursery.cancel_scope.cancel()

        with trio.fail_after(20):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ends)
                taken = (
                    ("HSET", fence(base), "t", "99:newer:1", "h", "newer", "v", LAYOUT + 1) for base in bases("farm")
                )
                await trio.to_thread.run_sync(server.calls, *taken)
                await trio.sleep_forever()
        await store.close()
        with pytest.raises(StoreError, match="a newer release wrote"):
            await redis_of(server).open()  # as the process that follows it does

    trio.run(main)


def test_a_router_that_finds_a_newer_release_on_a_connection_made_anew_says_so(server: RedisServer) -> None:
    async def main() -> None:
        store = redis_of(server)
        await store.open()
        calls = (("HSET", FIRST, "v", LAYOUT + 1), ("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        await trio.to_thread.run_sync(server.calls, *calls)
        with trio.fail_after(20):
            error = ""
            while "a newer release wrote" not in error:
                try:
                    await store.apply(puts(A, item("x", 6000)), Reads(), NOW)
                except StoreError as failed:
                    error = str(failed)
            with pytest.raises(StoreError, match="a newer release wrote"):
                await store.run()
        await store.close()

    trio.run(main)


class Migrating:
    """Partitions with inboxes, and the script as it is but for migrations that a later release may have: of two steps
    the first without work."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        full = server.calls(*(("EXISTS", base + b"full") for base in bases("farm")))
        self.places = [place for place, there in enumerate(full) if there]
        assert len(self.places) == 3

    def acquire(self, more: str = "") -> Any:
        """The reply. more: of the second step, behind its work."""
        work = (
            "if redis.call('EXISTS', base .. 'full') == 1 then redis.call('RENAME', base .. 'full', base .. 'new') end"
        )
        _, _, *rest = Ownership(bases("farm"), "test", 1.0, 0).acquire(self.places, b"run", NOW)
        at = rest.index("acquire") + 3
        assert rest[at] == LAYOUT
        rest[at] = 3
        steps = f"local migrations = {{[2] = function(base) {work} {more} end}}"
        text = ownership_script().text.replace("local migrations = {}", steps)
        assert steps in text
        return self.server.calls(("EVAL", text, *rest))[0]

    def found(self) -> set[Any]:
        """Layout, and which key is there."""
        keys = [bases("farm")[place] for place in self.places]
        calls = [(("HGET", fence(key), "v"), ("EXISTS", key + b"full"), ("EXISTS", key + b"new")) for key in keys]
        replies = self.server.calls(*(one for three in calls for one in three))
        return set(zip(replies[::3], replies[1::3], replies[2::3], strict=True))


def test_a_migration_in_redis_is_made_as_partitions_are_acquired(server: RedisServer) -> None:
    migrating = Migrating(server)
    assert "broken" in str(migrating.acquire("error('broken')"))
    assert (None, 0, 1) in migrating.found()
    assert len(migrating.acquire()) == 1 + 2 * len(migrating.places)
    assert migrating.found() == {(b"3", 0, 1)}
    assert len(migrating.acquire("error('again')")) == 1 + 2 * len(migrating.places)  # it is up to date
    command = Ownership(bases("farm"), "test", 1.0, 0).free(migrating.places)
    with pytest.raises(Newer):
        check_free(server.calls(("SCRIPT", "LOAD", ownership_script().text), command)[1])


def test_a_server_that_is_killed_within_a_migration_has_nothing_of_it(server: RedisServer, tmp_path: Path) -> None:
    migrating = Migrating(server)

    def killed() -> None:
        with pytest.raises(ConnectionLost):
            migrating.acquire("redis.log(redis.LOG_WARNING, 'midway') while true do end")

    thread = threading.Thread(target=killed)
    thread.start()
    until(lambda: "midway" in (tmp_path / "log").read_text(), "the script is within the migration")
    server.stop(signal.SIGKILL)
    thread.join()
    server.start()
    assert migrating.found() == {(None, 1, 0)}
    trio.run(with_store, redis_of(server), lambda store: content(store, logs=True))


def test_what_an_earlier_release_has_in_memcached_is_taken_and_marked(memcached: Memcached) -> None:
    async def main(store: Store) -> None:
        await content(store, logs=False)

    trio.run(with_store, memcached_store(OPTIONS, memcached.name, prefix="farm:"), main)
    assert (
        memcached.ask(b"get farm:layout\r\n", b"END\r\n")
        == b"VALUE farm:layout 0 1\r\n%d\r\nEND\r\n" % MEMCACHED_LAYOUT
    )


def test_what_a_newer_release_has_in_memcached_is_left_alone(memcached: Memcached) -> None:
    found = b"%d" % (MEMCACHED_LAYOUT + 1)
    memcached.ask(b"set farm:layout 0 0 %d\r\n%b\r\n" % (len(found), found), b"\r\n")
    with running_memcached() as other:
        store = memcached_store(OPTIONS, other.name, memcached.name, prefix="farm:")
        match = rf"^memcached {memcached.name}: a newer release wrote .*layout {found.decode()}.*start that release"
        with pytest.raises(StoreError, match=match):
            trio.run(store.open)
        with pytest.raises(StoreError, match=match):
            store.check()
        options = {"servers": (other.name, memcached.name), "prefix": "farm:"}
        settings = settings_with((StoreOptions, {"kind": "memcached"}), (MemcachedOptions, options))
        assert [one.status for one in look_over(settings)][:2] == ["warn", "fail"]


def test_a_memcached_that_a_newer_release_takes_over_is_away(memcached: Memcached) -> None:
    """A release that takes one of the servers while this one runs is seen when the connection is made anew."""
    found = b"%d" % (MEMCACHED_LAYOUT + 1)

    async def main(store: Store) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            memcached.kill()
            memcached.start()
            memcached.ask(b"set farm:layout 0 0 %d\r\n%b\r\n" % (len(found), found), b"\r\n")
            with trio.fail_after(20):
                while True:
                    try:
                        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
                    except StoreError as error:
                        if "a newer release wrote" in str(error):
                            break
                    await trio.sleep(0.01)
            nursery.cancel_scope.cancel()

    trio.run(with_store, memcached_store(OPTIONS, memcached.name, prefix="farm:", retry=0.01), main)
    assert memcached.statistics()["curr_items"] == "1"
