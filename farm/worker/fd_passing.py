"""A worker's end of fd passing: passes connections of app servers to a router, descriptor and all.

Any router takes any request, so a worker has a favourite, and passes to another one while that is away. It has one
connection to a router's socket, made when there is something to pass. That the router has gone, and another process may
be in its place, is found out by using it.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from farm.worker.sniff import for_app_servers
from router.common.fd_passing import packed, socket_path

_SEND_BUFFER_BYTES: Final = 1_048_576
"""For what waits while the router is busy, about 1 KiB a connection; the kernel gives what net.core.wmem_max allows."""


class FdSender:
    """Passes descriptors to the routers, and never waits for them."""

    def __init__(self, folder: Path, reads: Sequence[bytes], routers: int, shard: int) -> None:
        """reads: the paths that app servers ask for with GET and HEAD. shard: which decides the favourite router."""
        self._reads = reads
        self._ends = [_End(socket_path(folder, (shard + place) % routers)) for place in range(routers)]

    def claims(self, data: bytes) -> bool | None:
        """Whether a connection that begins with these bytes is an app server's; None: they do not decide it yet."""
        return for_app_servers(data, self._reads)

    def give(self, fd: int, data: bytes, address: str = "") -> bool:
        """Pass a connection and what was read of it. The caller keeps its descriptor, to close it. address: of its
        client, if that is not the descriptor's peer.

        Returns: whether it is a router's now; if not, all are away, their queues full, or no descriptor is left.
        """
        packet = packed(address, data)
        return any(end.give(fd, packet) for end in self._ends)

    def close(self) -> None:
        """Close the connections to the routers. What was passed before still arrives."""
        for end in self._ends:
            end.close()


class _End:
    """What leads to one router."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._link: socket.socket | None = None

    def give(self, fd: int, packet: bytes) -> bool:
        """Pass a connection. Returns: as that of `FdSender`."""
        for _ in range(2):
            link = self._link or self._connect()
            if link is None:
                return False
            try:
                socket.send_fds(link, [packet], [fd])
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
        """Close the connection."""
        if self._link is not None:
            self._link.close()
            self._link = None
