"""The store in memcached, on real servers: away, stopped, started anew, full, shared, and what it says of them."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from support.common import deaf_port
from support.farm_fixture import PATIENCE_S
from support.memcached import Memcached, running_memcached, shared_memcached
from support.stores import (
    NOW,
    OPTIONS,
    A,
    B,
    everything,
    inbox,
    item,
    memcached_store,
    puts,
    store_settings,
    with_store,
)

from router.common.memcached_settings import MemcachedOptions
from router.common.token import KeyFormatError
from router.key_file import load_or_make_keys
from router.store.base import BadBatchError, Reads, Results, Store, StoreError, Writes
from router.store.changes import CHANGED, Changed, PutIfAbsent
from router.store.memcached import MemcachedStore
from router.store.registry import look_over, open_store

DEVICES = [bytes([n]) * 16 for n in range(40)]
Test = Callable[[MemcachedStore], Awaitable[Any]]


@pytest.fixture
def own() -> Iterator[Memcached]:
    """A server that the test may stop."""
    with running_memcached() as server:
        yield server


@pytest.fixture
def memcached() -> Memcached:
    return shared_memcached()


def in_memcached(test: Callable[[Any], Awaitable[Any]], *servers: Memcached, **options: Any) -> None:
    """Run the test in a store on these servers, while the store looks for those that are away."""

    async def main(store: Store) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.run)
            await test(store)
            nursery.cancel_scope.cancel()

    names = (server.name for server in servers)
    trio.run(with_store, memcached_store(OPTIONS, *names, **{"retry": 0.01, **options}), main)


async def put_all(store: Store, seq: int) -> Results:
    writes = Writes(puts={(device, "x"): item("x", seq) for device in DEVICES})
    return await store.apply(writes, Reads(), NOW)


async def until_well(store: Store, seq: int) -> None:
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                if not (await put_all(store, seq)).failed:
                    return
            except StoreError:
                pass
            await trio.sleep(0.01)


async def stored(store: Store) -> list[int]:
    found = (await store.apply(Writes(), Reads(inboxes=everything(*DEVICES)), NOW)).inboxes
    return [found[device][0].seq if device in found else 0 for device in DEVICES]


def test_what_was_stored_is_there_for_the_next_router(memcached: Memcached) -> None:
    async def write(store: Store) -> None:
        await put_all(store, 7)
        await store.apply(Writes(ceiling=99), Reads(), NOW)

    async def read(store: Store) -> None:
        assert await store.highest() == 99
        assert await stored(store) == [7] * len(DEVICES)

    in_memcached(write, memcached, prefix="next:")
    in_memcached(read, memcached, prefix="next:")


def test_a_server_that_was_started_anew_is_empty_and_serves_at_once(own: Memcached) -> None:
    async def test(store: Store) -> None:
        await put_all(store, 1)
        own.kill()
        own.start()
        assert await stored(store) == [0] * len(DEVICES)  # over a new connection, without a failure
        own.kill()
        own.start()
        assert await put_all(store, 2) == Results()
        assert await stored(store) == [2] * len(DEVICES)
        own.forget()
        assert await stored(store) == [0] * len(DEVICES)

    in_memcached(test, own)


def test_a_server_that_is_away_fails_the_batch_and_is_found_when_it_is_back(own: Memcached) -> None:
    async def test(store: Store) -> None:
        own.kill()
        for _ in range(3):
            with pytest.raises(StoreError, match=rf"memcached {own.name}: .*; start it, or name another"):
                await put_all(store, 1)
        own.start()
        await until_well(store, 2)
        assert await stored(store) == [2] * len(DEVICES)

    in_memcached(test, own)


def test_a_server_that_does_not_answer_is_given_up_in_time(own: Memcached) -> None:
    async def test(store: Store) -> None:
        await put_all(store, 1)
        own.stop()
        with pytest.raises(StoreError, match=r"has not answered within 1 s \(memcached.timeout\)"):
            await put_all(store, 2)
        with pytest.raises(StoreError):  # without waiting for it
            await put_all(store, 3)
        own.go_on()
        await until_well(store, 4)
        assert await stored(store) == [4] * len(DEVICES)

    in_memcached(test, own, timeout=1)


@pytest.mark.parametrize("stopped", [True, False])
def test_one_server_of_two_fails_its_part_alone(own: Memcached, memcached: Memcached, stopped: bool) -> None:
    async def test(store: Store) -> None:
        assert await put_all(store, 1) == Results()
        own.stop() if stopped else own.kill()
        assert await store.sweep(NOW, 10) == 0
        store.check()
        results = await put_all(store, 2)
        away = results.failed
        assert 0 < len(away) < len(DEVICES)
        assert await put_all(store, 3) == Results(failed=away)
        reads = await store.apply(Writes(), Reads(inboxes=everything(*DEVICES)), NOW)
        assert (reads.failed, set(reads.inboxes)) == (away, set(DEVICES) - away)
        assert await store.sweep(NOW, 10) == 0
        if stopped:
            own.go_on()
        else:
            own.start()
        await until_well(store, 4)
        assert await stored(store) == [4] * len(DEVICES)

    in_memcached(test, own, memcached, timeout=1)


def test_a_farm_starts_with_one_server_of_two_and_not_without_any(own: Memcached, memcached: Memcached) -> None:
    own.kill()

    async def test(store: Store) -> None:
        assert 0 < len((await put_all(store, 1)).failed) < len(DEVICES)
        own.start()
        await until_well(store, 2)

    in_memcached(test, own, memcached)
    own.kill()
    with pytest.raises(StoreError, match="connection refused; start it"):
        in_memcached(test, own)


def test_a_key_stays_on_its_server_when_others_come_and_go() -> None:
    def where(*names: str) -> list[str]:
        store = memcached_store(OPTIONS, *names)
        return [server.name for server in store._of_partition]

    two, three = where("a:1", "b:1"), where("c:1", "b:1", "a:1")
    assert all(after in (before, "c:1") for before, after in zip(two, three, strict=True))
    assert all(three.count(name) > 120 for name in ("a:1", "b:1", "c:1"))


def test_what_others_write_meanwhile_is_not_lost(memcached: Memcached) -> None:
    async def test(first: MemcachedStore) -> None:
        second = memcached_store(OPTIONS, memcached.name, prefix="two:")
        await second.open()
        async with trio.open_nursery() as nursery:
            for number, store in enumerate((first, second)):
                nursery.start_soon(apply_often, store, number)
        assert [(i.slot, i.seq) for i in await inbox(first, A)] == [("0", 29), ("1", 29)]
        await second.close()

    async def apply_often(store: Store, number: int) -> None:
        for turn in range(30):
            while (await store.apply(puts(A, item(f"{number}", turn)), Reads(), NOW)).failed:
                pass

    in_memcached(test, memcached, prefix="two:")


def test_an_entry_that_changes_whenever_it_is_read_fails(memcached: Memcached, monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(store: MemcachedStore) -> None:
        other = memcached_store(OPTIONS, memcached.name, prefix="busy:")
        await other.open()
        (server,) = store._servers
        read = server.entries
        turns = 0

        async def entries(keys: list[bytes]) -> Any:
            nonlocal turns
            found = await read(keys)
            turns += 1
            await other.apply(puts(A, item("other", turns)), Reads(), NOW)
            return found

        monkeypatch.setattr(server, "entries", entries)
        writes = puts(A, item("x", 1))
        writes.puts[B, "x"] = item("x", 2)
        writes.changes = [(("s", B), PutIfAbsent(b"v", 0))]
        results = await store.apply(writes, Reads(inboxes=everything(A, B)), NOW)
        assert results == Results(failed={A}, inboxes={B: [item("x", 2)]}, changes=[Changed(CHANGED)])
        await other.close()

    in_memcached(test, memcached, prefix="busy:")


def test_a_server_that_is_full_refuses_and_keeps_what_it_has() -> None:
    async def test(store: MemcachedStore) -> None:
        assert "drops" not in store.promise
        accepted: list[bytes] = []
        for number in range(200):
            device = number.to_bytes(16, "big")
            results = await store.apply(puts(device, item("x", number, body="x" * 50_000)), Reads(), NOW)
            if results.failed:
                assert results.failed == {device}
            else:
                accepted.append(device)
        assert 0 < len(accepted) < 200
        found = (await store.apply(Writes(), Reads(inboxes=everything(*accepted)), NOW)).inboxes
        assert set(found) == set(accepted)
        # What is acknowledged makes room, as soon as memcached has tidied up.
        removals = Writes(removals={(device, "x"): 1 for device in accepted})
        assert await store.apply(removals, Reads(), NOW) == Results()
        with trio.fail_after(PATIENCE_S):
            while (await store.apply(puts(A, item("x", 1, body="x" * 50_000)), Reads(), NOW)).failed:
                await trio.sleep(0.01)

    with running_memcached("-m", "2", "-M") as server:
        in_memcached(test, server)


def test_a_server_that_drops_what_it_holds_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async def test(store: MemcachedStore) -> None:
        assert "start it with -M" in store.promise
        for number in range(200):
            device = number.to_bytes(16, "big")
            await store.apply(puts(device, item("x", number, body="x" * 50_000)), Reads(), NOW)
        await store.sweep(NOW, 10)
        assert store.used > 100_000

    with running_memcached("-m", "2") as server:
        in_memcached(test, server)
    assert "store.evicts" in caplog.text


def test_an_inbox_that_is_too_large_for_an_entry_refuses_what_is_too_much(memcached: Memcached) -> None:
    async def test(store: Store) -> None:
        large = "x" * 600_000
        assert await store.apply(puts(A, item("a", 1, body=large), item("b", 2)), Reads(), NOW) == Results()
        results = await store.apply(puts(A, item("c", 3, body=large), item("b", 4, body="")), Reads(), NOW)
        assert results == Results(refused={(A, "c")})
        assert [(i.slot, i.seq) for i in await inbox(store, A)] == [("a", 1), ("b", 4)]
        with pytest.raises(BadBatchError, match="larger than an entry"):
            await store.apply(Writes(records={("s", A): (large.encode() * 2, 0)}), Reads(), NOW)

    in_memcached(test, memcached)


def test_large_inboxes_are_read_few_at_a_time(memcached: Memcached) -> None:
    async def test(store: MemcachedStore) -> None:
        for device in DEVICES:
            await store.apply(puts(device, item("x", 1, body="x" * 500_000)), Reads(), NOW)
        for _ in range(2):
            assert await stored(store) == [1] * len(DEVICES)
        assert store._chunk == 16
        for _ in range(8):
            await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        assert store._chunk == 200

    in_memcached(test, memcached)


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async def test(store: MemcachedStore) -> None:
        store.check()
        await put_all(store, 1)
        assert await stored(store) == [1] * len(DEVICES)

    with running_memcached(path=tmp_path / "socket") as server:
        in_memcached(test, server)


@contextmanager
def something_else(reply: bytes) -> Iterator[str]:
    """A server that answers anything with this, and closes."""
    import threading

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(reply)

        threading.Thread(target=serve, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not answer as memcached does"),
        (b"STAT version 1.4.39\r\nEND\r\n", "1.6 or newer is needed"),
        (b"END\r\n", "1.6 or newer is needed"),
        (b"", "it closed the connection"),
    ],
)
def test_what_is_no_memcached_is_refused(reply: bytes, why: str) -> None:
    with something_else(reply) as name:
        store = memcached_store(OPTIONS, name)
        with pytest.raises(StoreError, match=why):
            store.check()
        if b"STAT" not in reply:
            with pytest.raises(StoreError, match=f"memcached {name}"):
                trio.run(store.open)


def test_settings_that_name_no_server() -> None:
    with pytest.raises(StoreError, match="names no server"):
        memcached_store(OPTIONS)


def test_a_lost_key_file_is_not_replaced_while_memcached_keeps_something(
    tmp_path: Path,
) -> None:
    settings = store_settings("memcached", tmp_path)
    (keys,) = load_or_make_keys(settings)
    assert load_or_make_keys(settings) == [keys]
    (tmp_path / "token.key").unlink()
    (other,) = load_or_make_keys(settings)  # nothing is kept that was sealed with the old one
    assert other != keys
    trio.run(with_store, open_store(settings), lambda store: store.apply(puts(A, item("x", 1)), Reads(), NOW))
    (tmp_path / "token.key").unlink()
    with pytest.raises(KeyFormatError, match="restart memcached, or choose another"):
        load_or_make_keys(settings)
    with deaf_port() as port:
        away = settings.replace(MemcachedOptions, servers=(f"127.0.0.1:{port}",))
        with pytest.raises(StoreError, match="connection refused"):
            load_or_make_keys(away)


def test_what_farm_doctor_sees(tmp_path: Path, own: Memcached) -> None:
    settings = store_settings("memcached", tmp_path).replace(MemcachedOptions, servers=(own.name,))
    server, meaning = look_over(settings)
    assert (server.status, server.found, server.remedy) == (
        "warn",
        f"{own.name}: 64 MiB, then it drops entries",
        "start it with -M",
    )
    assert "start it with -M" in meaning.found
    own.kill()
    server, _ = look_over(settings)
    assert server.status == "fail" and "connection refused; start it" in server.found
    with running_memcached("-m", "100", "-M") as sound:
        server, meaning = look_over(settings.replace(MemcachedOptions, servers=(sound.name,)))
    assert (server.status, server.found) == ("ok", f"{sound.name}: 100 MiB, then it refuses")
    assert meaning.found == "in memory, by memcached: what is accepted is lost when its memcached server ends"
