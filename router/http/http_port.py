"""The app servers' port: connections in the router's poller, driven by the pure `HttpConnection`.

Connections are accepted here, or adopted from a worker on whose port they came in (`router.common.fd_passing`).

What keeps one connection from being felt by the others: it has a share of each turn (`Turns`); all that waits in all
connections is in one sum, and the largest goes when that is too much; an idle one makes room for a new one; and
whatever an event of it raises is its own end.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
from collections import deque
from collections.abc import Callable
from operator import attrgetter
from typing import Final

from router.common import logs
from router.common.metrics import RouterCounters
from router.common.poller import BROKEN, NOTHING, READ, WRITE, Poller, half_close
from router.common.settings import EndpointOptions
from router.core.gathering import Senders
from router.http.http1 import HttpConnection
from router.http.message import PendingResponse, Request, Response
from router.http.routes import NOT_FOUND, Router
from router.http.turns import Turns

_READ_BYTES = 16_384
_WRITE_BYTES = 262_144
_SLOW_S = 1.0  # that a request is unfinished until its connection may have to make room
_SMALL = 512  # bytes; less of one connection is not counted: a usual request would be added and subtracted again
_ACCEPT_BATCH = 256
_LINGER_S = 2.0
_RESERVE: Final = 64
"""Descriptors that connections never take: the store, the link and the logs need some."""
_AT_WORK: Final = 32
"""So many connections may have their whole share of requests in a turn; where there are more, each has less."""
_INTERNAL = Response(500, b'"Internal Server Error"')
_OPTIONS = Response(200, headers=(("Allow", "GET, HEAD, POST, PUT, DELETE, OPTIONS"),))
_SOON = ("Retry-After", "5")


_by_since = attrgetter("since")


class _Client:
    """One connection of an app server."""

    __slots__ = ("fd", "held", "http", "lingering", "mask", "out", "queued", "refused", "since")

    http: HttpConnection

    def __init__(self, fd: int, now: float) -> None:
        self.fd = fd
        self.out = bytearray()
        self.mask = READ
        self.since = now  # last time something began: a request, or being idle
        self.held = 0  # bytes, as they are in the sum of all
        self.lingering = False
        self.queued = False  # for another turn
        self.refused = False  # because there are too many

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self.http.idle and not self.out and not self.lingering


class HttpPort:
    """Accepts, reads, hands requests to the routes, and writes their answers when `flush` is called."""

    def __init__(
        self,
        listener: socket.socket,
        poller: Poller,
        routes: Router,
        options: EndpointOptions,
        counters: RouterCounters,
        monotonic: Callable[[], float],
        turns: Turns,
    ) -> None:
        listener.setblocking(False)
        self._listener: socket.socket | None = listener
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
        self._clients: dict[int, _Client] = {}
        self._answered: set[_Client] = set()
        self._told: dict[_Client, None] = {}  # those that linger, but for the refused ones, which take nobody's place
        self._longest_idle: deque[tuple[float, _Client]] = deque()
        self._looked_for_idle = False  # in this turn
        self._refusals = 0
        self._accepting = True
        self.limit = min(options.max_connections, max(1, _descriptors() - options.max_refusals - _RESERVE))
        if self.limit < options.max_connections:
            logs.warning(
                "http.few_descriptors",
                connections=self.limit,
                wanted=options.max_connections,
                hint="raise the limit of open files (ulimit -n, LimitNOFILE), or lower endpoint.max_connections",
            )
        poller.register(listener.fileno(), READ)

    # ------------------------------------------------------------------ events

    def ready(self, fd: int, events: int) -> None:
        """Deal with what epoll said of one of our descriptors."""
        client = self._clients.get(fd)
        if client is None:
            if self._listener is not None and fd == self._listener.fileno():
                self._accept()
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

    def _failed(self, client: _Client, error: Exception) -> None:
        """Whatever went wrong with a connection is the end of that connection, and of nothing else."""
        self._counters.http_failed += 1
        logs.limited("http.connection_failed", at="error", per=type(error).__name__, exc=error)
        self._close(client)

    # ------------------------------------------------------------------ new connections

    def _accept(self) -> None:
        assert self._listener is not None
        for _ in range(_ACCEPT_BATCH):
            if self._refusals >= self._options.max_refusals and not self._room():
                self._pause_accepting()
                return
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                logs.limited("http.accept_failed", error=str(error), hint="it is tried again when there is room")
                if error.errno != errno.EMFILE or not self._evict():
                    self._pause_accepting()
                    return
            else:
                self._welcome(connection)

    def _pause_accepting(self) -> None:
        """Leave them in the queue until something has been closed, or the next tick."""
        if self._accepting and self._listener is not None:
            self._accepting = False
            self._poller.unregister(self._listener.fileno())

    def _resume_accepting(self) -> None:
        if not self._accepting and self._listener is not None:
            self._accepting = True
            self._poller.register(self._listener.fileno(), READ)

    def adopt(self, fd: int, data: bytes) -> None:
        """Serve a connection that somebody else has accepted, and has read these bytes from. It is ours to close."""
        try:
            connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
        except OSError as error:  # it is no socket
            os.close(fd)
            logs.limited("http.adopt_failed", error=str(error))
            return
        client = self._welcome(connection)
        if client is not None and not client.refused:
            try:
                self._received(client, data)
                if self._clients.get(fd) is client:
                    self._read(client)  # the rest is there already, most likely
            except Exception as error:
                self._failed(client, error)

    def _welcome(self, connection: socket.socket) -> _Client | None:
        """Make a client of a connection: one that is told 503 if there are too many; None if it has gone already."""
        refused = not self._room()
        with connection:
            try:
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._poller.register(connection.fileno(), READ)
            except OSError as error:
                logs.limited("http.accept_failed", error=str(error))
                return None
            fd = connection.detach()
        self._clients[fd] = client = _Client(fd, self._now)
        client.http = HttpConnection(self._options, lambda: self._answered.add(client))
        client.http.out = client.out
        self._counters.http_connects += 1
        self._counters.http_connections += 1
        if refused:
            logs.limited("http.too_many_connections", limit=self.limit)
            self._counters.http_refused += 1
            self._refusals += 1
            client.refused = True
            client.http.give_up(503, "Too many connections", _SOON)
        return client

    @property
    def full(self) -> bool:
        """Whether a connection that came now would be refused."""
        taken = len(self._clients) - self._refusals
        return taken >= self.limit and not self._told and not any(client.idle for client in self._clients.values())

    def _room(self) -> bool:
        """Whether there is room for a connection, perhaps because an idle one had to go."""
        return len(self._clients) - self._refusals < self.limit or self._evict()

    def _evict(self) -> bool:
        """Close a connection that is told all, or else the one idle for longest, or else the one that has been at an
        unfinished request for longest. Returns: whether there was one."""
        if self._told:
            self._close(next(iter(self._told)))
            return True
        if not self._longest_idle:
            if self._looked_for_idle:
                return False
            self._looked_for_idle = True
            clients = self._clients.values()
            idle = sorted((client for client in clients if client.idle), key=_by_since)
            slow = sorted((client for client in clients if self._is_slow(client)), key=_by_since)
            self._longest_idle = deque((client.since, client) for client in (*idle, *slow))
        while self._longest_idle:
            since, client = self._longest_idle.popleft()
            if self._clients.get(client.fd) is not client or client.since != since:
                continue
            slow_one = self._is_slow(client)
            if (client.idle or slow_one) and not _has_input(client.fd):
                self._counters.http_evicted += 1
                if slow_one:
                    client.http.give_up(408, "Request Timeout")
                    with contextlib.suppress(OSError):
                        os.write(client.fd, client.http.take())
                self._close(client)
                return True
        return False

    def _is_slow(self, client: _Client) -> bool:
        """Whether it is at a request that it could have finished, and waits for nothing of ours."""
        http = client.http
        return http.in_request and not http.waiting and not client.out and self._now - client.since > _SLOW_S

    # ------------------------------------------------------------------ requests

    def _read(self, client: _Client) -> None:
        http = client.http
        if http.full or http.more or client.out:
            # Not until its requests have had their turn and their answers are taken: mute it, or epoll would report it
            # for ever.
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

    def _go_on(self, client: _Client) -> None:
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

    def _next_turn(self, client: _Client) -> bool:
        client.queued = False
        if self._clients.get(client.fd) is client and not client.out:  # else when its answers are taken
            try:
                self._received(client, b"")
            except Exception as error:
                self._failed(client, error)
        return False

    def _dispatch(self, request: Request, reply: PendingResponse) -> None:
        self._counters.http_requests += 1
        handler = self._routes.find(request.path)
        if handler is None:
            reply(_OPTIONS if request.path == b"*" else NOT_FOUND)
            return
        try:
            handler(request, reply)
        except Exception as error:  # a defect of one route must not take the router down
            logs.limited("http.route_failed", at="error", per=type(error).__name__, exc=error, path=request.path[:200])
            reply(_INTERNAL)

    # ------------------------------------------------------------------ answers

    def flush(self) -> None:
        """End of a turn: write the answers that have come since the last call."""
        self._now = self._monotonic()
        self._looked_for_idle = False
        whole = self._options.requests_a_turn
        self._share = whole if self._at_work <= _AT_WORK else max(1, whole * _AT_WORK // self._at_work)
        self._at_work = 0
        while self._answered:
            client = self._answered.pop()
            if self._clients.get(client.fd) is client:
                try:
                    self._write(client, client.http.take())
                except Exception as error:
                    self._failed(client, error)

    def _write(self, client: _Client, data: bytes) -> None:
        out = client.out
        if not out and len(data) <= _WRITE_BYTES:  # the usual
            if data:
                try:
                    sent = os.write(client.fd, data)
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
                with memoryview(out) as view:
                    sent = os.write(client.fd, view[:_WRITE_BYTES])
            except BlockingIOError:
                sent = 0
            except OSError:
                self._close(client)
                return
            if sent:
                del out[:sent]
                client.since = self._now  # whoever takes something is not idle
        self._written(client)

    def _written(self, client: _Client) -> None:
        """What could be written of its answers has been."""
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

    def _count(self, client: _Client) -> bool:
        """Keep the sum of what waits; if it is too much and this one adds to it, the largest is given up.

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
        """There is one with output or an unfinished request. Bodies in work are in the sum, but cannot be given up."""
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
        largest.http.give_up(503, "Too much is being sent to this server at once", _SOON)
        self._counters.http_buffered += largest.http.held - largest.held
        largest.held = largest.http.held

    def _set_mask(self, client: _Client, mask: int) -> None:
        if client.mask != mask:
            client.mask = mask
            self._poller.change(client.fd, mask)

    def _linger(self, client: _Client) -> None:
        """Everything is said: tell the peer so, and read on until it closes, lest a reset swallow the answer."""
        if client.lingering:
            return
        client.lingering = True
        if not client.refused:
            self._told[client] = None
        self._counters.http_bad_requests += client.http.refused and not client.refused
        client.since = self._now
        half_close(client.fd)
        self._set_mask(client, READ)

    def _close(self, client: _Client) -> None:
        if self._clients.pop(client.fd, None) is None:
            return
        self._poller.unregister(client.fd)
        os.close(client.fd)
        self._counters.http_disconnects += 1
        self._counters.http_connections -= 1
        self._counters.http_buffered -= client.held
        client.held = 0
        client.out.clear()
        self._refusals -= client.refused
        self._told.pop(client, None)
        self.senders.gone(client)
        self._resume_accepting()

    # ------------------------------------------------------------------ time

    def tick(self) -> None:
        """To be called about once a second: requests that take too long, connections idle for too long."""
        now = self._now = self._monotonic()
        self._resume_accepting()
        for client in list(self._clients.values()):
            try:
                self._look_at(client, now - client.since)
            except Exception as error:
                self._failed(client, error)

    def _look_at(self, client: _Client, waited: float) -> None:
        options = self._options
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
            self._pause_accepting()
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


def _descriptors() -> int:
    """How many this process may open."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 1 << 30 if limit == resource.RLIM_INFINITY else limit


def _has_input(fd: int) -> bool:
    """Whether something has come that was not read yet, or the connection has gone: epoll will tell."""
    shell = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        shell.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
    finally:
        shell.detach()
    return True
