"""The lease of a router on a cluster of Valkey: one for all of its partitions, though each has a fence of its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator

import pytest
import trio
from support.redis_cluster import Cluster
from support.redis_servers import RedisServer
from support.stores import NOW, OPTIONS

from router.common.partitions import PARTITIONS
from router.common.redis_settings import RedisOptions
from router.store.base import Reads, Writes
from router.store.lease import boottime
from router.store.redis import RedisStore
from router.store.redis_cluster import Topology, slot
from router.store.redis_keys import TAGS, bases, fence

FENCES = [fence(base) for base in bases("farm")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    started = Cluster("valkey", tmp_path_factory.mktemp("cluster"))
    yield started
    started.stop()


@pytest.fixture
def cluster(shared: Cluster) -> Cluster:
    shared.clear()
    return shared


def options_of(cluster: Cluster) -> RedisOptions:
    url = cluster.running[0].url
    return RedisOptions(url=url, cluster=True, replicas=1, timeout=4.0, lease=1.0)


def store_of(cluster: Cluster, holder: str) -> RedisStore:
    return RedisStore(OPTIONS, options_of(cluster), lambda: holder, unix_time=lambda: NOW, shared=True)


class Fences:
    """Those of all partitions, wherever they are by now."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._topology = Topology(options_of(cluster))

    async def server(self, partition: int) -> RedisServer:
        """The one that has a partition."""
        await self._topology.refresh()
        port = self._topology.primaries[partition].port
        return next(server for server in self._cluster.running if server.port == port)

    async def tokens(self) -> list[bytes]:
        """Of each partition."""
        await self._topology.refresh()
        ports = [address.port for address in self._topology.primaries]
        found: dict[int, bytes] = {}
        for server in self._cluster.running:
            places = [place for place, port in enumerate(ports) if port == server.port]
            if places:
                commands = [("HGET", FENCES[place], "t") for place in places]
                tokens = await trio.to_thread.run_sync(server.calls, *commands)
                found |= dict(zip(places, tokens, strict=True))
        return [found[place] for place in range(PARTITIONS)]

    async def end(self, partition: int) -> int:
        """Of a partition's lease."""
        server = await self.server(partition)
        return int(await trio.to_thread.run_sync(server.ask, "HGET", FENCES[partition], "u"))


def in_cluster(cluster: Cluster, test: Callable[[RedisStore, Fences], Awaitable[None]]) -> None:
    """With a store that is idle but for its lease."""

    async def main() -> None:
        store = store_of(cluster, "one:1")
        await store.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            with trio.fail_after(120):
                await test(store, Fences(cluster))
            nursery.cancel_scope.cancel()
        await store.close()

    trio.run(main)


async def goes_on(store: RedisStore, fences: Fences, partition: int) -> None:
    """Both the lease and the fence of a partition are renewed."""
    until, end = store.lease.until, await fences.end(partition)
    while store.lease.until <= until or await fences.end(partition) <= end:
        await trio.sleep(0.05)


def test_nothing_is_taken_of_a_router_that_has_renewed_one_partition(cluster: Cluster) -> None:
    """As where one server is in its reach, and the others are not."""

    async def main() -> None:
        first, second = store_of(cluster, "one:1"), store_of(cluster, "two:2")
        await first.open()
        fences = Fences(cluster)
        last = PARTITIONS - 1
        server = await fences.server(last)
        await trio.to_thread.run_sync(server.ask, "HSET", FENCES[last], "u", 2**50)
        while first.lease.until > boottime():
            await trio.sleep(0.05)
        before = await fences.tokens()
        with trio.move_on_after(1) as waited:
            await second.open()
        assert waited.cancelled_caught
        assert await fences.tokens() == before
        await second.close()
        await trio.to_thread.run_sync(server.ask, "HSET", FENCES[last], "u", 0)
        await second.open()
        assert not set(await fences.tokens()) & set(before)
        await first.close()
        await second.close()

    trio.run(main)


def test_an_idle_router_renews_on_a_primary_that_was_promoted(cluster: Cluster) -> None:
    async def test(store: RedisStore, fences: Fences) -> None:
        await goes_on(store, fences, 0)
        killed = await fences.server(0)
        await trio.to_thread.run_sync(cluster.fail_over, killed)
        assert await fences.server(0) is not killed
        until = store.lease.until
        while store.lease.until <= until:  # by the others: the one that was promoted has no replica yet
            await trio.sleep(0.05)
        await trio.to_thread.run_sync(killed.start)
        await goes_on(store, fences, 0)
        while not await trio.to_thread.run_sync(cluster.is_well):
            await trio.sleep(0.1)
        results = await store.apply(Writes(records={("s", bytes([n]) * 16): (b"", 0) for n in range(50)}), Reads(), NOW)
        assert not results.failed

    in_cluster(cluster, test)


def test_an_idle_router_renews_a_partition_where_it_has_moved(cluster: Cluster) -> None:
    async def test(store: RedisStore, fences: Fences) -> None:
        source = await fences.server(0)
        target = next(one for one in await trio.to_thread.run_sync(lambda: cluster.primaries) if one is not source)
        number = slot(TAGS[0])
        for step in (cluster.begin_move, cluster.end_move):
            await trio.to_thread.run_sync(step, number, source, target)
        assert await fences.server(0) is target
        await goes_on(store, fences, 0)

    in_cluster(cluster, test)
