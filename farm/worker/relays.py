"""Connections of app servers that came to the device port with TLS.

Their descriptors are of no use to a router without the keys of the session, which are here. So a router is passed one
end of a socket pair instead, and this worker relays what goes either way until both have ended. No more than one read
of either direction waits here: who does not take it is not sent more.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Final

from farm.worker.clock import Clock
from router.common import logs
from router.common.metrics import WorkerCounters
from router.common.poller import BROKEN, NOTHING, READ, WRITE, Poller, half_close
from router.common.wires import Wire

_READ_BYTES: Final = 16_384
_NEVER: Final = float("inf")
_UNWATCHED: Final = -1
"""Stands for the mask of a descriptor that is not in epoll any more: an end that is gone would be reported always."""


class _Way:
    """One end of a relay, and what waits to be written to it."""

    __slots__ = ("ended", "fd", "mask", "out", "shut")

    def __init__(self, fd: int, mask: int) -> None:
        self.fd = fd
        self.mask = mask
        self.out = bytearray()
        self.ended = False  # it sends no more
        self.shut = False  # it was told that no more comes


class _Relay:
    __slots__ = ("asked", "client", "deadline", "router")

    def __init__(self, client: _Way, router: _Way) -> None:
        self.client = client
        self.router = router
        self.asked = True  # what came last came from the client
        self.deadline = _NEVER


class Relays:
    """All of a worker."""

    def __init__(
        self, poller: Poller, wire: Wire, most: int, clock: Clock, close_timeout: float, counters: WorkerCounters
    ) -> None:
        """most: relays at once. close_timeout: for how long one lasts, in seconds, once the router has ended
        it and the client takes no more of what is left."""
        self._poller = poller
        self._wire = wire
        self._most = most
        self._clock = clock
        self._close_timeout = close_timeout
        self._counters = counters
        self._by_fd: dict[int, _Relay] = {}
        self.draining = False
        """Whether those end with which nothing is under way."""

    def __len__(self) -> int:
        return len(self._by_fd) // 2

    def pair(self) -> tuple[socket.socket, socket.socket] | None:
        """Our end, which epoll watches, and the router's, for one more; None: there is no room, no descriptor or no
        memory. What can fail is done here, while the client may still be answered."""
        if len(self) >= self._most:
            return None
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return None
        ours.setblocking(False)
        theirs.setblocking(False)
        try:
            self._poller.register(ours.fileno(), READ)
        except OSError:
            ours.close()
            theirs.close()
            return None
        return ours, theirs

    def begin(self, fd: int, mask: int, ours: socket.socket, data: bytes) -> None:
        """Relay from now on. fd: the client's, which epoll watches for `mask`. ours: of a `pair`. data: what was read
        of the client."""
        relay = _Relay(_Way(fd, mask), _Way(ours.detach(), READ))
        self._by_fd[fd] = self._by_fd[relay.router.fd] = relay
        relay.router.out += data
        self._go_on(relay)

    def ready(self, fd: int, events: int) -> None:
        """Handle an event of epoll; the descriptor need not be one of a relay."""
        relay = self._by_fd.get(fd)
        if relay is None:
            return
        try:
            self._ready(relay, fd, events)
        except Exception as error:
            self._counters.connections_failed += 1
            logs.limited("device.failed", at="error", per=type(error).__name__, exc=error)
            if fd in self._by_fd:
                self._close(relay)

    def _ready(self, relay: _Relay, fd: int, events: int) -> None:
        way, other = (relay.client, relay.router) if fd == relay.client.fd else (relay.router, relay.client)
        if events & (READ | BROKEN) and not way.ended and (not other.out or events & BROKEN):
            try:
                data = self._read(way is relay.client, fd)
            except BlockingIOError:
                pass
            except OSError:
                self._close(relay)
                return
            else:
                way.ended = not data
                other.out += data
                relay.asked = way is relay.client
        elif events & BROKEN:
            if way is relay.client:
                self._close(relay)
                return
            self._unwatch(way)
        self._go_on(relay)

    def _read(self, of_client: bool, fd: int) -> bytes:
        return self._wire.read(fd, _READ_BYTES) if of_client else os.read(fd, _READ_BYTES)

    def _go_on(self, relay: _Relay) -> None:
        """Write what waits, pass ends on, and say what is to be watched."""
        client, router = relay.client, relay.router
        waited = len(client.out)
        try:
            self._write(client, True)
        except OSError:
            self._close(relay)
            return
        if router.ended and (len(client.out) < waited or relay.deadline == _NEVER):
            relay.deadline = self._clock.now + self._close_timeout  # a client that reads has longer
        try:
            if not (client.shut or router.shut):
                self._write(router, False)
        except OSError:  # it has ended, perhaps with an answer that the client is to have
            router.shut = True
        if client.shut or router.shut:  # what the client still sends is thrown away
            router.out.clear()
        if router.ended and not client.out and not client.shut:
            client.shut = True
            self._wire.shut(client.fd)
        if client.ended and not router.out and not router.shut:
            router.shut = True
            half_close(router.fd)
        if client.ended and router.ended and not client.out:
            self._close(relay)
            return
        self._watch(client, router)
        self._watch(router, client)

    def _write(self, way: _Way, to_client: bool) -> None:
        if way.out:
            with contextlib.suppress(BlockingIOError):
                del way.out[: self._wire.write(way.fd, way.out) if to_client else os.write(way.fd, way.out)]

    def _watch(self, way: _Way, other: _Way) -> None:
        mask = (NOTHING if way.ended or other.out else READ) | (WRITE if way.out else NOTHING)
        if mask != way.mask != _UNWATCHED:
            way.mask = mask
            self._poller.change(way.fd, mask)

    def _unwatch(self, way: _Way) -> None:
        if way.mask != _UNWATCHED:
            way.mask = _UNWATCHED
            self._poller.unregister(way.fd)

    def _close(self, relay: _Relay) -> None:
        for way in (relay.client, relay.router):
            del self._by_fd[way.fd]
            self._unwatch(way)
        self._wire.close(relay.client.fd)
        os.close(relay.router.fd)

    def tick(self) -> None:
        """To be called several times a second."""
        for relay in {id(relay): relay for relay in self._by_fd.values()}.values():
            quiet = not (relay.asked or relay.client.out)
            if relay.deadline <= self._clock.now:
                self._close(relay)
            elif self.draining and quiet and not relay.client.shut:
                relay.router.ended = True
                self._go_on(relay)
        self._counters.relayed = len(self)

    def close(self) -> None:
        """End all, at once."""
        for relay in {id(relay): relay for relay in self._by_fd.values()}.values():
            self._close(relay)
