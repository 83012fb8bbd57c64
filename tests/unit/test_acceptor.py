"""Accepting: as many as there are, and fewer where the worker or the router is late."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.common import Clock as StillClock
from support.shard import Shard

from farm.capacity import REFUSAL_ROOM
from farm.settings import WorkerOptions
from farm.worker.acceptor import TURNED_AWAY, Acceptor
from farm.worker.address_limits import AddressLimits
from farm.worker.addresses import Addresses
from farm.worker.clock import Clock
from farm.worker.connection import Connection
from farm.worker.table import Table
from router.common.client_address import Networks
from router.common.client_keys import ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import WorkerCounters
from router.common.poller import INPUT, Poller

BATCH = 64


class Door:
    """A listener, and a router that is as far behind as a test says."""

    def __init__(
        self,
        stack: ExitStack,
        setups_per_second: int = 0,
        setups_wait: float = 0,
        an_address: int = 0,
        tls: bool = False,
        **options: float,
    ) -> None:
        self._stack = stack
        self._time = StillClock()
        self.lag = 0.0
        self.met: list[Connection] = []
        self.addresses = Addresses(Networks(()))
        self.turned_away = 0
        self.poller = Poller()
        stack.callback(self.poller.close)
        self.listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=512))
        self.clock, self.counters = Clock(self._time.monotonic), WorkerCounters()
        limits = LimitOptions(
            setups_per_second=setups_per_second, setups_wait=setups_wait, connections_per_address=an_address
        )
        self.of_addresses = AddressLimits.of(limits, 1, ClientKeys(Networks(())), self.counters, self.clock)
        settings = WorkerOptions(accept_batch=BATCH, **options)  # type: ignore[arg-type]
        self.acceptor = Acceptor(
            Table(),
            self.poller,
            self.clock,
            settings,
            self.counters,
            5000,
            self.addresses,
            self._meet,
            lambda: self.lag,
            limits,
            self.of_addresses,
            None,
            tls,
        )
        self.acceptor.listen(self.listener, backlog=1024)

    def come(self, devices: int) -> list[socket.socket]:
        """So many devices more are in the queue."""
        address = self.listener.getsockname()
        return [self._stack.enter_context(socket.create_connection(address)) for _ in range(devices)]

    def _meet(self, connection: Connection) -> None:
        self.met.append(connection)
        self.turned_away += self.addresses.accepted[connection.fd] is TURNED_AWAY
        self.poller.unregister(connection.fd)
        mine = socket.socket(fileno=connection.fd)
        if self.of_addresses is None:
            mine.close()
        else:
            self._stack.enter_context(mine)

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


@pytest.mark.parametrize("tls", [False, True])
def test_of_an_address_that_has_too_many_some_are_answered_but_none_whose_handshake_is_to_come(
    stack: ExitStack, tls: bool
) -> None:
    door = Door(stack, an_address=2, tls=tls)
    devices = door.come(70)
    while door.turn():
        pass
    of_addresses = door.of_addresses
    assert of_addresses is not None
    refused = [one for one in door.met if of_addresses.refusal(one.fd) is not None]
    assert (len(door.met) - len(refused), len(refused)) == (2, 0 if tls else 64)
    assert door.counters.limited_connections_per_address == 68
    assert devices[-1].recv(1) == b""


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


# ---------------------------------------------------------------------- limits.setups_per_second

RATE, BURST = 160, 16
STEP_S = 1 / 32
EACH = 5
"""What may be accepted in a step."""


def admitted(door: Door, after: float) -> int:
    """So many seconds later, as the worker's loop does it. Returns: how many were accepted."""
    accepted = door.turn(after)
    door.acceptor.resume()
    return accepted + door.turn()


def test_no_more_are_accepted_than_may_be_in_a_second(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE)
    door.come(2 * BURST + 5 * EACH + 1)
    assert [door.turn(), door.turn()] == [BURST, 0]  # after a quiet time a tenth of a second's at once
    assert door.acceptor.held_back
    assert [admitted(door, STEP_S) for _ in range(5)] == [EACH] * 5
    assert admitted(door, 8 * STEP_S) == BURST  # no more are saved up
    assert admitted(door, STEP_S / 8) == 0
    assert admitted(door, STEP_S / 8) == 1
    assert door.counters.setups_held_back == 8


def test_those_that_are_fewer_are_not_held_back(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE)
    for _ in range(20):
        door.come(EACH)
        assert door.turn(after=STEP_S) == EACH
    assert (door.acceptor.held_back, door.counters.setups_held_back) == (False, 0)


def test_it_is_over_when_fewer_come(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE)
    door.come(BURST + 1)
    assert door.turn() == BURST
    assert admitted(door, STEP_S) == 1
    for _ in range(31):
        assert door.acceptor.held_back
        assert admitted(door, STEP_S) == 0
    door.turn(after=STEP_S)
    assert not door.acceptor.held_back


def test_it_is_not_over_because_the_worker_was_busy_meanwhile(stack: ExitStack) -> None:
    """Otherwise it would be looked at in each tick only, and what is saved up in a tick is less than comes in it."""
    door = Door(stack, setups_per_second=RATE)
    door.come(5 * BURST)
    assert door.turn() == BURST
    for _ in range(3):
        assert admitted(door, 0.25) == BURST
        assert door.acceptor.held_back


def test_less_than_one_a_tick_is_a_rate_too(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=1)
    door.come(3)
    assert [admitted(door, 0.25) for _ in range(9)] == [1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_while_connections_are_held_back_their_queue_is_worked_off_in_time(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE, accept_patience=5)
    door.come(BURST + 2 * EACH)
    assert door.turn() == BURST
    assert [admitted(door, STEP_S) for _ in range(3)] == [EACH, EACH, 0]
    assert door.room() == RATE * 5 // 2
    assert admitted(door, 1.0) == 0
    door.come(1)
    assert door.turn() == 1
    assert door.room() == 1024


def test_their_queue_is_as_long_as_ever_where_nobody_is_out_of_patience(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE, accept_patience=0)
    door.come(BURST + EACH)
    assert [door.turn(), admitted(door, STEP_S)] == [BURST, EACH]
    assert door.room() == 1024


def test_of_those_that_are_held_back_who_has_left_does_not_count(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE)
    devices = door.come(BURST + 20 + EACH)
    assert door.turn() == BURST
    for device in devices[BURST : BURST + 20]:
        device.close()
    assert admitted(door, STEP_S) == EACH
    assert door.counters.connections_given_up == 20


def test_a_listener_that_is_left_while_connections_are_held_back_is_not_watched_again(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE)
    door.come(2 * BURST)
    assert door.turn() == BURST
    door.acceptor.stop()
    assert admitted(door, 1.0) == 0


# ---------------------------------------------------------------------- limits.setups_wait

WAIT_S = 0.25
WAITING = 40
"""What may be accepted in that time."""
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


def test_of_those_that_would_wait_for_too_long_some_a_turn_are_turned_away(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE, setups_wait=WAIT_S)
    door.come(BURST + WAITING + 50)
    assert (door.turn(), door.turned_away) == (BURST + 32, 32)
    assert (admitted(door, STEP_S), door.turned_away) == (EACH + 13, 32 + 13)  # WAITING are left
    assert (admitted(door, STEP_S), door.turned_away) == (EACH, 45)
    door.come(EACH + EACH)
    assert (admitted(door, STEP_S), door.turned_away) == (EACH, 45)
    door.come(EACH + 1)
    assert (admitted(door, STEP_S), door.turned_away) == (EACH + 1, 46)
    assert door.counters.connects == len(door.met)


def test_nobody_is_turned_away_for_whom_there_is_no_room(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE, setups_wait=WAIT_S)
    door.acceptor.max_connections = BURST + 7 - REFUSAL_ROOM
    door.come(BURST + WAITING + 50)
    assert (door.turn(), door.turned_away) == (BURST + 7, 7)


def test_the_queue_has_room_for_those_that_wait_and_a_turn_s_that_do_not(stack: ExitStack) -> None:
    door = Door(stack, setups_per_second=RATE, setups_wait=WAIT_S)
    door.come(BURST + EACH)
    assert [door.turn(), admitted(door, STEP_S)] == [BURST, EACH]
    assert door.room() == WAITING + 32


def test_who_is_turned_away_is_told_when_to_come_again(stack: ExitStack) -> None:
    shard = Shard(limits={"setups_per_second": 10, "setups_wait": 0.5})
    stack.callback(shard.close)
    clients = [stack.enter_context(socket.create_connection(shard._listener.getsockname())) for _ in range(8)]
    for client in clients:
        client.sendall(UPGRADE)
    shard.sockets.ready(shard._listener.fileno(), INPUT)
    for fd, events in shard._poller.ready_now():
        shard.sockets.ready(fd, events)
    first, *away = [client.recv(4096) for client in clients[:3]]
    assert first.startswith(b"HTTP/1.1 101 ")
    for answer in away:
        assert answer.startswith(b"HTTP/1.1 503 ")
        (after,) = [line for line in answer.split(b"\r\n") if line.startswith(b"Retry-After: ")]
        assert 15 <= int(after.split()[1]) <= 45
    assert shard.counters.setups_refused == 2
    assert len(shard.sockets) == 1 + 2  # until their clients close, too; the others wait
