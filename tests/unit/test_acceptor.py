"""Accepting: as many as there are, and fewer where the worker or the router is late."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.common import Clock as StillClock

from farm.settings import WorkerOptions
from farm.worker.acceptor import Acceptor
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from farm.worker.table import Table
from router.common.metrics import WorkerCounters
from router.common.poller import Poller

BATCH = 64


class Door:
    """A listener, and a router that is as far behind as a test says."""

    def __init__(self, stack: ExitStack, **options: float) -> None:
        self._stack = stack
        self._time = StillClock()
        self.lag = 0.0
        self.met: list[Connection] = []
        self.poller = Poller()
        stack.callback(self.poller.close)
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        self.clock, self.counters = Clock(self._time.monotonic), WorkerCounters()
        settings = WorkerOptions(accept_batch=BATCH, **options)  # type: ignore[arg-type]
        self.acceptor = Acceptor(
            Table(), self.poller, self.clock, settings, self.counters, 5000, {}, self._meet, lambda: self.lag
        )
        self.acceptor.listen(self.listener, backlog=1024)

    def come(self, devices: int) -> list[socket.socket]:
        """So many devices more are in the queue."""
        address = self.listener.getsockname()
        return [self._stack.enter_context(socket.create_connection(address)) for _ in range(devices)]

    def _meet(self, connection: Connection) -> None:
        self.met.append(connection)
        self.poller.unregister(connection.fd)
        socket.socket(fileno=connection.fd).close()

    def room(self) -> int:
        """What the kernel says of the queue's length: of a listener, TCP_INFO has it in tcpi_sacked."""
        info = self.listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        return int(struct.unpack_from("=I", info, 28)[0])

    def turn(self, after: float = 0.0) -> int:
        """Handle what the poller says, so many seconds later. Returns: how many were accepted."""
        self._time.pass_by(after)
        self.clock.read()
        before = len(self.met)
        for fd, _ in self.poller.ready_now():
            self.acceptor.ready(fd)
        return len(self.met) - before


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_all_that_wait_are_accepted_a_batch_a_turn(stack: ExitStack) -> None:
    door = Door(stack)
    door.come(2 * BATCH + 1)
    assert [door.turn() for _ in range(4)] == [BATCH, BATCH, 1, 0]


def test_a_worker_whose_turns_are_long_accepts_fewer_until_they_are_short_again(stack: ExitStack) -> None:
    door = Door(stack)
    door.come(500)
    assert door.turn() == BATCH
    assert door.turn(after=0.4) == BATCH
    assert door.turn(after=1.0) == BATCH // 2
    assert door.turn(after=4.0) == BATCH // 16
    assert [door.turn(after=60.0) for _ in range(3)] == [1, 1, 1]  # never none
    assert [door.turn(after=0.1) for _ in range(7)] == [2, 4, 8, 16, 32, BATCH, BATCH]


def test_time_in_which_nobody_waited_is_no_long_turn(stack: ExitStack) -> None:
    door = Door(stack)
    door.come(1)
    assert door.turn() == 1
    door.come(BATCH)
    assert door.turn(after=60.0) == BATCH


def test_while_the_router_is_behind_there_is_a_smaller_batch_a_tick(stack: ExitStack) -> None:
    door = Door(stack)
    door.come(100)
    door.lag = 2.0
    assert door.turn() == BATCH // 4
    assert door.turn() == 0  # nor is the listener watched: it would be reported without end
    door.acceptor.resume()
    assert door.turn(after=0.25) == BATCH // 16
    door.lag = 0.4
    door.acceptor.resume()
    assert [door.turn() for _ in range(4)] == [8, 16, 32, 24]


def test_a_late_worker_throws_away_who_has_left(stack: ExitStack) -> None:
    door = Door(stack)
    first, second = door.come(BATCH), door.come(BATCH)
    for device in (*first[BATCH // 2 :], *second[: BATCH // 2]):
        device.close()
    assert door.turn() == BATCH  # in good time nobody looks
    assert door.turn(after=1.0) == BATCH // 2
    assert door.counters.connections_given_up == BATCH // 2


def test_a_late_worker_throws_away_who_has_waited_for_too_long(stack: ExitStack) -> None:
    door = Door(stack, accept_patience=0.05)
    first = door.come(2 * BATCH)
    time.sleep(0.1)
    door.come(1)
    assert door.turn() == BATCH  # in good time nobody looks
    assert door.turn(after=1.0) <= 1  # the last, if it has not waited for too long by now
    assert door.counters.connections_given_up >= BATCH
    assert all(device.recv(1) == b"" for device in first[BATCH:])


def test_a_late_worker_has_a_short_queue_until_it_is_in_time(stack: ExitStack) -> None:
    door = Door(stack)
    assert door.room() == 1024  # whatever it was before
    door.come(200)
    assert door.turn() == BATCH
    assert door.turn(after=16.0) == BATCH // 32
    assert door.room() == 16  # of more than that, those that are there stay
    while (accepted := door.turn()) < BATCH and accepted:
        pass
    assert door.room() == 1024


def test_a_listener_that_is_left_has_the_queue_that_was_asked_for(stack: ExitStack) -> None:
    door = Door(stack)
    door.come(2 * BATCH)
    door.turn()
    door.turn(after=16.0)
    other = stack.enter_context(door.listener.dup())
    door.acceptor.stop()
    door.listener = other
    assert door.room() == 1024


def test_it_does_not_matter_where_the_setting_is_0(stack: ExitStack) -> None:
    door = Door(stack, accept_lag=0)
    door.lag = 1e9
    door.come(2 * BATCH)
    assert [door.turn(after=60.0) for _ in range(2)] == [BATCH, BATCH]
