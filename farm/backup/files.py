"""Reading and writing the files of a backup."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from farm.backup.manifest import BackupError, Entry
from router.common.files import open_own
from router.store import layout

Tell = Callable[[str], None]
"""Shows how far it is."""
_CHUNK: Final = 1_048_576
KEY_BYTES: Final = 65_536
"""A file with token keys is no longer."""


def entry(path: Path) -> Entry:
    """What the manifest says of a file. It is on the disk when this returns."""
    digest, size = hashlib.sha256(), 0
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        os.fsync(file.fileno())
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return Entry(size, digest.hexdigest())


def write(path: Path, data: bytes) -> None:
    """A new file with mode 0600, on the disk when this returns."""
    with os.fdopen(open_own(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def copy_checked(source: Path, target: Path, wanted: Entry, copied: Callable[[int], None]) -> None:
    """Copy a file into a new one, with mode 0600. copied: called with the bytes of each part.

    Raises: BackupError if it is not as the manifest says. FileError.
    """
    digest, size = hashlib.sha256(), 0
    try:
        handle = open_own(source, os.O_RDONLY)
    except FileNotFoundError:
        raise BackupError(f"{source}: it is missing, and the backup's manifest names it: take another backup") from None
    with (
        os.fdopen(handle, "rb") as old,
        os.fdopen(open_own(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as new,
    ):
        while chunk := old.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            new.write(chunk)
            copied(len(chunk))
        new.flush()
        os.fsync(new.fileno())
    if Entry(size, digest.hexdigest()) != wanted:
        raise BackupError(f"{source}: it is not as it was when the backup was made (SHA-256): take another backup")


def part(done: int, total: int) -> str:
    """How much of it is done."""
    return f"{done >> 20:,} of {total >> 20:,} MiB"


def sync(folder: Path) -> None:
    """Make durable which files are in a folder and in the folders in it."""
    for path in (*(one for one in folder.iterdir() if one.is_dir()), folder):
        layout.sync_folder(path)
