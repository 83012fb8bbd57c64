"""Backups: the manifest, and files of a store that are copied, checked and put back."""

from __future__ import annotations

import fcntl
import gzip
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
import trio
from support.killing import killed_at
from support.redistribution import fill, settings
from support.stores import ALL, NOW, A, B, event, everything

from farm.backup import making, manifest, restoring
from farm.backup.manifest import BackupError, Entry
from router.common.numbers import next_epoch
from router.common.options import Settings
from router.common.position import AfterOffset
from router.common.settings import StoreOptions, TokenOptions
from router.common.token import new_key
from router.key_file import load_or_make_keys
from router.store import layout, sqlite_copy
from router.store.base import LogName, Reads, Results, StoreError, Writes
from router.store.layout import Layout
from router.store.redistribution import Redistribution
from router.store.registry import look_over, open_store

DATA = Path(__file__).parents[1] / "data"
OLD = Layout(folder="store-2", routers=3)


def quiet(text: str) -> None:
    assert text


def make(found: Settings, target: Path) -> manifest.Manifest:
    return making.make(found, target, "1.0", NOW, quiet)


def restore(found: Settings, source: Path, *, replace: bool = False) -> Path | None:
    return restoring.restore(found, source, quiet, replace=replace)[1]


def filled(data: Path, routers: int) -> Settings:
    """A data folder with a key and something of everything in the store."""
    fill(data, routers, 1)
    key = data / "token.key"
    key.touch(0o600)
    key.write_text(new_key())
    return settings(data, routers)


def applied(found: Settings, writes: Writes, reads: Reads) -> Results:
    async def main() -> Results:
        store = open_store(found)
        await store.open()
        try:
            return await store.apply(writes, reads, NOW)
        finally:
            await store.close()

    return trio.run(main)


def rows(data: Path, paths: Iterable[Path] = ()) -> dict[str, list[list[tuple[object, ...]]]]:
    """All that the files of a store hold, but for epochs. paths: of these files; by default of all."""
    found = {}
    for path in paths or data.rglob("*.sqlite3"):
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE head SET epoch = 0")
            tables = ("inbox", "record", "head", "event")
            found[str(path.relative_to(data))] = [db.execute(f"SELECT * FROM {name}").fetchall() for name in tables]
    return found


def sample(found: Layout, *, key: bool) -> manifest.Manifest:
    entries = {name: Entry(7, "0" * 64) for name in manifest.names(found, key=key)}
    return manifest.new("1.0", NOW, 2, found, entries)


@pytest.mark.parametrize("key", [True, False])
@pytest.mark.parametrize("found", [Layout(), OLD])
def test_a_manifest_is_read_as_it_was_written(found: Layout, key: bool) -> None:
    made = sample(found, key=key)
    assert manifest.decode(manifest.encode(made), Path("m")) == made
    assert made.has_key == key and made.size == 7 * len(made.files)


def test_the_file_by_which_the_others_count_is_put_back_last() -> None:
    assert manifest.names(Layout(), key=True) == ["token.key", "store.sqlite3"]
    stores = [f"store-2/router-{number}.sqlite3" for number in range(3)]
    assert manifest.names(OLD, key=True) == ["token.key", *stores, "store.layout"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"token.key"', b'"../token.key"'),
        (b'"store-2/router-1.sqlite3"', b'"/etc/passwd"'),
        (b'"routers": 3', b'"routers": 2'),
        (b'"format": 1,\n  "release"', b'"format": 2,\n  "release"'),
        (b'"release": "1.0"', b'"more": 1'),
        (b"0000", b"0x00"),
        (b"}", b""),
        (b'"created": ', b'"created": 9999999999'),
        (b'"bytes": 7', b'"bytes": ' + b"7" * 4300),
        (b'"schema": 2', b'"schema": ' + b"2" * 4300),
    ],
)
def test_a_manifest_that_is_not_ours_is_refused(old: bytes, new: bytes) -> None:
    text = manifest.encode(sample(OLD, key=True))
    assert old in text
    with pytest.raises(BackupError, match=r"^m: it is damaged, or a newer release made the backup"):
        manifest.decode(text.replace(old, new, 1), Path("m"))


def test_what_is_wrong_with_a_manifest_is_told_in_a_line_however_long_it_is() -> None:
    text = manifest.encode(sample(OLD, key=True)).replace(b'"release"', b'"' + b"r" * 100_000 + b'"')
    with pytest.raises(BackupError, match="contains unknown field `rrr") as refused:
        manifest.decode(text, Path("m"))
    assert len(str(refused.value)) < 300


def test_the_last_moment_that_a_manifest_can_name_is_shown() -> None:
    made = msgspec.structs.replace(sample(OLD, key=True), created=253_402_300_799)
    assert manifest.decode(manifest.encode(made), Path("m")).when == "9999-12-31 23:59:59 UTC"


@pytest.mark.parametrize("routers", [1, 3])
def test_what_is_put_back_is_what_was_there(routers: int, tmp_path: Path) -> None:
    data = tmp_path / "data"
    found = filled(data, routers)
    make(found, tmp_path / "backup")
    for path in (tmp_path / "backup").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    again = tmp_path / "again"
    assert restore(settings(again, routers), tmp_path / "backup") is None
    names = {str(path.relative_to(again)) for path in again.rglob("*") if path.is_file()}
    assert names == set(manifest.names(Layout(folder="store-1", routers=3) if routers > 1 else Layout(), key=True)) | {
        "farm.pid"
    }
    assert (again / "token.key").read_text() == (data / "token.key").read_text()
    assert rows(again) == rows(data)


def test_a_position_of_after_the_backup_is_not_taken_for_one_of_other_events(tmp_path: Path) -> None:
    found = settings(tmp_path / "data", 1).replace(TokenOptions, keys=new_key())
    first = applied(found, Writes(logs=[event(A, "1")]), Reads())
    make(found, tmp_path / "backup")
    seen = applied(found, Writes(logs=[event(A, "lost")]), Reads()).appended[0]
    assert isinstance(seen, AfterOffset) and first.appended == [AfterOffset(seen.epoch, seen.offset - 1)]
    aside = restore(found, tmp_path / "backup", replace=True)
    assert aside is not None and (aside / "store.sqlite3").exists()
    name = LogName(A, seen)
    results = applied(found, Writes(logs=[event(A, "2")]), Reads(logs={name}))
    part = results.logs[name]
    assert part.epoch > seen.epoch and not part.recovered
    assert [one.body for one in part.events] == ["1", "2"]


def test_a_backup_of_the_first_schema_is_put_back_and_brought_up_to_date(tmp_path: Path) -> None:
    found = settings(tmp_path / "data", 1).replace(TokenOptions, keys=new_key())
    (tmp_path / "data").mkdir(0o700)
    store = tmp_path / "data" / "store.sqlite3"
    store.touch(0o600)
    store.write_bytes(gzip.decompress((DATA / "store-schema-1.sqlite3.gz").read_bytes()))
    made = make(found, tmp_path / "backup")
    assert made.schema == 1 and not made.has_key
    restore(found, tmp_path / "backup", replace=True)
    reads = Reads(everything(B), {("s", A)}, {LogName(A, ALL)})
    results = applied(found, Writes(), reads)
    assert len(results.inboxes[B]) == 1 and results.records["s", A] == b"for ever"
    part = results.logs[LogName(A, ALL)]
    assert [one.body for one in part.events] == ["2", "3", "4", "5"]
    assert part.epoch >= next_epoch(0, 0, NOW)


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 8192)


def another_byte(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xaa")


@pytest.mark.parametrize(
    ("harm", "why"),
    [(cut, "SHA-256"), (another_byte, "SHA-256"), (Path.unlink, "missing")],
)
def test_a_backup_that_was_changed_is_refused_and_nothing_changes(
    harm: Callable[[Path], object], why: str, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    found = filled(data, 1)
    make(found, tmp_path / "backup")
    harm(tmp_path / "backup" / "store.sqlite3")
    before = sorted(path.name for path in data.iterdir())
    with pytest.raises(BackupError, match=why):
        restore(found, tmp_path / "backup", replace=True)
    assert sorted({path.name for path in data.iterdir()} - {"farm.pid"}) == before


def test_a_backup_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    made = make(filled(tmp_path / "data", 1), tmp_path / "backup")
    newer_one = msgspec.structs.replace(made, schema=99, release="9.0")
    (tmp_path / "backup" / manifest.FILE).write_bytes(manifest.encode(newer_one))
    with pytest.raises(BackupError, match=r"release 9\.0 made it \(schema 99, this release knows 2\)"):
        restore(settings(tmp_path / "again", 1), tmp_path / "backup")
    assert not (tmp_path / "again").exists()


def test_a_damaged_store_and_one_of_a_newer_release_are_not_backed_up(tmp_path: Path) -> None:
    found = filled(tmp_path / "data", 1)
    store = tmp_path / "data" / "store.sqlite3"
    newer(store)
    with pytest.raises(StoreError, match=f"^store {store}: a newer release wrote it"):
        make(found, tmp_path / "backup")
    with closing(sqlite3.connect(store)) as db:
        db.execute("PRAGMA user_version = 2")
        (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'inbox'").fetchone()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    with store.open("r+b") as file:
        file.seek((root - 1) * 8192)
        file.write(b"\xff" * 4096)
    with pytest.raises(StoreError, match=f"^store {store}: .*damaged"):
        make(found, tmp_path / "backup")
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith("backup")]


@pytest.mark.parametrize(
    ("name", "why"), [("farm.pid", "a farm runs on"), ("store-1/router-1.sqlite3.lock", "a router runs on")]
)
def test_nothing_is_put_back_while_the_data_folder_is_used(name: str, why: str, tmp_path: Path) -> None:
    found = filled(tmp_path / "data", 2)
    make(found, tmp_path / "backup")
    handle = os.open(tmp_path / "data" / name, os.O_RDWR | os.O_CREAT, 0o600)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        with pytest.raises(BackupError, match=why):
            restore(found, tmp_path / "backup", replace=True)
    finally:
        os.close(handle)
    assert restore(found, tmp_path / "backup", replace=True) is not None


def test_a_copy_is_of_one_moment_and_ends_however_much_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a write came between two steps, SQLite would begin again, and take what it finds then."""
    filled(tmp_path, 1)
    source, target = tmp_path / "store.sqlite3", tmp_path / "copy.sqlite3"
    before = rows(tmp_path)["store.sqlite3"]
    monkeypatch.setattr(sqlite_copy, "_STEP_PAGES", 1)
    steps = []
    with closing(sqlite3.connect(source, isolation_level=None)) as db:

        def copied(done: int, total: int) -> None:
            assert not steps or done > steps[-1], "it has begun again"
            steps.append(done)
            assert done <= total
            db.execute("INSERT INTO record VALUES ('x', ?, 0, ?)", (str(len(steps)), "x" * 9000))

        sqlite_copy.copy(source, target, copied)
        assert db.execute("SELECT count(*) FROM record WHERE space = 'x'").fetchone()[0] == len(steps) > 5
    assert sqlite_copy.check(target, source) == 2
    assert rows(tmp_path)["copy.sqlite3"] == before


def test_where_the_files_are_replaced_for_other_routers_meanwhile_there_is_no_backup(tmp_path: Path) -> None:
    found = filled(tmp_path / "data", 2)
    told: list[str] = []

    def tell(text: str) -> None:
        if not told and text.startswith("copying store-1/router-0"):
            there = layout.read(tmp_path / "data")
            assert there is not None
            Redistribution(found.get(StoreOptions), tmp_path / "data", there, 3).run()
        told.append(text)

    with pytest.raises(BackupError, match="was copied for another number of routers meanwhile: run it again"):
        making.make(found, tmp_path / "backup", "1.0", NOW, tell)
    assert told and [path.name for path in tmp_path.iterdir()] == ["data"]
    assert make(settings(tmp_path / "data", 3), tmp_path / "backup").layout.routers == 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    found = filled(tmp_path / "data", 1)
    make(found, tmp_path / "backup")
    with pytest.raises(BackupError, match="nothing is overwritten"):
        make(found, tmp_path / "backup")
    with pytest.raises(BackupError, match=r"has store\.sqlite3.*, token\.key: nothing is overwritten; --replace"):
        restore(found, tmp_path / "backup")
    with pytest.raises(BackupError, match="is no backup"):
        restore(found, tmp_path / "data", replace=True)


@pytest.mark.parametrize(("kind", "word"), [("redis", "BGSAVE"), ("memcached", "memcached"), ("memory", "memory")])
def test_of_another_store_it_says_how_that_is_backed_up(kind: str, word: str, tmp_path: Path) -> None:
    found = settings(tmp_path / "data", 1).replace(StoreOptions, kind=kind)
    with pytest.raises(BackupError, match=f"store.kind = {kind}: .*{word}.*keep .*token.key with it"):
        make(found, tmp_path / "backup")


def test_without_its_key_a_store_is_not_backed_up(tmp_path: Path) -> None:
    found = filled(tmp_path / "data", 1)
    (tmp_path / "data" / "token.key").unlink()
    with pytest.raises(Exception, match=r"token\.key is missing"):
        make(found, tmp_path / "backup")
    assert not (tmp_path / "backup").exists()


def is_refused(found: Settings, data: Path) -> bool:
    """Whether no farm takes the folder for whole. What is there stays then, and the error says what to do."""
    before = sorted(data.rglob("*"))
    try:
        load_or_make_keys(found.replace(TokenOptions, keys=""))
        layout.read(data)
    except StoreError as error:
        assert "run farm restore --replace again" in str(error)
        assert sorted(data.rglob("*")) == before
        assert [one.status for one in look_over(found)] == ["fail"]
        return True
    return False


@pytest.mark.parametrize("routers", [1, 2])
def test_killed_before_any_of_its_file_operations_it_leaves_a_whole_folder_or_one_that_is_refused(
    routers: int, tmp_path: Path
) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup"
    found = filled(data, routers)
    make(found, backup)

    def whole() -> dict[str, list[list[tuple[object, ...]]]]:
        there = layout.read(data)
        return rows(data, there.paths(data)) if there is not None else {}

    wanted, refused, operation = whole(), [], 0
    while (code := killed_at(operation, lambda: restore(found, backup, replace=True))) != 0:
        assert code == -signal.SIGKILL
        refused.append(is_refused(found, data))
        assert refused[-1] or (whole() == wanted and (data / "token.key").exists())
        restore(found, backup, replace=True)
        assert not is_refused(found, data) and whole() == wanted and not (data / "restoring").exists()
        for old in data.glob("replaced-*"):
            shutil.rmtree(old)
        operation += 1
    assert refused.count(True) >= 4 and not refused[0] and not refused[-1]
