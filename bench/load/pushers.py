"""A load process of app servers: keep-alive HTTP connections that push to random channels, on one epoll loop.

Flat out, each connection has one push outstanding and sends the next when it is answered. At a rate, pushes
are due at even steps whatever the answers do (open loop), and a push that waits for a free connection waits
on the clock. Of several processes each takes its turn in the steps: all begin at the same microsecond, and
each is a step of the whole behind the one before it.

The version of a push is the microsecond of CLOCK_MONOTONIC at which it was sent, or due: the device
process, on the same machine, has the latency from the frame alone. Versions rise, and a channel is not
pushed to again before its push is answered, so channel and version name one push. Started by
`bench.runs.load_processes`, with which it talks over a descriptor:

    <- begin    with the channels and their paths    -> up
    <- go       start, seconds, rate, phase, count   -> progress ..., pushed with every push
    <- halt     end the run now                      -> pushed
    <- stop
"""

import gc
import os
import random
import select
import socket
import time
from array import array
from collections import Counter
from typing import Final

from bench.load.frames import PeerError
from bench.load.http_bytes import Response
from bench.load.link import Link, LinkClosedError, Message
from bench.load.protocols import WIRES
from bench.load.samples import NO_ANSWER
from bench.load.sockets import Address, Outbox, error_name, open_connection

READ_BYTES: Final = 4096
EVENTS: Final = 256
PROGRESS_SECONDS: Final = 0.2
KNOWN_RESPONSES: Final = 256
ROOM_SECONDS: Final = 0.002
UNANSWERED: Final = Response(NO_ANSWER, 0, closes=True)
NEVER: Final = 1 << 62


class Connection:
    """One HTTP connection; `channel` is the position of the channel it pushes to, -1 while it has nothing
    outstanding."""

    __slots__ = ("channel", "data", "descriptor", "sent", "version")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.channel = -1
        self.version = 0
        self.sent = 0
        self.data = b""


class Pushers:
    """The connections of this process and their loop."""

    def __init__(self, link: Link, begin: Message) -> None:
        order = begin.fields
        self.link = link
        self.address = Address(*order["address"])
        self.wire = WIRES[order["wire"]](order["host"], order.get("authorization", ""))
        self.timeout_us = int(order["timeout"] * 1e6)
        self.payload: int = order["payload"]
        self.channels = begin.numbers(0, "I")
        self.paths = begin.blobs[1].split(b"\n")
        self.wanted = min(order["connections"], len(self.paths))
        self.epoll = select.epoll()
        self.outbox = Outbox(self.epoll)
        self.connections: dict[int, Connection] = {}
        self.idle: list[Connection] = []
        self.busy: set[int] = set()
        self.known: dict[bytes, Response] = {}
        self.last_version = 0
        self.next_progress = 0.0
        self.stopped = False
        self._forget_run()

    def _forget_run(self) -> None:
        self.going = False
        self.start = self.end = 0
        self.step = self.phase = 0.0
        self.count = 0
        self.quota = NEVER
        self.fruitless = 0
        self.errors: Counter[str] = Counter()
        self.pushed_channels = array("I")
        self.pushed_versions = array("q")
        self.statuses = array("H")
        self.times = array("I")

    # ---- the loop

    def run(self) -> None:
        control = self.link.sock.fileno()
        self.epoll.register(control, select.EPOLLIN)
        self.link.send("up")
        while not self.stopped:
            if self.going:
                self._push_due()
            if self.step and self.going:
                # epoll waits in whole milliseconds; a push is due to the microsecond
                select.select((self.epoll,), (), (), self._patience())
                ready = self.epoll.poll(0, EVENTS)
            else:
                ready = self.epoll.poll(self._patience(), EVENTS)
            for descriptor, events in ready:
                if descriptor == control:
                    self._commands()
                elif (connection := self.connections.get(descriptor)) is not None:
                    self._event(connection, events)
            self._look_around()

    def _patience(self) -> float:
        if not self.going:
            return PROGRESS_SECONDS
        now = _now()
        wait: float = self.end - now
        if now < self.start:
            wait = min(wait, self.start - now)
        elif self.step and self.idle and self.count < self.quota:
            wait = min(wait, self._due(self.count) - now)
        elif not self.step and self.idle and self.count < self.quota and not self._has_room():
            wait = min(wait, ROOM_SECONDS * 1e6)
        return min(max(wait / 1e6, 0.0), PROGRESS_SECONDS)

    def _commands(self) -> None:
        for message in self.link.read():
            if message.kind == "go":
                self._forget_run()
                while len(self.connections) < self.wanted and self._connect():
                    pass
                self.going = True
                self._go(**message.fields)
            elif message.kind == "halt" and self.start:
                self.end = min(self.end, _now())
            elif message.kind == "stop":
                self.stopped = True

    def _go(self, start: int, seconds: float, rate: float, phase: float, count: int) -> None:
        """`start` and `phase` in microseconds, the latter of this process in the steps of all; 0 seconds, or a count
        of 0: no limit by it."""
        self.start = start
        self.end = start + int(seconds * 1e6) if seconds else NEVER
        self.quota = count or NEVER
        self.step = 1e6 / rate if rate else 0.0
        self.phase = phase

    def _look_around(self) -> None:
        now = _now()
        done = now >= self.end or (self.count >= self.quota and not self.busy)
        if self.going and (done or self.fruitless > 3 * self.wanted + 16):
            self.end = min(self.end, now)
            self.going = False
        if now < self.next_progress and (self.going or self.busy or not self.start):
            return
        for connection in list(self.connections.values()):
            if connection.channel >= 0 and now - connection.sent > self.timeout_us:
                self._lose(connection, "no answer in time")
        if self.start and not self.going and not self.busy:
            self._report()
        if now >= self.next_progress:
            self.next_progress = now + int(PROGRESS_SECONDS * 1e6)
            self.link.send("progress", pushed=len(self.statuses))

    # ---- pushing

    def _due(self, number: int) -> int:
        return self.start + round(self.phase + number * self.step)

    def _due_before(self, end: int) -> int:
        """How many pushes were due before this time."""
        number = max(0, int((end - self.start - self.phase) / self.step) - 1)
        while self._due(number) < end:
            number += 1
        return number

    def _push_due(self) -> None:
        now = _now()
        if now < self.start:
            return
        # no more than are idle now: a refused connection leaves a new one behind
        for _ in range(min(len(self.idle), self.quota - self.count)):
            if not self.step:
                if not self._has_room():
                    break
                self._push(self.idle.pop(), _now())
            elif self.idle and (due := self._due(self.count)) <= now and due < self.end:
                self._push(self.idle.pop(), due)
            else:
                break

    def _push(self, connection: Connection, version: int) -> None:
        connection.channel, connection.version = channel, version = self._begun(version)
        self._send(connection, self.wire.request(self.paths[channel], version, self.payload))

    def _begun(self, version: int) -> tuple[int, int]:
        """The position of a channel to push to, busy from now on, and the version of the push: this one, or later."""
        self.count += 1
        channel = self._chosen()
        self.busy.add(channel)
        self.last_version = version = max(version, self.last_version + 1)
        return channel, version

    def _send(self, connection: Connection, request: bytes) -> None:
        connection.sent = _now()
        try:
            self.outbox.send(connection.descriptor, request)
        except OSError as error:
            self._lose(connection, error_name(error))

    def _chosen(self) -> int:
        """The position of the channel to push to next: any that has no push outstanding."""
        channel = int(random.random() * len(self.paths))
        while channel in self.busy:
            channel = int(random.random() * len(self.paths))
        return channel

    def _has_room(self) -> bool:
        """Whether, flat out, one more may be sent now; asked again after `ROOM_SECONDS`."""
        return True

    def _event(self, connection: Connection, events: int) -> None:
        try:
            if events & select.EPOLLOUT:
                self.outbox.flush(connection.descriptor)
            if not events & ~select.EPOLLOUT:
                return
            data = os.read(connection.descriptor, READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(connection, error_name(error))
            return
        if not data:
            if connection.channel < 0 and self.statuses:  # the server ends what has been idle for long: no failure
                self.fruitless += 1
                self._close(connection)
            else:
                self._lose(connection, "closed by the server")
            return
        if connection.data:
            data, connection.data = connection.data + data, b""
        known = self.known.get(data)
        if known is None:
            try:
                response = self.wire.response(data)
            except PeerError as error:
                self._lose(connection, str(error))
                return
            if response is None:
                connection.data = data
                return
            if response.size != len(data) or connection.channel < 0:
                self._lose(connection, "more than one answer")
                return
            known = response
            if len(self.known) >= KNOWN_RESPONSES:
                self.known.clear()
            self.known[data] = known
        self._answered(connection, known)

    def _answered(self, connection: Connection, response: Response) -> None:
        if connection.channel < 0:
            self._lose(connection, "an answer to nothing")
            return
        self._record(connection, response)
        self.fruitless = 0
        if response.closes:
            self._close(connection)
        elif self.going and not self.step and self.count < self.quota and self._has_room():
            self._push(connection, _now())
        else:
            self.idle.append(connection)

    def _record(self, connection: Connection, response: Response) -> None:
        self._note(connection.channel, connection.version, response.status)
        connection.channel = -1

    def _note(self, channel: int, version: int, status: int) -> None:
        """Take one push down."""
        self.pushed_channels.append(self.channels[channel])
        self.pushed_versions.append(version)
        self.statuses.append(status)
        self.times.append(max(0, min(_now() - version, 0xFFFF_FFFF)))
        self.busy.discard(channel)

    # ---- connections

    def _connect(self) -> bool:
        try:
            descriptor = open_connection(self.address)
            try:
                self.wire.greet(descriptor)
            except OSError:
                os.close(descriptor)
                raise
        except OSError as error:
            self.errors[error_name(error)] += 1
            self.fruitless += 1
            return False
        connection = self.connections[descriptor] = Connection(descriptor)
        self.idle.append(connection)
        self.epoll.register(descriptor, select.EPOLLIN)
        return True

    def _lose(self, connection: Connection, why: str) -> None:
        """A connection broke. Whether its push was accepted is not known: it counts as unanswered, neither
        delivered nor lost."""
        self.errors[why] += 1
        self.fruitless += 1
        if connection.channel >= 0:
            self._record(connection, UNANSWERED)
        self._close(connection)

    def _close(self, connection: Connection) -> None:
        if connection in self.idle:
            self.idle.remove(connection)
        self.outbox.forget(connection.descriptor)
        del self.connections[connection.descriptor]
        os.close(connection.descriptor)
        if self.going:
            self._connect()

    def _report(self) -> None:
        due = self._due_before(self.end) if self.step else self.count
        if self.quota != NEVER:
            due = self.quota
        self.link.send(
            "pushed",
            self.pushed_channels.tobytes(),
            self.pushed_versions.tobytes(),
            self.statuses.tobytes(),
            self.times.tobytes(),
            start=min(self.start, self.end),
            end=self.end,
            unsent=max(0, due - self.count),
            errors=dict(self.errors),
            connections=len(self.connections),
        )
        self._forget_run()


def _now() -> int:
    return time.monotonic_ns() // 1000


def main(descriptor: int) -> None:
    gc.disable()
    link = Link(socket.socket(fileno=descriptor))
    try:
        Pushers(link, link.wait()).run()
    except LinkClosedError:
        return
