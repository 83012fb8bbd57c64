"""What epoll watches of each connection: its interest list (epoll(7)), changed only where it really changes."""

from __future__ import annotations

from typing import Final

from farm.worker.connection import Connection
from router.common.poller import ENDED, NOTHING, READ, WRITE, Poller

_INPUT: Final = (NOTHING, ENDED, READ)
_MASKS: Final = {mask: mask for some in _INPUT for mask in (some, some | WRITE)}  # one object for all connections


class Interest:
    """Sets what the poller watches of connections."""

    def __init__(self, poller: Poller) -> None:
        self._change = poller.change

    def watch(self, connection: Connection, mask: int) -> None:
        """Have epoll watch for this, and for nothing else."""
        if connection.mask != mask and connection.fd >= 0:
            connection.mask = _MASKS[mask]
            self._change(connection.fd, mask)
