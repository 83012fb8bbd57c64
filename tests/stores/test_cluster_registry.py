"""The registry of a cluster on real servers: who joins; servers that are full, damaged or promoted."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest
import trio
from support.redis_cluster import Cluster
from support.redis_sentinels import Sentinels
from support.redis_servers import PRODUCTS, RedisServer, shared_server

from router.cluster import records
from router.cluster.membership import Check, Host, Mine, Placement, Snapshot, State, Take, decide
from router.cluster.registry import JoinError, Registry
from router.common import logs
from router.common.options import Settings, defaults
from router.common.redis_settings import RedisOptions
from router.common.settings import SECTIONS, RouterOptions
from router.store.base import StoreError
from router.store.redis_cluster import Topology
from router.store.redis_keys import TAGS

A, B = Host("a" * 16, "a", "10.0.0.1:7400", "k"), Host("b" * 16, "b", "10.0.0.2:7400", "k")


@pytest.fixture(params=PRODUCTS)
def server(request: pytest.FixtureRequest) -> RedisServer:
    return shared_server(request.param)


@pytest.fixture
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    started = RedisServer(PRODUCTS[0], tmp_path)
    yield started
    started.stop(signal.SIGKILL)


def settings_of(server: RedisServer, prefix: str, lease: float = 3.0, routers: int = 4) -> Settings:
    return of_redis(RedisOptions(url=server.url, prefix=prefix, lease=lease), routers)


def of_redis(options: RedisOptions, routers: int = 4) -> Settings:
    found = defaults(SECTIONS).replace(RouterOptions, routers=routers)
    return found.replace(RedisOptions, **msgspec.to_builtins(options))


def checked(host: Host, **checks: str) -> Host:
    return msgspec.structs.replace(host, checks={name: Check((text,), (text,)) for name, text in checks.items()})


def on(found: Snapshot) -> dict[int, str]:
    """The host of each router."""
    return {number: one.host[:1] for number, one in sorted(found.placements.items())}


def ready(found: Snapshot, host: Host) -> dict[int, Mine]:
    return {number: Mine(one.epoch, True) for number, one in found.placements.items() if one.host == host.id}


async def take_all(registry: Registry, host: Host) -> dict[int, Mine]:
    """What falls to this host, and runs."""
    with trio.fail_after(30):
        while not (found := await registry.beat(host, {})).steady:
            await trio.sleep(0.1)
    found = await registry.take(*(wish.number for wish in decide(found, host.id) if isinstance(wish, Take)))
    mine = ready(found, host)
    await registry.beat(host, mine)
    return mine


async def until_answered(call: Callable[[], Awaitable[Snapshot]]) -> Snapshot:
    with trio.fail_after(60):
        while True:
            try:
                return await call()
            except StoreError:
                await trio.sleep(0.1)


def test_a_router_goes_from_one_host_to_another(server: RedisServer) -> None:
    async def main() -> None:
        settings = settings_of(server, "moves")
        one, two = Registry(settings, A), Registry(settings, B)
        assert on(await one.join()) == {}
        mine = await take_all(one, A)
        assert sorted(mine) == [0, 1, 2, 3]
        assert decide(await two.join(), B.id) == []
        found = await one.beat(A, mine)
        assert decide(found, A.id) == [(0, B.id)]
        found = await one.give(0, B.id)
        assert found.placements[0] == Placement(0, mine[0].epoch, A.id, State.GIVING, B.id)
        await two.beat(B, {})
        assert two.pause < two.interval
        assert (await one.give(1, B.id)).placements[1].state is State.READY  # one at a time
        found = await one.gave(0)
        moved = found.placements[0]
        assert (moved.host, moved.state, moved.epoch > mine.pop(0).epoch) == (B.id, State.STARTING, True)
        assert (await one.gave(0)).placements[0] == moved  # an answer that was lost is asked for again
        assert (await one.beat(A, mine | {0: Mine(moved.epoch - 1, True)})).placements[0] == moved
        found = await two.beat(B, {0: Mine(moved.epoch, True)})
        assert on(found) == {0: "b", 1: "a", 2: "a", 3: "a"}
        assert {one.state for one in found.placements.values()} == {State.READY}
        assert found.members[A.id].age < 3.0
        assert found.members[B.id].since > found.members[A.id].since
        await one.leave()
        assert on(await two.beat(B, {0: Mine(moved.epoch, True)})) == {0: "b", 1: "", 2: "", 3: ""}
        await two.leave()

    trio.run(main)
    assert set(server.ask("KEYS", "moves:*")) == {key for key in records.keys("moves") if server.ask("EXISTS", key)}


def test_a_farm_with_another_prefix_is_another_one(server: RedisServer) -> None:
    async def main() -> None:
        one, two = (Registry(settings_of(server, prefix), A) for prefix in ("one", "two"))
        await one.join()
        assert sorted(await take_all(one, A)) == [0, 1, 2, 3]
        assert on(await two.join()) == {}
        await one.leave()
        await two.leave()

    trio.run(main)


def test_one_that_differs_is_refused_and_told_in_what(server: RedisServer) -> None:
    settings = settings_of(server, "differs", lease=0.5)

    async def main() -> None:
        one = Registry(settings, checked(A, x="1", y="2", z="4"))
        await one.join()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_beats, one, checked(A, x="1", y="2", z="4"))
            with pytest.raises(JoinError) as refused:
                await Registry(settings, checked(B, x="1", y="3", z="5")).join()
            nursery.cancel_scope.cancel()
        assert refused.value.problems == (
            "y is 3 here, and 2 on host a (10.0.0.1:7400): give all hosts of the cluster the same",
            "z is 5 here, and 4 on host a (10.0.0.1:7400): give all hosts of the cluster the same",
        )
        # One that has died is waited for, and what it had counts no more.
        joined = await Registry(settings, checked(B, y="3")).join()
        assert list(joined.members) == [B.id]

    trio.run(main)


async def _beats(registry: Registry, host: Host) -> None:
    while True:
        await registry.beat(host, {})
        await trio.sleep(registry.pause)


def test_of_two_that_differ_and_join_at_once_one_is_refused(server: RedisServer) -> None:
    settings = settings_of(server, "at-once", lease=0.5)
    outcomes: list[str] = []

    async def join(host: Host) -> None:
        host = checked(host, x=host.name)
        registry = Registry(settings, host)
        try:
            await registry.join()
        except JoinError:
            outcomes.append("refused")
            return
        outcomes.append("joined")
        await _beats(registry, host)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for host in (A, B):
                nursery.start_soon(join, host)
            with trio.fail_after(10):
                while len(outcomes) < 2:
                    await trio.sleep(0.05)
            nursery.cancel_scope.cancel()

    for _ in range(3):
        outcomes.clear()
        server.ask("DEL", *records.keys("at-once"))
        trio.run(main)
        assert sorted(outcomes) == ["joined", "refused"]


def test_what_cannot_be_refused_any_more_is_logged(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[str, object]] = []
    monkeypatch.setattr(logs, "limited", lambda name, **fields: logged.append((name, fields["host"])))

    async def main() -> None:
        settings = settings_of(server, "logged")
        one, two = Registry(settings, checked(A, x="1")), Registry(settings, checked(B, x="1"))
        await one.join()
        await two.join()
        other = msgspec.structs.replace(checked(B, x="2"), address=A.address)
        assert not logged
        for _ in range(3):
            await two.beat(other, {})
            await one.beat(checked(A, x="1"), {})

    trio.run(main)
    assert set(logged) == {(what, host) for what in ("cluster.differs", "cluster.same_address") for host in "ab"}


def test_there_is_no_room_for_more_than_so_many_hosts(server: RedisServer) -> None:
    async def main() -> None:
        settings = settings_of(server, "many", lease=3.0)
        for number in range(64):
            await Registry(settings, Host(f"{number:016x}", "h", "h:1", "k")).join()
        with pytest.raises(JoinError, match="64 hosts"):
            await Registry(settings, A).join()

    trio.run(main)


def test_a_full_server_ends_nobodys_lease(own_server: RedisServer) -> None:
    async def main() -> None:
        registry = Registry(settings_of(own_server, "full", lease=0.5), A)
        await registry.join()
        mine = await take_all(registry, A)
        await trio.to_thread.run_sync(own_server.config, "maxmemory", "1")
        for _ in range(8):
            found = await registry.beat(A, mine)
            await trio.sleep(registry.pause)
        assert ready(found, A) == mine
        mine.pop(0)
        found = await registry.gave(0)
        found = await registry.take(0)
        assert found.placements[0].host == A.id

    trio.run(main)


def test_a_server_that_begins_anew_is_told_what_runs(own_server: RedisServer) -> None:
    async def main() -> None:
        registry = Registry(settings_of(own_server, "anew"), A)
        await registry.join()
        mine = await take_all(registry, A)
        await trio.to_thread.run_sync(own_server.ask, "SCRIPT", "FLUSH")
        assert ready(await registry.beat(A, mine), A) == mine
        await trio.to_thread.run_sync(own_server.stop)
        with pytest.raises(StoreError, match="cannot be reached"):
            await registry.beat(A, mine)
        await trio.to_thread.run_sync(own_server.start)
        await trio.to_thread.run_sync(own_server.ask, "FLUSHALL")
        found = await registry.beat(A, mine)
        assert (ready(found, A), found.steady) == (mine, False)

    trio.run(main)


def test_what_is_damaged_is_passed_over(server: RedisServer) -> None:
    hosts, routers, farm = records.keys("damaged")

    async def main() -> None:
        registry = Registry(settings_of(server, "damaged"), A)
        await registry.join()
        mine = await take_all(registry, A)
        lease = await ask("HGET", farm, f"h:{A.id}")
        bad = [{"address": address} for address in ("", "b", "b:", "a b:7400", "b:0", "b:65535", "b:7400/x")]
        hosts_that_are_none = [
            msgspec.json.encode(msgspec.structs.replace(B, id=f"{number:016x}", **more))
            for number, more in enumerate([*bad, {"name": "\x1b[2J"}, {"name": "x" * 301}, {"cut": {"x"}}], 6)
        ]
        texts = (b"", b"{}", b"\xff", b"[" * 30_000, b"x" * 40_000, msgspec.json.encode(B), *hosts_that_are_none)
        for number, text in enumerate(texts):
            name = f"{number:016x}"
            await ask("HSET", hosts, name, text)
            await ask("HSET", farm, f"h:{name}", lease)
        await ask("HSET", farm, "h:nobody", "9 9 9", "h:", "x", "clock", "never", "more", "\xff")
        for field, text in (
            ("0", "\xff"),
            ("7", "1 2 flying -"),
            ("-1", "1 2 ready -"),
            ("x", ""),
            ("512", "1 - ready -"),
        ):
            await ask("HSET", routers, field, text)
        found = await registry.beat(A, mine)
        assert (list(found.members), ready(found, A)) == ([A.id], mine)
        await ask("DEL", farm)
        await ask("SET", farm, "a text")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            await registry.beat(A, mine)

    async def ask(*command: bytes | str | int) -> bytes:
        found: bytes = await trio.to_thread.run_sync(server.ask, *command)
        return found

    trio.run(main)


def test_the_next_primary_is_found(tmp_path: Path) -> None:
    sentinels = Sentinels(PRODUCTS[1], tmp_path)

    async def main() -> None:
        registry = Registry(of_redis(RedisOptions(**sentinels.options, prefix="next", lease=1.0)), A)
        await registry.join()
        mine = await take_all(registry, A)
        killed = await trio.to_thread.run_sync(sentinels.fail_over)
        for _ in range(6):  # more than a lease: however long there is no replica
            found = await until_answered(lambda: registry.beat(A, mine))
            assert (ready(found, A), found.steady) == (mine, False)
            await trio.sleep(registry.interval)
        await trio.to_thread.run_sync(sentinels.bring_back, killed)
        with trio.fail_after(30):
            while not (await until_answered(lambda: registry.beat(A, mine))).steady:
                await trio.sleep(registry.pause)

    try:
        trio.run(main)
    finally:
        sentinels.stop()


def test_the_slot_of_the_records_moves(tmp_path: Path) -> None:
    cluster = Cluster(PRODUCTS[0], tmp_path)

    async def main() -> None:
        options = RedisOptions(url=cluster.servers[0].url, cluster=True, replicas=1, prefix="slots")
        registry = Registry(of_redis(options), A)
        await registry.join()
        mine = await take_all(registry, A)
        topology = Topology(options)
        await topology.refresh()
        place = topology.primaries[0]
        source = next(one for one in cluster.servers if one.port == place.port)
        target = next(one for one in await trio.to_thread.run_sync(lambda: cluster.primaries) if one is not source)
        slot = await trio.to_thread.run_sync(source.ask, "CLUSTER", "KEYSLOT", f"{{{TAGS[0]}}}")
        await trio.to_thread.run_sync(cluster.begin_move, slot, source, target)
        await trio.to_thread.run_sync(cluster.end_move, slot, source, target)
        assert ready(await until_answered(lambda: registry.beat(A, mine)), A) == mine
        await trio.to_thread.run_sync(cluster.fail_over, target)
        found = await until_answered(lambda: registry.beat(A, mine))
        assert ready(found, A) == mine

    try:
        trio.run(main)
    finally:
        cluster.stop()
