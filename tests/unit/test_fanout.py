"""Fan-outs in slices: whatever comes between, each subscriber receives what it would if all were written at once."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.often import often

from farm.worker.fanout import FanOut, FanOuts

MOST = 12


class LocalChannel:
    """A channel whose subscribers are written to by a FanOut, and beside it what each of them has to receive."""

    def __init__(self) -> None:
        self.fan_outs: FanOuts[str, int] = FanOuts(MOST)
        self.subscribers: dict[int, None] = {}
        self.said = 0
        self.heard: dict[int, list[bytes]] = {}
        self.due: dict[int, list[bytes]] = {}
        self.writes = 0

    @property
    def fan_out(self) -> FanOut[int] | None:
        return self.fan_outs.get("room")

    def say(self, excluded: int | None = None) -> None:
        frame = b"<%d>" % self.said
        fan_out = self.fan_out or self.fan_outs.begin("room", self.subscribers)
        if excluded is not None:
            self.flush(excluded)
        self.said += 1
        self.fan_outs.append("room", frame, float(self.said))
        for subscriber in self.subscribers:
            if subscriber != excluded:
                self.due[subscriber].append(frame)
        if excluded is not None:
            fan_out.leave_out(excluded)

    def join(self, subscriber: int) -> None:
        if subscriber in self.subscribers:
            return
        self.subscribers[subscriber] = None
        self.heard[subscriber] = []
        self.due[subscriber] = []
        self.fan_outs.join("room", subscriber)

    def leave(self, subscriber: int) -> None:
        if subscriber not in self.subscribers:
            return
        self.flush(subscriber)
        assert self.heard[subscriber] == self.due[subscriber]
        del self.subscribers[subscriber], self.heard[subscriber], self.due[subscriber]
        self.fan_outs.leave("room", subscriber)

    def flush(self, subscriber: int) -> None:
        if self.fan_out is not None:
            data, frames = self.fan_out.due(subscriber)
            assert frames == data.count(b"<")
            if frames:
                self.hear(subscriber, data)

    def hear(self, subscriber: int, data: bytes) -> None:
        self.heard[subscriber].append(data)
        self.heard[subscriber] = [b"<" + frame for frame in b"".join(self.heard[subscriber]).split(b"<")[1:]]

    def slice(self, most: int) -> None:
        if not self.fan_outs.going:
            return
        _, fan_out = self.fan_outs.next()
        spent = 0
        while spent < most:
            batch, cost = fan_out.take(most - spent)
            if batch is None:
                break
            assert 1 <= len(batch.subscribers) <= cost <= most - spent
            spent += cost
            self.writes += len(batch.subscribers)
            assert batch.data.count(b"<") == batch.frames
            assert batch.frames == 1 or len(batch.data) <= MOST
            for subscriber in batch.subscribers:
                assert subscriber in self.subscribers
                self.hear(subscriber, batch.data)
        self.fan_outs.took_turn(0.0)

    def finish(self) -> None:
        turns = 0
        while self.fan_outs.going:
            self.slice(3)
            turns += 1
            assert turns < 10_000
        assert self.heard == self.due
        assert self.fan_outs.memory == 0


who = st.integers(0, 7)
step = st.one_of(
    st.tuples(st.just("say"), st.none() | who),
    st.tuples(st.just("join"), who),
    st.tuples(st.just("leave"), who),
    st.tuples(st.just("flush"), who),
    st.tuples(st.just("slice"), st.integers(1, 6)),
)


@settings(max_examples=often(200), deadline=None)
@given(st.lists(step, max_size=60))
def test_each_subscriber_hears_what_was_said_while_it_was_in_once_and_in_order(steps: list[tuple[Any, ...]]) -> None:
    channel = LocalChannel()
    for name, *what in steps:
        getattr(channel, name)(*what)
        for subscriber, heard in channel.heard.items():
            assert heard == channel.due[subscriber][: len(heard)]
    channel.finish()


def test_what_waits_is_joined_into_one_write_for_each() -> None:
    channel = LocalChannel()
    for subscriber in range(10):
        channel.join(subscriber)
    channel.say()
    channel.slice(5)  # half of them have the first
    channel.say()
    channel.slice(5)  # the others have both with one write
    channel.say()
    channel.finish()
    assert channel.writes == 5 + 5 + 10


def test_a_long_frame_is_a_write_by_itself_and_costs_as_many_as_it_takes() -> None:
    fan_outs: FanOuts[str, int] = FanOuts(10_000)
    fan_out = fan_outs.begin("room", range(10))
    fan_outs.append("room", b"a", 0.0)
    fan_outs.append("room", b"b" * 40_000, 0.0)
    assert fan_out.take(10)[0] == (list(range(10)), b"a", 1, 0)
    fan_outs.took_turn(0.0)
    batch, cost = fan_out.take(10)
    assert batch is not None
    assert (batch.subscribers, len(batch.data), cost) == ([0, 1, 2, 3], 40_000, 12)


def test_to_whom_nothing_is_due_is_passed_over_a_part_at_a_time() -> None:
    fan_outs: FanOuts[str, int] = FanOuts(100)
    fan_out = fan_outs.begin("room", range(1000))
    fan_outs.append("room", b"a", 0.0)
    for subscriber in range(999):
        fan_out.due(subscriber)
    costs = []
    while True:
        batch, cost = fan_out.take(10)
        costs.append(cost)
        if batch is not None:
            break
    assert batch.subscribers == [999]
    assert max(costs) <= 10
    assert len(costs) > 10


def test_they_take_turns() -> None:
    fan_outs: FanOuts[str, int] = FanOuts(100)
    for name in ("one", "two"):
        fan_outs.begin(name, range(2))
        fan_outs.append(name, b"a", 0.0)
    order = []
    while fan_outs.going:
        name, fan_out = fan_outs.next()
        fan_out.take(1)
        fan_outs.took_turn(0.0)
        order.append(name)
    assert order[:4] == ["one", "two", "one", "two"]


def test_who_comes_and_goes_without_end_takes_no_memory() -> None:
    channel = LocalChannel()
    for subscriber in range(10):
        channel.join(subscriber)
    most = going = 0
    for number in range(2000):
        if number % 2:
            channel.say()
        channel.leave(number % 10)
        channel.join(number % 10)
        channel.slice(5)
        most = max(most, channel.fan_outs.memory)
        going += bool(channel.fan_outs.going)
    assert going >= 1000
    assert most < 10_000


@pytest.mark.parametrize("more", [False, True])
def test_the_lag_is_that_of_the_last_subscriber(more: bool) -> None:
    fan_outs: FanOuts[str, int] = FanOuts(100)
    fan_out = fan_outs.begin("room", range(4))
    fan_outs.append("room", b"a", 10.0)
    fan_out.take(2)
    fan_outs.took_turn(11.0)
    assert fan_outs.lag(12.0) == 2.0  # it is on its way still
    if more:
        fan_outs.append("room", b"b", 12.0)
    fan_out.take(2)
    fan_outs.took_turn(13.0)
    assert fan_outs.lag(13.5) == 3.0
    assert fan_outs.lag(13.5) == (1.5 if more else 0.0)
