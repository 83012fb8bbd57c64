"""The app servers' port in one process: real sockets and a real epoll; the test takes the turns and moves the clock."""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import Any

from router.common.metrics import RouterCounters
from router.common.poller import Poller
from router.common.settings import EndpointOptions, Listen
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.wires import PLAIN, TlsWire
from router.http.http_port import HttpPort
from router.http.message import Request, Response
from router.http.parts import Parts, one_a_turn
from router.http.routes import Handler, Reply, Route, Router
from router.http.turns import Turns
from support.common import Clock, settings_with
from support.farm_fixture import PATIENCE_S, until
from support.tls_client import TlsClient

GET = b"GET /echo HTTP/1.1\r\nHost: push\r\n\r\n"
POST = b"POST /echo HTTP/1.1\r\nHost: push\r\nContent-Length: %d\r\n\r\n"
BAD = b"GET /bad HTTP/1.1\r\nHost: push\r\n\r\n"
WORSE = b"GET /worse HTTP/1.1\r\nHost: push\r\n\r\n"
LATER = b"GET /later HTTP/1.1\r\nHost: push\r\n\r\n"
PAGE = b"GET /large?%d HTTP/1.1\r\nHost: push\r\n\r\n"
LARGE = 6_000_000
"""Bytes of its answer: more than sockets take, and a dozen of them more than may wait in all."""


HANDSHAKES_A_TURN = 4
MAX_HANDSHAKES = 30


class Faulty(Router):
    """Routes of which one path cannot even be looked up."""

    def find(self, path: bytes) -> Handler | None:
        if path == b"/worse":
            raise ZeroDivisionError
        return super().find(path)


class Rig:
    """The port and its clients."""

    def __init__(
        self, listen: dict[str, Any] | None = None, tls: Contexts | None = None, send_buffer: int = 0, **endpoint: Any
    ) -> None:
        """listen, endpoint: settings of these sections. send_buffer: bytes, of each connection."""
        self.poller = Poller()
        self.clock = Clock()
        self.counters = RouterCounters()
        self.turns = Turns()
        self.asked: list[bytes] = []
        self.later: list[Reply] = []
        self.made = 0
        self.pages = Parts(self.turns, 1, 1)
        self.clients: list[socket.socket] = []
        listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        if send_buffer:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.address = listener.getsockname()
        routes = Faulty(
            [
                Route(b"/echo", self._echo),
                Route(b"/bad", self._bad),
                Route(b"/later", lambda request, reply: self.later.append(reply)),
                Route(b"/large", self._large),
                Route(b"/whence", lambda request, reply: reply(Response(200, request.address.encode()))),
            ]
        )
        settings = settings_with((EndpointOptions, endpoint), (Listen, listen or {}))
        self.port = HttpPort(
            listener,
            self.poller,
            routes,
            settings.get(EndpointOptions),
            self.counters,
            self.clock.monotonic,
            self.turns,
            listen=settings.get(Listen),
            wire=PLAIN if tls is None else TlsWire(tls.front),
            tls=TlsOptions(handshakes_a_turn=HANDSHAKES_A_TURN, max_handshakes=MAX_HANDSHAKES),
        )

    def _echo(self, request: Request, reply: Reply) -> None:
        self.asked.append(request.query)
        reply(Response(200, request.body, "text/plain"))

    def _large(self, request: Request, reply: Reply) -> None:
        def make() -> None:
            self.made += 1
            reply(Response(200, request.query.rjust(7) + bytes(LARGE), "text/plain"))

        one_a_turn(self.pages, request.pending, make, lambda: reply(Response(500)))

    def _bad(self, request: Request, reply: Reply) -> None:
        raise ZeroDivisionError

    def turn(self) -> None:
        """One turn, as the router takes it."""
        for fd, mask in self.poller.ready_now():
            self.port.ready(fd, mask)
        self.turns.run()
        self.port.flush()

    def settle(self) -> None:
        """Turns until nothing more happens."""
        while self.poller.ready_now() or self.turns.waiting:
            self.turn()

    def client(self, data: bytes = b"", receive_buffer: int = 0) -> socket.socket:
        client = socket.socket()
        client.settimeout(PATIENCE_S)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect(self.address)
        self.clients.append(client)
        client.sendall(data)
        self.settle()
        return client

    def ask(self, client: socket.socket, data: bytes = GET) -> bytes:
        client.sendall(data)

        def answer() -> list[bytes]:
            self.settle()
            with suppress(BlockingIOError):
                return [client.recv(65_536, socket.MSG_DONTWAIT)]
            return []

        return until(answer, "an answer")[0]  # on a busy machine what was sent may not be here yet

    def tls_client(self, context: ssl.SSLContext, first: bytes = b"") -> TlsClient:
        """A client whose handshake is done. first: what goes before it."""
        client = TlsClient(self.client(first), context)
        until(lambda: [client.turn(), self.settle()][0], "the handshake is done")
        return client

    def ask_tls(self, client: TlsClient, data: bytes = GET) -> bytes:
        client.send(data)

        def answer() -> list[bytes]:
            self.settle()
            found = client.read()
            return [found or b""] if found != b"" else []

        return until(answer, "an answer")[0]

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.port.close()
        self.poller.close()
