"""The history of the last hour: slots of time and what they hold, and what is sampled of a farm's status."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from farm.supervisor.history import History
from farm.supervisor.sampling import Sampler
from router.common.histogram import Histogram

DEVICES = ("", "devices")


def filled(history: History, *moments: float) -> History:
    for moment in moments:
        history.add(moment, {DEVICES: moment})
    return history


def test_samples_come_oldest_first_with_gaps_where_there_was_none() -> None:
    history = filled(History(10, 6), 100, 111, 139.9)
    found = history.since(60)
    assert found == {"interval": 10, "last": 13, "series": {"devices": [100, 111, None, 139.9]}, "processes": {}}


def test_only_so_many_minutes_and_only_what_has_come_since() -> None:
    history = filled(History(10, 60), *range(100, 400, 10))
    assert history.since(0.5)["series"]["devices"] == [370, 380, 390]
    assert history.since(60, after=37)["series"]["devices"] == [380, 390]
    assert history.since(60, after=39)["series"]["devices"] == []
    assert len(history.since(60, after=1000)["series"]["devices"]) == 30  # of a supervisor that was there before


def test_a_second_sample_in_a_slot_and_a_moment_that_is_over_change_nothing() -> None:
    history = filled(History(10, 6), 100, 109, 95)
    assert history.since(60)["series"]["devices"] == [100]


def test_before_the_first_sample_there_is_nothing() -> None:
    assert History().since(60) == {"interval": 10, "last": -1, "series": {}, "processes": {}}


def test_the_series_of_a_process_that_has_gone_is_forgotten() -> None:
    history = History(10, 4)
    history.add(0, {DEVICES: 1, ("worker 0", "memory"): 5, ("worker 1", "memory"): 6})
    for slot in range(1, 4):
        history.add(slot * 10, {DEVICES: 1, ("worker 0", "memory"): 5})
        assert history.since(60)["processes"]["worker 1"] == {"memory": [6, *[None] * slot]}
    history.add(40, {DEVICES: 1, ("worker 0", "memory"): 5})
    assert history.since(60)["processes"] == {"worker 0": {"memory": [5, 5, 5, 5]}}


@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from(("a", "b", "c"))), max_size=40), st.integers(1, 7))
def test_against_a_plain_dict(steps: list[tuple[int, str]], size: int) -> None:
    history, model, slot, first = History(1, size), dict[tuple[str, int], int](), 0, -1
    for number, (wait, name) in enumerate(steps):
        if wait or first < 0:
            slot += wait
            first = slot if first < 0 else first
            history.add(slot, {("", name): number})
            model[name, slot] = number
    if first < 0:
        return
    slots = range(max(first, slot - size + 1), slot + 1)
    expected = {name: [model.get((name, each)) for each in slots] for name in "abc"}
    kept = {name: values for name, values in expected.items() if any(value is not None for value in values)}
    assert history.since(60)["series"] == kept


def test_an_hour_of_many_processes_is_small() -> None:
    history = History()
    names = [(f"worker {number}", name) for number in range(16) for name in ("memory", "cpu")]
    for slot in range(400):
        history.add(slot * 10, dict.fromkeys(names, 1 / 3 + slot))
    found = history.since(60)
    assert {len(values["cpu"]) for values in found["processes"].values()} == {360}
    assert len(json.dumps(found)) < 100_000


def status(uptime: float, routers: list[dict[str, Any]], workers: list[dict[str, Any]]) -> dict[str, Any]:
    return {"pid": 1, "memory": 1000, "cpu": uptime / 100, "routers": routers, "workers": workers}


def router(pid: int, age: float, **numbers: float) -> dict[str, Any]:
    return {"number": 0, "pid": pid, "age": age, "memory": 500, "cpu": age / 2, **numbers}


def worker(pid: int, running: float, **numbers: float) -> dict[str, Any]:
    return {"shard": 0, "pid": pid, "running": running, "memory": 200, "cpu": running / 4, **numbers}


def test_levels_are_summed_and_counters_become_rates() -> None:
    sampler = Sampler()
    first = sampler.sample(status(5, [router(2, 5, pushes=90)], [worker(3, 5, connections=7, connects=7)]), 100)
    assert first["", "devices"] == 7
    assert first["", "memory"] == 1700
    assert ("", "pushes") not in first
    grown = [worker(3, 15, connections=9, connects=27), {**worker(4, 8, connections=5, connects=5), "shard": 1}]
    second = sampler.sample(status(15, [router(2, 15, pushes=140)], grown), 110)
    assert second["", "devices"] == 14
    assert second["", "pushes"] == 5.0
    assert second["", "connects"] == 2.5  # one of the workers is new: all that it has counted is of this time
    assert second["router 0", "cpu"] == 0.5
    assert second["worker 1", "memory"] == 200
    assert round(second["", "cpu"], 3) == 0.01 + 0.5 + 0.25 + 0.2


def test_a_process_that_was_replaced_or_is_unknown_for_a_while_makes_no_peak() -> None:
    sampler = Sampler()
    sampler.sample(status(5, [router(2, 500, pushes=9000)], [worker(3, 500, connects=8000)]), 100)
    replaced = sampler.sample(status(5, [router(9, 4, pushes=20)], [{"shard": 0, "pid": 3}]), 110)
    assert replaced["", "pushes"] == 2.0
    assert replaced["", "connects"] == 0
    back = sampler.sample(status(5, [router(9, 14, pushes=20)], [worker(3, 520, connects=8010)]), 120)
    assert back["", "connects"] == 1.0
    old = sampler.sample(status(5, [router(9, 24, pushes=20)], [worker(7, 900, connects=5000)]), 130)
    assert old["", "connects"] == 0  # it was there before, and only now it is known
    gone = sampler.sample(status(5, [], [{"shard": 0, "pid": None}]), 140)
    assert gone["", "devices"] == 0


def test_times_are_those_of_what_was_counted_since() -> None:
    sampler, taken = Sampler(), Histogram()
    for _ in range(1000):
        taken.observe(4.0)
    name = "push_delivered_seconds"
    sampler.sample(status(5, [router(2, 5, **taken.snapshot(name))], []), 100)
    for _ in range(98):
        taken.observe(0.0009)
    for _ in range(2):
        taken.observe(0.45)
    found = sampler.sample(status(5, [router(2, 15, **taken.snapshot(name))], []), 110)
    assert 0.0005 < found["", "delivery_p50"] <= 0.001
    assert 0.2 < found["", "delivery_p99"] <= 0.5
    assert ("", "hello_p50") not in found
    nothing = sampler.sample(status(5, [router(2, 25, **taken.snapshot(name))], []), 120)
    assert ("", "delivery_p50") not in nothing
