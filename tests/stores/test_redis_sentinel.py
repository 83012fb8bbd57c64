"""The store on servers that Sentinels watch: it finds the primary, and the next one, with all that was accepted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import trio
from support.processes import stopped
from support.redis_sentinels import Sentinels
from support.redis_servers import PRODUCTS, shared_server
from support.stores import NOW, OPTIONS, A, B, bodies, event, inbox, item, puts, read_log, with_store

from router.common.redis_address import Address, parse_sentinel
from router.common.redis_settings import RedisOptions
from router.store.base import Reads, Store, StoreError, Writes
from router.store.redis import RedisStore


@pytest.fixture(params=PRODUCTS)
def sentinels(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Sentinels]:
    started = Sentinels(request.param, tmp_path)
    yield started
    started.stop()


def test_addresses() -> None:
    assert parse_sentinel("h") == Address("h", 26_379)
    assert parse_sentinel("[::1]:5") == Address("::1", 5)
    assert parse_sentinel("rediss://:p@h:5") == Address("h", 5, True, 0, "", "p")
    for text in ("", "h:x", "u@h", "h/1"):
        with pytest.raises(ValueError):
            parse_sentinel(text)


def test_the_next_primary_has_all_that_was_accepted(sentinels: Sentinels) -> None:
    options = RedisOptions(**sentinels.options, timeout=4.0)
    store = RedisStore(OPTIONS, options, lambda: "test", unix_time=lambda: NOW)

    async def test(store: Store) -> None:
        writes = puts(A, item("x", 1))
        writes.logs = [event(A, "a")]
        writes.ceiling = 99
        await store.apply(writes, Reads(), NOW)
        epoch = (await read_log(store, A)).epoch
        killed = await trio.to_thread.run_sync(sentinels.fail_over)
        # Without a replica nothing is accepted, nor does this router know that it still owns anything.
        with pytest.raises(StoreError):
            await store.apply(puts(A, item("y", 2)), Reads(), NOW)
        await trio.to_thread.run_sync(sentinels.bring_back, killed)
        with trio.fail_after(30):
            while True:
                try:
                    await store.apply(puts(B, item("z", 3)), Reads(), NOW)
                    break
                except StoreError:
                    await trio.sleep(0.1)
        assert "x" in {one.slot for one in await inbox(store, A)}
        after = await read_log(store, A)
        assert (bodies(after), after.epoch > epoch) == ("a", True)
        assert await store.highest() == 99
        results = await store.apply(Writes(logs=[event(A, "b")]), Reads(), NOW)
        assert results.appended[0] is not None
        assert results.appended[0].offset == 2

    trio.run(with_store, store, test)


def test_a_replica_that_acknowledges_nothing_is_named_as_the_cause(sentinels: Sentinels) -> None:
    async def nothing(store: Store) -> None:
        """It could be opened."""

    options = RedisOptions(**sentinels.options, timeout=1.0)
    with stopped(sentinels.replica.pid), pytest.raises(StoreError, match=r"no replica has acknowledged in time"):
        trio.run(with_store, RedisStore(OPTIONS, options, lambda: "test"), nothing)


def test_what_each_sentinel_said_stands_in_the_error() -> None:
    async def nothing(store: Store) -> None:
        """It could be opened."""

    none = f"127.0.0.1:{shared_server(PRODUCTS[0]).port}"
    options = RedisOptions(sentinels=("127.0.0.1:1", none), replicas=1)
    with pytest.raises(StoreError, match=r":1 cannot be reached.*redis\.sentinels is right.*SENTINEL"):
        trio.run(with_store, RedisStore(OPTIONS, options, lambda: "test"), nothing)
