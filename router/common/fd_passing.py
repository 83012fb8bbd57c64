"""A router's end of fd passing: takes connections of app servers that came in on the device port.

A worker that finds one passes the descriptor itself (SCM_RIGHTS) with the bytes it has read, one packet a connection,
over a Unix socket in the data folder; from then on the worker has no part in it. Only the user of the farm can reach
that socket, because no other user may enter the folder.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from router.common import logs
from router.common.client_address import address_text
from router.common.poller import READ, Poller

_PACKET_BYTES: Final = 4096  # a worker passes far less: what it had to read to know which dialect the connection is for
_BATCH: Final = 64
_BACKLOG: Final = 1024


_HEADED: Final = b"\0"
"""What no request begins with: a header comes first."""


def packed(address: str, data: bytes) -> bytes:
    """The packet for a connection. address: its client's, if that is not the descriptor's peer; otherwise "".

    Only then, or without data, it has a header: the byte 0, the length of the address, and the address (4 or 16 bytes).
    """
    if not address and data:
        return data
    of_client = ipaddress.ip_address(address).packed if address else b""
    return b"%b%c%b%b" % (_HEADED, len(of_client), of_client, data)


def unpacked(packet: bytes) -> tuple[str, bytes]:
    """Address and data again. Raises: ValueError."""
    if not packet.startswith(_HEADED):
        return "", packet
    if len(packet) < 2 or (end := 2 + packet[1]) > len(packet):
        raise ValueError("the header is longer than its packet")
    address = address_text(ipaddress.ip_address(packet[2:end])) if end > 2 else ""
    return address, packet[end:]


def socket_name(number: int) -> str:
    """Of the router of this number."""
    return f"adopt-{number}.sock" if number else "adopt.sock"


def socket_path(folder: Path, number: int) -> str:
    """Where the router of this number takes connections over, in this control folder."""
    return str(folder.resolve() / socket_name(number))


class FdReceiver:
    """Listens for workers, and calls `adopt` with each descriptor that they pass, the bytes that were read from it, and
    the client's address if that is not its peer's ("")."""

    def __init__(self, path: str, poller: Poller, adopt: Callable[[int, bytes, str], None]) -> None:
        """path: of its socket, `socket_path`."""
        Path(path).unlink(missing_ok=True)  # of a router that was killed
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(path)
        self._listener.listen(_BACKLOG)
        self._listener.setblocking(False)
        self._poller = poller
        self._adopt = adopt
        self._workers: dict[int, socket.socket] = {}
        self._accepting = True
        poller.accepting.add(self._listener.fileno())
        poller.register(self._listener.fileno(), READ)

    def ready(self, fd: int) -> bool:
        """Handle an event that epoll reports for a descriptor. Returns: whether it is one of ours."""
        worker = self._workers.get(fd)
        if worker is not None:
            self._receive(worker)
        elif fd == self._listener.fileno():
            self._accept()
        else:
            return False
        return True

    def _accept(self) -> None:
        try:
            worker, _ = self._listener.accept()
        except BlockingIOError:
            return
        except OSError as error:
            # Out of descriptors or memory: the worker waits in the queue, and we do not try again and again.
            logs.limited("fd_passing.accept_failed", error=str(error))
            self._poller.unregister(self._listener.fileno())
            self._accepting = False
            return
        worker.setblocking(False)
        self._workers[worker.fileno()] = worker
        self._poller.accepting.add(worker.fileno())
        self._poller.register(worker.fileno(), READ)

    def tick(self) -> None:
        """To be called about once a second: accepting is tried again if it had failed."""
        if not self._accepting and self._listener.fileno() >= 0:
            self._accepting = True
            self._poller.register(self._listener.fileno(), READ)

    def _receive(self, worker: socket.socket) -> None:
        for _ in range(_BATCH):
            try:
                data, descriptors, _, _ = socket.recv_fds(worker, _PACKET_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data and not descriptors:
                self._forget(worker)
                return
            if descriptors:
                self._take(descriptors[0], data)
            else:  # the kernel has closed it
                logs.limited("fd_passing.lost", hint="the router is out of descriptors")

    def _take(self, fd: int, packet: bytes) -> None:
        try:
            address, data = unpacked(packet)
        except ValueError as error:  # of a worker of another version
            os.close(fd)
            logs.limited("fd_passing.not_understood", error=str(error))
            return
        self._adopt(fd, data, address)

    def _forget(self, worker: socket.socket) -> None:
        del self._workers[worker.fileno()]
        self._poller.accepting.discard(worker.fileno())
        self._poller.unregister(worker.fileno())
        worker.close()

    def close(self) -> None:
        """Take what has been passed, and no more: workers turn app servers away from now on."""
        if self._listener.fileno() < 0:
            return
        if self._accepting:
            self._poller.unregister(self._listener.fileno())
        self._poller.accepting.discard(self._listener.fileno())
        self._listener.close()
        for worker in list(self._workers.values()):
            with contextlib.suppress(OSError):
                worker.shutdown(socket.SHUT_RD)  # so that what can be received has an end
            while worker.fileno() >= 0:
                self._receive(worker)
