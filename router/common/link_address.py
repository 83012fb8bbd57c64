"""Where the link between workers and a router is: a Unix socket in the data folder for each router."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from router.common.errors import MendableError

_SUN_PATH_MAX: Final = 107


class LinkError(MendableError):
    """The link's address cannot be used."""


def socket_name(number: int) -> str:
    """Of the router of this number."""
    return f"router-{number}.sock" if number else "router.sock"


def address(folder: Path, number: int) -> str:
    """Where the router of this number is in this control folder.

    Raises: LinkError if the path is too long for a Unix socket.
    """
    path = str(folder.resolve() / socket_name(number))
    if len(path.encode()) > _SUN_PATH_MAX:
        raise LinkError(
            f"{path} is longer than the {_SUN_PATH_MAX} bytes a Unix socket may have: choose a shorter data.dir"
        )
    return f"ipc://{path}"
