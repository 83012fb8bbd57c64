"""What a backup holds. Pure."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from router.common.errors import MendableError
from router.key_file import KEY_FILE
from router.store import layout
from router.store.layout import Layout

FILE: Final = "backup.json"
MAX_BYTES: Final = 1_048_576
_FORMAT: Final = 1
_MOST: Final = 2**63 - 1
_LAST: Final = 253_402_300_799
"""The end of the year 9999, in Unix seconds: beyond it no moment can be shown."""
_SHOWN: Final = 200  # characters of what is wrong, which may repeat what the file has


class BackupError(MendableError):
    """A backup cannot be made or put back. The text is one line that says why and what to do."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One file."""

    bytes: Annotated[int, Meta(ge=0, le=_MOST)]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of a backup."""

    format: Annotated[int, Meta(ge=1, le=_FORMAT)]
    release: Annotated[str, Meta(max_length=100)]
    """The farm that made it."""
    created: Annotated[int, Meta(ge=0, le=_LAST)]
    """Unix seconds, when it began."""
    schema: Annotated[int, Meta(ge=0, le=_MOST)]
    """Of the store's files."""
    layout: Layout
    files: dict[str, Entry]
    """By their place in the folder."""

    def __post_init__(self) -> None:
        wanted = names(self.layout, key=KEY_FILE in self.files)
        if set(self.files) != set(wanted):
            raise ValueError(f"it has to name {', '.join(wanted)}, and nothing else")

    @property
    def has_key(self) -> bool:
        """Whether the token key is in it."""
        return KEY_FILE in self.files

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.bytes for entry in self.files.values())

    @property
    def when(self) -> str:
        """When it was made, for people."""
        return datetime.datetime.fromtimestamp(self.created, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def new(release: str, created: int, schema: int, found: Layout, files: dict[str, Entry]) -> Manifest:
    """A manifest in the form of this release."""
    return Manifest(_FORMAT, release, created, schema, found, files)


def store_names(found: Layout) -> list[str]:
    """The files of the store, by router."""
    return [str(found.path(Path(), number)) for number in range(found.routers)]


def names(found: Layout, *, key: bool) -> list[str]:
    """All files, in the order in which they are put into a data folder: the one by which the others count is last.

    key: with the token key.
    """
    first = [KEY_FILE] if key else []
    last = [layout.MANIFEST] if found.folder else []
    return [*first, *store_names(found), *last]


def encode(manifest: Manifest) -> bytes:
    """As it is in its file."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode(text: bytes, path: Path) -> Manifest:
    """Raises: BackupError, which names the path."""
    try:
        return msgspec.json.decode(text, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        why = str(error)[:_SHOWN]
        raise BackupError(f"{path}: it is damaged, or a newer release made the backup ({why})") from None
