"""The scan over descriptors: each once in a period, few at a time."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.worker.keepalive_scan import KeepaliveScan


def test_a_round_visits_each_descriptor_once_in_its_period() -> None:
    tour = KeepaliveScan(10.0)
    for fd in range(1000):
        tour.meet(fd)
    seen: Counter[int] = Counter()
    assert not tour.due(0.0)
    for step in range(1, 101):
        visited = tour.due(step / 10)
        assert len(visited) <= 11
        seen.update(visited)
    assert sum(seen.values()) == pytest.approx(1000, abs=1)
    assert max(seen.values()) == 1


@given(st.floats(0.1, 1000), st.integers(1, 5000), st.lists(st.floats(0, 500), max_size=60))
def test_it_never_leaves_the_descriptors_met(period: float, descriptors: int, steps: list[float]) -> None:
    tour = KeepaliveScan(period)
    tour.meet(descriptors - 1)
    now = 0.0
    for step in steps:
        now += step
        visited = tour.due(now)
        assert 0 <= visited.start <= visited.stop <= descriptors


def test_no_period_no_rounds_and_nothing_met_nothing_due() -> None:
    assert not KeepaliveScan(0).due(1.0)
    tour = KeepaliveScan(1.0)
    tour.due(0.0)
    assert not tour.due(5.0)
