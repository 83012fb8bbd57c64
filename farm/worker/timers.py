"""What time does to connections: deadlines, ticks of sessions, keep-alive, broadcasts that are due."""

from __future__ import annotations

from farm.dialects import Effects
from farm.settings import WorkerOptions
from farm.transports.request import Refusal
from farm.worker.broadcasts import BroadcastScan
from farm.worker.clock import Clock
from farm.worker.connection import HANDSHAKE, IDLE, OPEN, Connection
from farm.worker.effects import Performer, failed
from farm.worker.grants import Grants
from farm.worker.keepalive_scan import KeepaliveScan
from farm.worker.output import Output
from farm.worker.table import Table
from farm.worker.turns import Turns
from farm.worker.wheel import Bucket, Wheel
from router.common.close_codes import POLICY
from router.common.metrics import WorkerCounters
from router.common.refusals import NOT_DECIDED, SLOW


class Timers:
    """Handles what is due. A connection has no timer but its place in the wheel."""

    def __init__(
        self,
        connections: Table,
        clock: Clock,
        wheel: Wheel,
        options: WorkerOptions,
        counters: WorkerCounters,
        turns: Turns,
        output: Output,
        performer: Performer,
        broadcasts: BroadcastScan,
        grants: Grants,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._wheel = wheel
        self._options = options
        self._counters = counters
        self._turns = turns
        self._output = output
        self._performer = performer
        self._broadcasts = broadcasts
        self._grants = grants
        self._keepalive = KeepaliveScan(options.keepalive / 2)
        self._due = clock.now

    def meet(self, connection: Connection) -> None:
        """There is a new connection."""
        self._keepalive.meet(connection.fd)
        timeout = min(connection.transport.request_timeout, self._options.handshake_timeout)
        connection.bucket = self._wheel.arm(connection.fd, timeout)

    def tick(self) -> None:
        """To be called several times a second."""
        now = self._clock.tick()
        while self._due <= now:
            self._due += self._wheel.tick_seconds
            self._wheel.advance(self._fire)
        self._output.tick(now)
        for connection in self._turns.overdue(now):
            self._counters.timeouts += 1
            self._output.close(connection, POLICY, "a message took too long")
        for ending in self._grants.tick(now):
            self._output.close(*ending)
        for fd in self._keepalive.due(now):
            self._keep_alive(fd)
        for connection, effects in self._broadcasts.step(self._connections):
            self._performer.perform(connection, effects)

    def _keep_alive(self, fd: int) -> None:
        """Ping a device that was silent for long: one that is gone does not acknowledge it, and TCP then gives up."""
        connection = self._connections.get(fd)
        if connection is None or connection.phase != OPEN or connection.out is not None:
            return
        if self._clock.now - connection.since >= self._options.keepalive:
            ping = connection.transport.ping(b"")
            if ping:
                self._output.write(connection, ping)

    def _fire(self, fd: int, bucket: Bucket) -> None:
        connection = self._connections.get(fd)
        if connection is None or connection.bucket is not bucket:
            return
        connection.bucket = None
        if connection.phase == IDLE:
            self._output.drop(connection, "no next request came in time")
        elif connection.phase == HANDSHAKE:
            self._counters.timeouts += 1
            if connection.call:
                refusal = Refusal.of(NOT_DECIDED)
                self._output.finish(connection, connection.transport.refusal(refusal, None))
            elif connection.reader:
                refusal = Refusal.of(SLOW)
                self._output.finish(connection, connection.transport.refusal(refusal, None))
            else:
                self._output.drop(connection, "no request came in time")
        elif connection.phase == OPEN and connection.session is not None:
            effects: Effects
            try:
                effects, again = connection.session.tick(self._clock.now - connection.since)
            except Exception as error:
                effects, again = (failed(error),), 0.0
            self._performer.perform(connection, effects)
            if again and connection.phase == OPEN:
                connection.bucket = self._wheel.arm(fd, again)
