"""A client of a shard that sends bytes, and requests that are no upgrades."""

import socket

from router.common.poller import READ
from support.shard import PATIENCE_S, Shard


class Client:
    """A plain socket to a shard."""

    def __init__(
        self, shard: Shard, sent: bytes, receive_buffer: int = 0, listener: socket.socket | None = None
    ) -> None:
        self.shard = shard
        listener = listener or shard._listener
        self.socket = socket.socket()
        self.socket.settimeout(PATIENCE_S)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # so that what it sends is here at once
        self.socket.connect(listener.getsockname())
        shard._clients.append(self.socket)
        known = set(shard.sockets.connections)
        shard.sockets.ready(listener.fileno(), READ)
        (self.fd,) = set(shard.sockets.connections) - known
        if sent:
            self.send(sent)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)
        self.look()

    def look(self) -> None:
        """What epoll says, as the worker's loop."""
        for fd, events in self.shard._poller.ready_now():
            if fd == self.fd:
                self.shard.sockets.ready(fd, events)

    def until(self, end: bytes) -> bytes:
        """What comes, up to and with this."""
        got = b""
        while not got.endswith(end):
            part = self.socket.recv(1)
            if not part:
                raise EOFError(got)
            got += part
        return got

    def rest(self) -> bytes:
        """All that comes until the end."""
        got = b""
        while part := self.socket.recv(65536):
            got += part
        return got

    def nothing(self) -> bool:
        """Whether nothing is there."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)
        return False

    @property
    def here(self) -> bool:
        return self.fd in self.shard.sockets.connections


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """A request."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: push", *headers, "", "")).encode()
