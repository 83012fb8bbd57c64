"""The app servers' port: connections in the router's poller, driven by the pure `HttpConnection`.

`router.http.arrivals` has how they come.

One connection does not disturb the others: each has a share of each turn (`Turns`); the bytes that wait in all of them
are counted together, and beyond the limit the largest is given up; an idle one is closed to make room for a new one;
and an exception that an event of a connection raises closes that connection only.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from router.common import health, logs
from router.common.metrics import RouterCounters
from router.common.poller import BROKEN, NOTHING, READ, WRITE, Poller
from router.common.refusals import NOT_OWNED, REQUEST_TIMEOUT, TOO_MUCH
from router.common.settings import EndpointOptions, Listen
from router.common.tls_settings import TlsOptions
from router.common.wires import PLAIN, Wire
from router.core.gathering import Senders
from router.gate import Gate
from router.http.acceptor import Acceptor
from router.http.arrivals import SOON, Arrivals
from router.http.clients import Client, Clients
from router.http.message import INTERNAL, PendingResponse, Request, Response, rejection
from router.http.routes import NOT_FOUND, Router
from router.http.turns import Turns

_READ_BYTES = 16_384
_WRITE_BYTES = 262_144
_SMALL = 512  # bytes; less of one connection is not counted: a usual request would be added and subtracted again
_LINGER_S = 2.0
_AT_WORK: Final = 32
"""So many connections may have their whole share of requests in a turn; where there are more, each has less."""
_OPTIONS = Response(200, headers=(("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),))
_UNOWNED: Final = rejection(NOT_OWNED, ("Retry-After", "2"))
_LISTEN: Final = Listen()
_TLS: Final = TlsOptions()
_ALWAYS: Final = frozenset(path.encode() for path in health.PAGES)
"""Of a router whose lease is over, too."""


class HttpPort:
    """Accepts, reads, hands requests to the routes, and writes their answers when `flush` is called."""

    gate: Gate | None = None

    def __init__(
        self,
        listener: socket.socket,
        poller: Poller,
        routes: Router,
        options: EndpointOptions,
        counters: RouterCounters,
        monotonic: Callable[[], float],
        turns: Turns,
        shared: bool = False,
        listen: Listen = _LISTEN,
        wire: Wire = PLAIN,
        tls: TlsOptions = _TLS,
    ) -> None:
        """shared: other routers accept from this listener, too. listen: which proxies are believed. wire: a `TlsWire`
        where the port speaks TLS."""
        self._acceptor = Acceptor(listener, poller, shared)
        self._poller = poller
        self._routes = routes
        self._options = options
        self._counters = counters
        self._monotonic = monotonic
        self._now = monotonic()  # as of the last flush
        self._turns = turns
        self.senders = Senders()
        self._at_work = 0  # connections that had requests handled since the last flush
        self._share = options.requests_a_turn
        self._all = Clients(options, self._now)
        self._clients = self._all.by_fd
        self._answered: set[Client] = set()
        self._arrivals = Arrivals(
            self._acceptor,
            poller,
            self._all,
            options,
            listen,
            counters,
            wire,
            tls,
            self._answered.add,
            self._close,
        )
        self._read_wire = wire.read
        self._write_wire = wire.write
        self._shut_wire = wire.shut
        self._close_wire = wire.close
        self._plain: set[PendingResponse] = set()
        """While the gate is shut: answers to what came in this turn, which may be sent all the same."""
        self.leaving = False
        """Whether who keeps a connection is to come back by another one, which a balancer leads elsewhere."""

    # ------------------------------------------------------------------ events

    def ready(self, fd: int, events: int) -> None:
        """Handle an event that epoll reports for one of our descriptors."""
        client = self._clients.get(fd)
        if client is None:
            if fd == self._acceptor.fd:
                self._arrivals.accept()
            elif fd in self._all.arriving:
                self._arrive(fd, events)
            return
        try:
            if events & WRITE:
                self._write(client, b"")
            if self._clients.get(fd) is not client:
                return
            if events & BROKEN:
                self._close(client)
            elif events & READ:
                self._read(client)
        except Exception as error:
            self._failed(client, error)

    def _failed(self, client: Client, error: Exception) -> None:
        """An error in the handling of a connection closes that connection, and nothing else."""
        self._counters.http_failed += 1
        logs.limited("http.connection_failed", at="error", per=type(error).__name__, exc=error)
        self._close(client)

    def adopt(self, fd: int, data: bytes, address: str = "") -> None:
        """Serve a connection that another process has accepted, and from which it has read these bytes. We close it.

        address: of the client, if it is not the peer's.
        """
        client = self._arrivals.adopt(fd, address)
        if client is not None:
            self._begin(client, data)

    def _arrive(self, fd: int, events: int) -> None:
        """Something has come on a connection that has its opening."""
        try:
            begun = self._arrivals.go_on(fd, events)
        except Exception as error:
            self._counters.http_failed += 1
            logs.limited("http.connection_failed", at="error", per=type(error).__name__, exc=error)
            self._arrivals.leave(fd)
            return
        if begun is not None:
            self._begin(*begun)

    def _begin(self, client: Client, data: bytes) -> None:
        """HTTP begins on a connection, with these bytes."""
        if client.refused:
            return
        try:
            self._received(client, data)
            if self._clients.get(client.fd) is client:
                self._read(client)  # the rest is there already, most likely
        except Exception as error:
            self._failed(client, error)

    @property
    def limit(self) -> int:
        """Connections that it holds at once."""
        return self._all.limit

    @property
    def full(self) -> bool:
        """Whether a connection that came now would be refused."""
        return self._all.full

    # ------------------------------------------------------------------ requests

    def _read(self, client: Client) -> None:
        http = client.http
        if http.full or http.more or client.out:
            # Not read until its requests have had their turn and their answers are written. Muted, because epoll would
            # report it again and again.
            self._set_mask(client, WRITE if client.out else NOTHING)
            return
        try:
            data = self._read_wire(client.fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._close(client)
            return
        if not data:
            if http.waiting and not client.lingering:
                # It sends nothing more (a half-close), but waits for its answers.
                http.finished = True
                self._set_mask(client, NOTHING)
            else:
                self._close(client)
            return
        if not client.lingering:
            self._received(client, data)

    def _received(self, client: Client, data: bytes) -> None:
        http = client.http
        begun, in_request = http.begun, http.in_request
        ready = http.receive(data, self._share)
        if ready:
            self._at_work += 1
            self.senders.sent(client)
        for request, pending in ready:
            self._dispatch(request, pending)
        if ready and http.drained and client.mask == READ:  # the usual: whole requests, and nothing behind them
            client.since = self._now
            self._count(client)
            return
        if http.begun != begun or http.in_request != in_request:
            client.since = self._now
        if http.finished or http.in_request:
            self._answered.add(client)  # a refusal, or 100 Continue
        if self._count(client):
            self._go_on(client)

    def _go_on(self, client: Client) -> None:
        """Have its next requests come: those that it has sent already in the next turn, others by being read."""
        http = client.http
        if http.full or client.out or http.finished:
            return
        if http.more:
            if not client.queued:
                client.queued = True
                self._turns.add(lambda: self._next_turn(client))
        elif client.mask != READ:
            self._set_mask(client, READ)

    def _next_turn(self, client: Client) -> bool:
        client.queued = False
        if self._clients.get(client.fd) is client and not client.out:  # else when its answers are taken
            try:
                self._received(client, b"")
            except Exception as error:
                self._failed(client, error)
        return False

    def _dispatch(self, request: Request, reply: PendingResponse) -> None:
        self._counters.http_requests += 1
        if self.leaving:
            reply.connection.end_behind(reply)
        if self.gate is not None and self.gate.shut:
            self._plain.add(reply)
            if request.path not in _ALWAYS:
                self._counters.http_unowned += 1
                if self.gate.for_long:  # another host serves what this one cannot, and the balancer knows which
                    reply.connection.end_behind(reply)
                reply(_UNOWNED)
                return
        handler = self._routes.find(request.path)
        if handler is None:
            reply(_OPTIONS if request.path == b"*" else NOT_FOUND)
            return
        try:
            handler(request, reply)
        except Exception as error:  # an error in one route must not end the router
            kind, path = type(error).__name__, self._routes.route(request.path)
            logs.limited(
                "http.route_failed", at="error", per=kind, exc=error, path=path.decode(), request_id=request.id()
            )
            reply(INTERNAL)

    # ------------------------------------------------------------------ answers

    def flush(self) -> None:
        """End of a turn: write the answers that have come since the last call."""
        self._now = self._monotonic()
        self._all.begin_turn(self._now)
        self._arrivals.begin_turn()
        whole = self._options.requests_a_turn
        self._share = whole if self._at_work <= _AT_WORK else max(1, whole * _AT_WORK // self._at_work)
        self._at_work = 0
        if self._answered and self.gate is not None and self.gate.look():
            for client in tuple(self._answered):
                self._counters.http_unowned += client.http.take_back(_UNOWNED, self._plain)
        self._plain.clear()
        while self._answered:
            client = self._answered.pop()
            if self._clients.get(client.fd) is client:
                try:
                    self._write(client, client.http.take())
                except Exception as error:
                    self._failed(client, error)

    def _write(self, client: Client, data: bytes) -> None:
        out = client.out
        if not out and len(data) <= _WRITE_BYTES:  # the usual
            if data:
                try:
                    sent = self._write_wire(client.fd, data)
                except BlockingIOError:
                    sent = 0
                except OSError:
                    self._close(client)
                    return
                if sent < len(data):
                    out += data[sent:]
            self._written(client)
            return
        out += data
        if out:
            try:
                # Both are let go at once: an error's trace would keep them, and `out` could not be emptied.
                with memoryview(out) as view, view[:_WRITE_BYTES] as first:
                    sent = self._write_wire(client.fd, first)
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(client)
                return
            if sent:
                del out[:sent]
                client.since = self._now  # a peer that takes bytes is not idle
        self._written(client)

    def _written(self, client: Client) -> None:
        """After a write: what follows, now that some of its answers may be gone."""
        if not self._count(client):
            return
        http = client.http
        if http.deferred:
            http.make_deferred()
        if client.out:
            self._set_mask(client, WRITE)
        elif http.finished and not http.waiting:
            self._linger(client)
        else:
            self._go_on(client)

    # ------------------------------------------------------------------ what waits

    def _count(self, client: Client) -> bool:
        """Update the sum of what waits; if it is beyond the limit and this one adds to it, the largest is given up.

        Returns: whether this one is still open.
        """
        held = client.http.held + len(client.out)
        if held == client.held or (held < _SMALL and not client.held):
            return True
        counters = self._counters
        counters.http_buffered += held - client.held
        client.held = held
        while counters.http_buffered > self._options.max_buffered_bytes and (client.out or client.http.in_request):
            self._give_up_largest()
        return self._clients.get(client.fd) is client

    def _give_up_largest(self) -> None:
        """Give up the connection with the most bytes of output or of an unfinished request; there is one. Bodies of
        requests that are being handled are in the sum, but cannot be given up."""
        largest = max((c for c in self._clients.values() if c.out or c.http.in_request), key=lambda c: c.held)
        self._counters.http_given_up += 1
        logs.limited(
            "http.buffers_full",
            limit=self._options.max_buffered_bytes,
            given_up=largest.held,
            hint="endpoint.max_buffered_bytes",
        )
        if largest.out:
            self._close(largest)
            return
        largest.http.give_up(TOO_MUCH, "", SOON)
        self._counters.http_buffered += largest.http.held - largest.held
        largest.held = largest.http.held

    def _set_mask(self, client: Client, mask: int) -> None:
        if client.mask != mask:
            client.mask = mask
            self._poller.change(client.fd, mask)

    def _linger(self, client: Client) -> None:
        """All answers are written: close our half, and read until the peer closes, or a reset could discard them."""
        if client.lingering:
            return
        client.lingering = True
        if not client.refused:
            self._all.answered_all[client] = None
        self._counters.http_bad_requests += client.http.refused and not client.refused
        client.since = self._now
        self._shut_wire(client.fd)
        self._set_mask(client, READ)

    def _close(self, client: Client) -> None:
        if not self._all.remove(client):
            return
        self._poller.unregister(client.fd)
        self._close_wire(client.fd)
        self._counters.http_disconnects += 1
        self._counters.http_connections -= 1
        self._counters.http_buffered -= client.held
        client.held = 0
        client.out.clear()
        self.senders.gone(client)
        self._acceptor.resume()

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """To be called about once a second: ends requests that take too long and connections idle for too long."""
        now = self._now = self._all.now = self._monotonic()
        self._acceptor.resume()
        self._arrivals.tick()
        for client in list(self._clients.values()):
            try:
                self._look_at(client, now - client.since)
            except Exception as error:
                self._failed(client, error)

    def _look_at(self, client: Client, waited: float) -> None:
        options = self._options
        if client.lingering:
            if waited > _LINGER_S:
                self._close(client)
        elif client.http.waiting:
            if client.out and waited > options.idle_timeout:
                self._close(client)
        elif client.http.in_request:
            if waited > options.request_timeout:
                client.http.give_up(REQUEST_TIMEOUT)
                self._answered.add(client)
        elif waited > options.idle_timeout:
            self._close(client)

    def stop_listening(self) -> None:
        """Accept no more; what is open goes on, and each connection ends after its next answer."""
        self._acceptor.close()

    @property
    def waiting(self) -> bool:
        """Whether any request is without its answer."""
        return any(client.http.waiting or client.out for client in self._clients.values())

    def close(self) -> None:
        """Close everything at once."""
        self.stop_listening()
        self._arrivals.close()
        for client in list(self._clients.values()):
            self._close(client)
