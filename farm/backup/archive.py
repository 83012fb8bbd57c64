"""A backup as one file, in the form of tar: written and read from its beginning to its end, and any tar can look at it.

It has plain files and nothing else: the manifest first, then what that names, in its order and with its lengths, then
the end. Whatever is not so is refused where it stands (a link, a folder, another name, a sparse file, an extended
header), and each header has 512 bytes. So nothing in it says where something is written, or how much is read at once.
"""

from __future__ import annotations

import contextlib
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from farm.backup import manifest
from farm.backup.files import Readable, explained
from farm.backup.manifest import BackupError, Entry, Manifest
from router.common.files import open_own

SUFFIX: Final = ".tar"
COMPRESSED: Final = (".tgz", ".txz", ".gz", ".xz", ".bz2", ".zst", ".zip", ".7z")
_BLOCK: Final = tarfile.BLOCKSIZE
_END_BLOCKS: Final = 2


class _Told:
    """A file of which it is told how much has been read."""

    def __init__(self, file: BinaryIO, read: Callable[[int], None]) -> None:
        self._file = file
        self._told = read

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self._told(len(data))
        return data


def write(folder: Path, target: Path, made: Manifest, written: Callable[[int], None]) -> None:
    """A new file with mode 0600 of a backup in a folder, on the disk when this returns. Each file of the folder is
    deleted when it is in it, so that no more than one of them takes its place twice.

    written: called with the bytes of each part.
    Raises: BackupError.
    """
    handle = open_own(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    with explained(target), os.fdopen(handle, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
            for name in (manifest.FILE, *manifest.names(made.layout, key=made.has_key)):
                with os.fdopen(open_own(folder / name, os.O_RDONLY), "rb") as part:
                    header = tarfile.TarInfo(name)
                    header.size, header.mode, header.mtime = os.fstat(part.fileno()).st_size, 0o600, made.created
                    tar.addfile(header, _Told(part, written))  # type: ignore[arg-type]
                os.unlink(folder / name)
        file.flush()
        os.fsync(file.fileno())


class Archive:
    """A backup in one file, from the manifest on."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        """Raises: BackupError if it is none."""
        self._file = file
        self._path = path
        found = self._header()
        if found is None or found.name != manifest.FILE:
            begins = "nothing" if found is None else ascii(found.name[:40])
            raise BackupError(f"{path} is no backup: it begins with {begins}, and not with {manifest.FILE}")
        if found.size > manifest.MAX_BYTES:
            raise BackupError(f"{path} is no backup: its {manifest.FILE} has {found.size:,} bytes")
        self.manifest = manifest.decode(self._exactly(found.size), path)
        self._exactly(-found.size % _BLOCK)

    @contextlib.contextmanager
    def opened(self, name: str, wanted: Entry) -> Iterator[Readable]:
        """The next file, which has to be read to its end. Raises: BackupError if it is not that one."""
        found = self._header()
        if found is None or (found.name, found.size) != (name, wanted.bytes):
            there = "its end" if found is None else f"{found.name[:40]!a} with {found.size:,} bytes"
            raise BackupError(
                f"{self._path}: it is damaged: after what is read so far comes {there}, and its {manifest.FILE} has "
                f"{name} with {wanted.bytes:,} bytes: take another backup"
            )
        with self._part(found.size) as part:
            yield part

    def shown(self, name: str) -> str:
        """A file in it, for an error."""
        return f"{self._path}: {name}"

    def end(self) -> None:
        """See that all has been read. Raises: BackupError."""
        if (found := self._header()) is not None:
            raise BackupError(f"{self._path}: it has {found.name[:40]!a} besides what a backup has: do not use it")

    def _header(self) -> tarfile.TarInfo | None:
        """The next one; None: the end. Raises: BackupError."""
        block = self._exactly(_BLOCK)
        if not any(block):
            for _ in range(_END_BLOCKS - 1):
                if any(self._exactly(_BLOCK)):
                    raise BackupError(f"{self._path}: it is damaged where it should end: take another backup")
            return None
        try:
            found = tarfile.TarInfo.frombuf(block, "utf-8", "strict")
        except (tarfile.TarError, ValueError) as error:
            raise BackupError(
                f"{self._path} is no backup, or damaged ({error}); one that was compressed has to be uncompressed first"
            ) from None
        if found.type != tarfile.REGTYPE or found.size < 0:
            raise BackupError(
                f"{self._path} is no backup: {found.name[:40]!a} in it is no plain file, as all of a backup are"
            )
        return found

    @contextlib.contextmanager
    def _part(self, size: int) -> Iterator[Readable]:
        part = _Part(self._some, size)
        yield part
        if not part.left:
            self._exactly(-size % _BLOCK)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            data += self._some(size - len(data))
        return data

    def _some(self, size: int) -> bytes:
        data = self._file.read(size)
        if not data:
            raise BackupError(f"{self._path}: it ends too early: copy it again, or take another backup")
        return data


class _Part:
    def __init__(self, some: Callable[[int], bytes], size: int) -> None:
        self._some = some
        self.left = size

    def read(self, size: int) -> bytes:
        if not (size := min(size, self.left)):
            return b""
        data = self._some(size)
        self.left -= len(data)
        return data
