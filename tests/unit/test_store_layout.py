"""Which files of a data folder are the store, by the number of routers and the manifest."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import trio
from support.stores import NOW, A, everything, item, puts

from router.common.options import Settings, defaults
from router.common.partitions import PARTITIONS
from router.common.settings import SECTIONS, Data, RouterOptions
from router.store import layout
from router.store.base import Reads, Store, StoreError, Writes
from router.store.registry import keeps_something, look_over, open_store, preparation


def settings(data: Path, routers: int) -> Settings:
    return defaults(SECTIONS).replace(Data, dir=str(data)).replace(RouterOptions, routers=routers)


def put(store: Store, slot: str) -> None:
    """Store an item of A."""

    async def main() -> None:
        await store.open()
        await store.apply(puts(A, item(slot, 1)), Reads(), NOW)
        await store.close()

    trio.run(main)


def slots(store: Store) -> list[str]:
    """What it holds of A."""
    found: list[str] = []

    async def main() -> None:
        await store.open()
        inboxes = (await store.apply(Writes(), Reads(everything(A)), NOW)).inboxes
        found.extend(one.slot for one in inboxes.get(A, ()))
        await store.close()

    trio.run(main)
    return found


def redistribute(data: Path, routers: int) -> None:
    """As a start with another number of routers does."""
    work = preparation(settings(data, routers))
    assert work is not None
    work.run()


def files(data: Path) -> set[str]:
    return {str(path.relative_to(data)) for path in data.rglob("*") if path.is_file() and path.suffix != ".lock"}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    return folder


def test_one_router_has_the_file_that_it_always_had(data: Path) -> None:
    put(open_store(settings(data, 1)), "one")
    assert files(data) == {"store.sqlite3"}
    assert layout.read(data) == layout.Layout()
    assert slots(open_store(settings(data, 1))) == ["one"]


def test_each_of_several_has_its_own_and_the_first_of_them_writes_the_manifest(data: Path) -> None:
    stores = [open_store(settings(data, 3), number) for number in range(3)]
    assert files(data) == set()
    for number in (1, 0, 2):
        put(stores[number], str(number))
    assert files(data) == {"store.layout", *(f"store-1/router-{number}.sqlite3" for number in range(3))}
    assert json.loads((data / "store.layout").read_text()) == {
        "format": 1, "folder": "store-1", "routers": 3, "partitions": PARTITIONS, "remove": "",
    }  # fmt: skip
    assert [slots(open_store(settings(data, 3), number)) for number in range(3)] == [["0"], ["1"], ["2"]]
    assert (data / "store.layout").stat().st_mode & 0o777 == 0o600
    assert (data / "store-1").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(("had", "has"), [(1, 2), (2, 1), (2, 3)])
def test_another_number_of_routers_is_refused_and_changes_nothing(data: Path, had: int, has: int) -> None:
    put(open_store(settings(data, had)), "kept")
    before = files(data)
    with pytest.raises(
        StoreError, match=rf"router.routers={had}, .* is {has}: `farm start --routers {has}` copies it, or set"
    ):
        open_store(settings(data, has))
    assert files(data) == before
    assert slots(open_store(settings(data, had))) == ["kept"]


def test_a_router_whose_files_were_replaced_before_it_had_its_lock_does_not_open_them(data: Path) -> None:
    put(open_store(settings(data, 1)), "old")
    late = open_store(settings(data, 1))
    new = layout.Layout(folder="store-1", routers=2, remove="store.sqlite3")
    (data / "store-1").mkdir(mode=0o700)
    layout.write(data, new)
    layout.delete(data, "store.sqlite3")
    with pytest.raises(StoreError, match=r"is that of router.routers=2, and the setting is 1"):
        put(late, "new")
    assert files(data) == {"store.layout"}


def test_of_two_first_routers_that_disagree_on_their_number_one_is_refused(data: Path) -> None:
    two, three = open_store(settings(data, 2)), open_store(settings(data, 3))
    put(two, "kept")
    with pytest.raises(StoreError, match=r"router.routers=2, and the setting is 3"):
        put(three, "lost")
    assert slots(open_store(settings(data, 2))) == ["kept"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "\xff",
        "null",
        '{"format":2,"folder":"store-1","routers":2,"partitions":512}',
        '{"format":1,"folder":"../other","routers":2,"partitions":512}',
        '{"format":1,"folder":"store-1/..","routers":2,"partitions":512}',
        '{"format":1,"folder":"store-1\\n","routers":2,"partitions":512}',
        '{"format":1,"folder":"store-1","routers":0,"partitions":512}',
        '{"format":1,"folder":"store-1","routers":2,"partitions":513}',
        '{"format":1,"folder":"store-1","routers":2,"partitions":512,"more":1}',
        '{"format":1,"folder":"","routers":2,"partitions":512}',
        '{"format":1,"folder":"store-1","routers":2,"partitions":512,"remove":"keys"}',
    ],
)
def test_a_damaged_manifest_is_named_with_what_to_write_into_it(data: Path, text: str) -> None:
    for number in range(2):
        put(open_store(settings(data, 2), number), "kept")
    good = (data / "store.layout").read_text()
    (data / "store.layout").write_text(text, encoding="latin-1")
    for routers in (1, 2):
        with pytest.raises(StoreError, match=r"store.layout is damaged .* restore it") as caught:
            open_store(settings(data, routers))
    assert str(caught.value).endswith(good.strip())
    remains = keeps_something(settings(data, 2))
    assert remains is not None and "store.layout" in remains.to_begin_anew
    (data / "store.layout").write_text(str(caught.value).rpartition("write into it: ")[2])
    assert slots(open_store(settings(data, 2), 1)) == ["kept"]


def test_a_manifest_that_is_lost_does_not_make_a_store_begin_anew(data: Path) -> None:
    put(open_store(settings(data, 2), 1), "kept")
    (data / "store.layout").unlink()
    for routers in (1, 2):
        with pytest.raises(StoreError, match=r"store.layout is missing, and store-1 beside it has files of a store"):
            open_store(settings(data, routers))
    os.rename(data / "store-1", data / "away")
    assert slots(open_store(settings(data, 2))) == []


def test_a_router_looks_for_the_manifest_just_before_another_makes_it(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = layout._folders

    def slow(data: Path) -> list[str]:
        monkeypatch.undo()
        put(open_store(settings(data, 2), 0), "a")
        return folders(data)

    monkeypatch.setattr(layout, "_folders", slow)
    put(open_store(settings(data, 2), 1), "b")
    assert slots(open_store(settings(data, 2), 1)) == ["b"]


def test_a_folder_that_is_lost_does_not_make_a_store_begin_anew(data: Path) -> None:
    put(open_store(settings(data, 2)), "kept")
    os.rename(data / "store-1", data / "away")
    with pytest.raises(StoreError, match=r"store-1 is missing, and store.layout beside it names it"):
        open_store(settings(data, 2))
    os.rename(data / "away", data / "store-1")
    assert slots(open_store(settings(data, 2))) == ["kept"]


def test_a_file_that_is_lost_does_not_make_its_router_begin_anew(data: Path) -> None:
    tree = settings(data, 3)
    put(open_store(tree, 0), "kept")
    assert {"store-1/router-1.sqlite3", "store-1/router-2.sqlite3"} <= files(data)  # before anything is stored
    os.rename(data / "store-1" / "router-2.sqlite3", data / "away")
    for number in range(3):
        with pytest.raises(StoreError, match=r"router-2.sqlite3: it is missing, .* restore it from a backup"):
            slots(open_store(tree, number))
    (found,) = look_over(tree)
    assert found.status == "fail" and "router-2.sqlite3: it is missing" in found.remedy
    with pytest.raises(StoreError, match=r"router-2.sqlite3: it is missing"):
        redistribute(data, 2)
    assert not os.path.lexists(data / "store-1" / "router-2.sqlite3")
    (data / "store-1" / "router-2.sqlite3").touch(0o600)  # as the message advises
    assert slots(open_store(tree, 2)) == []


def test_a_first_start_that_was_cut_short_is_no_loss(data: Path) -> None:
    tree = settings(data, 3)
    slots(open_store(tree, 0))
    (data / "store-1" / "router-1.sqlite3").unlink()
    put(open_store(tree, 2), "kept")
    assert slots(open_store(tree, 1)) == []


def test_the_one_file_of_a_layout_that_is_lost_is_missed(data: Path) -> None:
    put(open_store(settings(data, 2)), "kept")
    redistribute(data, 1)
    (data / "store-2" / "router-0.sqlite3").unlink()
    with pytest.raises(StoreError, match=r"router-0.sqlite3: it is missing"):
        slots(open_store(settings(data, 1)))


def test_a_single_file_that_was_put_beside_a_manifest_is_neither_used_nor_deleted(data: Path) -> None:
    put(open_store(settings(data, 2)), "kept")
    (data / "store.sqlite3").write_bytes(b"a backup")
    for routers in (1, 2):
        with pytest.raises(StoreError, match=r"store.sqlite3 is there, .*: one of them was put there by hand"):
            open_store(settings(data, routers))
    assert (data / "store.sqlite3").read_bytes() == b"a backup"


def test_only_files_of_a_store_are_deleted(data: Path) -> None:
    put(open_store(settings(data, 2)), "kept")
    (data / "store-1" / "notes.txt").write_text("of an operator")
    with pytest.raises(OSError, match="not empty"):
        layout.delete(data, "store-1")
    assert files(data) == {"store.layout", "store-1/notes.txt"}


def test_what_is_kept_is_found_in_any_of_the_files(data: Path) -> None:
    tree = settings(data, 2)
    assert keeps_something(tree) is None
    slots(open_store(tree, 0))
    assert keeps_something(tree) is None
    put(open_store(tree, 1), "kept")
    remains = keeps_something(tree)
    assert remains is not None and remains.to_begin_anew == "move store.layout and store-1 away"


def test_what_a_start_will_do_is_seen_before(data: Path) -> None:
    assert look_over(settings(data, 2)) == []
    put(open_store(settings(data, 2), 1), "kept")
    (found,) = look_over(settings(data, 2))
    assert (found.status, found.found) == ("ok", "those of router.routers=2")
    (found,) = look_over(settings(data, 3))
    assert (found.status, found.found) == ("ok", "those of router.routers=2")
    assert found.needed == "those of router.routers=3: farm start copies the store, which takes up to 3 MiB"
    with (data / "store-1" / "router-0.sqlite3").open("wb") as large:
        large.truncate(1 << 43)
    (found,) = look_over(settings(data, 3))
    assert (found.status, found.remedy) == ("fail", "more room on that disk; or --set router.routers=2")
    (data / "store.layout").write_text("damaged")
    (found,) = look_over(settings(data, 2))
    assert found.status == "fail" and "store.layout is damaged" in found.remedy


@pytest.mark.parametrize("routers", [2, 3])
def test_a_file_of_a_newer_release_is_seen_before(data: Path, routers: int) -> None:
    put(open_store(settings(data, 2), 1), "kept")
    with closing(sqlite3.connect(data / "store-1" / "router-1.sqlite3")) as db:
        db.execute("PRAGMA user_version = 99")
    (found,) = look_over(settings(data, routers))
    assert found.status == "fail" and "router-1.sqlite3: a newer release wrote it (schema 99" in found.remedy
