"""Numbers that name messages: strictly growing in one router, and never those of another."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.common import Clock

from router.common.numbers import (
    MAX_ROUTERS,
    SECOND,
    Sequencer,
    first_number,
    first_sequence,
    next_epoch,
    router_of,
    seconds_until,
)

_routers = st.lists(st.integers(0, MAX_ROUTERS - 1), min_size=2, max_size=4, unique=True)
_steps = st.lists(st.tuples(st.integers(0, 3), st.sampled_from([-3600.0, -1.0, 0.0, 1e-6, 0.5, 3600.0])), max_size=40)


@given(_routers, _steps)
def test_sequences_of_routers_never_meet_whatever_their_clocks_do(
    routers: list[int], steps: list[tuple[int, float]]
) -> None:
    clocks = [Clock() for _ in routers]
    sequencers = [Sequencer(router, clock.unix, clock.monotonic) for router, clock in zip(routers, clocks, strict=True)]
    given_out: list[list[int]] = [[] for _ in routers]
    for who, step in steps:
        who %= len(routers)
        clocks[who].unix_s += step
        given_out[who].append(sequencers[who].next())
    for numbers in given_out:
        assert all(before < after for before, after in pairwise(numbers))
    everything = [number for numbers in given_out for number in numbers]
    assert len(set(everything)) == len(everything)
    assert all(0 < number < 2**63 for number in everything)


@given(st.integers(0, MAX_ROUTERS - 1), st.integers(0, MAX_ROUTERS - 1))
def test_another_owner_goes_on_above_what_the_one_before_gave(first: int, second: int) -> None:
    clock = Clock()
    last = Sequencer(first, clock.unix, clock.monotonic).next()
    clock.unix_s -= 3600
    owner = Sequencer(second, clock.unix, clock.monotonic)
    owner.begin_after(last)
    assert last < owner.next() < last + SECOND


def test_a_sequence_is_a_time_and_a_tag() -> None:
    clock = Clock()
    sequencer = Sequencer(MAX_ROUTERS - 1, clock.unix, clock.monotonic)
    parts = [divmod(sequencer.next(), SECOND) for _ in range(3)]
    assert [time for time, _ in parts] == [int(clock.unix_s)] * 3
    assert parts == sorted(parts)
    assert all(tag < 2**53 for _, tag in parts)


def test_a_clock_is_past_a_sequence_after_the_time_that_is_said() -> None:
    sequence = 20 * SECOND + 7
    assert seconds_until(sequence, 18.5) == pytest.approx(1.5)
    assert seconds_until(sequence, 21.0) == 0


@given(_routers, st.integers(0, 2**50), st.floats(0, 4e9))
def test_epochs_grow_and_are_another_in_each_router(routers: list[int], previous: int, now: float) -> None:
    epochs = [next_epoch(previous, router, now) for router in routers]
    assert len(set(epochs)) == len(routers)
    assert all(previous < epoch < 2**53 for epoch in epochs)


def test_what_is_given_out_after_an_epoch_began_comes_after_its_first_sequence() -> None:
    clock = Clock()
    before = Sequencer(7, clock.unix, clock.monotonic).next()
    clock.pass_by(0.002)
    epoch = next_epoch(0, 7, clock.unix())
    assert before < first_sequence(epoch) <= Sequencer(3, clock.unix, clock.monotonic).next()


@given(st.integers(0, MAX_ROUTERS - 1), st.binary(min_size=1, max_size=64), st.integers(0, 2**53))
def test_an_answer_finds_the_router_that_asked(router: int, incarnation: bytes, asked: int) -> None:
    first = first_number(router, incarnation)
    assert router_of(first) == router_of(first + asked) == router
    assert 0 <= first + asked < 2**63


@pytest.mark.parametrize("router", [-1, MAX_ROUTERS])
def test_a_router_beyond_the_bits_is_refused(router: int) -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="number"):
        Sequencer(router, clock.unix, clock.monotonic)
    with pytest.raises(ValueError, match="number"):
        next_epoch(0, router, 0)
    with pytest.raises(ValueError, match="number"):
        first_number(router, b"life")
