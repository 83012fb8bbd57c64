"""A worker's end of fd passing: passes connections of app servers to the router, descriptor and all.

It has one connection to the router's socket, made when there is something to pass. That the router has gone, and
another may be there, is found out by using it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from farm.worker.sniff import for_app_servers
from router.common.fd_passing import socket_path

_SEND_BUFFER_BYTES: Final = 1_048_576
"""For what waits while the router is busy, about 1 KiB a connection; the kernel gives what net.core.wmem_max allows."""


class FdSender:
    """Passes descriptors to the router, and never waits for it."""

    def __init__(self, folder: Path, reads: Sequence[bytes]) -> None:
        """reads: the paths that app servers ask for with GET and HEAD."""
        self._path = socket_path(folder)
        self._reads = reads
        self._link: socket.socket | None = None

    def claims(self, data: bytes) -> bool | None:
        """Whether a connection that begins with these bytes is an app server's; None: they do not decide it yet."""
        return for_app_servers(data, self._reads)

    def give(self, fd: int, data: bytes) -> bool:
        """Pass a connection and what was read of it. The caller keeps its descriptor, to close it.

        Returns: whether it is the router's now; if not, it is away, its queue is full, or no descriptor is left.
        """
        for _ in range(2):
            link = self._link or self._connect()
            if link is None:
                return False
            try:
                socket.send_fds(link, [data], [fd])
            except BlockingIOError:
                return False
            except OSError:
                self.close()
            else:
                return True
        return False

    def _connect(self) -> socket.socket | None:
        try:
            link = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError:  # out of descriptors
            return None
        try:
            link.setblocking(False)
            link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            link.connect(self._path)
        except OSError:
            link.close()
            return None
        self._link = link
        return link

    def close(self) -> None:
        """Close the connection to the router. What was passed before still arrives."""
        if self._link is not None:
            self._link.close()
            self._link = None
