"""How connections come to the app servers' port: accepted here, or adopted from a worker on whose port they came in
(`router.common.fd_passing`); each within the limits, or answered 503, or in the place of one that is idle.

Where the port speaks TLS, or a proxy says by the PROXY protocol who is behind it, a connection first has its opening
(`router.common.openings`), and is a `Client` from then on.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Any

from router.common import logs
from router.common.client_address import Networks, client_address
from router.common.metrics import RouterCounters
from router.common.openings import PROXY, OpeningFailed, Openings
from router.common.poller import READ, WRITE, Poller
from router.common.refusals import PLAIN_HTTP, REQUEST_TIMEOUT, TOO_MANY
from router.common.settings import EndpointOptions, Listen
from router.common.tls_settings import TlsOptions
from router.common.wires import TlsWire, Wire
from router.http.acceptor import Acceptor
from router.http.clients import Arriving, Client, Clients
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
        listen: Listen,
        counters: RouterCounters,
        wire: Wire,
        tls: TlsOptions,
        answered: Callable[[Client], None],
        close: Callable[[Client], None],
    ) -> None:
        """wire: a `TlsWire` where the port speaks TLS. answered: is called when a connection has something to send.
        close: closes one."""
        self._acceptor = acceptor
        self._poller = poller
        self._all = clients
        self._options = options
        self._counters = counters
        self._forwarding = Networks(listen.forwarded_from)
        self._wire = wire
        self._tls = isinstance(wire, TlsWire)
        self._openings = Openings.of(listen, tls, wire if isinstance(wire, TlsWire) else None)
        self._answered = answered
        self._close = close

    def accept(self) -> None:
        """Accept what waits in the listener's queue; nothing while more steps of handshakes are due than are done in a
        turn: the connections that are there would only wait for longer."""
        if self._openings is not None and self._openings.behind:
            return  # it is reported again
        for connection, peer in self._acceptor.accept(self._may_accept, self._evict):
            address = client_address(peer)
            refused = not self._room()
            fd = self._begin(connection)
            if fd < 0:
                continue
            if self._openings is not None and self._openings.begin(fd, address, self._tls):
                self._all.arrives(fd, Arriving(self._all.now, address, refused))
            else:
                self._client(fd, address, refused)

    def adopt(self, fd: int, address: str) -> Client | None:
        """Take over a connection that another process has accepted. None: it has ended already, and is closed.

        address: of the client, if it is not the peer's.
        """
        try:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
        except OSError as error:  # it is no socket
            os.close(fd)
            logs.limited("http.adopt_failed", error=str(error))
            return None
        address = address or client_address(_peer(connection))
        refused = not self._room()
        fd = self._begin(connection)
        return None if fd < 0 else self._client(fd, address, refused)

    def _begin(self, connection: socket.socket) -> int:
        """Watch a new connection. Returns: its descriptor; -1: it has ended already."""
        with connection:
            try:
                connection.setblocking(False)
                with contextlib.suppress(OSError):  # a worker that decrypts a connection passes an end of its own
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._poller.register(connection.fileno(), READ)
            except OSError as error:
                logs.limited("http.accept_failed", error=str(error))
                return -1
            fd = connection.detach()
        self._counters.http_connects += 1
        self._counters.http_connections += 1
        return fd

    def _client(self, fd: int, address: str, refused: bool) -> Client:
        """HTTP begins on a connection: it is answered 503 if there are too many."""
        self._all.by_fd[fd] = client = Client(fd, self._all.now)
        client.http = HttpConnection(self._options, lambda: self._answered(client))
        client.http.out = client.out
        client.http.address = address
        if self._forwarding and address in self._forwarding:
            client.http.proxies = self._forwarding
        if refused:
            logs.limited("http.too_many_connections", limit=self._all.limit)
            self._counters.http_refused += 1
            self._all.refusals += 1
            client.refused = True
            client.http.give_up(TOO_MANY, "", SOON)
        return client

    # ------------------------------------------------------------------ before HTTP

    def go_on(self, fd: int, events: int) -> tuple[Client, bytes] | None:
        """epoll reports this of a connection that has its opening. Returns: the client that it is now, and what has
        come from it."""
        openings = self._openings
        assert openings is not None
        if events & WRITE:
            self._flush(fd)
            if events == WRITE:
                return None
        try:
            opening = openings.go_on(fd)
        except OpeningFailed as error:
            return self._failed(fd, error)
        if opening is None:
            if (oldest := openings.excess) is not None:
                self._counters.http_handshakes_failed += 1
                logs.limited("tls.too_many_handshakes", hint="tls.max_handshakes")
                self.leave(oldest)
            if self._holds(fd) and fd in self._all.arriving:
                self._poller.change(fd, READ | WRITE)
            return None
        arriving = self._all.has_arrived(fd)
        if self._tls:
            self._poller.change(fd, READ)  # perhaps it was watched for more
            self._counters.http_handshakes += 1
        address = arriving.address if opening.address is None else opening.address
        return self._client(fd, address, refused=not self._room()), opening.data

    def _holds(self, fd: int) -> bool:
        """Whether the kernel has not taken all that is to be sent, as of a long chain of certificates."""
        return isinstance(self._wire, TlsWire) and self._wire.holds(fd)

    def _flush(self, fd: int) -> None:
        """The kernel takes more of a handshake. A broken connection is reported when it is read."""
        with contextlib.suppress(OSError):
            self._wire.write(fd, b"")
        if not self._holds(fd):
            self._poller.change(fd, READ)

    def _failed(self, fd: int, error: OpeningFailed) -> tuple[Client, bytes] | None:
        address = self._all.arriving[fd].address if error.address is None else error.address
        if error.silent:
            self.leave(fd)
            return None
        if error.step == PROXY:
            self._counters.http_proxy_refused += 1
            logs.limited("http.proxy_refused", peer=address, why=str(error), hint="listen.proxy_from names this proxy")
        else:
            self._counters.http_handshakes_failed += 1
            logs.limited("http.handshake_failed", at="info", peer=address, why=str(error))
        if not error.plain_http:
            self.leave(fd)
            return None
        assert self._openings is not None
        self._openings.forget(fd)
        self._all.has_arrived(fd)
        self._poller.change(fd, READ)
        client = self._client(fd, address, refused=False)
        client.http.give_up(PLAIN_HTTP)
        return client, b""

    def leave(self, fd: int) -> None:
        """Close a connection that has its opening; others stay."""
        assert self._openings is not None
        if fd not in self._all.arriving:
            return
        self._all.has_arrived(fd)
        self._openings.forget(fd)
        self._poller.unregister(fd)
        self._wire.close(fd)
        self._counters.http_disconnects += 1
        self._counters.http_connections -= 1
        self._acceptor.resume()

    def begin_turn(self) -> None:
        """Another turn: steps of handshakes may be done again."""
        if self._openings is not None:
            self._openings.begin_turn()

    def tick(self) -> None:
        """To be called about once a second: close those whose opening takes too long."""
        longest = self._options.request_timeout
        for fd, arriving in list(self._all.arriving.items()):
            if self._all.now - arriving.since <= longest:
                return  # nor have those behind it been here for longer
            if self._tls:
                self._counters.http_handshakes_failed += 1
            else:
                self._counters.http_proxy_refused += 1
            self.leave(fd)

    def close(self) -> None:
        """Close those that have not begun."""
        for fd in list(self._all.arriving):
            self.leave(fd)

    # ------------------------------------------------------------------ room

    def _may_accept(self) -> bool:
        return self._all.refusals < self._options.max_refusals or self._room()

    def _room(self) -> bool:
        """Whether there is room for a connection, perhaps because another had to go."""
        return self._all.has_room or self._evict()

    def _evict(self) -> bool:
        """Close a connection to make room for another. Returns: whether there was one."""
        fd = self._all.slow_arrival()
        if fd is not None:  # before any that has sent something
            self._counters.http_evicted += 1
            self.leave(fd)
            return True
        client = self._all.to_evict()
        if client is None:
            return False
        if not client.lingering:
            self._counters.http_evicted += 1
            if not client.idle:
                client.http.give_up(REQUEST_TIMEOUT)
                with contextlib.suppress(OSError):
                    self._wire.write(client.fd, client.http.take())
        self._close(client)
        return True


def _peer(connection: socket.socket) -> Any:
    try:
        return connection.getpeername()
    except OSError:  # it has gone
        return None
