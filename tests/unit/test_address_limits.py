"""What one address may have of a worker, against plain counts."""

from __future__ import annotations

import json
from math import comb

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.shard import Shard

from farm.worker.address_limits import AddressLimits, Registrations, share
from farm.worker.clock import Clock
from router.common import messages as m
from router.common.client_address import Networks
from router.common.client_keys import NOBODY, ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.metrics import WorkerCounters
from router.common.poller import INPUT, READ
from router.common.refusals import TOO_MANY_OF_ADDRESS, TOO_OFTEN

PROXIES = Networks(("10.0.0.0/8", "fd00::/8"))
ADDRESSES = ("192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "10.1.2.3", "")


class World:
    """A worker's limits, and the time."""

    def __init__(self, workers: int = 1, **limits: float) -> None:
        self.options = LimitOptions(**limits)  # type: ignore[arg-type]
        self.counters = WorkerCounters()
        self.clock = Clock(lambda: 1000.0)
        made = AddressLimits.of(self.options, workers, ClientKeys(PROXIES), self.counters, self.clock)
        assert made is not None
        self.limits = made
        self.registrations = Registrations.of(self.options, made.key, self.counters, self.clock)


def test_without_these_limits_nothing_is_kept() -> None:
    counters, clock = WorkerCounters(), Clock(float)
    assert AddressLimits.of(LimitOptions(), 2, ClientKeys(PROXIES), counters, clock) is None
    assert Registrations.of(LimitOptions(), None, counters, clock) is None


def test_a_64_of_ipv6_is_one_address_and_proxies_are_none() -> None:
    key = ClientKeys(PROXIES)
    assert key("2001:db8::1") == key("2001:db8::ffff:1:2:3") != key("2001:db8:0:1::1")
    assert key("192.0.2.1") != key("192.0.2.2")
    assert [key("10.1.2.3"), key("fd00::1"), key("")] == [NOBODY] * 3
    for number in range(10_000):
        key(f"192.0.{number >> 8}.{number & 255}")
    assert len(key._known) <= 4096


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.sampled_from(ADDRESSES)), max_size=150))
def test_an_address_has_no_more_connections_than_it_may(steps: list[tuple[bool, int, str]]) -> None:
    world, open_now = World(connections_per_address=2), dict[int, str]()
    key = ClientKeys(PROXIES)
    refused = 0
    for comes, fd, address in steps:
        if not comes or fd in open_now:
            open_now.pop(fd, None)
            world.limits.left(fd)
            continue
        there = [one for one in open_now.values() if key(one) == key(address)]
        assert world.limits.arrived(fd, address)
        refusal = world.limits.refusal(fd)
        if key(address) != NOBODY and len(there) >= 2:
            assert refusal is not None and refusal.answer is TOO_MANY_OF_ADDRESS
            refused += 1
            world.limits.left(fd)
        else:
            assert refusal is None
            open_now[fd] = address
    assert world.counters.limited_connections_per_address == refused
    for fd in list(open_now):
        world.limits.left(fd)
    assert not world.limits._counts


def test_a_connection_counts_for_the_client_whose_request_it_carries() -> None:
    world = World(connections_per_address=1)
    assert world.limits.arrived(3, "10.0.0.1")  # a proxy
    for address in ("192.0.2.1", "192.0.2.1", "192.0.2.2"):
        assert world.limits.arrived(3, address) and world.limits.refusal(3) is None
    for fd, address in ((4, "192.0.2.1"), (5, "192.0.2.2")):
        assert world.limits.arrived(fd, address)
    assert [world.limits.refusal(fd) is None for fd in (4, 5)] == [True, False]


@pytest.mark.parametrize("limit", [1, 3, 10, 40, 100, 1000])
@pytest.mark.parametrize("workers", [1, 2, 8])
def test_an_address_that_has_what_it_may_is_hardly_ever_refused_by_a_worker(limit: int, workers: int) -> None:
    most = share(limit, workers)
    part = 1 / workers
    chance = sum(comb(limit, n) * part**n * (1 - part) ** (limit - n) for n in range(most + 1, limit + 1))
    assert chance < 1e-5
    assert limit <= most * workers <= limit + 5 * (limit * workers) ** 0.5 + workers


def test_set_ups_of_an_address_have_a_rate_and_are_told_when_there_is_room() -> None:
    world = World(setups_per_address=0.5, burst_seconds=4)
    for fd in (3, 4):
        assert world.limits.arrived(fd, "192.0.2.1") and world.limits.refusal(fd) is None
    assert world.limits.arrived(5, "192.0.2.1") and world.limits.arrived(6, "192.0.2.2")
    refusal = world.limits.refusal(5)
    assert refusal is not None and refusal.answer is TOO_OFTEN and refusal.wait == pytest.approx(2, abs=0.01)
    assert world.limits.refusal(6) is None
    world.limits.left(5)
    world.clock.now += 2
    assert world.limits.arrived(5, "192.0.2.1") and world.limits.refusal(5) is None


def test_of_those_that_are_refused_only_some_wait_for_their_answer() -> None:
    world = World(connections_per_address=1)
    kept = [world.limits.arrived(fd, "192.0.2.1") for fd in range(3, 103)]
    assert kept == [True] * 65 + [False] * 35
    world.limits.left(10)
    assert not world.limits.arrived(10, "192.0.2.1", answered=False)
    assert world.limits.arrived(10, "192.0.2.1")
    assert world.limits.refusal(10) is not None


def test_what_an_address_registers_beyond_its_rate_waits() -> None:
    world = World(registrations_per_address=1, burst_seconds=2)
    registrations = world.registrations
    assert registrations is not None
    for fd, address in ((3, "192.0.2.1"), (4, "192.0.2.1"), (5, "192.0.2.2"), (6, "10.0.0.1")):
        assert world.limits.arrived(fd, address)
    assert [registrations.registered(fd) for fd in (3, 4, 3, 5)] == [True, False, False, True]
    assert [registrations.registered(6) for _ in range(50)] == [True] * 50
    assert [registrations.may_go_on(fd) for fd in (3, 4, 5)] == [False, False, True]
    world.clock.now += 2
    assert [registrations.may_go_on(fd) for fd in (3, 4)] == [True, True]


def test_of_a_worker_no_more_devices_go_on_in_a_second_than_it_may_register() -> None:
    world = World(registrations_per_worker=2, registrations_per_address=100, burst_seconds=1)
    registrations = world.registrations
    assert registrations is not None
    may = [registrations.registered(fd) for fd in range(3, 13)]
    assert may == [True] + [False] * 9
    registrations.second()
    assert not any(registrations.may_go_on(fd) for fd in range(4, 13))
    world.clock.now += 5
    registrations.second()
    assert [registrations.may_go_on(fd) for fd in range(4, 13)] == [True] * 2 + [False] * 7
    registrations.left(6)
    assert registrations.may_go_on(6)  # another connection that has the descriptor now


def test_a_device_of_an_address_that_has_too_many_is_told_so() -> None:
    shard = Shard({"retry_after": 10}, limits={"connections_per_address": 2})
    try:
        first = shard.talker()
        shard.talker()
        with pytest.raises(ConnectionError, match=r"HTTP/1.1 429 (?s:.*)Retry-After: ([5-9]|1[0-5])\r"):
            shard.open("/talk/x")
        assert shard.counters.limited_connections_per_address == 1
        first.go()
        assert shard.talker().here
    finally:
        shard.close()


def test_a_device_that_registers_too_much_for_its_address_is_read_again_later() -> None:
    shard = Shard(limits={"registrations_per_address": 1, "burst_seconds": 1})
    try:
        device = shard.device()
        ((fd, connection),) = shard.sockets.connections.items()
        for number in range(2):
            channel = f"11111111-2222-3333-4444-{number:012x}"
            device.send(json.dumps({"messageType": "register", "channelID": channel}))
            if connection.mask & READ:
                shard.sockets.ready(fd, INPUT)
            for call in shard.said():
                shard.sockets.received([m.Reply(call.number, m.OK, None)])
        assert not connection.mask & READ
        assert shard.counters.limited_registrations_per_address == 1
        assert shard.counters.limited_registrations_per_second == 0
        shard.clock.pass_by(2)
        for _ in range(8):
            shard.sockets.tick()
        while shard.sockets.waiting:
            shard.sockets.turn()
        assert connection.mask & READ
    finally:
        shard.close()
