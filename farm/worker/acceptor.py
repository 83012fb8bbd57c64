"""The listener of a worker: connections are accepted in batches, and not while there is no room for them."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable

from farm.capacity import REFUSAL_ROOM
from farm.settings import WorkerOptions
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from farm.worker.table import Table
from router.common import logs
from router.common.metrics import WorkerCounters
from router.common.poller import READ, Poller


class Acceptor:
    """Accepts. `meet` takes each new connection. Some more than may stay are accepted, so that they hear why not."""

    def __init__(
        self,
        connections: Table,
        poller: Poller,
        clock: Clock,
        options: WorkerOptions,
        counters: WorkerCounters,
        max_connections: int,
        meet: Callable[[Connection], None],
    ) -> None:
        self._connections = connections
        self._poller = poller
        self._clock = clock
        self._batch = options.accept_batch
        self._counters = counters
        self._meet = meet
        self._listener: socket.socket | None = None
        self._listening = False
        self.max_connections = max_connections

    @property
    def full(self) -> bool:
        """Whether there are more connections than may stay."""
        return len(self._connections) > self.max_connections

    def listen(self, listener: socket.socket) -> None:
        """Accept from this listener (listening) from now on."""
        listener.setblocking(False)
        self._listener = listener
        self._listening = True
        self._poller.register(listener.fileno(), READ)

    def stop(self) -> None:
        """Accept no more. Who is in the queue stays there for another worker on the same listener."""
        if self._listener is not None:
            if self._listening:
                self._poller.unregister(self._listener.fileno())
            self._listener.close()
            self._listener = None
            self._listening = False

    def ready(self, fd: int) -> None:
        """Something has come for a descriptor that is no connection's."""
        if self._listener is not None and fd == self._listener.fileno():
            self._accept(self._listener)

    def _accept(self, listener: socket.socket) -> None:
        accept = listener._accept  # type: ignore[attr-defined]  # accept() without a socket object a connection
        room = self.max_connections + REFUSAL_ROOM - len(self._connections)
        for _ in range(min(self._batch, room)):
            try:
                fd, _ = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                # Out of descriptors or memory: leave them in the queue until something has been closed.
                self._cannot_accept(error)
                return
            try:
                os.set_blocking(fd, False)
                self._poller.register(fd, READ)
            except OSError as error:
                os.close(fd)
                self._cannot_accept(error)
                return
            connection = Connection(fd, READ, self._clock.now)
            self._connections[fd] = connection
            self._meet(connection)
            self._counters.connects += 1
        if room <= self._batch:
            self._pause()

    def _cannot_accept(self, error: OSError) -> None:
        logs.limited("device.accept_failed", error=str(error), hint="it is tried again when there is room")
        self._pause()

    def _pause(self) -> None:
        if self._listener is not None and self._listening:
            self._listening = False
            self._poller.unregister(self._listener.fileno())

    def resume(self) -> None:
        """Accept again if there is room again."""
        if self._listener is not None and not self._listening and len(self._connections) < self.max_connections:
            try:
                self._poller.register(self._listener.fileno(), READ)
            except OSError as error:  # no memory for it: tried again at the next tick
                logs.limited("device.accept_failed", error=str(error))
                return
            self._listening = True
