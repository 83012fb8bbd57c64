"""A rate for each of many keys in a table of bounded size, against a table that has room for all."""

from __future__ import annotations

from array import array

from hypothesis import given
from hypothesis import strategies as st

from router.common.rate_table import RateTable

STEPS = st.lists(
    st.tuples(
        st.integers(0, 20),  # the key
        st.integers(0, 12),  # eighths of a second that pass before
        st.integers(1, 4),
    ),
    max_size=200,
)
RATES = st.sampled_from((0.5, 1.0, 2.0, 4.0))
BURSTS = st.sampled_from((1.0, 2.0, 5.0))


class Buckets:
    """A bucket of tokens for each key, as the limit is explained to users."""

    def __init__(self, rate: float, burst: float) -> None:
        self.rate, self.burst = rate, burst
        self.buckets: dict[int, tuple[float, float]] = {}

    def tokens(self, key: int, now: float) -> float:
        tokens, at = self.buckets.get(key, (self.burst, now))
        return min(self.burst, tokens + (now - at) * self.rate)

    def spend(self, key: int, now: float, count: int) -> None:
        self.buckets[key] = (self.tokens(key, now) - count, now)


@given(STEPS, RATES, BURSTS)
def test_with_places_for_all_it_is_a_bucket_of_tokens_a_key(
    steps: list[tuple[int, int, int]], rate: float, burst: float
) -> None:
    table, model, now = RateTable(rate, burst, 21), Buckets(rate, burst), 1000.0
    for key, eighths, count in steps:
        now += eighths / 8
        tokens = model.tokens(key, now)
        assert abs(table.wait(key, now) - max(0.0, (1 - tokens) / rate)) < 1e-3
        wait = table.take(key, now, count)
        assert (wait == 0) == (tokens >= 1 - 1e-4)
        if not wait:
            model.spend(key, now, count)
        else:
            assert table.take(key, now + wait + 1e-3, count) == 0
            now += wait + 1e-3
            model.spend(key, now, count)


@given(STEPS, RATES, BURSTS, st.integers(1, 6))
def test_with_fewer_places_no_key_is_allowed_more(
    steps: list[tuple[int, int, int]], rate: float, burst: float, most: int
) -> None:
    table, model, now = RateTable(rate, burst, most), Buckets(rate, burst), 1000.0
    for key, eighths, count in steps:
        now += eighths / 8
        if not table.take(key, now, count):
            assert model.tokens(key, now) >= 1 - 1e-4
            model.spend(key, now, count)
        assert len(table) <= most


@given(STEPS, RATES, BURSTS, st.integers(1, 6))
def test_what_is_counted_in_any_case_is_owed(
    steps: list[tuple[int, int, int]], rate: float, burst: float, most: int
) -> None:
    table, model, now = RateTable(rate, burst, most), Buckets(rate, burst), 1000.0
    for key, eighths, count in steps:
        now += eighths / 8
        may = table.add(key, now, count)
        model.spend(key, now, count)
        if may:
            assert model.tokens(key, now) >= 1 - 1e-4
        assert may == (table.wait(key, now) == 0)
        assert len(table) <= most


def test_a_flood_of_other_keys_makes_no_room_for_one_that_has_taken_all() -> None:
    table = RateTable(1.0, 10.0, 64)
    assert [table.take("greedy", 0.0) for _ in range(10)] == [0.0] * 10
    for number in range(10_000):
        table.take(number, 0.5)
        assert table.take("greedy", 0.5) > 0
    assert len(table) == 64
    assert table.take("greedy", 1.5) == 0


def test_a_flood_takes_nothing_from_one_that_has_a_place() -> None:
    """It has its place while it has not paid for what it was allowed."""
    table, allowed = RateTable(1.0, 2.0, 64), 0
    table.take("steady", 0.0, 2)
    for second in range(1, 50):
        for number in range(200):
            table.take((second, number), float(second))
        allowed += not table.take("steady", float(second))
    assert allowed == 49


def test_a_flood_that_lasts_leaves_others_the_rate_of_a_cell() -> None:
    """New keys get no place while it lasts. They are allowed less, and all of it again soon after it."""
    table = RateTable(1.0, 2.0, 16)
    for second in range(20):
        for number in range(2000):
            table.take((second, number), float(second))
    assert table.take("late", 19.0) > 0
    assert table.take("late", 22.0) == 0


def test_memory_does_not_grow_with_keys() -> None:
    table = RateTable(0.001, 2.0, 16)
    for number in range(5000):
        table.take(number, number / 1000)
    assert (len(table._keys), len(table._places), len(table._cells)) == (16, 16, 16)
    assert isinstance(table._cells, array)
