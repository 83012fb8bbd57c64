"""Output of connections, and their end.

Output is written at once. What the kernel does not take waits in a bounded buffer with a deadline; beyond either, the
connection is dropped, and its messages are in the store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from typing import Final

from farm.settings import WorkerOptions
from farm.transports import HTTP, Finder, Reader
from farm.transports.request import Refusal
from farm.transports.retry import spread
from farm.worker.address_limits import AddressLimits
from farm.worker.addresses import Addresses
from farm.worker.attachments import Attachments
from farm.worker.budget import Budget
from farm.worker.clock import Clock
from farm.worker.connection import CLOSING, HANDSHAKE, IDLE, OPEN, Connection
from farm.worker.grants import Grants
from farm.worker.interest import Interest
from farm.worker.subscriptions import Subscriptions
from farm.worker.table import Table
from farm.worker.turns import Turns
from farm.worker.wheel import Wheel
from router.common import logs
from router.common.close_codes import TRY_LATER
from router.common.metrics import WorkerCounters
from router.common.openings import Openings
from router.common.poller import READ, WRITE, Poller
from router.common.refusals import NO_ROOM
from router.common.wires import PLAIN, Wire

_DISCARDED: Final = 512  # frames of a connection that is being closed that are looked at in a tick

Due = Callable[[Connection, Iterable[bytes] | None], bytes]


def _nothing_due(connection: Connection, keys: Iterable[bytes] | None) -> bytes:
    return b""


class Output:
    """Writes to connections, and closes them."""

    def __init__(
        self,
        connections: Table,
        poller: Poller,
        interest: Interest,
        clock: Clock,
        options: WorkerOptions,
        counters: WorkerCounters,
        turns: Turns,
        wheel: Wheel,
        attachments: Attachments,
        subscriptions: Subscriptions,
        grants: Grants,
        addresses: Addresses,
        busy: Sized,
        limits: AddressLimits | None = None,
        wire: Wire = PLAIN,
        openings: Openings | None = None,
    ) -> None:
        """limits: None if addresses have none. busy: not empty while events wait for their turn somewhere.
        openings: the connections that have not begun yet; None: all begin with HTTP."""
        self._connections = connections
        self._poller = poller
        self._watch = interest.watch
        self._clock = clock
        self._options = options
        self._counters = counters
        self._turns = turns
        self._wheel = wheel
        self._addresses = addresses
        self._accepted = addresses.accepted
        self._others = addresses.others
        self._attachments = attachments
        self._subscriptions = subscriptions
        self._grants = grants
        self._catch_ups = subscriptions.catch_ups
        self._busy = busy
        self._limits = limits
        self._write_fd = wire.write
        self._shut_fd = wire.shut
        self._close_fd = wire.close
        self._openings = openings
        self.budget = Budget(options.max_buffered_bytes, turns.held)
        self._making_room = False
        self._discarding: list[Connection] = []  # closing, and not read until the next tick
        self._deadlines: dict[Connection, float] = {}  # slow readers and closing connections
        self.due: Due = _nothing_due
        """Takes events that wait in fan-outs for a connection, of these channels or of all: they are written first."""

    # ------------------------------------------------------------------ write

    def write(self, connection: Connection, data: bytes) -> bool:
        """Write, or buffer what the kernel does not take, behind what waits. Returns: whether the kernel has all."""
        if self._busy and (due := self.due(connection, None)):
            data = due + data
        return self.put(connection, data)

    def put(self, connection: Connection, data: bytes) -> bool:
        """Write, or buffer what the kernel does not take. Returns: whether the kernel has all of it."""
        if connection.out is not None:
            self.buffer(connection, data)
            return False
        try:
            sent = self._write_fd(connection.fd, data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.drop(connection)
            return False
        if sent == len(data):
            return True
        connection.out = bytearray()
        self.buffer(connection, data[sent:])
        return False

    def buffer(self, connection: Connection, data: bytes) -> None:
        """The kernel has not taken this. Where nothing else waits it may be of any length, as a page of a log whose
        events are long."""
        assert connection.out is not None
        options = self._options
        most = connection.transport.max_waiting or options.write_buffer_bytes
        if connection.out and len(connection.out) + len(data) > most:
            self._too_slow(connection)
            return
        connection.out += data
        self._deadlines.setdefault(connection, self._clock.now + options.write_timeout)
        self._watch(connection, connection.mask | WRITE)
        self.count(connection)

    def count(self, connection: Connection) -> None:
        """What is buffered for this connection has changed. If the sum is too large, those with most are closed."""
        if self.budget.count(connection) or self._making_room:
            return
        self._making_room = True
        try:
            for largest in self.budget.largest():
                self._give_up(largest)
        finally:
            self._making_room = False

    def _give_up(self, connection: Connection) -> None:
        self._counters.given_up += 1
        limit = self._options.max_buffered_bytes
        logs.limited("device.buffers_full", limit=limit, hint="worker.max_buffered_bytes")
        if connection.out is not None or connection.phase == CLOSING:
            self._too_slow(connection)
        elif connection.phase == HANDSHAKE:
            self.refuse_full(connection)
        elif connection.phase == IDLE:
            self.drop(connection)
        else:
            if isinstance(connection.reader, bytearray):  # of its next request, which it can send again
                connection.reader = None
            self.close(connection, TRY_LATER, "too much is being sent to this server at once")

    def refuse_full(self, connection: Connection) -> None:
        """Answer a request 503: there is no room for the connection, or the worker is about to stop."""
        refusal = Refusal.of(NO_ROOM, Retry_After=spread(self._options.retry_after))
        self.finish(connection, connection.transport.refusal(refusal, None))

    def flush(self, connection: Connection) -> None:
        """The kernel takes more."""
        out = connection.out
        if out is None:
            self._watch(connection, connection.mask & ~WRITE)
            return
        try:
            sent = self._write_fd(connection.fd, out)
        except BlockingIOError:
            return
        except OSError:
            self.drop(connection)
            return
        del out[:sent]
        if out:
            self.count(connection)
            return
        connection.out = None
        self.count(connection)
        self._watch(connection, connection.mask & ~WRITE)
        if connection.phase != CLOSING:
            self._deadlines.pop(connection, None)
            if self._catch_ups:
                self._subscriptions.go_on(connection)
        elif connection.reader is None:
            self._shut(connection)

    def answer(self, connection: Connection, parts: Sequence[bytes], code: int = 0, reason: str = "") -> bool:
        """Give the whole answer of a transport that answers once. Returns: whether the kernel has it all.

        Events that wait for their turn in a fan-out are the answer instead: they came before."""
        if connection.phase != OPEN:
            return False
        transport = connection.transport
        due = self.due(connection, None) if self._busy else b""
        return self.answered(connection, due or transport.answer(parts, code, reason))

    def answered(self, connection: Connection, data: bytes) -> bool:
        """Write the whole answer of a transport that answers once; then comes the next request, or the end.
        Returns: whether the kernel has it all."""
        if connection.phase != OPEN:
            return False
        if not connection.transport.keeps_alive:
            return self.finish(connection, data)
        self._forget(connection)
        connection.call = 0
        self._turns.end(connection)
        connection.phase = IDLE
        connection.transport = HTTP
        connection.since = self._clock.now
        connection.bucket = self._wheel.arm(connection.fd, self._options.next_request_timeout)
        written = self.put(connection, data)
        if connection.phase == IDLE and connection.fd >= 0:
            if connection.reader is not None:
                self._turns.later(connection)
            else:
                self._watch(connection, connection.mask | READ)
        return written

    def _too_slow(self, connection: Connection) -> None:
        """Drop a connection that does not read: a close would not reach it either. Its messages are in the store."""
        self._counters.slow_closed += 1
        logs.debug("device.slow", fd=connection.fd)
        self.drop(connection)

    # ------------------------------------------------------------------ close

    def close(self, connection: Connection, code: int, reason: str, before: list[bytes] | None = None) -> None:
        """Send `before` and our close. Once the peer's has come too, TCP is closed (RFC 6455 7.1.1): to end it before
        that makes the close an unclean one for the peer, which may count it as a failure."""
        if connection.phase == CLOSING or connection.fd < 0:
            return
        transport, reader = connection.transport, connection.reader
        if transport.once and connection.phase == OPEN:
            self.answer(connection, before or (), code, reason)
            return
        finder = transport.finder(reader if isinstance(reader, Reader) else None, self._turns.held.get(connection, ()))
        due = self.due(connection, None) if self._busy else b""
        self.finish(connection, b"".join((due, *(before or ()), transport.close(code, reason))), finder)

    def finish(self, connection: Connection, last: bytes, finder: Finder | None = None, why: str = "") -> bool:
        """Send the last bytes. finder: looks for the peer's close, and nothing more is sent until it has come.

        why: as for `drop`.
        Then our direction is shut, and the peer ends the connection, or the close timeout does: to close at once
        while something of the peer's is unread would reset the connection and could swallow what was sent.
        Returns: whether the kernel has all."""
        if connection.phase == CLOSING or connection.fd < 0:
            return False
        self._forget(connection)
        connection.phase = CLOSING
        connection.reader = finder
        connection.call = 0
        self._turns.end(connection)
        self.count(connection)
        self._deadlines[connection] = self._clock.now + self._options.close_timeout
        if not self.write(connection, last):
            if connection.fd >= 0:
                self._watch(connection, connection.mask | READ)
            return False
        if finder is None:
            self._shut(connection)
        else:
            self._watch(connection, READ)
        return True

    def discard(self, connection: Connection, data: bytes) -> None:
        """Something came on a connection that is being closed."""
        finder = connection.reader
        if not isinstance(finder, Finder):
            return
        if finder.feed(data):
            self.peer_closed(connection)
        elif finder.frames >= _DISCARDED:  # a flood of small ones: the rest is looked at in the next tick
            finder.frames = 0
            self._discarding.append(connection)
            self._watch(connection, connection.mask & ~READ)

    def peer_closed(self, connection: Connection) -> None:
        """The peer's close has come, and ours is out or on its way."""
        if connection.fd >= 0 and connection.reader is not None:
            connection.reader = None
            if connection.out is None:
                self._shut(connection)

    def _forget(self, connection: Connection) -> None:
        """End the session and its subscriptions: no message from here on is for this connection."""
        for key in () if connection.session is None else connection.session.channels:
            self._subscriptions.leave(connection, key)
        if self._grants.kept:
            self._grants.forget(connection)
        self._attachments.forget(connection)

    def _shut(self, connection: Connection) -> None:
        if not self._shut_fd(connection.fd):
            self.drop(connection)
            return
        self._watch(connection, READ)

    def close_back(self, connection: Connection, payload: bytes) -> None:
        """The peer's close has come, with this payload: answer it."""
        self.finish(connection, connection.transport.close_reply(payload))

    def drop(self, connection: Connection, why: str = "") -> None:
        """Close the descriptor now. why: for the log (`farm.worker.device_log`), unless it is the peer who has left."""
        fd = connection.fd
        if fd < 0:
            return
        try:
            self.release(connection, why)
        finally:
            self._poller.unregister(fd)
            self._close_fd(fd)

    def release(self, connection: Connection, why: str = "") -> None:
        """Forget a connection that is open, but for its descriptor: that is the caller's. why: as for `drop`."""
        fd = connection.fd
        connection.fd = -1
        try:
            self._forget(connection)
        finally:
            connection.phase = CLOSING
            connection.call = 0
            connection.reader = connection.out = None
            del self._connections[fd]
            self._deadlines.pop(connection, None)
            self._accepted.pop(fd, None)
            if self._others:
                self._addresses.left(fd)
            self._turns.forget(connection, fd)
            if self._limits is not None:
                self._limits.left(fd)
            self.budget.forget(connection)
            if self._openings:
                self._openings.forget(fd)
            self._counters.disconnects += 1

    def tick(self, now: float) -> None:
        """Drop connections whose time to read or to close is over; read on where a closing peer has sent much."""
        for connection, deadline in list(self._deadlines.items()):
            if deadline <= now:
                if connection.phase == CLOSING:
                    self.drop(connection)
                else:
                    self._too_slow(connection)
        discarding, self._discarding = self._discarding, []
        for connection in discarding:
            self._watch(connection, connection.mask | READ)
