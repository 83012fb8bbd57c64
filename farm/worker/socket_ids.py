"""Names of connections, by which app servers and events speak of them."""

from __future__ import annotations

import os
from typing import Final

from farm.worker.connection import Connection
from farm.worker.table import Table

_FD_BITS: Final = 24  # of the number in a socket id; its rest counts connections
_MAX_SOCKET_ID: Final = 40


class SocketIds:
    """Names of connections that no other has in this farm, "<digits>.<digits>"."""

    def __init__(self, connections: Table) -> None:
        self._connections = connections
        self._origin = str(int.from_bytes(os.urandom(4), "big"))  # of all socket ids here
        self._serial = 0

    def new(self, fd: int) -> str:
        """A name for a connection that has just come."""
        self._serial += 1
        return f"{self._origin}.{self._serial << _FD_BITS | fd}"

    def find(self, socket_id: str) -> Connection | None:
        """The connection of this name, if it is one of this worker."""
        origin, _, number = socket_id.partition(".")
        if origin != self._origin or not number.isdecimal() or len(socket_id) > _MAX_SOCKET_ID:
            return None
        connection = self._connections.get(int(number) & ((1 << _FD_BITS) - 1))
        if connection is None or connection.session is None or connection.session.socket_id != socket_id:
            return None
        return connection
