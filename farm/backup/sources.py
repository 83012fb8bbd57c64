"""What a backup is read from: a folder, or one file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from farm.backup import manifest
from farm.backup.archive import Archive
from farm.backup.files import Readable
from farm.backup.manifest import BackupError, Entry, Manifest
from router.common.files import open_own, read_at_most


class Source(Protocol):
    """A backup, whose files are read in the order of `manifest.names`, each to its end, and then its own end."""

    manifest: Manifest

    def opened(self, name: str, wanted: Entry) -> AbstractContextManager[Readable]:
        """One of its files. Raises: BackupError, FileError."""

    def shown(self, name: str) -> str:
        """Where that is, for an error."""

    def end(self) -> None:
        """See that it has nothing else. Raises: BackupError."""


class Folder:
    """A backup in a folder. Raises: BackupError, FileError if it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        text = path / manifest.FILE
        if not text.is_file():
            raise BackupError(f"{path} is no backup: {manifest.FILE} is not in it")
        self.manifest = manifest.decode(read_at_most(text, manifest.MAX_BYTES), text)

    @contextlib.contextmanager
    def opened(self, name: str, wanted: Entry) -> Iterator[Readable]:
        """As `Source`."""
        try:
            handle = open_own(self._path / name, os.O_RDONLY)
        except FileNotFoundError:
            raise BackupError(
                f"{self.shown(name)}: it is missing, and the backup's manifest names it: take another backup"
            ) from None
        with os.fdopen(handle, "rb") as file:
            yield file

    def shown(self, name: str) -> str:
        """As `Source`."""
        return str(self._path / name)

    def end(self) -> None:
        """As `Source`: what else is in the folder is not looked at."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Source]:
    """The backup that is there. Raises: BackupError, FileError if it is none."""
    if path.is_dir():
        yield Folder(path)
        return
    try:
        handle = open_own(path, os.O_RDONLY)
    except FileNotFoundError:
        raise BackupError(f"{path}: there is no backup") from None
    with os.fdopen(handle, "rb") as file:
        yield Archive(file, path)
