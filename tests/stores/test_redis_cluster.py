"""The store on a cluster: each partition is on one primary, some are lost, and some move, while all others go on."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
from support.farm_fixture import until
from support.processes import stopped
from support.redis_cluster import PRIMARIES, Cluster
from support.redis_servers import PRODUCTS, RedisServer
from support.stores import ALL, NOW, OPTIONS, event, everything, inbox, item, puts, with_store

from router.common.messages import EVERYTHING
from router.common.options import defaults
from router.common.partitions import PARTITIONS, partition
from router.common.redis_settings import RedisOptions
from router.common.settings import SECTIONS, StoreOptions
from router.store.base import LogName, Reads, Results, Store, StoreError, Writes
from router.store.redis import RedisStore
from router.store.redis_cluster import Topology, slot
from router.store.redis_connection import info
from router.store.redis_keys import TAGS
from router.store.registry import keeps_something, look_over

KEYS = [bytes([number, number // 2]) * 8 for number in range(256)]
"""Of many partitions."""


@pytest.fixture(scope="module", params=PRODUCTS)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster(request.param, tmp_path_factory.mktemp("cluster"))
    yield started
    started.stop()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    """The shared cluster, well, and empty."""
    shared.clear()
    return shared


def options_of(cluster: Cluster, prefix: str = "farm") -> RedisOptions:
    return RedisOptions(url=cluster.servers[0].url, cluster=True, replicas=1, timeout=4.0, prefix=prefix)


def run(cluster: Cluster, test: Callable[[Store], Awaitable[None]]) -> None:
    store = RedisStore(OPTIONS, options_of(cluster), lambda: "test", unix_time=lambda: NOW)
    trio.run(with_store, store, test)


def batch(number: int) -> Writes:
    """Something of everything, for each key."""
    writes = Writes(puts={(key, "x"): item("x", number) for key in KEYS}, ceiling=number + 100)
    writes.records = {("s", key): (b"%d" % number, 0) for key in KEYS}
    writes.logs = [event(key, f"{number}") for key in KEYS]
    return writes


async def stored(store: Store, number: int) -> None:
    """All of that batch is there."""
    reads = Reads(everything(*KEYS), {("s", key) for key in KEYS}, {LogName(key, ALL) for key in KEYS})
    results = await store.apply(Writes(), reads, NOW)
    assert results.inboxes == {key: [item("x", number)] for key in KEYS}
    assert set(results.records.values()) == {b"%d" % number}
    assert {one.events[-1].body for one in results.logs.values()} == {f"{number}"}


def test_each_partition_is_on_one_primary_and_all_of_them_have_some(cluster: Cluster) -> None:
    primaries = cluster.primaries

    async def test(store: Store) -> None:
        for number in (1, 2):
            results = await store.apply(batch(number), Reads(), NOW)
            assert not results.failed
            assert [end and end.offset for end in results.appended] == [number] * len(KEYS)
            await stored(store, number)
        for _ in range(PRIMARIES):
            assert await store.sweep(NOW, 1000) == 0
        full = puts(KEYS[0], *(item(f"{n}", n) for n in range(9)))
        assert len((await store.apply(full, Reads(), NOW)).refused) == 7
        assert await store.highest() == 102
        assert store.used > 0
        for number, server in enumerate(primaries):
            keys = await trio.to_thread.run_sync(server.ask, "DBSIZE")
            assert keys > PARTITIONS // PRIMARIES, number

    run(cluster, test)
    settings = defaults(SECTIONS).replace(StoreOptions, kind="redis")
    settings = settings.replace(RedisOptions, url=cluster.servers[0].url, cluster=True, replicas=1)
    assert keeps_something(settings) is not None
    assert keeps_something(settings.replace(RedisOptions, prefix="other")) is None
    assert {row.status for row in look_over(settings)} == {"ok"}


def test_one_that_is_no_cluster_and_one_that_is(cluster: Cluster) -> None:
    store = RedisStore(OPTIONS, RedisOptions(url=cluster.servers[0].url), lambda: "test")
    with pytest.raises(StoreError, match=r"redis\.cluster = true"):
        store.check()


def test_each_of_the_servers_is_asked_in_turn_where_partitions_are(cluster: Cluster) -> None:
    """One that is cut off from the others knows nothing new; it is not asked again and again, nor one that is away."""
    topology = Topology(dataclasses.replace(options_of(cluster), connect_timeout=0.5))

    def knows_all(server: RedisServer) -> bool:
        slots = server.ask("CLUSTER", "SLOTS")
        return len({node[1] for row in slots for node in row[2:]}) == len(cluster.running)

    until(lambda: all(map(knows_all, cluster.running)), "each of them knows all others")

    def times_asked() -> list[int]:
        stats = [info(server.ask("INFO", "commandstats")) for server in cluster.running]
        return [int(found.get("cmdstat_cluster|slots", "calls=0").split("=")[1].split(",")[0]) for found in stats]

    async def asked(times: int, at_once: int = 0) -> list[int]:
        before = await trio.to_thread.run_sync(times_asked)
        async with trio.open_nursery() as nursery:
            for _ in range(at_once):
                nursery.start_soon(topology.refresh)
        for _ in range(times):
            await topology.refresh()
            assert len(topology.primaries) == PARTITIONS
        after = await trio.to_thread.run_sync(times_asked)
        return sorted(now - then for now, then in zip(after, before, strict=True))

    async def main() -> None:
        assert await asked(7) == [1, 1, 1, 1, 1, 2]
        with stopped(cluster.servers[1].pid):
            for _ in range(6):
                await topology.refresh()
        assert await asked(5) == [0, 1, 1, 1, 1, 1]  # the one that did not answer comes last
        assert await asked(5, at_once=2) == [1, 1, 1, 1, 1, 2]  # by a batch and by the renewal of leases: none is lost

    trio.run(main)


def test_while_one_primary_is_away_the_others_go_on(cluster: Cluster) -> None:
    primary = cluster.primaries[0]

    async def test(store: Store) -> None:
        await store.apply(batch(1), Reads(), NOW)
        topology = Topology(options_of(cluster))
        await topology.refresh()
        its = {key for key in KEYS if topology.primaries[partition(key)].port == primary.port}
        assert 0 < len(its) < len(KEYS)
        await trio.to_thread.run_sync(cluster.fail_over, primary)
        # The replica that was promoted has none of its own yet: nothing is promised of these.
        results = await _until_answered(store, batch(2))
        assert results.failed == its
        reads = Reads(dict.fromkeys(set(KEYS) - its, EVERYTHING))
        assert len((await store.apply(Writes(), reads, NOW)).inboxes) == len(KEYS) - len(its)
        await trio.to_thread.run_sync(primary.start)
        with trio.fail_after(60):
            while not await trio.to_thread.run_sync(cluster.is_well):
                await trio.sleep(0.1)
        results = await _until_answered(store, batch(3))
        with trio.fail_after(30):
            while results.failed:
                await trio.sleep(0.1)
                results = await _until_answered(store, batch(3))
        await stored(store, 3)

    run(cluster, test)


async def _until_answered(store: Store, writes: Writes) -> Results:
    """The results, once the cluster is asked where its primaries are."""
    with trio.fail_after(30):
        while True:
            try:
                return await store.apply(writes, Reads(), NOW)
            except StoreError:
                await trio.sleep(0.1)


def test_a_slot_moves_and_nothing_of_it_is_lost(cluster: Cluster) -> None:
    key = KEYS[7]
    number = slot(TAGS[partition(key)])
    topology = Topology(options_of(cluster))
    trio.run(topology.refresh)
    source = next(one for one in cluster.primaries if one.port == topology.primaries[partition(key)].port)
    target = next(one for one in cluster.primaries if one is not source)

    async def test(store: Store) -> None:
        async def at(function: Callable[[int, RedisServer, RedisServer], None]) -> None:
            await trio.to_thread.run_sync(function, number, source, target)

        await store.apply(batch(1), Reads(), NOW)
        await at(cluster.begin_move)
        # Half of it here and half of it there: it may fail, and nothing else does.
        await at(lambda *where: cluster.move_keys(*where, 2))
        results = await store.apply(batch(2), Reads(), NOW)
        assert {partition(one) for one in results.failed} <= {partition(key)}
        await at(cluster.end_move)
        results = await store.apply(batch(3), Reads(), NOW)  # it is sent to the other one, within the same call
        assert results.failed == set()
        await stored(store, 3)
        assert topology.primaries[partition(key)].port == source.port
        await topology.refresh()
        assert topology.primaries[partition(key)].port == target.port
        for turn in range(4, 7):
            assert not (await store.apply(batch(turn), Reads(), NOW)).failed
        assert await inbox(store, key) == [item("x", 6)]

    run(cluster, test)
