"""Where the link between workers and router is: a Unix socket in the data folder."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from router.common.errors import MendableError

SOCKET_NAME: Final = "router.sock"
_SUN_PATH_MAX: Final = 107


class LinkError(MendableError):
    """The link's address cannot be used."""


def address(folder: Path) -> str:
    """The link's address in this control folder.

    Raises: LinkError if the path is too long for a Unix socket.
    """
    path = str(folder.resolve() / SOCKET_NAME)
    if len(path.encode()) > _SUN_PATH_MAX:
        raise LinkError(
            f"{path} is longer than the {_SUN_PATH_MAX} bytes a Unix socket may have: choose a shorter data.dir"
        )
    return f"ipc://{path}"
