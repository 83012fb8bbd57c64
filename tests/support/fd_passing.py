"""Connections of app servers on their way from a worker to the router's port, in one process: both ends are real."""

import socket
from pathlib import Path
from typing import Any

from farm.dialects import Dialect
from farm.settings import WorkerOptions
from farm.worker.edge import PLAIN_EDGE, Edge
from farm.worker.fd_passing import FdSender
from farm.worker.sockets import Sockets
from router.common import fd_passing
from router.common.fd_passing import FdReceiver
from router.common.metrics import RouterCounters, WorkerCounters
from router.common.poller import Poller
from router.common.settings import EndpointOptions, Log
from router.http.http_port import HttpPort
from router.http.message import Request, Response
from router.http.routes import Reply, Route, Router
from router.http.turns import Turns
from support.common import Clock, settings_with

PATIENCE_S = 20
READS = (b"/apps", b"/metrics")
HEAD = b"POST /echo HTTP/1.1\r\nHost: push\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /apps/echo HTTP/1.1\r\nHost: push\r\n\r\n"
DEVICE = b"GET /app/key HTTP/1.1\r\nHost: push\r\n\r\n"


def echo(request: Request, reply: Reply) -> None:
    reply(Response(200, request.method + b" " + request.body, "text/plain"))


def source(request: Request, reply: Reply) -> None:
    reply(Response(200, request.address.encode(), "text/plain"))


class RouterEnd:
    """The router's port and its socket for workers."""

    def __init__(self, folder: Path, number: int = 0, **endpoint: Any) -> None:
        self.poller = Poller()
        self.counters = RouterCounters()
        listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = listener.getsockname()[1]
        routes = Router([Route(b"/echo", echo), Route(b"/apps/echo", echo), Route(b"/apps/source", source)])
        options = settings_with((EndpointOptions, endpoint)).get(EndpointOptions)
        self.port = HttpPort(listener, self.poller, routes, options, self.counters, Clock().monotonic, Turns())
        self.fd_receiver = FdReceiver(fd_passing.socket_path(folder, number), self.poller, self.port.adopt)

    def turn(self) -> None:
        """Deal with everything that is there."""
        while events := self.poller.ready_now():
            for fd, mask in events:
                if not self.fd_receiver.ready(fd):
                    self.port.ready(fd, mask)
            self.port.flush()

    def close(self) -> None:
        self.fd_receiver.close()
        self.port.close()
        self.poller.close()


class WorkerEnd:
    """A worker's sockets."""

    def __init__(
        self,
        folder: Path,
        routers: int = 1,
        shard: int = 0,
        edge: Edge = PLAIN_EDGE,
        devices: float = 0.0,
        dialects: dict[str, Dialect] | None = None,
        **options: Any,
    ) -> None:
        """devices: `log.devices`."""
        self.poller = Poller()
        self.clock = Clock()
        self.counters = WorkerCounters()
        self.fd_sender = FdSender(folder, READS, routers, shard)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        worker = settings_with((WorkerOptions, options)).get(WorkerOptions)
        self.sockets = Sockets(
            self.poller,
            worker,
            dialects or {},
            self.counters,
            100,
            [].append,
            self.clock.monotonic,
            {},
            self.fd_sender,
            edge=edge,
            log=settings_with((Log, {"devices": devices})).get(Log),
        )
        self.sockets.listen(self.listener)

    def turn(self) -> None:
        while events := self.poller.ready_now():
            self.sockets.begin_turn(self.clock.monotonic())
            for fd, mask in events:
                self.sockets.ready(fd, mask)

    def close(self) -> None:
        self.sockets.drop_all()
        self.fd_sender.close()
        self.poller.close()


class Client:
    """An app server."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> bytes:
        return self.socket.recv(65_536)

    def silent(self) -> bool:
        """Whether the connection is open and nothing has come."""
        self.socket.setblocking(False)
        try:
            self.socket.recv(1)
            return False
        except BlockingIOError:
            return True
        finally:
            self.socket.settimeout(PATIENCE_S)


class Rig:
    """Both ends and their clients."""

    def __init__(self, folder: Path, worker: dict[str, Any] | None = None, **endpoint: Any) -> None:
        self.folder = folder
        self.worker = WorkerEnd(folder, **worker or {})
        self.router: RouterEnd | None = RouterEnd(folder, **endpoint)
        self._clients: list[Client] = []

    def __enter__(self) -> "Rig":
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.socket.close()
        self.worker.close()
        self.router_goes()

    def client(self, data: bytes = b"") -> Client:
        client = Client(self.worker.port)
        self._clients.append(client)
        if data:
            client.send(data)
        self.turn()
        return client

    def turn(self) -> None:
        self.worker.turn()
        if self.router is not None:
            self.router.turn()
            self.worker.turn()

    def router_goes(self) -> None:
        if self.router is not None:
            self.router.close()
            self.router = None

    def router_comes(self) -> None:
        self.router = RouterEnd(self.folder)

    @property
    def counts(self) -> tuple[int, int, int]:
        """Handed over, open at the worker, open at the router."""
        assert self.router is not None
        counters = self.router.counters
        return self.worker.counters.handed_over, len(self.worker.sockets), counters.http_connections
