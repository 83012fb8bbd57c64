"""Where each router of a cluster is: a small file that the supervisor writes, and all other processes of its host read.

A router has a number and is on one host at a time. Each time that it is placed anew, here or on another host, that
placement has a higher epoch. So whatever order placements are heard in, from the file or from routers over the link,
the one with the highest epoch counts.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from router.common import logs
from router.common.files import FileError, open_own

FILE: Final = "cluster.json"
"""In the data folder."""
_MAX_BYTES: Final = 1_048_576

_Text = Annotated[str, Meta(max_length=300)]
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]


class Placement(msgspec.Struct, frozen=True, gc=False):
    """A router is on a host. A field that is not known is passed over, so that later releases may add some."""

    number: _Count
    epoch: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    host: _Text
    """ID of the host."""
    address: _Text
    """host:port, for workers of other hosts."""
    peers: _Text
    """host:port, for routers of other hosts."""
    key: _Text
    """Fingerprint of the cluster's key that is served there."""


class HostRow(msgspec.Struct, frozen=True, gc=False):
    """A host that lives."""

    id: _Text
    name: _Text
    workers: _Count


class Directory(msgspec.Struct, frozen=True):
    """What is known on one host."""

    host: _Text
    """Its ID, another one with each start of its supervisor."""
    placements: list[Placement]
    hosts: list[HostRow]


_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder(Directory).decode


def read(folder: Path) -> Directory | None:
    """The directory in this data folder; None: there is none that can be read."""
    try:
        with os.fdopen(open_own(folder / FILE, os.O_RDONLY), "rb") as file:
            return _decode(file.read(_MAX_BYTES))
    except FileNotFoundError:
        return None
    except (OSError, FileError, msgspec.MsgspecError, UnicodeDecodeError) as error:
        logs.limited("cluster.directory_unread", at="error", file=str(folder / FILE), why=str(error))
        return None


def write(folder: Path, directory: Directory) -> None:
    """Replace it: readers see the old one or the new one, whole.

    Raises: OSError.
    """
    path = folder / FILE
    draft = path.with_name(f"{FILE}.new")
    with contextlib.suppress(FileNotFoundError):
        draft.unlink()
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(_encode(directory))
    draft.replace(path)


class Reader:
    """Reads the directory again when its file is another one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / FILE
        self._seen: tuple[int, int, int] | None = None

    def look(self) -> Directory | None:
        """The directory, if it has changed since the last call."""
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        seen = status.st_ino, status.st_mtime_ns, status.st_size
        if seen == self._seen:
            return None
        directory = read(self._folder)
        if directory is not None:  # else it is tried again: this process may be short of descriptors for a moment
            self._seen = seen
        return directory


class Placements:
    """The newest placement of each router."""

    def __init__(self) -> None:
        self.by_number: dict[int, Placement] = {}

    def merge(self, placements: Iterable[Placement]) -> list[Placement]:
        """Those of them that are newer than what was known, one a number."""
        changed: dict[int, Placement] = {}
        for one in placements:
            known = self.by_number.get(one.number)
            if known is None or known.epoch < one.epoch:
                self.by_number[one.number] = changed[one.number] = one
        return list(changed.values())
