"""The files that a farm keeps: their owner and mode, and the checks of a data folder that exists already.

A user who can replace the token key, the store or a socket of the farm can impersonate it. So the folder and the files
in it belong to this user (or to root), no other user may write them, and no file in it may be a link to elsewhere. What
others may read is logged, and used all the same. Modes of existing files are never changed.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import itertools
import os
import pwd
import stat
from pathlib import Path
from typing import Final

from router.common import logs
from router.common.errors import MendableError

_OF_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_READ_BY_OTHERS: Final = stat.S_IRGRP | stat.S_IROTH
_LOOKED_AT: Final = 100
_TOLD: Final = 8
_NO_FILE: Final = "is no file; move it away"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


class FileError(MendableError):
    """A file or folder cannot be used as it is. The text is one line that names it and says what to do."""


def take_folder(folder: Path) -> None:
    """Make the data folder, for this user only; one that exists already keeps its mode and must be safe to use.

    Raises: FileError.
    """
    try:
        if not os.path.lexists(folder) and _make(folder):
            return
        _check_folder(folder)
    except OSError as error:
        why = f"{_reason(error)}{_elsewhere(error, folder)}{what_to_do(error)}"
        raise FileError(f"data.dir: cannot use {folder}: {why}") from None


def open_own(path: Path, flags: int) -> int:
    """Open a file in the data folder (`flags` as of os.open); with O_CREAT it is made with mode 0600 if it is missing.

    Returns: its descriptor.
    Raises: FileError if it cannot be opened, or is not a plain file that we alone may write; FileNotFoundError.
    """
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise FileError(f"{path}: is a symbolic link; put the file itself in its place") from None
        if error.errno in (errno.EISDIR, errno.ENXIO):
            raise FileError(f"{path}: {_NO_FILE}") from None
        raise FileError(f"{path}: {_reason(error)}{_foreign_hint(path)}{what_to_do(error)}") from None
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise FileError(f"{path}: {_NO_FILE}")
        _check_hands(path, status)
    except BaseException:
        os.close(handle)
        raise
    return handle


def check_place(path: Path) -> None:
    """That a socket can be made here, or whatever was left there be replaced by one.

    Raises: FileError.
    """
    with contextlib.suppress(FileNotFoundError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            raise FileError(f"{path}: is a folder where the farm makes a socket; move it away")


def read_at_most(path: Path, limit: int) -> bytes:
    """A file that the user wrote, whole. Raises: FileError if it is longer or cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > limit:
        raise FileError(f"{path}: is larger than {limit} bytes")
    return data


def read_secret(path: Path, limit: int) -> bytes:
    """A file with a secret that the user wrote. It may be a link, and any user's, as an orchestrator makes them; but
    only its owner, root and the owner's own group may be able to read it.

    Raises: FileError if others can, or it is longer than `limit` or cannot be read.
    """
    data = read_at_most(path, limit)
    status = os.stat(path)
    if status.st_mode & stat.S_IROTH or (
        status.st_mode & stat.S_IRGRP and not _is_private(status.st_gid, status.st_uid)
    ):
        mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
        raise FileError(f"{path}: other users can read it ({mode}): chmod 600 {path}")
    return data


def what_to_do(error: OSError) -> str:
    """The end of a line about a file that could not be written: the remedy, if the error alone tells it."""
    return "; free some space there" if error.errno in _FULL else ""


def _make(folder: Path) -> bool:
    """Returns: whether we made it; False if another process did meanwhile."""
    for parent in reversed(folder.parents):
        with contextlib.suppress(FileExistsError):
            os.mkdir(parent, 0o755)  # whatever the umask, others must not be able to rename what is in it
    try:
        os.mkdir(folder, 0o700)
    except FileExistsError:
        return False
    os.chmod(folder, 0o700)
    return True


def _check_folder(folder: Path) -> None:
    link, status = os.lstat(folder), os.stat(folder)
    if not stat.S_ISDIR(status.st_mode):
        raise FileError(f"data.dir: {folder} is not a folder")
    if stat.S_ISLNK(link.st_mode) and not _is_ours(link):
        raise FileError(f"data.dir: {folder} is a symbolic link that {_name(link.st_uid)} made; name the folder itself")
    _check_hands(folder, status)
    if status.st_mode & _OF_OTHERS:
        hint = "a data folder should be there for the farm alone, with mode 0700"
        logs.warning("data.open_to_others", folder=str(folder), hint=hint, readable=", ".join(_readable(folder)))
    for parent in Path(os.path.realpath(folder)).parents:
        found = os.stat(parent)
        if found.st_mode & stat.S_ISVTX == 0 and (_others_may_write(found) or not _is_ours(found)):
            hint = "its owner, or a user that may write in it, can put another folder in the place of data.dir"
            logs.warning("data.parent_of_others", folder=str(parent), hint=hint)
            return


def _check_hands(path: Path, status: os.stat_result) -> None:
    """Raises: FileError where other users could write; logs where they can read."""
    mode = f"mode {stat.S_IMODE(status.st_mode):04o}"
    folder = stat.S_ISDIR(status.st_mode)
    what = f"data.dir: {path}" if folder else f"{path}:"
    if not _is_ours(status):
        raise FileError(
            f"{what} belongs to {_name(status.st_uid)}, and this is {_name(os.geteuid())}: "
            f"run the farm as its owner, give it to this user (chown), or choose another data.dir"
        )
    if _others_may_write(status):
        other = "choose a folder in it, which is then made for this user alone, or: " if folder else ""
        raise FileError(
            f"{what} may be written by others ({mode}), who could become the farm; {other}chmod go-w {path}"
        )


def _readable(folder: Path) -> list[str]:
    """Files in a folder that others may read, as far as can be seen quickly."""
    with os.scandir(folder) as entries:
        looked_at = [entry for entry in itertools.islice(entries, _LOOKED_AT) if entry.is_file(follow_symlinks=False)]
    found = [entry.name for entry in looked_at if entry.stat(follow_symlinks=False).st_mode & _READ_BY_OTHERS]
    return sorted(found)[:_TOLD]


def _is_ours(status: os.stat_result) -> bool:
    return status.st_uid in (0, os.geteuid())


def _others_may_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and not _is_private(status.st_gid)


def _is_private(group: int, owner: int = 0) -> bool:
    """Whether only this user, root and the owner are known to be in a group, as in a user's own group of the same
    name."""
    ours = {0, owner, os.geteuid()}
    if any(user.pw_gid == group and user.pw_uid not in ours for user in pwd.getpwall()):
        return False
    try:
        members = grp.getgrgid(group).gr_mem
    except KeyError:
        return True
    return all(_uid(member) in ours for member in members)


def _uid(name: str) -> int | None:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def _name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _elsewhere(error: OSError, folder: Path) -> str:
    """Where it failed, if that is not the folder itself."""
    place = error.filename
    return "" if place is None or str(place) == str(folder) else f": {place}"


def _foreign_hint(path: Path) -> str:
    """The owner of the file, if that is why it cannot be opened."""
    try:
        owner = os.lstat(path).st_uid
    except OSError:
        return ""
    return "" if owner == os.geteuid() else f"; it belongs to {_name(owner)}"
