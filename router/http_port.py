"""The app servers' port: connections in the router's parking lot, driven by the pure `HttpConnection`.

Connections are accepted here, or adopted from a worker on whose port they came in (`router.handover`).
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable

from router import logs
from router.dialects import Router
from router.http1 import HttpConnection, HttpError, Place, Request, Response, encode
from router.lot import BROKEN, NOTHING, READ, WRITE, Lot, half_close
from router.metrics import RouterCounters
from router.settings import EndpointOptions

_READ_BYTES = 16_384
_ACCEPT_BATCH = 64
_LINGER_S = 2.0
_NOT_FOUND = Response(404, b'"Not Found"')
_INTERNAL = Response(500, b'"Internal Server Error"')
_BUSY = HttpError(503, "Too many connections").response


class _Client:
    """One connection of an app server."""

    __slots__ = ("fd", "http", "lingering", "mask", "out", "since")

    http: HttpConnection

    def __init__(self, fd: int, now: float) -> None:
        self.fd = fd
        self.out = bytearray()
        self.mask = READ
        self.since = now  # last time something began: a request, or being idle
        self.lingering = False


class HttpPort:
    """Accepts, reads, hands requests to the routes, and writes their answers when `flush` is called."""

    def __init__(
        self,
        listener: socket.socket,
        lot: Lot,
        routes: Router,
        options: EndpointOptions,
        counters: RouterCounters,
        monotonic: Callable[[], float],
    ) -> None:
        listener.setblocking(False)
        self._listener: socket.socket | None = listener
        self._lot = lot
        self._routes = routes
        self._options = options
        self._counters = counters
        self._monotonic = monotonic
        self._now = monotonic()  # as of the last flush
        self._clients: dict[int, _Client] = {}
        self._answered: set[_Client] = set()
        lot.park(listener.fileno(), READ)

    # ------------------------------------------------------------------ events

    def ready(self, fd: int, events: int) -> None:
        """Deal with what epoll said of one of our descriptors."""
        client = self._clients.get(fd)
        if client is None:
            if self._listener is not None and fd == self._listener.fileno():
                self._accept()
            return
        if events & WRITE:
            self._write(client, b"")
        if self._clients.get(fd) is not client:
            return
        if events & BROKEN:
            self._close(client)
        elif events & READ:
            self._read(client)

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPT_BATCH):
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                logs.limited("http.accept_failed", error=str(error))
                return
            self._take(connection)

    def adopt(self, fd: int, data: bytes) -> None:
        """Serve a connection that somebody else has accepted, and has read these bytes from. It is ours to close."""
        connection = None
        try:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
            client = self._take(connection)
        except OSError as error:
            if connection is None:  # it is no socket
                os.close(fd)
            logs.limited("http.adopt_failed", error=str(error))
            return
        if client is not None:
            self._received(client, data)
            self._read(client)  # the rest is there already, most likely

    def _take(self, connection: socket.socket) -> _Client | None:
        """Make a client of a connection; None if there are too many."""
        with connection:
            connection.setblocking(False)
            if len(self._clients) >= self._options.max_connections:
                logs.limited("http.too_many_connections", limit=self._options.max_connections)
                with contextlib.suppress(OSError):
                    connection.send(encode(_BUSY, False))
                return None
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._lot.park(connection.fileno(), READ)
            fd = connection.detach()
        self._clients[fd] = client = self._client(fd)
        self._counters.http_connects += 1
        self._counters.http_connections += 1
        return client

    def _client(self, fd: int) -> _Client:
        client = _Client(fd, self._now)
        client.http = HttpConnection(self._options, lambda: self._answered.add(client))
        return client

    def _read(self, client: _Client) -> None:
        http = client.http
        if http.full or client.out:
            # Not until the app server has taken some answers: mute it, or epoll would report it for ever.
            self._set_mask(client, WRITE if client.out else NOTHING)
            return
        try:
            data = os.read(client.fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close(client)
            return
        if not data:
            if http.waiting and not client.lingering:
                # It has said all it will say (a half-close), but waits for its answers.
                http.finished = True
                self._set_mask(client, NOTHING)
            else:
                self._close(client)
            return
        if not client.lingering:
            self._received(client, data)

    def _received(self, client: _Client, data: bytes) -> None:
        http = client.http
        began = http.in_request
        for request, place in http.receive(data):
            self._dispatch(request, place)
        if http.in_request != began or not began:
            client.since = self._now
        if http.finished or http.in_request:
            self._answered.add(client)  # a refusal, or 100 Continue

    def _dispatch(self, request: Request, reply: Place) -> None:
        self._counters.http_requests += 1
        handler = self._routes.find(request.path)
        if handler is None:
            reply(_NOT_FOUND)
            return
        try:
            handler(request, reply)
        except Exception as error:  # a defect of one route must not take the router down
            logs.error("http.route_failed", error, path=request.path)
            reply(_INTERNAL)

    # ------------------------------------------------------------------ answers

    def flush(self) -> None:
        """End of a turn: write the answers that have come since the last call."""
        self._now = self._monotonic()
        while self._answered:
            client = self._answered.pop()
            if self._clients.get(client.fd) is client:
                self._write(client, client.http.take())

    def _write(self, client: _Client, data: bytes) -> None:
        out = client.out
        if out:
            out += data
            data = bytes(out)
        if data:
            try:
                sent = os.write(client.fd, data)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(client)
                return
            client.out = bytearray(data[sent:]) if sent < len(data) else bytearray()
            if len(client.out) > self._options.max_write_bytes:
                self._close(client)
                return
        http = client.http
        if client.out:
            self._set_mask(client, WRITE)
        elif http.finished and not http.waiting:
            self._linger(client)
        elif client.mask != READ and not http.full:
            self._set_mask(client, READ)

    def _set_mask(self, client: _Client, mask: int) -> None:
        if client.mask != mask:
            client.mask = mask
            self._lot.change(client.fd, mask)

    def _linger(self, client: _Client) -> None:
        """Everything is said: tell the peer so, and read on until it closes, lest a reset swallow the answer."""
        if client.lingering:
            return
        client.lingering = True
        self._counters.http_bad_requests += client.http.refused
        client.since = self._now
        half_close(client.fd)
        self._set_mask(client, READ)

    def _close(self, client: _Client) -> None:
        if self._clients.pop(client.fd, None) is None:
            return
        self._lot.unpark(client.fd)
        os.close(client.fd)
        self._counters.http_disconnects += 1
        self._counters.http_connections -= 1

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """To be called about once a second: requests that take too long, connections idle for too long."""
        now = self._monotonic()
        options = self._options
        for client in list(self._clients.values()):
            waited = now - client.since
            if client.lingering:
                if waited > _LINGER_S:
                    self._close(client)
            elif client.http.waiting:
                if client.out and waited > options.idle_timeout:
                    self._close(client)
            elif client.http.in_request:
                if waited > options.request_timeout:
                    client.http.give_up(408, "Request Timeout")
                    self._answered.add(client)
            elif waited > options.idle_timeout:
                self._close(client)

    def stop_listening(self) -> None:
        """Accept no more; what is open goes on, and each connection ends after its next answer."""
        if self._listener is not None:
            self._lot.unpark(self._listener.fileno())
            self._listener.close()
            self._listener = None

    @property
    def waiting(self) -> bool:
        """Whether any request is without its answer."""
        return any(client.http.waiting or client.out for client in self._clients.values())

    def close(self) -> None:
        """Close everything at once."""
        self.stop_listening()
        for client in list(self._clients.values()):
            self._close(client)
