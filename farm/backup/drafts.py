"""The folder in which a backup is made, beside the place where it is to appear: TARGET.partial-PID.

A file in it is locked as long as its process runs. So what a backup that was killed has left can be told from one that
is under way, and the next backup to the same place removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from farm.backup.manifest import BackupError
from router.common.files import FileError, open_own

_LOCK: Final = "making"


@contextlib.contextmanager
def draft(target: Path) -> Iterator[Path]:
    """A new folder, which goes with the block, whatever becomes of it, unless `appear` was called.

    Raises: BackupError, OSError.
    """
    folder = target.with_name(f"{target.name}.partial-{os.getpid()}")
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        raise BackupError(f"{folder} is in the way: delete it if no backup to {target} is under way") from None
    try:
        lock = open_own(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        try:
            with contextlib.suppress(OSError):  # without locks nothing is ever taken for dead
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield folder
        finally:
            os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def appear(folder: Path, target: Path) -> None:
    """Give the folder its name. Raises: BackupError if there is something by now. OSError."""
    os.unlink(folder / _LOCK)
    _check_free(target)
    os.rename(folder, target)


def appear_file(file: Path, target: Path) -> None:
    """Give a file in it its name. Raises: BackupError if there is something by now. OSError."""
    try:
        os.link(file, target)
    except FileExistsError:
        _check_free(target)
    except OSError:  # a file system without links
        _check_free(target)
        os.rename(file, target)


def _check_free(target: Path) -> None:
    if os.path.lexists(target):
        raise BackupError(f"{target} has come meanwhile: nothing is overwritten; choose another name")


def clean(target: Path) -> list[str]:
    """Remove what backups to this place have left that were killed. Returns: a line for each that there was."""
    name = re.compile(re.escape(target.name) + r"\.partial-\d+")
    try:
        with os.scandir(target.parent) as entries:
            found = [
                Path(one.path) for one in entries if name.fullmatch(one.name) and one.is_dir(follow_symlinks=False)
            ]
    except OSError:
        return []
    return [_clean(one) for one in sorted(found)]


def _clean(folder: Path) -> str:
    try:
        lock = open_own(folder / _LOCK, os.O_RDWR)
    except (FileError, FileNotFoundError):
        return f"{folder}: a backup that was killed has left it, perhaps: delete it if none is under way"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return f"{folder}: another backup to the same place is under way"
    else:
        shutil.rmtree(folder, ignore_errors=True)
        left = ", but for what could not be deleted" if folder.exists() else ""
        return f"{folder}: removed{left}; a backup that was killed had left it"
    finally:
        os.close(lock)
