"""Where the files of the store on disk are, one a router, and the manifest that says which of them count.

| in the data folder | what it is |
|---|---|
| `store.sqlite3` | the store of one router, where there has never been another number of routers |
| `store-N/router-M.sqlite3` | the store of router M, if the manifest names this folder |
| `store.layout` | the manifest; without it `store.sqlite3` counts |
| `restore.unfinished` | a restore is moving files (`farm.backup.restoring`), or was cut short: none of them count |

The manifest is replaced by a rename, after all that it names is on the disk. So whatever ends a process, either the
files from before count, or the new ones, and both are whole. It also names what it has replaced, until that is deleted.
All files that it names are there before one of them has a row, so one that is missing later was lost.
A folder with the next number, which no manifest names, is what an interrupted start has left.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Final
from zlib import crc32

import msgspec

from router.common.files import open_own
from router.common.partitions import PARTITIONS
from router.store.base import StoreError

STORE_FILE: Final = "store.sqlite3"
"""In the data folder: the store of a farm that has always had one router."""
MANIFEST: Final = "store.layout"
UNFINISHED: Final = "restore.unfinished"
"""In the data folder while a restore moves its files: what is there then may look whole, or like that of a new farm."""
_MAX_BYTES: Final = 4096
_FORMAT: Final = 1
_FOLDER: Final = re.compile(r"store-([1-9]\d{0,8})")
_DRAFT: Final = re.compile(rf"{re.escape(MANIFEST)}\.\d+")
_OURS: Final = re.compile(r"router-\d+\.sqlite3(-wal|-shm|-journal|\.lock)?")
_FULLNESS: Final = 1.3
"""New files are up to so many times as large: their pages are not as full."""
_FILE_BYTES: Final = 1_048_576
"""Of each file besides."""
_BESIDE: Final = ("-wal", "-shm", "-journal", "", ".lock")
"""What follows the name of a store's file: in this order it is deleted, so that no log is left for a file that is made
anew."""

_Count = Annotated[int, msgspec.Meta(ge=1, le=PARTITIONS)]


class Layout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which files count, as the manifest has it."""

    format: Annotated[int, msgspec.Meta(ge=1, le=_FORMAT)] = _FORMAT
    folder: Annotated[str, msgspec.Meta(pattern=rf"^({_FOLDER.pattern})?\Z")] = ""
    """In the data folder; empty: `STORE_FILE` is the only one."""
    routers: _Count = 1
    partitions: _Count = PARTITIONS
    remove: Annotated[str, msgspec.Meta(pattern=rf"^({_FOLDER.pattern}|{re.escape(STORE_FILE)})?\Z")] = ""
    """What was replaced by these files, if it may be there still."""

    def __post_init__(self) -> None:
        if not self.folder and self.routers != 1:
            raise ValueError(f"{self.routers} routers have no file in common")

    def path(self, data: Path, number: int) -> Path:
        """The file of the router of this number."""
        return data / self.folder / f"router-{number}.sqlite3" if self.folder else data / STORE_FILE

    def paths(self, data: Path) -> list[Path]:
        """Those of all routers."""
        return [self.path(data, number) for number in range(self.routers)]

    def owner(self, key: bytes) -> int:
        """The router whose file has this key, as `router.common.partitions` has it, whatever their number."""
        return crc32(key) % self.partitions % self.routers

    def fits(self, routers: int) -> bool:
        """Whether these are the files of so many routers."""
        return (self.routers, self.partitions) == (routers, PARTITIONS)

    @property
    def name(self) -> str:
        """The file or folder, in the data folder."""
        return self.folder or STORE_FILE

    def next_folder(self) -> str:
        """The folder of the layout that replaces this one."""
        return f"store-{int(self.folder.removeprefix('store-') or 0) + 1}"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Layout).decode


def read(data: Path) -> Layout | None:
    """The layout of the store in this data folder; None: there is no store yet.

    Raises: StoreError if that cannot be told. FileError.
    """
    check_restored(data)
    try:
        with os.fdopen(open_own(data / MANIFEST, os.O_RDONLY), "rb") as file:
            text = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return _read_without_manifest(data)
    try:
        found = _decode(text)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{data / MANIFEST} is damaged or of a newer release ({error}): restore it from a backup; {_example(data)}"
        ) from None
    if STORE_FILE not in (found.name, found.remove) and os.path.lexists(data / STORE_FILE):
        raise StoreError(
            f"{data / STORE_FILE} is there, and {MANIFEST} beside it names {found.name}: one of them was put there by "
            f"hand; move {STORE_FILE} away to use {found.name}, or move {MANIFEST} and {found.name} away"
        )
    if not (data / found.name).exists():
        raise StoreError(
            f"{data / found.name} is missing, and {MANIFEST} beside it names it: restore it from a backup; to begin "
            f"anew, move {MANIFEST} away"
        )
    return found


def check_restored(data: Path) -> None:
    """See that no restore was cut short. Raises: StoreError."""
    if os.path.lexists(data / UNFINISHED):
        raise StoreError(
            f"{data} is not complete, as a restore was cut short: run farm restore --replace again; to go back instead,"
            f" move back into it what is in its replaced-TIME, and delete its {UNFINISHED}"
        )


def _read_without_manifest(data: Path) -> Layout | None:
    if os.path.lexists(data / STORE_FILE):
        return Layout()
    if folders := _folders(data):
        if os.path.lexists(data / MANIFEST):  # another router has made both just now, the manifest first
            return read(data)
        raise StoreError(
            f"{data / MANIFEST} is missing, and {', '.join(folders)} beside it has files of a store: restore it from a "
            f"backup; {_example(data)}; to begin anew, move the folder away"
        )
    return None


def _folders(data: Path) -> list[str]:
    """Those that hold files of stores."""
    found = [path for path in data.glob("store-*") if _FOLDER.fullmatch(path.name)]
    return sorted(path.name for path in found if any(path.glob("router-*.sqlite3")))


def _example(data: Path) -> str:
    folder = next(reversed(_folders(data)), "store-1")
    routers = len(list((data / folder).glob("router-*.sqlite3"))) or 1
    text = _encode(Layout(folder=folder, routers=routers)).decode()
    return f"if there is none, and {folder} is whole, write into it: {text}"


def first(routers: int) -> Layout:
    """The layout where there is no store yet."""
    return Layout() if routers == 1 else Layout(folder=Layout().next_folder(), routers=routers)


def write(data: Path, layout: Layout, replace: bool = True) -> None:
    """Write the manifest, on the disk when this returns. It appears whole or not at all.

    replace: False leaves one that another process has made meanwhile.
    """
    draft = data / f"{MANIFEST}.{os.getpid()}"
    try:
        with os.fdopen(open_own(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "wb") as file:
            file.write(_encode(layout) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        if replace:
            os.rename(draft, data / MANIFEST)
        else:
            with contextlib.suppress(FileExistsError):
                os.link(draft, data / MANIFEST)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(data)


def changing(data: Path, routers: int) -> Layout | None:
    """The layout, if it is not that of so many routers, or something is left that may be deleted; otherwise None.

    Raises: StoreError, FileError if the files cannot be used at all.
    """
    found = read(data)
    if found is None or (found.fits(routers) and not list(leftovers(data, found))):
        return None
    return found


def room(used: int, routers: int) -> int:
    """Bytes that the files of so many routers may take, for what takes these bytes in others."""
    return int(used * _FULLNESS) + routers * _FILE_BYTES


def sync_folder(folder: Path) -> None:
    """Make durable which files are in the folder."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Place:
    """The file of one router. routers: how many there are now.

    Raises: StoreError if the files are those of another number of routers. FileError.
    """

    def __init__(self, data: Path, routers: int, number: int) -> None:
        self._data = data
        self._found = read(data)
        self._layout = self._found or first(routers)
        if not self._layout.fits(routers):
            raise StoreError(_other_number(data, self._layout, routers))
        self.path = self._layout.path(data, number)

    def confirm(self, has_rows: Callable[[Path], bool]) -> None:
        """To be called once the file is locked, before it is opened: it is still the one that counts.

        has_rows: whether something is stored in a file.
        Raises: StoreError. FileError.
        """
        if self._found is None and self._layout.folder:
            write(self._data, self._layout, replace=False)
        found = read(self._data) or Layout()
        if (found.folder, found.routers) != (self._layout.folder, self._layout.routers):
            raise StoreError(_other_number(self._data, found, self._layout.routers))
        if lacks(self._data, found) and found.folder:
            check_whole(self._data, found, has_rows)
            for path in lacks(self._data, found):
                os.close(open_own(path, os.O_RDWR | os.O_CREAT))
            sync_folder(self._data / found.folder)


def lacks(data: Path, layout: Layout) -> list[Path]:
    """Its files that are not there."""
    return [path for path in layout.paths(data) if not os.path.lexists(path)]


def check_whole(data: Path, layout: Layout, has_rows: Callable[[Path], bool]) -> None:
    """See that none of its files was lost. Raises: StoreError."""
    if not (lost := lacks(data, layout)):
        return
    new = layout.folder == first(layout.routers).folder and not any(map(has_rows, layout.paths(data)))
    if not new and lacks(data, layout):  # another router may just have made them
        raise StoreError(
            f"store {lost[0]}: it is missing, and {MANIFEST} names it: restore it from a backup; if there is none, "
            f"what it held is lost: make an empty file in its place to go on without (mode 0600, of this user)"
        )


def _other_number(data: Path, found: Layout, routers: int) -> str:
    return (
        f"the store in {data} is that of router.routers={found.routers}, and the setting is {routers}: `farm start "
        f"--routers {routers}` copies it, or set router.routers={found.routers}"
    )


def leftovers(data: Path, layout: Layout) -> Iterator[str]:
    """What may be deleted: what this layout has replaced, and what an interrupted start has left."""
    if layout.remove:
        yield layout.remove
    if os.path.lexists(data / layout.next_folder()):
        yield layout.next_folder()
    yield from (path.name for path in data.glob(f"{MANIFEST}.*") if _DRAFT.fullmatch(path.name))


def delete(data: Path, name: str) -> None:
    """Delete the files of a layout by its name, or a draft of a manifest, and no others.

    Raises: OSError; also if its folder holds something else, which stays.
    """
    path = data / name
    if _DRAFT.fullmatch(name):
        path.unlink(missing_ok=True)
        return
    if name == STORE_FILE:
        for beside in _BESIDE:
            path.with_name(path.name + beside).unlink(missing_ok=True)
        return
    with contextlib.suppress(FileNotFoundError):
        for file in sorted(path.iterdir(), key=lambda file: file.suffix == ".lock"):
            if _OURS.fullmatch(file.name):
                file.unlink(missing_ok=True)
        path.rmdir()
