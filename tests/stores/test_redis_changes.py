"""A server of Redis or Valkey that is changed, or is not well, while a store is open on it."""

from __future__ import annotations

import signal
import socket
from pathlib import Path

import pytest
import trio
from support.redis_servers import PRODUCTS, RedisServer
from support.stores import NOW, A, inbox, item, puts, redis_store

from router.store.base import Reads, StoreError, Writes
from router.store.redis import RedisStore

NOTHING = Reads()
LEASE_S = 0.5


@pytest.fixture(params=PRODUCTS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> RedisServer:
    started = RedisServer(request.param, tmp_path)
    request.addfinalizer(lambda: started.stop(signal.SIGKILL))
    return started


async def _until_it_is(store: RedisStore, error: str) -> None:
    """Write until that fails with this, or "": until it does not fail."""
    with trio.fail_after(20):
        while True:
            found = ""
            try:
                await store.apply(puts(A, item("x", 1)), NOTHING, NOW)
            except StoreError as failure:
                found = str(failure)
            if error in found and bool(error) == bool(found):
                return
            await trio.sleep(0.02)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("appendonly", "no", "CONFIG SET appendonly yes"),
        ("appendfsync", "everysec", "CONFIG SET appendfsync always"),
        ("no-appendfsync-on-rewrite", "yes", "CONFIG SET no-appendfsync-on-rewrite no"),
        ("maxmemory-policy", "allkeys-lru", "CONFIG SET maxmemory-policy noeviction"),
    ],
)
def test_nothing_more_is_promised_on_one_that_may_lose_it_by_now(
    server: RedisServer, name: str, value: str, error: str
) -> None:
    store = redis_store(server, lease=LEASE_S)

    async def main() -> None:
        await store.open()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await _until_it_is(store, "")
            before = (await trio.to_thread.run_sync(server.ask, "CONFIG", "GET", name))[1].decode()
            await trio.to_thread.run_sync(server.config, name, value)
            await _until_it_is(store, error)
            await trio.to_thread.run_sync(server.config, name, before)
            await _until_it_is(store, "")
            assert await inbox(store, A) == [item("x", 1)]
            nursery.cancel_scope.cancel()
        await store.close()

    trio.run(main)


def test_one_that_is_not_well_is_not_flooded_with_connections(server: RedisServer) -> None:
    store = redis_store(server)

    async def main() -> None:
        await store.open()
        await trio.to_thread.run_sync(server.config, "maxmemory-policy", "allkeys-lru")
        await trio.to_thread.run_sync(server.ask, "CLIENT", "KILL", "TYPE", "normal")
        began = trio.current_time()
        for _ in range(4):
            with pytest.raises(StoreError, match="noeviction"):
                await store.apply(Writes(), Reads({A: 1}), NOW)
        assert trio.current_time() - began >= 0.3
        await store.close()

    trio.run(main)


def test_one_that_is_busy_is_told_from_one_that_refuses(server: RedisServer) -> None:
    store = redis_store(server, timeout=0.3)

    def told(command: bytes) -> bytes:
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(command)
            return connection.recv(1000)

    async def main() -> None:
        await store.open()
        await trio.to_thread.run_sync(server.config, "busy-reply-threshold", "1")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.to_thread.run_sync, told, b'EVAL "while true do end" 0\r\n')
            await _until_it_is(store, "is there, but does not serve yet: BUSY")
            assert (await trio.to_thread.run_sync(told, b"SCRIPT KILL\r\n")).startswith(b"+OK")
        await _until_it_is(store, "")
        await store.close()

    trio.run(main)
