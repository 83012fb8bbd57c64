"""How connections come to the app servers' port: accepted here, or adopted from a worker on whose port they came in
(`router.common.fd_passing`); each within the limits, or answered 503, or in the place of one that is idle."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from router.common import logs
from router.common.client_address import Networks, client_address
from router.common.metrics import RouterCounters
from router.common.poller import READ, Poller
from router.common.refusals import REQUEST_TIMEOUT, TOO_MANY
from router.common.settings import EndpointOptions
from router.http.acceptor import Acceptor
from router.http.clients import Client, Clients
from router.http.http1 import HttpConnection

SOON = ("Retry-After", "5")


class Arrivals:
    """The listener, and what becomes of a new connection."""

    def __init__(
        self,
        acceptor: Acceptor,
        poller: Poller,
        clients: Clients,
        options: EndpointOptions,
        counters: RouterCounters,
        forwarding: Networks,
        answered: Callable[[Client], None],
        close: Callable[[Client], None],
    ) -> None:
        """forwarding: proxies whose headers say where a request comes from. answered: is called when a connection has
        something to send. close: closes one."""
        self._acceptor = acceptor
        self._poller = poller
        self._all = clients
        self._options = options
        self._counters = counters
        self._forwarding = forwarding
        self._answered = answered
        self._close = close

    def accept(self) -> None:
        """Accept what waits in the listener's queue."""
        for connection, peer in self._acceptor.accept(self._may_accept, self._evict):
            self._welcome(connection, peer)

    def adopt(self, fd: int, address: str) -> Client | None:
        """Take over a connection that another process has accepted. address: of its client, if that is not its peer's.
        None: it has ended already, and is closed."""
        try:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
        except OSError as error:  # it is no socket
            os.close(fd)
            logs.limited("http.adopt_failed", error=str(error))
            return None
        return self._welcome(connection, (address,) if address else _peer(connection))

    def _welcome(self, connection: socket.socket, peer: Any) -> Client | None:
        """Make a client of a connection: it is answered 503 if there are too many. None: it has ended already."""
        refused = not self._room()
        with connection:
            try:
                connection.setblocking(False)
                with contextlib.suppress(OSError):  # what a worker relays for comes by a Unix socket
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._poller.register(connection.fileno(), READ)
            except OSError as error:
                logs.limited("http.accept_failed", error=str(error))
                return None
            fd = connection.detach()
        self._all.by_fd[fd] = client = Client(fd, self._all.now)
        client.http = HttpConnection(self._options, lambda: self._answered(client))
        client.http.out = client.out
        client.http.address = address = client_address(peer)
        if self._forwarding and address in self._forwarding:
            client.http.proxies = self._forwarding
        self._counters.http_connects += 1
        self._counters.http_connections += 1
        if refused:
            logs.limited("http.too_many_connections", limit=self._all.limit)
            self._counters.http_refused += 1
            self._all.refusals += 1
            client.refused = True
            client.http.give_up(TOO_MANY, "", SOON)
        return client

    # ------------------------------------------------------------------ room

    def _may_accept(self) -> bool:
        return self._all.refusals < self._options.max_refusals or self._room()

    def _room(self) -> bool:
        """Whether there is room for a connection, perhaps because another had to go."""
        return self._all.has_room or self._evict()

    def _evict(self) -> bool:
        """Close a connection to make room for another. Returns: whether there was one."""
        client = self._all.to_evict()
        if client is None:
            return False
        if not client.lingering:
            self._counters.http_evicted += 1
            if not client.idle:
                client.http.give_up(REQUEST_TIMEOUT)
                with contextlib.suppress(OSError):
                    os.write(client.fd, client.http.take())
        self._close(client)
        return True


def _peer(connection: socket.socket) -> Any:
    try:
        return connection.getpeername()
    except OSError:  # it has gone
        return None
