"""The journal with a store that blocks, driven by the store's own thread: whoever is ahead, nothing changes."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio
import trio.lowlevel

from router import store_thread
from router.journal import Journal
from router.settings import StoreOptions
from router.store.base import Item, StoreError
from router.store.sqlite import SqliteStore
from router.vocabulary import OK

OPTIONS = StoreOptions()


def item(slot: str, version: int) -> Item:
    return Item(slot, version, version, int(time.time()) + 1000, 0, None)


async def with_journal(path: Path, use: Callable[[Journal], object], batch_limit: int = 50) -> None:
    store = SqliteStore(OPTIONS, path)
    journal = Journal(store, batch_limit, 100_000, time.time)
    async with trio.open_nursery() as nursery:
        await nursery.start(store_thread.run, journal, store, lambda: None)
        await use(journal)  # type: ignore[misc]
        nursery.cancel_scope.cancel()


async def settled(journal: Journal) -> None:
    with trio.fail_after(30):
        while not journal.settled:
            journal.offer()
            await trio.lowlevel.checkpoint()


def test_every_write_is_called_back_once_and_is_on_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite3"
    rng = random.Random(1)
    expected: dict[tuple[bytes, str], int] = {}
    heard: list[int] = []
    found: dict[bytes, list[Item]] = {}

    async def use(journal: Journal) -> None:
        for version in range(1, 3001):
            device, slot = bytes([rng.randrange(20)]) * 16, f"s{rng.randrange(5)}"
            if rng.random() < 0.6:
                journal.put(device, item(slot, version), heard.append)
                expected[device, slot] = version
            else:
                journal.remove(device, slot)
                expected.pop((device, slot), None)
            if rng.random() < 0.2:
                journal.offer()
            if rng.random() < 0.1:
                await trio.lowlevel.checkpoint()
        await settled(journal)
        for number in range(20):
            device = bytes([number]) * 16
            journal.read_inbox(device, lambda status, items, device=device: found.update({device: items}))
        await settled(journal)
        assert journal.commits < 3000

    trio.run(with_journal, path, use)
    assert set(heard) == {OK}
    kept = {(device, one.slot): one.version for device, items in found.items() for one in items}
    assert kept == expected


def test_a_read_sees_every_write_asked_for_before_it(tmp_path: Path) -> None:
    device = b"d" * 16

    async def use(journal: Journal) -> None:
        for version in range(1, 400):
            seen: list[list[Item]] = []
            journal.put(device, item("slot", version), lambda status: None)
            if version % 3 == 0:
                journal.offer()
            journal.read_inbox(device, lambda status, items, seen=seen: seen.append(items))
            if version % 7 == 0:
                await settled(journal)
                assert [one.version for one in seen[0]] == [version]

    trio.run(with_journal, tmp_path / "store.sqlite3", use, 10)


def test_what_is_offered_when_the_store_is_idle_is_committed(tmp_path: Path) -> None:
    async def use(journal: Journal) -> None:
        for version in range(200):
            done = trio.Event()
            journal.put(b"d" * 16, item("slot", version), lambda status, done=done: done.set())
            journal.offer()
            # Turn after turn fills the same batch while the store's thread wakes up: they must not keep it from it.
            with trio.fail_after(10):
                while not done.is_set():
                    journal.put(b"e" * 16, item("slot", version), lambda status: None)
                    await trio.lowlevel.checkpoint()
                    journal.offer()
        await settled(journal)

    trio.run(with_journal, tmp_path / "store.sqlite3", use)


def test_a_sweep_is_done_between_commits(tmp_path: Path) -> None:
    async def use(journal: Journal) -> None:
        gone = Item("old", 1, 1, int(time.time()) + 1, 0, None)
        journal.put(b"d" * 16, gone, lambda status: None)
        await settled(journal)
        with trio.fail_after(20):
            while not journal.expired:
                journal.sweep_soon(1000)
                await trio.sleep(0.05)

    trio.run(with_journal, tmp_path / "store.sqlite3", use)


def test_a_store_that_cannot_be_opened_ends_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def use(journal: Journal) -> None:
        raise AssertionError("it must not come this far")

    with pytest.raises(ExceptionGroup) as caught:
        trio.run(with_journal, tmp_path / "file" / "store.sqlite3", use)
    assert caught.group_contains(StoreError)
