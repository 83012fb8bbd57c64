"""The listeners of a worker: connections are accepted in batches, and no more than can be served.

None is accepted while there is no room. In a storm only as many are accepted as get their answers soon: more of them
would wait behind one another until the devices give up and connect again, and all work would be for devices that have
gone. So where a turn through all that is ready takes longer than `worker.accept_lag`, or the router is behind by that,
the next batch is smaller. The others wait in the kernel's queue, where they cost nothing. A connection whose device has
given up there is closed before anything is done for it, and so is one that has waited for `worker.accept_patience`: the
device that has waited longest is the next to give up.
Then the queue is shortened, too, to a few batches: the kernel does not answer devices that come while it is full, and
asks again for them after 1, 3 and 7 s. A device that does get in is served in time; in a long queue all of them would
wait until it is too late.

Where TLS is spoken none is accepted while more steps of handshakes are due than are done in a turn: each takes as much
as a set-up, and in a storm all would be in the middle of theirs when their time is over.

With `limits.setups_per_second` no more are accepted than that in any case, and the queue is no longer than what is
worked off before it is too late. Those that would wait there for longer than `limits.setups_wait` are accepted beyond
the rate, a few a turn, and turned away: to answer 503 costs about a third of a set-up, and the device knows when to
come again.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, Final

from farm.capacity import REFUSAL_ROOM
from farm.settings import WorkerOptions
from farm.transports import HTTP, Transport
from farm.worker.address_limits import AddressLimits
from farm.worker.addresses import Addresses
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from farm.worker.setup_rate import NO_LIMIT, SetupRate
from farm.worker.table import Table
from router.common import logs
from router.common.client_address import client_address
from router.common.limit_settings import LimitOptions
from router.common.metrics import WorkerCounters
from router.common.openings import Openings
from router.common.poller import READ, Poller

_QUEUED_BATCHES: Final = 4
"""Batches that may wait in the kernel's queue while they are smaller than they might be."""
_LEAST_QUEUED: Final = 16
_PATIENCE_PART: Final = 0.5
"""Of `worker.accept_patience`, what the last in the queue waits where `limits.setups_per_second` holds them back."""
_MOST_GONE: Final = 256
"""Connections of devices that have given up, closed at once."""
_INFO: Final = struct.Struct("=B51xI")
"""Of the kernel's `struct tcp_info`: tcpi_state and tcpi_last_data_recv, in ms."""
_ESTABLISHED: Final = 1
"""TCP's state of that name, in the kernel's numbers."""
_QUEUED: Final = struct.Struct("=24xI")
"""Of the same for a listener, tcpi_unacked: how many connections are in its queue."""
_MOST_TURNED_AWAY: Final = 32
"""In a turn, which take 2 ms: connected devices wait for no more than these."""
TURNED_AWAY: Final = object()
"""Stands for the address of a connection whose request is to be answered 503."""


def waited(fd: int) -> float:
    """For how many seconds the connection, or what its peer sent last, has been here; infinite if the peer has left."""
    shell = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        state, ms = _INFO.unpack(shell.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO.size))
    except OSError:
        return float("inf")
    finally:
        shell.detach()
    return ms / 1000 if state == _ESTABLISHED else float("inf")


class Acceptor:
    """Accepts connections, and gives each to `meet`. A few more than the limit are accepted, to be answered 503.

    addresses: of the peers by descriptor, as accept(2) gives them, or TURNED_AWAY, until their request has come.
    """

    def __init__(
        self,
        connections: Table,
        poller: Poller,
        clock: Clock,
        options: WorkerOptions,
        counters: WorkerCounters,
        max_connections: int,
        addresses: Addresses,
        meet: Callable[[Connection], None],
        lag: Callable[[], float],
        limits: LimitOptions,
        address_limits: AddressLimits | None = None,
        openings: Openings | None = None,
        tls: bool = False,
    ) -> None:
        """lag: for how many seconds the router has not answered. address_limits: None if addresses have none. openings:
        take connections that do not begin with HTTP; None: all do. tls: whether the device port speaks TLS."""
        self._connections = connections
        self._poller = poller
        self._clock = clock
        self._most = self._batch = options.accept_batch
        self._counters = counters
        self._addresses = addresses.accepted
        self._meet = meet
        self._lag = lag
        self._most_lag = options.accept_lag or float("inf")
        self._patience = options.accept_patience or sys.float_info.max
        self._rate = SetupRate(limits.setups_per_second, clock.now)
        self._wait = min(limits.setups_wait or float("inf"), self._patience * _PATIENCE_PART)
        self._turned_away = _MOST_TURNED_AWAY if limits.setups_wait else 0
        self._address_limits = address_limits
        self._openings = openings
        self._tls = tls
        self._left: dict[int, float] = {}  # when a listener's queue was left last, where there was more in it
        self._listeners: dict[int, tuple[socket.socket, Transport]] = {}
        self._backlogs: dict[int, int] = {}  # what was asked for, of the listeners whose queue is ours to change
        self._queue = NO_LIMIT  # what it is now at most, for all of these
        self._paused: list[int] = []  # of them, those that epoll does not watch
        self.max_connections = max_connections

    @property
    def full(self) -> bool:
        """Whether there are more connections than may stay."""
        return len(self._connections) > self.max_connections

    def listen(self, listener: socket.socket, transport: Transport = HTTP, backlog: int = 0) -> None:
        """Accept from this listener (listening) from now on. transport: reads the first bytes of its connections.
        backlog: its backlog, which is lowered while this worker is late; 0: it is left as it is."""
        listener.setblocking(False)
        fd = listener.fileno()
        self._listeners[fd] = (listener, transport)
        if backlog:
            self._backlogs[fd] = backlog
            listener.listen(backlog)  # whoever had it before may have ended while it was late
        self._poller.accepting.add(fd)
        self._poller.register(fd, READ)

    def stop(self) -> None:
        """Accept no more. What is in the queues stays there for another worker on the same listeners."""
        for fd, (listener, _) in self._listeners.items():
            if fd not in self._paused:
                self._poller.unregister(fd)
            if self._queue != NO_LIMIT and fd in self._backlogs:  # another process may have the same listener
                listener.listen(self._backlogs[fd])
            self._poller.accepting.discard(fd)
            listener.close()
        self._listeners.clear()
        self._backlogs.clear()
        self._paused.clear()

    def ready(self, fd: int) -> bool:
        """Something has come for a descriptor that is no connection's. Returns: whether it is a listener."""
        found = self._listeners.get(fd)
        if found is None:
            return False
        self._accept(*found)
        return True

    def _accept(self, listener: socket.socket, transport: Transport) -> None:
        room = self.max_connections + REFUSAL_ROOM - len(self._connections)
        lag = self._lag()
        here = listener.fileno()
        tls = self._tls and transport is HTTP
        if tls and self._openings is not None and self._openings.behind:
            self._left.setdefault(here, self._clock.now)
            return
        rate = self._rate
        allowed = rate.allowed(self._clock.now)
        batch = self._next_batch(here, lag)
        some_may_have_left = tls or batch < self._most or rate.behind(self._clock.now)
        most = max(0, min(batch, room, allowed))
        taken = self._take(listener, transport, most, some_may_have_left)
        if not rate.spend(taken):
            self._counters.setups_held_back += 1
            self._turn_away(listener, transport, room - taken)
            self._pause()  # until there may be more
        elif taken == most:
            self._left[here] = self._clock.now
            if room <= self._most or lag > self._most_lag:
                self._pause()  # until the next tick

    def _turn_away(self, listener: socket.socket, transport: Transport, room: int) -> None:
        """Accept some of those that would wait for too long, to be answered 503."""
        most = min(self._turned_away, room)
        if most > 0:
            (queued,) = _QUEUED.unpack(listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _QUEUED.size))
            too_many = max(0, queued - self._rate.within(self._wait))
            self._take(listener, transport, min(most, too_many), True, TURNED_AWAY)

    def _take(
        self, listener: socket.socket, transport: Transport, most: int, some_may_have_left: bool, instead: Any = None
    ) -> int:
        """Accept so many of a listener. instead: of their address. Returns: how many there were."""
        accept = listener._accept  # type: ignore[attr-defined]  # accept() without a socket object a connection
        gone = 0
        left = most
        while left > 0:
            try:
                fd, address = accept()
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                # Out of descriptors or memory: leave them in the queue until something has been closed.
                self._cannot_accept(error)
                break
            if some_may_have_left and gone < _MOST_GONE and waited(fd) > self._patience:
                os.close(fd)
                gone += 1
                self._counters.connections_given_up += 1
                continue
            of_addresses = self._address_limits
            if of_addresses is not None and not of_addresses.arrived(
                fd, client_address(address), not (self._tls and transport is HTTP)
            ):
                os.close(fd)
                left -= 1
                continue
            try:
                os.set_blocking(fd, False)
                self._poller.register(fd, READ)
            except OSError as error:
                os.close(fd)
                if of_addresses is not None:
                    of_addresses.left(fd)
                self._cannot_accept(error)
                break
            connection = Connection(fd, READ, self._clock.now, transport)
            self._connections[fd] = connection
            self._addresses[fd] = address if instead is None else instead
            self._meet(connection)
            if self._openings is not None:
                self._openings.begin(fd, client_address(address), self._tls and transport is HTTP)
            self._counters.connects += 1
            left -= 1
        return most - left

    def _next_batch(self, listener: int, lag: float) -> int:
        """How many are accepted now. If the queue was not empty when it was left, what has passed until this, its next
        turn, is how long something that is ready waits in this worker."""
        now = self._clock.now
        late = max(lag, now - self._left.pop(listener, now))
        if late > self._most_lag:
            self._batch = max(1, int(self._batch * self._most_lag / late))
        else:
            self._batch = min(self._most, 2 * self._batch)
        queue = NO_LIMIT if self._batch == self._most else _QUEUED_BATCHES * self._batch
        if self._rate.behind(now):
            queue = min(queue, self._rate.within(self._wait) + self._turned_away)
        queue = max(_LEAST_QUEUED, queue)
        if queue != self._queue:
            self._queue = queue
            for fd, backlog in self._backlogs.items():
                self._listeners[fd][0].listen(min(queue, backlog))
        return self._batch

    def _cannot_accept(self, error: OSError) -> None:
        logs.limited("device.accept_failed", error=str(error), hint="it is tried again when there is room")
        self._pause()

    def _pause(self) -> None:
        self._left.clear()
        for fd in self._listeners:
            if fd not in self._paused:
                self._paused.append(fd)
                self._poller.unregister(fd)

    @property
    def held_back(self) -> bool:
        """Whether some were not accepted at once in the last second: then `resume` is to be called again soon."""
        return self._rate.behind(self._clock.now)

    def resume(self) -> None:
        """Accept again if there is room again, and may be."""
        if not self._rate.allowed(self._clock.now):
            return
        while self._paused and len(self._connections) < self.max_connections:
            try:
                self._poller.register(self._paused[-1], READ)
            except OSError as error:  # no memory for it: tried again at the next tick
                logs.limited("device.accept_failed", error=str(error))
                return
            self._paused.pop()
