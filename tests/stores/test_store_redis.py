"""What only the store in Redis and Valkey has: its connection, its fences, and a server that is not well."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
import trio
from support.redis_servers import PRODUCTS, RedisServer, shared_server
from support.relay import Relay
from support.stores import (
    ALL,
    LATER,
    NOW,
    OPTIONS,
    A,
    B,
    C,
    bodies,
    event,
    everything,
    inbox,
    item,
    puts,
    read_log,
    redis_store,
    with_store,
)

from router.common.messages import EVERYTHING
from router.common.partitions import PARTITIONS, partition
from router.common.position import AfterOffset
from router.common.settings import StoreOptions
from router.store.base import ANY_VERSION, Append, BadBatchError, LogName, Reads, Store, StoreError, Writes
from router.store.changes import Changed, Put, Take
from router.store.redis import RedisStore, run_apart
from router.store.redis_keys import bases
from router.store.redis_ownership import Ownership, owner

NOTHING = Reads()


@pytest.fixture(params=PRODUCTS)
def server(request: pytest.FixtureRequest) -> RedisServer:
    shared = shared_server(request.param)
    assert shared.ask("FLUSHALL") == b"OK"
    return shared


@pytest.fixture(params=PRODUCTS)
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> RedisServer:
    """One that the test may change and end."""
    server = RedisServer(request.param, tmp_path)
    request.addfinalizer(lambda: server.stop(signal.SIGKILL))
    return server


def run(store: RedisStore, test: Callable[[Store], Awaitable[None]]) -> None:
    trio.run(with_store, store, test)


async def fails(store: Store, writes: Writes, match: str = "Redis") -> None:
    with pytest.raises(StoreError, match=match):
        await store.apply(writes, NOTHING, NOW)


def test_keys_live_as_long_as_what_is_in_them(server: RedisServer) -> None:
    async def test(store: Store) -> None:
        writes = puts(A, item("x", 1, expires=NOW + 10), item("y", 2, expires=NOW + 1000))
        writes.puts[B, "x"] = item("x", 3, expires=2**63 - 1)
        writes.puts[C, "x"] = item("x", 4, expires=NOW - 5)
        writes.records = {("s", A): (b"a", NOW + 500), ("s", B): (b"b", 0), ("t", A): (b"t", NOW + 100)}
        await store.apply(writes, NOTHING, NOW)
        await store.apply(puts(A, item("x", 5, expires=NOW + 20)), NOTHING, NOW)
        await store.apply(Writes(changes=[(("t", A), Take(b"t" * 16))]), NOTHING, NOW)

    run(redis_store(server, prefix="lives"), test)
    lives = {}
    for key in server.ask("KEYS", "*"):
        name = key.rpartition(b"}:")[2]
        if name not in (b"fence", b"full"):
            lives[name] = server.ask("TTL", key)
    near = {name: round((live - 60) / 100) * 100 if live > 0 else live for name, live in lives.items()}
    assert near == {
        b"i:" + A: 1000,
        b"i:" + B: -1,
        b"i:" + C: 0,
        b"r:s:" + A: 500,
        b"r:s:" + B: -1,
        b"r:t#taken:" + A: 100,
    }


def test_a_farm_that_has_the_prefix_keeps_it(server: RedisServer) -> None:
    first = redis_store(server, prefix="one", lease=0.5)
    second = RedisStore(OPTIONS, first._redis, lambda: "other", unix_time=lambda: NOW)
    other_prefix = redis_store(server, prefix="two")

    async def main() -> None:
        await first.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(first.run)
            with pytest.raises(StoreError, match=r"another farm \(test\).*prefix one.*redis\.prefix of its own"):
                await second.open()
            await other_prefix.open()
            nursery.cancel_scope.cancel()
        await first.apply(puts(A, item("x", 1)), NOTHING, NOW)
        await first.close()
        # It was given back, so there is nothing to wait for.
        await second.open()
        assert await inbox(second, A) == [item("x", 1)]
        await second.close()
        await other_prefix.close()

    trio.run(main)


def test_the_next_router_of_a_farm_shuts_out_the_one_before(server: RedisServer) -> None:
    before, after = redis_store(server, prefix="one"), redis_store(server, prefix="one")

    async def main() -> None:
        await before.open()
        await before.apply(puts(A, item("x", 1)), NOTHING, NOW)
        await after.open()  # as after a kill -9: at once
        writes = puts(A, item("x", 2))
        writes.removals[A, "x"] = ANY_VERSION
        writes.records["s", B] = (b"", 0)
        writes.changes = [(("s", C), Put(b"", 0))]
        writes.logs = [event(C)]
        results = await before.apply(writes, Reads(everything(A, B), logs={LogName(A, ALL)}), NOW)
        assert results.failed == {A, B, C}
        assert (results.inboxes, results.appended, results.logs) == ({}, [None], {})
        assert await inbox(after, A) == [item("x", 1)]
        assert (await read_log(after, C)).events == []
        with pytest.raises(StoreError, match=r"another router has taken [0-9]+ partitions"):
            await before.run()
        await before.close()
        await after.apply(puts(A, item("x", 3)), NOTHING, NOW)  # its predecessor has given nothing of it away
        await after.close()

    trio.run(main)


def test_the_one_that_was_shut_out_ends_though_it_writes_nothing(server: RedisServer) -> None:
    before, after = redis_store(server, prefix="one", lease=0.5), redis_store(server, prefix="one")

    async def main() -> None:
        await before.open()
        await after.open()
        with pytest.raises(StoreError, match="has taken 512 partitions"):
            await before.run()
        await before.close()
        await after.close()

    trio.run(main)


def test_a_batch_that_was_given_up_does_not_land_behind_its_successor(server: RedisServer) -> None:
    async def main() -> None:
        relay = Relay(server.port)
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            store = redis_store(server, url=f"redis://127.0.0.1:{relay.port}", timeout=1.0)
            await store.open()
            await store.apply(puts(B, item("x", 1)), NOTHING, NOW)
            relay.hold()
            await fails(store, puts(A, item("x", 2, body="old")), "redis.timeout")
            await store.apply(puts(A, item("x", 3, body="new")), NOTHING, NOW)
            calls = _calls(server)
            relay.release()
            while _calls(server) == calls:  # the old one is there now
                await trio.sleep(0.01)
            assert [one.body for one in await inbox(store, A)] == ["new"]
            assert await inbox(store, B) == [item("x", 1)]
            await store.close()
            nursery.cancel_scope.cancel()

    trio.run(main)


def _calls(server: RedisServer) -> int:
    """How many scripts it has run."""

    def ask() -> bytes:
        found: bytes = server.ask("INFO", "commandstats")
        return found

    (line,) = [line for line in run_apart(lambda: trio.to_thread.run_sync(ask)).split() if b"_evalsha:" in line]
    return int(line.split(b"calls=")[1].split(b",")[0])


def test_a_server_that_was_killed_has_all_of_it_and_is_used_again(own_server: RedisServer) -> None:
    async def test(store: Store) -> None:
        await store.apply(Writes(logs=[event(A, "a"), event(A, "b")]), NOTHING, NOW)
        writes = puts(A, item("x", 1))
        writes.ceiling = 77
        await store.apply(writes, NOTHING, NOW)
        before = await read_log(store, A)
        assert bodies(before) == "ab"
        own_server.stop(signal.SIGKILL)
        await fails(store, puts(A, item("y", 2)), "cannot be reached|connection")
        await fails(store, puts(A, item("y", 2)), r"127\.0\.0\.1:[0-9]+ cannot be reached: Connection refused")
        await fails(store, Writes(ceiling=77), "cannot be reached")  # which would show that it can write again
        await trio.to_thread.run_sync(own_server.start)
        assert await inbox(store, A) == [item("x", 1)]
        # Another run of a server may have lost events and give their offsets again: so it is another epoch.
        after = await read_log(store, A, AfterOffset(before.epoch, 2))
        assert (bodies(after), after.recovered, after.offset) == ("ab", False, 2)
        assert after.epoch > before.epoch
        (third,) = (await store.apply(Writes(logs=[event(A, "c")]), NOTHING, NOW)).appended
        assert third == AfterOffset(after.epoch, 3)
        assert await store.highest() == 77

    run(redis_store(own_server), test)


def test_what_was_deleted_behind_its_back_ends_the_router(own_server: RedisServer) -> None:
    store = redis_store(own_server)

    async def main() -> None:
        await store.open()
        own_server_flushed = await trio.to_thread.run_sync(own_server.ask, "FLUSHALL")
        assert own_server_flushed == b"OK"
        results = await store.apply(puts(A, item("x", 1)), NOTHING, NOW)
        assert results.failed == {A}
        with pytest.raises(StoreError, match="or they were deleted"):
            await store.run()
        await store.close()

    trio.run(main)


def test_a_script_that_the_server_has_forgotten_is_loaded_again(server: RedisServer) -> None:
    async def test(store: Store) -> None:
        for seq in range(3):
            assert await trio.to_thread.run_sync(server.ask, "SCRIPT", "FLUSH") == b"OK"
            await store.apply(puts(A, item("x", seq)), NOTHING, NOW)
            assert await store.sweep(NOW, 100) == 0
            assert await inbox(store, A) == [item("x", seq)]

    run(redis_store(server), test)


def test_a_full_server_refuses_what_enlarges_and_nothing_else(own_server: RedisServer) -> None:
    async def test(store: Store) -> None:
        writes = puts(A, item("x", 1), item("y", 2))
        writes.records = {("s", A): (b"a", 0), ("s", B): (b"b", 0)}
        writes.logs = [event(C, "c")]
        await store.apply(writes, NOTHING, NOW)
        await trio.to_thread.run_sync(own_server.config, "maxmemory", "1mb")
        full = puts(B, item("z", 3))
        full.removals[A, "x"] = ANY_VERSION
        full.removals[A, "y"] = 0
        full.records = {("s", B): None, ("t", B): (b"t", 0)}
        full.changes = [(("t", C), Put(b"", 0))]
        full.logs = [event(C, "d")]
        reads = Reads(everything(A), {("s", A), ("s", B)}, {LogName(C, ALL)}, {C})
        results = await store.apply(full, reads, NOW)
        assert results.failed == {B, C}
        assert results.inboxes == {A: [item("y", 2)]}
        assert results.records == {("s", A): b"a"}
        assert (results.appended, results.changes) == ([None], [Changed(1)])
        await trio.to_thread.run_sync(own_server.config, "maxmemory", "0")
        results = await store.apply(full, reads, NOW)
        assert results.failed == set()
        assert bodies(results.logs[LogName(C, ALL)]) == "cd"
        assert await inbox(store, B) == [item("z", 3)]

    run(redis_store(own_server), test)


def test_a_full_server_takes_a_router_that_begins(own_server: RedisServer) -> None:
    store = redis_store(own_server, prefix="one")
    run(store, lambda store: _applied(store, puts(A, item("x", 1))))
    own_server.config("maxmemory", "1mb")

    async def test(store: Store) -> None:
        assert await inbox(store, A) == [item("x", 1)]
        await store.apply(Writes(removals={(A, "x"): 1}), NOTHING, NOW)
        assert await inbox(store, A) == []

    run(redis_store(own_server, prefix="one"), test)


async def _applied(store: Store, writes: Writes) -> None:
    results = await store.apply(writes, NOTHING, NOW)
    assert not results.failed


@pytest.mark.parametrize(
    "writes",
    [
        puts(A, item("x", 1, body="\ud800")),
        puts(A, item("\ud800", 1)),
        Writes(removals={(A, "\ud800"): 1}),
        puts(A, item("x", 2**64)),
        Writes(logs=[event(A, "\ud800")]),
        Writes(changes=[(("s", A), Take(b"short"))]),
    ],
    ids=["body", "slot", "removal", "sequence", "event", "taker"],
)
def test_what_can_never_be_written_leaves_everything_as_it_was(server: RedisServer, writes: Writes) -> None:
    async def test(store: Store) -> None:
        writes.records["s", B] = (b"", 0)
        with pytest.raises(BadBatchError, match="cannot be written"):
            await store.apply(writes, NOTHING, NOW)
        assert (await store.apply(Writes(), Reads(records={("s", B)}), NOW)).records == {}

    run(redis_store(server), test)


def test_what_is_damaged_is_named(server: RedisServer) -> None:
    base = bases("one")

    async def test(store: Store) -> None:
        writes = puts(A, item("x", 1))
        writes.records["s", A] = (b"value", 0)
        writes.logs = [event(A)]
        await store.apply(writes, NOTHING, NOW)

    run(redis_store(server, prefix="one"), test)
    begin = base[partition(A)]
    assert server.ask("HSET", begin + b"i:" + A, "x", b"?" * 27 + b"\xff") == 0
    assert server.ask("SET", begin + b"r:s:" + A, b"?") == b"OK"
    assert server.ask("ZADD", begin + b"l:" + A, 2, b"?" * 30) == 1

    async def again(store: Store) -> None:
        name = LogName(A, ALL)
        results = await store.apply(Writes(), Reads({A: EVERYTHING}, {("s", A)}, {name}), NOW)
        assert results.unreadable == {A, ("s", A), name}

    run(redis_store(server, prefix="one"), again)


def test_a_router_may_have_some_of_the_partitions(server: RedisServer) -> None:
    halves = [frozenset(range(at, PARTITIONS, 2)) for at in (0, 1)]
    stores = []
    for number, half in enumerate(halves):
        made = redis_store(server, prefix="one")
        stores.append(
            RedisStore(OPTIONS, made._redis, lambda number=number: f"h{number}", half, number, lambda: NOW)  # type: ignore[misc]
        )
    keys = [bytes([at]) * 16 for at in range(40)]
    looks = Ownership(bases("one"), "", 1, 0)

    async def main() -> None:
        for store in stores:
            await store.open()
        writes = Writes(puts={(key, "x"): item("x", 1) for key in keys}, ceiling=9)
        for store, half in zip(stores, halves, strict=True):
            results = await store.apply(writes, NOTHING, NOW)
            assert results.failed == {key for key in keys if partition(key) not in half}
        for store, half in zip(stores, halves, strict=True):
            found = (await store.apply(Writes(), Reads(everything(*keys)), NOW)).inboxes
            assert set(found) == {key for key in keys if partition(key) in half}
        for place in (0, 1):
            seen = owner(await trio.to_thread.run_sync(server.ask, *looks.look(place)))
            assert seen is not None
            assert seen.holder == f"h{place}"
        for store in stores:
            await store.close()

    trio.run(main)


def test_large_batches_of_everything_are_one_call(server: RedisServer) -> None:
    async def test(store: Store) -> None:
        keys = [bytes([at, at]) * 8 for at in range(250)]
        writes = Writes(puts={(key, f"s{at}"): item(f"s{at}", 1, body="x" * 2000) for key in keys for at in range(8)})
        logs: list[Append] = [event(key, "x" * 3000) for key in keys]
        writes.logs = [*logs]
        results = await store.apply(writes, Reads(everything(*keys)), NOW)
        assert results.refused == {(key, f"s{at}") for key in keys for at in range(3, 8)}
        assert {len(items) for items in results.inboxes.values()} == {3}
        assert len(results.appended) == len(keys)
        await store.apply(puts(A, item("late", 1, expires=LATER)), NOTHING, NOW)

    run(redis_store(server, StoreOptions(inbox_limit=3)), test)
