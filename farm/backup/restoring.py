"""Puts a backup back into a data folder on which no farm runs.

1. The data folder is held as a farm holds it, so none can start meanwhile.
2. The files are copied into a folder in it, and looked at. Until here nothing has changed.
3. A file in it says that a restore is under way: no farm starts on it (`layout.check_restored`) until it is complete.
4. What the data folder has had is moved into another folder in it (the data folder itself may be a mount point).
5. The files are moved into place, and the file of step 3 is deleted.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from farm.backup import files, manifest, sources
from farm.backup.files import Tell
from farm.backup.making import elsewhere
from farm.backup.manifest import BackupError, Manifest
from farm.backup.sources import Source
from farm.control import PID_FILE
from router.common.files import open_own, take_folder
from router.common.options import Settings
from router.common.settings import Data
from router.key_file import KEY_FILE
from router.store import layout, sqlite_copy
from router.store.statements import SCHEMA_VERSION

_STORES: Final = ("store.sqlite3*", "store-*")
_STAGE: Final = "restoring"


def restore(settings: Settings, source: Path, tell: Tell, *, replace: bool) -> tuple[Manifest, Path | None]:
    """Put a backup back. replace: move what the data folder has aside.

    Returns: what was put back, and where that is which was there before, if there was something.
    Raises: BackupError, StoreError, FileError, OSError; then the data folder is as it was. A restore that fails while
    it moves files leaves one that is not complete, and is refused.
    """
    if why := elsewhere(settings):
        raise BackupError(why)
    data = Path(settings.get(Data).dir)
    with sources.opened(source) as opened:
        return opened.manifest, _restore(data, source, opened, tell, replace=replace)


def _restore(data: Path, path: Path, source: Source, tell: Tell, *, replace: bool) -> Path | None:
    """Returns: where that is which was there before, if there was something."""
    found = source.manifest
    if found.schema > SCHEMA_VERSION:
        raise BackupError(
            f"{path}: release {found.release} made it (schema {found.schema}, this release knows {SCHEMA_VERSION}): "
            "put it back with that release"
        )
    take_folder(data)
    with _held(data):
        before = _present(data)
        if before and not replace:
            listed = ", ".join(path.name for path in before)
            raise BackupError(f"{data} has {listed}: nothing is overwritten; --replace moves that aside")
        stage = data / _STAGE
        if os.path.lexists(stage):  # of one that was killed
            shutil.rmtree(stage)
        free = shutil.disk_usage(data).free
        if free < found.size:
            raise BackupError(
                f"{data}: the backup has {-(-found.size >> 20):,} MiB, and that disk {free >> 20:,} MiB left"
            )
        os.mkdir(stage, 0o700)
        try:
            _stage(source, stage, found, tell)
            aside = _make_aside(data) if before else None
            os.close(open_own(data / layout.UNFINISHED, os.O_RDWR | os.O_CREAT))
            layout.sync_folder(data)
            try:
                if aside is not None:
                    _move_aside(data, before, aside)
                _move_in(stage, data, found)
                os.unlink(data / layout.UNFINISHED)
                layout.sync_folder(data)
            except OSError as error:
                kept = f"; what was there is in {aside}" if aside is not None else ""
                raise BackupError(
                    f"{data} is not complete ({(error.strerror or str(error)).lower()}), and no farm starts on it: mend"
                    f" that and run farm restore --replace again{kept}"
                ) from None
        finally:
            shutil.rmtree(stage, ignore_errors=True)
    return aside


@contextlib.contextmanager
def _held(data: Path) -> Iterator[None]:
    """Hold the pid file and the locks of all stores. Raises: BackupError if a farm, or a router, runs on the folder."""
    with contextlib.ExitStack() as opened:
        for path in (data / PID_FILE, *data.glob("store.sqlite3.lock"), *data.glob("store-*/router-*.sqlite3.lock")):
            handle = open_own(path, os.O_RDWR | os.O_CREAT)
            opened.callback(os.close, handle)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                what = "a farm" if path.name == PID_FILE else "a router"
                raise BackupError(
                    f"{what} runs on {data}: stop it first (farm drain), or choose another --data"
                ) from None
        yield


def _present(data: Path) -> list[Path]:
    """What of a store and its key is there."""
    found = [data / name for name in (KEY_FILE, layout.MANIFEST) if os.path.lexists(data / name)]
    return sorted((*found, *(path for pattern in _STORES for path in data.glob(pattern))))


def _stage(source: Source, stage: Path, found: Manifest, tell: Tell) -> None:
    done = 0

    def copied(size: int) -> None:
        nonlocal done
        done += size
        tell(f"copying: {files.part(done, found.size)}")

    if found.layout.folder:
        os.mkdir(stage / found.layout.folder, 0o700)
    for name in manifest.names(found.layout, key=found.has_key):
        with source.opened(name, found.files[name]) as file:
            files.copy_checked(file, source.shown(name), stage / name, found.files[name], copied)
    source.end()
    for number, name in enumerate(manifest.store_names(found.layout)):
        tell(f"checking {name}")
        sqlite_copy.check(stage / name, Path(source.shown(name)))
        sqlite_copy.begin_anew(stage / name, number, time.time())
    files.sync(stage)


def _make_aside(data: Path) -> Path:
    now = datetime.datetime.now(datetime.UTC)
    aside = data / f"replaced-{now:%Y%m%dT%H%M%S.%fZ}"
    os.mkdir(aside, 0o700)
    return aside


def _move_aside(data: Path, before: list[Path], aside: Path) -> None:
    for path in before:
        os.rename(path, aside / path.name)
    layout.sync_folder(aside)
    layout.sync_folder(data)


def _move_in(stage: Path, data: Path, found: Manifest) -> None:
    for top in dict.fromkeys(Path(name).parts[0] for name in manifest.names(found.layout, key=found.has_key)):
        os.rename(stage / top, data / top)
    layout.sync_folder(data)
