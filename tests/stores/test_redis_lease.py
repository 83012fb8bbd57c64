"""Leases in Redis and Valkey: until when a router of a cluster knows that nobody else owns what it owns."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import pytest
import trio
from support.processes import stopped
from support.redis_servers import PRODUCTS, RedisServer
from support.relay import Relay
from support.stores import NOW, OPTIONS, A, event, inbox, item, puts

from router.common.redis_settings import RedisOptions
from router.store.base import Reads, StoreError, Writes
from router.store.lease import boottime
from router.store.redis import RedisStore
from router.store.redis_keys import bases, fence

NOTHING = Reads()
LEASE_S = 1.0


BOTH = pytest.mark.parametrize("server", PRODUCTS, indirect=True)
"""For what rests on a script; all else is the same with any server."""


@pytest.fixture
def server(request: pytest.FixtureRequest, tmp_path: Path) -> RedisServer:
    started = RedisServer(getattr(request, "param", "valkey"), tmp_path)
    request.addfinalizer(lambda: started.stop(signal.SIGKILL))
    return started


def store_of(server: RedisServer, holder: str, url: str = "", shared: bool = True, **redis: Any) -> RedisStore:
    options = {"url": url or server.url, "lease": LEASE_S, "timeout": 3.0, **redis}
    return RedisStore(OPTIONS, RedisOptions(**options), lambda: holder, unix_time=lambda: NOW, shared=shared)


def owns(store: RedisStore) -> bool:
    return store.lease.until > boottime()


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.sleep(0.01)


@asynccontextmanager
async def running(*stores: RedisStore) -> AsyncIterator[None]:
    """With these open, renewing their leases."""
    async with trio.open_nursery() as nursery:
        for store in stores:
            await store.open()
            nursery.start_soon(store.run)
        yield
        nursery.cancel_scope.cancel()
        for store in stores:
            await store.close()


async def epoch_of(server: RedisServer) -> bytes:
    """Of the first partition."""
    token: bytes = await trio.to_thread.run_sync(server.ask, "HGET", fence(bases("farm")[0]), "t")
    return token.rpartition(b":")[0]


def test_while_the_server_stands_still_it_ends_and_is_resumed_in_the_same_epoch(server: RedisServer) -> None:
    async def main() -> None:
        store = store_of(server, "one")
        assert not owns(store)
        async with running(store):
            await until(lambda: owns(store))
            await store.apply(puts(A, item("x", 1)), NOTHING, NOW)
            epoch = await epoch_of(server)
            with stopped(server.pid):
                await until(lambda: not owns(store))
                await trio.sleep(LEASE_S)
            await until(lambda: owns(store))  # though nothing is written
            assert await epoch_of(server) == epoch
            assert await inbox(store, A) == [item("x", 1)]

    trio.run(main)


def test_a_server_that_was_restarted_is_no_reason_to_lose_it(server: RedisServer) -> None:
    async def main() -> None:
        store = store_of(server, "one")
        async with running(store):
            epoch = await epoch_of(server)
            await trio.to_thread.run_sync(server.stop, signal.SIGKILL)
            await until(lambda: not owns(store))
            await trio.to_thread.run_sync(server.start)
            await until(lambda: owns(store))
            assert await epoch_of(server) == epoch

    trio.run(main)


def test_a_connection_that_is_broken_without_a_word_is_replaced_before_it_ends(server: RedisServer) -> None:
    async def main() -> None:
        relay = Relay(server.port)
        async with trio.open_nursery() as nursery:
            await nursery.start(relay.run)
            store = store_of(server, "one", f"redis://127.0.0.1:{relay.port}", timeout=60.0)
            async with running(store):
                for _ in range(2):
                    relay.hold()
                    for _ in range(2):  # the answer to one may have been on its way
                        before = store.lease.until
                        await until(lambda: store.lease.until > before)  # noqa: B023
            relay.release()
            nursery.cancel_scope.cancel()

    trio.run(main)


@BOTH
def test_another_host_waits_for_its_end_and_not_a_moment_less(server: RedisServer) -> None:
    """What the first one knows has ended before the second one has it."""

    async def main() -> None:
        first, second = store_of(server, "one:1"), store_of(server, "two:2")
        await first.open()
        await first.apply(puts(A, item("x", 1)), NOTHING, NOW)
        assert first.lease.until > 0
        await second.open()  # the first one does not renew
        assert not owns(first)
        assert second.lease.until > first.lease.until + LEASE_S / 2
        assert (await first.apply(puts(A, item("x", 2)), NOTHING, NOW)).failed == {A}
        assert await inbox(second, A) == [item("x", 1)]
        with pytest.raises(StoreError, match=r"another router has taken [0-9]+ partitions"):
            await first.run()
        assert first.lease.until == -inf
        await first.close()
        assert await inbox(second, A) == [item("x", 1)]
        await second.close()

    trio.run(main)


@BOTH
def test_one_that_goes_on_renewing_gives_way_to_a_newer_placement(server: RedisServer) -> None:
    """As where its supervisor is stuck, so that it does not hear that it was placed elsewhere."""

    async def main() -> None:
        first, second = store_of(server, "one:99"), store_of(server, "two:100")
        await first.open()
        async with trio.open_nursery() as nursery:
            ended = trio.Event()

            async def run() -> None:
                with pytest.raises(StoreError, match="another router has taken 512 partitions"):
                    await first.run()
                ended.set()

            nursery.start_soon(run)
            await second.open()
            await ended.wait()
        assert first.lease.until == -inf
        await second.apply(puts(A, item("x", 1)), NOTHING, NOW)
        # What was given up does not come back, though it has ended without giving it back, and was started again.
        again = store_of(server, "one:99")
        with pytest.raises(StoreError, match="router 0 is still that of two:100"):
            await again.open()
        assert not (await second.apply(puts(A, item("x", 2)), NOTHING, NOW)).failed
        await second.close()
        with pytest.raises(StoreError, match="router 0 is still that of two:100"):
            await again.open()
        newest = store_of(server, "one:1000")
        await newest.open()
        await newest.close()

    trio.run(main)


@BOTH
def test_one_that_goes_on_renewing_loses_nothing(server: RedisServer) -> None:
    async def main() -> None:
        first, second = store_of(server, "one:2"), store_of(server, "two:1")
        async with running(first):
            with pytest.raises(StoreError, match="router 0 is still that of one:2"):
                await second.open()
            await until(lambda: owns(first))
            assert not owns(second)
            assert not (await first.apply(puts(A, item("x", 1)), NOTHING, NOW)).failed
        third = store_of(server, "two:3")  # it was given up, so nobody waits for it
        await third.open()
        assert await inbox(third, A) == [item("x", 1)]
        await third.close()

    trio.run(main)


def test_one_that_was_taken_and_given_up_again_is_not_resumed(server: RedisServer) -> None:
    """Not for a moment: what it knows is of another time."""

    async def main() -> None:
        first, second = store_of(server, "one:1"), store_of(server, "two:2")
        await first.open()
        ends = first.lease.until
        await second.open()
        await second.close()
        seen = []
        first.lease.confirmed = seen.append  # type: ignore[method-assign]
        with pytest.raises(StoreError, match="another router has taken 512 partitions"):
            await first.run()
        assert (seen, first.lease.until) == ([], -inf)
        assert ends < boottime()
        await first.close()

    trio.run(main)


def test_a_full_server_is_no_reason_to_lose_it(server: RedisServer) -> None:
    async def main() -> None:
        store = store_of(server, "one")
        async with running(store):
            await trio.to_thread.run_sync(server.config, "maxmemory", "1mb")
            for _ in range(2):
                before = store.lease.until
                await until(lambda: store.lease.until > before)  # noqa: B023
            assert (await store.apply(puts(A, item("x", 1)), NOTHING, NOW)).failed == {A}

    trio.run(main)


def test_another_process_of_the_same_placement_waits_for_nothing(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        first, second = store_of(server, "one:1"), store_of(server, "one:1")
        await first.open()
        await second.open()
        assert "redis.held" not in caplog.text
        assert second.lease.until > 0
        with pytest.raises(StoreError):
            await first.run()
        assert first.lease.until == -inf
        await second.close()

    trio.run(main)


def test_on_one_host_it_ends_only_when_it_is_lost(server: RedisServer) -> None:
    async def main() -> None:
        store = store_of(server, "one", shared=False)
        async with running(store):
            await trio.to_thread.run_sync(server.stop, signal.SIGKILL)
            await trio.sleep(1.5 * LEASE_S)
            assert owns(store)
            await trio.to_thread.run_sync(server.start)
        before, after = (store_of(server, "one", shared=False) for _ in range(2))
        await before.open()
        await after.open()
        with pytest.raises(StoreError):
            await before.run()
        assert not owns(before)
        assert owns(after)
        await after.close()

    trio.run(main)


@BOTH
def test_a_renewal_writes_one_fence_for_all(server: RedisServer) -> None:
    def written() -> int:
        text: bytes = server.ask("INFO", "persistence")
        return int(text.split(b"aof_current_size:")[1].split()[0])

    async def main() -> None:
        store = store_of(server, "one")
        async with running(store):
            lease = store.lease
            before = await trio.to_thread.run_sync(written)
            first = lease.until
            await until(lambda: lease.until > first)
            second = lease.until
            await until(lambda: lease.until > second)
            assert 0 < await trio.to_thread.run_sync(written) - before < 1000

    trio.run(main)


def test_a_clock_that_is_off_ends_it(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this host's, since Redis' cannot be set."""
    import router.store.redis_renewer as renewer

    clock, off = renewer.time.time, [0.0]
    monkeypatch.setattr(renewer.Renewer.__init__, "__defaults__", (lambda: clock() + off[0],))

    async def main() -> None:
        store = store_of(server, "one")
        async with running(store):
            off[0] = 1.5
            await until(lambda: not owns(store))
            assert store.lease.clock_is_off
            (offset,) = store.lease.offsets.values()
            assert -1.6 < offset < -1.4
            off[0] = 0.0
            await until(lambda: owns(store))

    trio.run(main)


def test_without_a_replica_that_has_it_too_it_ends(server: RedisServer, tmp_path: Path) -> None:
    """The next primary would not know of it."""
    (tmp_path / "replica").mkdir()
    follow = ("--replicaof", "127.0.0.1", str(server.port))
    server.config("repl-diskless-sync-delay", "0")
    replica = RedisServer(server.product, tmp_path / "replica", *follow)
    try:
        server.until_followed()

        async def main() -> None:
            store = store_of(server, "one", replicas=1)
            async with running(store):
                await until(lambda: owns(store))
                with stopped(replica.pid):
                    await until(lambda: not owns(store))
                await until(lambda: owns(store))
                assert (await store.apply(Writes(logs=[event(A, "a")]), NOTHING, NOW)).appended != [None]

        trio.run(main)
    finally:
        replica.stop(signal.SIGKILL)
