"""Reading and writing the files of a backup."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from farm.backup.manifest import BackupError, Entry
from router.common.files import open_own, what_to_do
from router.store import layout

Tell = Callable[[str], None]
"""Shows how far it is."""
_CHUNK: Final = 1_048_576
KEY_BYTES: Final = 65_536
"""A file with token keys is no longer."""


class Readable(Protocol):
    """A file that is read from its beginning to its end."""

    def read(self, size: int, /) -> bytes:
        """So many bytes at most; nothing at its end."""


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
    """A new file with mode 0600, on the disk when this returns. Raises: BackupError, FileError."""
    with _new(path) as file:
        file.write(data)


def copy_checked(old: Readable, shown: str, target: Path, wanted: Entry, copied: Callable[[int], None]) -> None:
    """Copy a file into a new one, with mode 0600. shown: what is copied, for an error. copied: called with the bytes of
    each part.

    Raises: BackupError if it is not as the manifest says, and as soon as it is longer. FileError.
    """
    digest, size = hashlib.sha256(), 0
    with _new(target) as new:
        while size <= wanted.bytes and (chunk := _read(old, shown)):
            digest.update(chunk)
            size += len(chunk)
            new.write(chunk)
            copied(len(chunk))
    if Entry(size, digest.hexdigest()) != wanted:
        raise BackupError(f"{shown}: it is not as it was when the backup was made (SHA-256): take another backup")


def _read(old: Readable, shown: str) -> bytes:
    with explained(shown):
        return old.read(_CHUNK)


@contextlib.contextmanager
def _new(path: Path) -> Iterator[BinaryIO]:
    """A new file with mode 0600, on the disk when the block ends. Raises: BackupError if it cannot be written."""
    handle = open_own(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with explained(path), os.fdopen(handle, "wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def explained(path: object) -> Iterator[None]:
    """Make an error of the operating system one line that names this path. Raises: BackupError."""
    try:
        yield
    except OSError as error:
        why = (error.strerror or str(error)).lower()
        raise BackupError(f"{path}: {why}{what_to_do(error)}") from None


def part(done: int, total: int) -> str:
    """How much of it is done."""
    return f"{done >> 20:,} of {total >> 20:,} MiB"


def sync(folder: Path) -> None:
    """Make durable which files are in a folder and in the folders in it."""
    for path in (*(one for one in folder.iterdir() if one.is_dir()), folder):
        layout.sync_folder(path)
