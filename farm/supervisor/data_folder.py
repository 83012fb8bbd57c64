"""The data folder of a farm that has a supervisor: made, checked, and held for as long as the farm runs."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from farm.control import pid_file
from router.common import fd_passing
from router.common.files import FileError, check_place, open_own, take_folder, what_to_do
from router.common.link_address import address, peer_socket_name, socket_name
from router.common.options import Settings
from router.common.settings import MAX_ROUTERS, Data, RouterOptions
from router.key_file import load_or_make_keys


@contextlib.contextmanager
def held(settings: Settings) -> Iterator[None]:
    """Make the data folder, hold it (flock on the pid file), and leave no control socket behind.

    Raises: FileError, KeyFormatError, LinkError.
    """
    folder = Path(settings.get(Data).dir)
    routers = settings.get(RouterOptions).routers
    kinds = (socket_name, peer_socket_name, fd_passing.socket_name)
    sockets = [folder / name(number) for number in range(MAX_ROUTERS) for name in kinds]
    path = pid_file(settings)
    take_folder(folder)
    try:
        handle = open_own(path, os.O_RDWR | os.O_CREAT)
    except FileNotFoundError:  # in a file system that takes no files, such as procfs
        raise FileError(f"{path}: cannot be made there") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise FileError(
                f"data.dir: another farm runs on {folder}; stop it (farm drain) or choose another"
            ) from None
        try:
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        except OSError as error:
            why = f"{(error.strerror or str(error)).lower()}{what_to_do(error)}"
            raise FileError(f"{path}: cannot be written: {why}") from None
        load_or_make_keys(settings)
        address(folder, routers - 1)
        for place in sockets[: 2 * routers]:
            check_place(place)
        yield
        with contextlib.suppress(OSError):
            for place in sockets:
                place.unlink(missing_ok=True)
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)
