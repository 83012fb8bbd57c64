"""The request that a connection begins with: parsed, given to a dialect, answered."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sized
from typing import Final

from farm.dialects import Dialect
from farm.settings import WorkerOptions
from farm.worker import upgrade
from farm.worker.acceptor import Acceptor
from farm.worker.clock import Clock
from farm.worker.connection import OPEN, Connection
from farm.worker.effects import Performer, effects_of
from farm.worker.fd_passing import Handover
from farm.worker.health import Health
from farm.worker.inbound import Inbound
from farm.worker.output import Output
from farm.worker.sniff import ENOUGH
from farm.worker.table import Table
from farm.worker.transports import Transport
from farm.worker.transports.websocket import WEBSOCKET
from farm.worker.wheel import Wheel
from router.common.health import PAGES
from router.common.metrics import WorkerCounters

_FD_BITS: Final = 24  # of the number in a socket id; its rest counts connections
_MAX_SOCKET_ID: Final = 40


class SocketIds:
    """Names of connections that no other has in this farm, "<digits>.<digits>"."""

    def __init__(self, connections: Table) -> None:
        self._connections = connections
        self._origin = str(int.from_bytes(os.urandom(4), "big"))  # of all socket ids here
        self._serial = 0

    def new(self, fd: int) -> str:
        """A name for a connection that has just come."""
        self._serial += 1
        return f"{self._origin}.{self._serial << _FD_BITS | fd}"

    def find(self, socket_id: str) -> Connection | None:
        """The connection of this name, if it is one of this worker."""
        origin, _, number = socket_id.partition(".")
        if origin != self._origin or not number.isdecimal() or len(socket_id) > _MAX_SOCKET_ID:
            return None
        connection = self._connections.get(int(number) & ((1 << _FD_BITS) - 1))
        if connection is None or connection.session is None or connection.session.socket_id != socket_id:
            return None
        return connection


class Admission:
    """Answers requests. handover: passes connections of app servers on; None: there are only devices."""

    def __init__(
        self,
        dialects: Mapping[str, Dialect],
        options: WorkerOptions,
        counters: WorkerCounters,
        clock: Clock,
        wheel: Wheel,
        acceptor: Acceptor,
        socket_ids: SocketIds,
        output: Output,
        performer: Performer,
        inbound: Inbound,
        clients: Sized,
        health: Health | None,
        handover: Handover | None,
    ) -> None:
        self._dialects = dialects
        self._options = options
        self._counters = counters
        self._clock = clock
        self._wheel = wheel
        self._acceptor = acceptor
        self._socket_ids = socket_ids
        self._output = output
        self._performer = performer
        self._inbound = inbound
        self._clients = clients
        self._health = health
        self._handover = handover
        self.draining = False
        inbound.handshake = self.handshake
        inbound.undecided = self._undecided if handover is not None else None

    def _undecided(self, connection: Connection) -> int:
        """Bytes that may be read until it is known whose this is; what is behind them is left for who goes on."""
        kept = len(connection.reader) if isinstance(connection.reader, bytearray) else 0
        return max(ENOUGH - kept, 0)

    def handshake(self, connection: Connection, data: bytes) -> None:
        """Bytes of a connection that is not open yet."""
        options = self._options
        seen = 0
        request = None
        if connection.reader is not None:
            assert isinstance(connection.reader, bytearray)
            seen = len(connection.reader)
            data = bytes(connection.reader + data)
            connection.reader = None
        if self._handover is not None and self._handover.claims(data):
            self._to_router(connection, data, self._handover)
            return
        try:
            parsed = connection.transport.request(data, options.max_request_bytes, options.max_headers, seen)
            if parsed is None:
                connection.reader = bytearray(data)
                self._output.count(connection)
                return
            if seen:
                self._output.count(connection)
            request, rest = parsed
            path = request.path
            if path in PAGES and self._health is not None:
                self._output.finish(connection, self._health.answer(request, self._acceptor.full, len(self._clients)))
                return
            dialect = self._dialects.get(path) or self._dialects.get(path[: path.rfind("/") + 1] + "*")
            if dialect is None:
                raise upgrade.Refusal(404, "no dialect is spoken on this path")
            transport: Transport = WEBSOCKET
            upgrade.check_plain(request)
            transport.check(request)
            upgrade.check_origin(request, options.origins)
            if self.draining or self._acceptor.full:
                self._counters.connections_refused += 1
                raise upgrade.Refusal(503, "full", Retry_After=str(self._options.retry_after))
            request.socket_id = self._socket_ids.new(connection.fd)
            connection.session = session = dialect.opened(request)
        except upgrade.Refusal as refusal:
            self._counters.upgrades_refused += 1
            self._output.finish(connection, connection.transport.refusal(refusal, request))
            return
        protocol = dialect.subprotocol(upgrade.offered_subprotocols(request))
        connection.phase = OPEN
        connection.transport = transport
        self._counters.upgrades += 1
        first = dialect.first_tick
        passed = self._clock.now - connection.since
        connection.bucket = self._wheel.arm(connection.fd, first - passed) if first > 0 else None
        connection.since = self._clock.stamp
        head = transport.head(request, protocol, ())
        self._performer.perform(connection, effects_of(session.begun, self._clock.now), head)
        if rest and connection.phase == OPEN:
            self._inbound.frames(connection, rest)

    def _to_router(self, connection: Connection, data: bytes, handover: Handover) -> None:
        """This is an app server: the router goes on with its connection."""
        if handover.give(connection.fd, data):
            self._counters.handed_over += 1
            self._output.drop(connection)
            return
        self._counters.upgrades_refused += 1
        wait = str(self._options.retry_after)
        refusal = upgrade.Refusal(503, "the router cannot take this now", Retry_After=wait)
        self._output.finish(connection, connection.transport.refusal(refusal, None))
