"""The store of another number of routers: what was in it is in it, in the file of its owner."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from support.installed import cannot
from support.redistribution import (
    CEILING,
    content,
    fill,
    in_each_store,
    owner,
    redistribute,
    redistribution,
    rows,
    settings,
)
from support.stores import ALL, NOW, B, event, item, puts, read_log

from router.common.numbers import MAX_ROUTERS
from router.common.partitions import fixed_owners, partition
from router.store import layout
from router.store.base import Reads, Store, StoreError, Writes
from router.store.copying import BATCH_BYTES, BATCH_ROWS
from router.store.registry import preparation

EVERY_CHANGE = (1, 2, 1, 3, 1, 8, 2, 3, 2, 8, 3, 8, 1)
"""Of each of these numbers of routers to each other."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def files(data: Path) -> set[str]:
    return {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file() and path.suffix != ".lock"}


def test_the_changes_are_all_that_there_are() -> None:
    numbers = set(EVERY_CHANGE)
    assert set(pairwise(EVERY_CHANGE)) == {(a, b) for a in numbers for b in numbers if a != b}


@pytest.mark.parametrize("seed", range(2))
def test_all_that_was_stored_is_read_from_its_owner_after_every_change(data: Path, seed: int) -> None:
    keys = fill(data, 1, seed)
    before, all_rows = content(data, 1, keys), rows(data)
    assert all(before.values())
    assert {table for table, *_ in all_rows} == {"inbox", "record", "head", "event"}
    for old, new in pairwise(EVERY_CHANGE):
        redistribute(data, new)
        found = layout.read(data)
        assert found is not None and (found.routers, found.remove) == (new, "")
        names = {f"{found.folder}/router-{number}.sqlite3" for number in range(new)}
        assert files(data) == {"store.layout", *names}, (old, new)
        assert rows(data) == all_rows, (old, new)
        assert content(data, new, keys) == before, (old, new)
        assert preparation(settings(data, new)) is None


@pytest.mark.parametrize(("old", "new"), [(2, 1), (3, 2)])
def test_what_several_routers_stored_is_brought_together(data: Path, old: int, new: int) -> None:
    keys = fill(data, old, 7)
    before, all_rows = content(data, old, keys), rows(data)
    redistribute(data, new)
    assert (rows(data), content(data, new, keys)) == (all_rows, before)


def test_sequences_and_epochs_go_on_above_the_highest_of_all(data: Path) -> None:
    keys = fill(data, 3, 1)

    async def highest(store: Store, number: int) -> int:
        await store.apply(Writes(ceiling=CEILING + number), Reads(), NOW)
        return await store.highest()

    async def next_epochs(store: Store, number: int) -> list[int]:
        mine = [key for key in (bytes([n]) * 16 for n in range(30)) if owner(key, routers) == number]
        await store.apply(Writes(logs=[event(key) for key in mine]), Reads(), NOW)
        return [(await read_log(store, key)).epoch for key in mine]

    assert in_each_store(data, 3, highest) == [CEILING, CEILING + 1, CEILING + 2]
    old = {part.epoch for part in content(data, 3, keys)["logs"].values()}
    for routers in (2, 8):
        redistribution(data, routers, unix_time=lambda: 1.0).run()  # whatever the clock says

        async def read(store: Store, number: int) -> int:
            return await store.highest()

        assert in_each_store(data, routers, read) == [CEILING + 2] * routers
        new = in_each_store(data, routers, next_epochs)
        assert min(epoch for epochs in new for epoch in epochs) > max(old)
        assert [{epoch % MAX_ROUTERS for epoch in epochs} for epochs in new] == [{n} for n in range(routers)]
        old = {epoch for epochs in new for epoch in epochs}
        shutil.rmtree(data)
        data.mkdir(mode=0o700)
        fill(data, 3, 1)
        in_each_store(data, 3, highest)


def test_a_log_goes_on_in_its_epoch_behind_its_last_offset(data: Path) -> None:
    async def append(store: Store, number: int) -> None:
        if number == owner(B, routers):
            await store.apply(Writes(logs=[event(B, "x")]), Reads(), NOW)

    epochs = set()
    for routers in (1, 2, 3):
        redistribute(data, routers)
        in_each_store(data, routers, append)
        part = content(data, routers, [B])["logs"][B]
        assert [one.offset for one in part.events] == list(range(1, routers + 1))
        epochs.add(part.epoch)
    assert len(epochs) == 1
    assert ALL.offset == 0


def test_a_first_start_needs_nothing(data: Path) -> None:
    for routers in (1, 2):
        assert preparation(settings(data, routers)) is None
        assert preparation(settings(data / "missing", routers)) is None
    assert files(data) == set()


def test_large_bodies_and_many_rows_are_copied_in_batches(data: Path) -> None:
    async def put(store: Store, number: int) -> None:
        for n in range(5):
            await store.apply(puts(B, item(str(n), n, body="x" * (BATCH_BYTES // 2))), Reads(), NOW)
        await store.apply(Writes({}, {}, {("s", n.to_bytes(16)): (b"", 0) for n in range(BATCH_ROWS)}), Reads(), NOW)

    in_each_store(data, 1, put)
    all_rows = rows(data)
    job = redistribution(data, 2)
    copied: list[int] = []
    count = job._copied
    job._copied = lambda n: (copied.append(n), count(n))[1]  # type: ignore[method-assign]
    job.run()
    assert rows(data) == all_rows
    assert copied == [2, 2, 1, BATCH_ROWS, 0, 0, 0]


def test_rows_in_the_wrong_file_come_to_their_owner_and_give_way_to_what_is_there(data: Path) -> None:
    """An operator has put a file of three routers into the place of one of two."""
    keys = fill(data, 1, 5)
    redistribute(data, 3)
    before = content(data, 3, keys)
    manifest = json.loads((data / "store.layout").read_text())
    folder = data / manifest["folder"]
    # The same rows as the layout of two routers, none of which are where they belong but by chance; and all of the
    # first file's a second time, some of them changed.
    (folder / "router-2.sqlite3").rename(folder / "router-1.sqlite3.more")
    shutil.copy(folder / "router-0.sqlite3", folder / "router-2.sqlite3")
    with closing(sqlite3.connect(folder / "router-2.sqlite3")) as db:
        assert db.execute("UPDATE record SET value = 'bm90aGlz' WHERE space = 's'").rowcount
        assert db.execute("UPDATE event SET position = position + 100").rowcount
        assert db.execute("UPDATE head SET epoch = epoch + 512, last = last + 100").rowcount
        db.commit()
    (data / "store.layout").write_text(json.dumps(manifest | {"routers": 3}))
    redistribute(data, 2)
    lost = [key for key in keys if owner(key, 3) == 2]
    kept = {
        kind: {name: value for name, value in part.items() if (name[1] if kind == "records" else name) not in lost}
        for kind, part in before.items()
    }
    assert content(data, 2, keys) == kept


def test_a_file_of_another_layout_is_distributed_whole(data: Path) -> None:
    """A backup of one router's file, put into the place of the first of two."""
    keys = fill(data, 1, 6)
    before, all_rows = content(data, 1, keys), rows(data)
    (data / "store-1").mkdir(mode=0o700)
    (data / "store.sqlite3").rename(data / "store-1" / "router-0.sqlite3")
    (data / "store-1" / "router-1.sqlite3").touch(0o600)
    layout.write(data, layout.Layout(folder="store-1", routers=2))
    redistribute(data, 3)
    assert (rows(data), content(data, 3, keys)) == (all_rows, before)


def test_another_number_of_partitions_is_another_layout(data: Path) -> None:
    keys = fill(data, 1, 8)
    before, all_rows = content(data, 1, keys), rows(data)
    redistribute(data, 8)
    found = json.loads((data / "store.layout").read_text())
    (data / "store.layout").write_text(json.dumps(found | {"partitions": 3}))
    with pytest.raises(StoreError, match="copies it"):
        content(data, 8, keys)
    redistribute(data, 8)
    assert (rows(data), content(data, 8, keys)) == (all_rows, before)


def test_what_is_damaged_stays_as_it_was(data: Path) -> None:
    """Neither texts that are no UTF-8 nor keys that are none stop it."""
    keys = fill(data, 1, 9)
    with closing(sqlite3.connect(data / "store.sqlite3")) as db:
        db.execute("UPDATE inbox SET body = CAST(x'ff61' AS TEXT) WHERE body = 'a'")
        db.execute("INSERT INTO record VALUES ('s', 'not base64', 0, CAST(x'80' AS TEXT))")
        db.commit()
        dump = "SELECT hex(device), hex(slot), hex(body) FROM inbox ORDER BY 1, 2"
        texts = db.execute(dump).fetchall()
    redistribute(data, 2)
    redistribute(data, 1)
    with closing(sqlite3.connect(data / "store-2" / "router-0.sqlite3")) as db:
        assert db.execute(dump).fetchall() == texts
        assert db.execute("SELECT hex(value) FROM record WHERE key = 'not base64'").fetchall() == [("80",)]
    assert len(keys) > 0


def test_a_file_that_cannot_be_read_ends_it_and_stays(data: Path) -> None:
    keys = fill(data, 2, 3)
    before = content(data, 2, keys)
    path = data / "store-1" / "router-1.sqlite3"
    good = path.read_bytes()
    path.write_bytes(good[: len(good) // 2])
    with pytest.raises(StoreError, match=r"router-1.sqlite3: the file is damaged"):
        redistribute(data, 3)
    path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"router-1.sqlite3: the file is not a store; move it away"):
        redistribute(data, 3)
    path.write_bytes(good)
    assert content(data, 2, keys) == before


def test_while_a_router_uses_a_file_nothing_is_copied(data: Path) -> None:
    keys = fill(data, 2, 4)
    before = content(data, 2, keys)

    async def try_it(store: Store, number: int) -> None:
        with pytest.raises(StoreError, match=rf"router-{number}.sqlite3: another router uses it"):
            redistribute(data, 3)

    in_each_store(data, 2, try_it)
    assert content(data, 2, keys) == before


def test_it_is_stopped_between_two_batches_and_leaves_the_old_files(data: Path) -> None:
    keys = fill(data, 2, 2)
    before = content(data, 2, keys)
    for stop_at in range(4):
        job = redistribution(data, 3)
        seen: list[int] = []
        copied = job._copied

        def count(
            rows: int, at: int = stop_at, seen: list[int] = seen, job: object = job, copied: object = copied
        ) -> None:
            seen.append(rows)
            if len(seen) > at:
                job.stop()  # type: ignore[attr-defined]
            copied(rows)  # type: ignore[operator]

        job._copied = count  # type: ignore[method-assign]
        with pytest.raises(StoreError, match=r"not copied to the end; nothing has changed for router.routers=2"):
            job.run()
        assert files(data) == {"store.layout", "store-1/router-0.sqlite3", "store-1/router-1.sqlite3"}
        assert content(data, 2, keys) == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True, text=True)
    if mounted.returncode:
        cannot(f"no file system can be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_without_room_on_the_disk_nothing_is_begun(small_disk: Path) -> None:
    keys = fill(small_disk, 1, 2)
    before = content(small_disk, 1, keys)
    filler = small_disk / "filler"
    with filler.open("wb") as out:
        free = shutil.disk_usage(small_disk).free
        out.write(b"x" * (free - 2 * 1_048_576))
    with pytest.raises(
        StoreError, match=r"for 2 routers takes 3 MiB, and its disk has \d MiB left: free some space, or"
    ):
        redistribute(small_disk, 2)
    assert files(small_disk) == {"store.sqlite3", "filler"}
    filler.unlink()
    redistribute(small_disk, 2)
    assert content(small_disk, 2, keys) == before


def test_a_disk_that_becomes_full_meanwhile_leaves_the_old_files(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = fill(small_disk, 1, 2)
    before = content(small_disk, 1, keys)
    with (small_disk / "filler").open("wb") as out:
        out.write(b"x" * (shutil.disk_usage(small_disk).free - 65_536))
    monkeypatch.setattr("router.store.layout.room", lambda used, routers: 0)
    with pytest.raises(StoreError, match=r"the disk is full.* nothing has changed for router.routers=1"):
        redistribute(small_disk, 2)
    assert files(small_disk) == {"store.sqlite3", "filler"}
    assert content(small_disk, 1, keys) == before


def test_each_row_is_in_the_file_that_the_address_map_says() -> None:
    for routers in (1, 2, 3, 8, 64):
        made = layout.Layout(folder="store-1", routers=routers)
        owners = fixed_owners(routers)
        for n in range(2000):
            key = n.to_bytes(16, "little")
            assert made.owner(key) == owners[partition(key)]
