"""A backup as one file: what it holds, what else is refused in one, and what a backup that was killed has left."""

from __future__ import annotations

import io
import os
import signal
import sqlite3
import subprocess
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final

import msgspec
import pytest
from support.killing import in_child
from support.redistribution import fill, settings
from support.stores import NOW

from farm.backup import drafts, making, manifest, restoring
from farm.backup.archive import Archive
from farm.backup.manifest import BackupError
from router.common.files import FileError
from router.common.options import Settings
from router.common.token import new_key
from router.store import layout
from router.store.base import StoreError

NAMES: Final = ["backup.json", "token.key", "store-1/router-0.sqlite3", "store-1/router-1.sqlite3", "store.layout"]


def quiet(text: str) -> None:
    assert text


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder of two routers, and backups of it: b.tar and b."""
    folder = tmp_path_factory.mktemp("backups")
    fill(folder / "data", 2, 1)
    (folder / "data" / "token.key").touch(0o600)
    (folder / "data" / "token.key").write_text(new_key())
    for name in ("b", "b.tar"):
        making.make(settings(folder / "data", 2), folder / name, "1.0", NOW, quiet)
    return folder


def restored(source: Path, data: Path) -> Settings:
    found = settings(data, 2)
    restoring.restore(found, source, quiet, replace=False)
    return found


def rewritten(
    source: Path,
    target: Path,
    change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]],
    form: int = tarfile.GNU_FORMAT,
) -> Path:
    """The same file, with what this makes of each part."""
    with tarfile.open(source) as old, tarfile.open(target, "w", format=form) as new:
        for one in old:
            data = old.extractfile(one)
            assert data is not None
            for header, content in change(one, data.read()):
                new.addfile(header, io.BytesIO(content))
    target.chmod(0o600)
    return target


def test_any_tar_reads_it_and_what_it_says_comes_first(shared: Path, tmp_path: Path) -> None:
    listed = subprocess.run(["tar", "tf", shared / "b.tar"], check=True, capture_output=True, text=True).stdout.split()
    assert listed == NAMES
    assert (shared / "b.tar").stat().st_mode & 0o777 == 0o600
    assert [path.name for path in shared.iterdir() if "partial" in path.name] == []
    (tmp_path / "b").mkdir(0o700)
    subprocess.run(["tar", "xf", shared / "b.tar", "-C", tmp_path / "b"], check=True)
    (tmp_path / "b" / "store-1").chmod(0o700)
    restored(tmp_path / "b", tmp_path / "by-tar")
    restored(shared / "b.tar", tmp_path / "by-us")
    restored(shared / "b", tmp_path / "of-folder")
    for name in NAMES[1:]:
        paths = [tmp_path / way / name for way in ("by-tar", "by-us", "of-folder")]
        if not name.endswith(".sqlite3"):  # which begins another epoch
            assert len({path.read_bytes() for path in paths}) == 1
            continue
        for path in paths:
            with closing(sqlite3.connect(path)) as db:
                assert db.execute("SELECT count(*) FROM record").fetchone()[0] > 0
            assert path.stat().st_mode & 0o777 == 0o600


def test_one_that_ends_too_early_is_refused_wherever_that_is(shared: Path, tmp_path: Path) -> None:
    whole = (shared / "b.tar").read_bytes()
    end = len(whole.rstrip(b"\0")) // 512 * 512 + 1024
    part = tmp_path / "part.tar"
    for size in (0, 1, 511, 512, 600, 1024, 2000, len(whole) // 2, end - 512, end):
        part.write_bytes(whole[:size])
        part.chmod(0o600)
        with pytest.raises(BackupError, match=r"part\.tar: it ends too early: copy it again"):
            restored(part, tmp_path / "data")
        assert not (tmp_path / "data" / "token.key").exists() and not (tmp_path / "data" / "restoring").exists()


def link(kind: bytes, to: str) -> Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]:
    def change(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if header.name != "token.key":
            return [(header, data)]
        header.type, header.linkname, header.size = kind, to, 0
        return [(header, b"")]

    return change


def renamed(to: str) -> Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]]:
    def change(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        if header.name == "token.key":
            header.name = to
        return [(header, data)]

    return change


def twice(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(header, data)] * (1 + (header.name == "token.key"))


def one_more(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    more = tarfile.TarInfo("more")
    return [(header, data), (more, b"")] if header.name == "store.layout" else [(header, data)]


def other_content(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [(header, bytes(len(data)) if header.name == "token.key" else data)]


def longer(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    if header.name == "token.key":
        data += b"x"
        header.size += 1
    return [(header, data)]


def large_manifest(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    if header.name == manifest.FILE:
        data += b" " * manifest.MAX_BYTES
        header.size = len(data)
    return [(header, data)]


def without_manifest(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    return [] if header.name == manifest.FILE else [(header, data)]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (link(tarfile.SYMTYPE, "/etc/passwd"), "'token.key' in it is no plain file"),
        (link(tarfile.LNKTYPE, "backup.json"), "'token.key' in it is no plain file"),
        (link(tarfile.CHRTYPE, ""), "'token.key' in it is no plain file"),
        (link(tarfile.FIFOTYPE, ""), "'token.key' in it is no plain file"),
        (link(tarfile.DIRTYPE, ""), "'token.key' in it is no plain file"),
        (link(tarfile.GNUTYPE_SPARSE, ""), "'token.key' in it is no plain file"),
        (renamed("../token.key"), r"'../token\.key' with 4\d bytes, and its backup\.json has token\.key"),
        (renamed("/etc/token.key"), "it is damaged: after what is read so far comes '/etc/token.key'"),
        (renamed("x" * 200), "'././@LongLink' in it is no plain file"),
        (twice, "comes 'token.key' with"),
        (one_more, "it has 'more' besides what a backup has"),
        (other_content, r"token\.key: it is not as it was when the backup was made \(SHA-256\)"),
        (longer, "comes 'token.key' with"),
        (large_manifest, "is no backup: its backup.json has 1,0"),
        (without_manifest, "is no backup: it begins with 'token.key', and not with backup.json"),
    ],
)
def test_what_no_backup_has_is_refused_and_nothing_is_written(
    change: Callable[[tarfile.TarInfo, bytes], list[tuple[tarfile.TarInfo, bytes]]],
    why: str,
    shared: Path,
    tmp_path: Path,
) -> None:
    hostile = rewritten(shared / "b.tar", tmp_path / "hostile.tar", change)
    with pytest.raises(BackupError, match=why):
        restored(hostile, tmp_path / "data")
    assert {path.name for path in tmp_path.rglob("*")} <= {"hostile.tar", "data", "farm.pid"}


def test_extended_headers_are_not_read(shared: Path, tmp_path: Path) -> None:
    hostile = rewritten(shared / "b.tar", tmp_path / "pax.tar", renamed("é" * 20), tarfile.PAX_FORMAT)
    with pytest.raises(BackupError, match="in it is no plain file"):
        restored(hostile, tmp_path / "data")


def test_a_size_that_no_disk_has_is_refused_before_anything_is_read(shared: Path, tmp_path: Path) -> None:
    with tarfile.open(shared / "b.tar") as old:
        first = old.extractfile("backup.json")
        assert first is not None
        made = manifest.decode(first.read(), Path("m"))
    files = {name: msgspec.structs.replace(entry, bytes=2**60) for name, entry in made.files.items()}
    text = manifest.encode(msgspec.structs.replace(made, files=files))

    def change(header: tarfile.TarInfo, data: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
        header.size = len(text)
        return [(header, text)] if header.name == manifest.FILE else []

    with pytest.raises(BackupError, match=r"the backup has [\d,]+ MiB, and that disk [\d,]+ MiB left"):
        restored(rewritten(shared / "b.tar", tmp_path / "large.tar", change), tmp_path / "data")


def test_a_file_in_a_folder_is_not_read_beyond_what_the_manifest_says(shared: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", shared / "b", tmp_path / "b"], check=True)
    os.truncate(tmp_path / "b" / "token.key", 2**40)  # a hole, which would fill the disk
    with pytest.raises(BackupError, match="SHA-256"):
        restored(tmp_path / "b", tmp_path / "data")


@pytest.mark.parametrize("text", [b"", b"\x1f\x8b\x08" + bytes(600), b"x" * 2000, bytes(10_240)])
def test_what_is_no_tar_is_no_backup(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(text)
    (tmp_path / "x.tar").chmod(0o600)
    with (tmp_path / "x.tar").open("rb") as file, pytest.raises(BackupError, match=r"x\.tar(:| is no backup)"):
        Archive(file, tmp_path / "x.tar")


def test_what_is_no_file_or_another_users_is_refused(shared: Path, tmp_path: Path) -> None:
    (tmp_path / "link.tar").symlink_to(shared / "b.tar")
    with pytest.raises(FileError, match="is a symbolic link"):
        restored(tmp_path / "link.tar", tmp_path / "data")
    with pytest.raises(BackupError, match="there is no backup"):
        restored(tmp_path / "missing", tmp_path / "data")
    (tmp_path / "open.tar").write_bytes((shared / "b.tar").read_bytes())
    (tmp_path / "open.tar").chmod(0o606)
    with pytest.raises(FileError, match="may be written by others"):
        restored(tmp_path / "open.tar", tmp_path / "data")


def test_a_store_with_triggers_is_not_put_back(shared: Path, tmp_path: Path) -> None:
    subprocess.run(["cp", "-a", shared / "data", tmp_path / "data"], check=True)
    with closing(sqlite3.connect(tmp_path / "data" / "store-1" / "router-0.sqlite3")) as db:
        db.execute("CREATE TRIGGER t AFTER UPDATE ON meta BEGIN DELETE FROM record; END")
    with pytest.raises(StoreError, match=r"it has a trigger \(t\), which no release makes"):
        making.make(settings(tmp_path / "data", 2), tmp_path / "b.tar", "1.0", NOW, quiet)
    assert not list(tmp_path.glob("b.tar*"))


@pytest.mark.parametrize("name", ["b.tar.gz", "b.tgz", "b.tar.zst"])
def test_a_compressed_one_is_not_promised(name: str, shared: Path, tmp_path: Path) -> None:
    with pytest.raises(BackupError, match="a backup is not compressed"):
        making.make(settings(shared / "data", 2), tmp_path / name, "1.0", NOW, quiet)


@pytest.mark.parametrize("place", [Path("store-2"), Path("store-1", "b.tar"), Path("new", "deep", "b")])
def test_no_backup_is_made_among_the_files_of_the_store(place: Path, shared: Path) -> None:
    """There a name such as store-2 would be taken for what an interrupted start has left."""
    with pytest.raises(BackupError, match="is in the data folder, among the farm's own files"):
        making.make(settings(shared / "data", 2), shared / "data" / place, "1.0", NOW, quiet)


@pytest.mark.parametrize("name", ["b", "b.tar"])
def test_what_a_killed_backup_has_left_the_next_one_removes(name: str, shared: Path, tmp_path: Path) -> None:
    target = tmp_path / name

    def make(step: str) -> None:
        def tell(text: str) -> None:
            if text.startswith(step):
                os.kill(os.getpid(), signal.SIGKILL)

        making.make(settings(shared / "data", 2), target, "1.0", NOW, tell)

    assert in_child(lambda: make("checking")) == -signal.SIGKILL
    assert in_child(lambda: make("writing" if name == "b.tar" else "SHA-256 of store.layout")) == -signal.SIGKILL
    left = sorted(tmp_path.iterdir())
    assert len(left) == 2 and all(path.name.startswith(f"{name}.partial-") for path in left)
    (tmp_path / f"{name}.partial-x").mkdir()
    (tmp_path / f"{name}.partial-1").mkdir()  # of a release that made no lock
    lines = drafts.clean(target)
    assert [line.partition(": ")[2] for line in lines if "partial-1:" not in line] == [
        "removed; a backup that was killed had left it"
    ] * 2
    assert [line for line in lines if "delete it if none is under way" in line] == [
        f"{target}.partial-1: a backup that was killed has left it, perhaps: delete it if none is under way"
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{name}.partial-1", f"{name}.partial-x"]


def test_a_backup_that_is_under_way_is_left_alone(shared: Path, tmp_path: Path) -> None:
    said: list[str] = []

    def tell(text: str) -> None:
        if not said:
            said.extend(drafts.clean(tmp_path / "b.tar"))

    making.make(settings(shared / "data", 2), tmp_path / "b.tar", "1.0", NOW, tell)
    assert [line.partition(": ")[2] for line in said] == ["another backup to the same place is under way"]
    assert [path.name for path in tmp_path.iterdir()] == ["b.tar"]
    restored(tmp_path / "b.tar", tmp_path / "data")
    assert layout.read(tmp_path / "data") is not None
