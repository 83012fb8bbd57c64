"""Where routers are reached by workers and by each other: Unix sockets in the data folder."""

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


def peer_socket_name(number: int) -> str:
    """Where the other routers reach the router of this number."""
    return f"peers-{number}.sock"


def address(folder: Path, number: int) -> str:
    """Where the router of this number is for workers, in this control folder.

    Raises: LinkError if the path is too long for a Unix socket.
    """
    return _address(folder, socket_name(number))


def peer_address(folder: Path, number: int) -> str:
    """The same for other routers."""
    return _address(folder, peer_socket_name(number))


def _address(folder: Path, name: str) -> str:
    path = str(folder.resolve() / name)
    if len(path.encode()) > _SUN_PATH_MAX:
        raise LinkError(
            f"{path} is longer than the {_SUN_PATH_MAX} bytes a Unix socket may have: choose a shorter data.dir"
        )
    return f"ipc://{path}"
