"""The name by which a router owns its partitions in Redis."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Final

from router.common import directory
from router.common.files import open_own
from router.store.base import StoreError

HOLDER_FILE: Final = "redis.holder"
"""In the data folder: this farm's name, so that a router that follows another one does not wait for its lease."""


def of_farm(folder: Path) -> str:
    """Of a farm on one host: the host's name, and a number that is made once for a data folder.

    Raises: FileError.
    """
    path = folder / HOLDER_FILE
    with os.fdopen(open_own(path, os.O_RDWR | os.O_CREAT), "r+") as file:
        name = file.read(256).strip()
        if not name:
            name = f"{socket.gethostname()}-{os.urandom(8).hex()}"
            file.write(name + "\n")
    return name


def of_placement(folder: Path, router: int) -> str:
    """Of a router of a cluster: its placement, so that another process of the same one takes over at once, and a router
    that was placed anew waits until the leases of the one before have ended or were released.

    Raises: StoreError.
    """
    known = directory.read(folder)
    placed = [] if known is None else [one for one in known.placements if one.number == router]
    newest = max(placed, key=lambda one: one.epoch, default=None)
    if known is None or newest is None or newest.host != known.host:
        raise StoreError(f"router {router} is not placed on this host ({directory.FILE}); its supervisor places it")
    return f"{newest.host}:{newest.epoch}"
