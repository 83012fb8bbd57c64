"""Where the token keys are: in the settings, or in a file of the data folder, which is made by the first start."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from router.common.files import FileError, open_own, what_to_do
from router.common.options import Settings
from router.common.settings import Data, TokenOptions
from router.common.token import KeyFormatError, new_key, parse_keys
from router.store.registry import keeps_something

KEY_FILE: Final = "token.key"
_MAX_BYTES: Final = 65_536


def load_or_make_keys(settings: Settings) -> list[bytes]:
    """The configured keys, else those of the key file in the data folder, else a new one written there (mode 0600).

    Raises: KeyFormatError, FileError.
    """
    if keys := parse_keys(settings.get(TokenOptions).keys):
        return keys
    path = Path(settings.get(Data).dir) / KEY_FILE
    try:
        try:
            return _read(path)
        except FileNotFoundError:
            if (kept := keeps_something(settings)) is not None:
                raise KeyFormatError(
                    f"{path} is missing, and {kept.where} has registrations: with a new key every endpoint "
                    f"that was given out would be void. Put the file back, or its key into token.keys; to begin "
                    f"anew, {kept.to_begin_anew}"
                ) from None
            _make(path)
            return _read(path)
    except OSError as error:
        why = f"{(error.strerror or str(error)).lower()}{what_to_do(error)}"
        raise FileError(f"{path}: cannot be read or made: {why}") from None


def _read(path: Path) -> list[bytes]:
    with os.fdopen(open_own(path, os.O_RDONLY), "rb") as file:
        data = file.read(_MAX_BYTES)
    try:
        keys = parse_keys(data.decode("ascii"))
    except UnicodeDecodeError:
        raise KeyFormatError(f"{path} is not text: {_REMEDY}") from None
    except KeyFormatError as error:
        raise KeyFormatError(f"{path}: {error}; {_REMEDY}") from None
    if not keys:
        raise KeyFormatError(f"{path} holds no key: {_REMEDY}")
    return keys


_REMEDY: Final = "restore it from a copy, or put a key there with `farm token-key`"


def _make(path: Path) -> None:
    """Write a new key. The file appears whole or not at all, and of several processes that try it one succeeds."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with os.fdopen(open_own(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w") as file:
            file.write(new_key() + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
