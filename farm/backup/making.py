"""Makes a backup of a data folder, whether or not a farm runs on it.

Each file of the store is copied as it is at one moment, while its router goes on writing. With several routers these
are several moments. All that is known of one device or channel is in one file, so what the copies have of it fits
together.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec

from farm.backup import archive, drafts, files, manifest
from farm.backup.files import Tell
from farm.backup.manifest import BackupError, Manifest
from router.common import store_kinds
from router.common.files import FileError, open_own
from router.common.options import Settings
from router.common.settings import Data, StoreOptions, TokenOptions
from router.key_file import KEY_FILE
from router.store import layout, sqlite_copy
from router.store.base import StoreError
from router.store.layout import Layout
from router.store.sqlite_file import has_rows


def elsewhere(settings: Settings) -> str:
    """Why this farm's store is not in its data folder, and how it is backed up; "" if it is there."""
    kind = store_kinds.by_name(settings.get(StoreOptions).kind)
    if kind.files:
        return ""
    path = Path(settings.get(Data).dir) / KEY_FILE
    key = "token.keys" if settings.get(TokenOptions).keys else str(path)
    return f"store.kind = {kind.name}: {kind.backup}; keep {key} with it"


def make(settings: Settings, target: Path, release: str, now: int, tell: Tell) -> Manifest:
    """Make the backup, a new folder, or one file if its name ends with .tar. It appears when it is complete and
    checked.

    Raises: BackupError, StoreError, FileError, OSError; then there is none.
    """
    data = Path(settings.get(Data).dir)
    _check_target(data, target)
    if why := elsewhere(settings):
        raise BackupError(why)
    found = layout.read(data)
    if found is None:
        raise BackupError(f"{data} has no store: name the data folder of a farm with --data, or its settings file")
    found = msgspec.structs.replace(found, remove="")
    layout.check_whole(data, found, has_rows)
    single = target.suffix == archive.SUFFIX
    _check_room(found.paths(data), target, twice=single)
    with drafts.draft(target) as draft:
        made = _make(settings, data, found, draft, (release, now), tell)
        if single:
            done = 0

            def written(size: int) -> None:
                nonlocal done
                done += size
                tell(f"writing {target.name}: {files.part(done, made.size)}")

            archive.write(draft, draft / target.name, made, written)
            drafts.appear_file(draft / target.name, target)
        else:
            files.sync(draft)
            drafts.appear(draft, target)
    layout.sync_folder(target.absolute().parent)
    return made


def _check_target(data: Path, target: Path) -> None:
    """Raises: BackupError."""
    if os.path.lexists(target):
        raise BackupError(f"{target} is there already: nothing is overwritten; choose another name")
    if target.suffix in archive.COMPRESSED:
        raise BackupError(f"{target}: a backup is not compressed: name a folder or FILE.tar, and compress that")
    if target.absolute().parent.resolve().is_relative_to(data.resolve()):
        raise BackupError(f"{target} is in the data folder, among the farm's own files: choose a place elsewhere")


def _make(settings: Settings, data: Path, found: Layout, draft: Path, made_by: tuple[str, int], tell: Tell) -> Manifest:
    """All files of the backup in this folder. made_by: release and time."""
    key = _copy_key(settings, data, draft)  # first, as another user than the farm's cannot read it
    try:
        _copy_store(data, draft, found, tell)
    except StoreError:  # of files that are just being replaced there is nothing else to say
        _check_unchanged(data, found)
        raise
    _check_unchanged(data, found)
    schema = 0
    for name in manifest.store_names(found):
        tell(f"checking {name}")
        schema = max(schema, sqlite_copy.check(draft / name, data / name))
    entries = {}
    for name in manifest.names(found, key=key):
        tell(f"SHA-256 of {name}")
        entries[name] = files.entry(draft / name)
    release, now = made_by
    made = manifest.new(release, now, schema, found, entries)
    files.write(draft / manifest.FILE, manifest.encode(made))
    return made


def _check_unchanged(data: Path, found: Layout) -> None:
    now = layout.read(data)
    if now is None or (now.folder, now.routers) != (found.folder, found.routers):
        raise BackupError(f"the store of {data} was copied for another number of routers meanwhile: run it again")


def _copy_store(data: Path, draft: Path, found: Layout, tell: Tell) -> None:
    if found.folder:
        os.mkdir(draft / found.folder, 0o700)
        layout.write(draft, found)
    for name in manifest.store_names(found):
        sqlite_copy.copy(data / name, draft / name, _telling(f"copying {name}", tell))


def _telling(what: str, tell: Tell) -> Callable[[int, int], None]:
    return lambda done, total: tell(f"{what}: {files.part(done, total)}")


def _copy_key(settings: Settings, data: Path, draft: Path) -> bool:
    """Returns: whether there is a file with the token key."""
    try:
        with os.fdopen(open_own(data / KEY_FILE, os.O_RDONLY), "rb") as file:
            text = file.read(files.KEY_BYTES)
    except FileNotFoundError:
        if settings.get(TokenOptions).keys:
            return False
        raise FileError(
            f"{data / KEY_FILE} is missing: put it back first, or name the settings with token.keys (--config)"
        ) from None
    files.write(draft / KEY_FILE, text)
    return True


def _check_room(paths: list[Path], target: Path, *, twice: bool) -> None:
    """twice: whether each file has to have room twice, one after the other."""
    sizes = []
    for path in paths:
        size = 0
        for beside in ("", "-wal"):
            with contextlib.suppress(FileNotFoundError):
                size += path.with_name(path.name + beside).stat().st_size
        sizes.append(size)
    needed = sum(sizes) + (max(sizes) if twice else 0)
    free = shutil.disk_usage(target.absolute().parent).free
    if free < needed:
        raise BackupError(
            f"{target}: the copy takes {-(-needed >> 20):,} MiB, and that disk has {free >> 20:,} MiB left"
        )
