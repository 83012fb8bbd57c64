"""Figures of the bench: percentiles, rates, ratios of dialects, a farm's status."""

from typing import Any

import pytest

from bench.errors import BenchError
from bench.farm_process import Status, read_status
from bench.figures.dialects import CONNECT_FIGURES, PUSH_FIGURES, ratios
from bench.figures.percentiles import percentiles
from bench.load.protocols import DIALECTS
from bench.load.samples import (
    rates,
)
from bench.runs.load import Load, processes_for
from bench.views.parts import comparison


def test_percentiles_are_nearest_rank() -> None:
    points = percentiles(range(1, 1001), 2)
    assert points == {"p50": 1000, "p90": 1800, "p99": 1980, "p99.9": 1998, "max": 2000}
    assert percentiles([7]) == dict.fromkeys(points, 7)
    assert percentiles([]) == {}


def test_rates_overall_and_in_the_middle() -> None:
    times = [1.0 + step / 100 for step in range(100)]
    overall, steady = rates(times, 0.0)
    assert overall == pytest.approx(100 / 1.99)
    assert steady == pytest.approx(100)
    assert rates([], 0.0) == rates([1.0], 1.0) == (0.0, 0.0)


def test_status_of_a_farm() -> None:
    body = {
        "routers": [{"pid": 7}],
        "workers": [
            {"shard": 0, "pid": 8, "connections": 5, "gc_pause_max_seconds": 0.0005},
            {"shard": 1, "pid": 9, "connections": None, "gc_pause_max_seconds": None},
        ],
    }
    assert read_status(body) == Status([7], {"0": 8, "1": 9}, {"0": 5, "1": 0}, 0.5)
    python = {"implementation": "CPython", "version": "3.11.2", "pgo": "yes", "lto": "yes"}
    assert read_status(body | {"python": python}).python == python


def test_processes_for_devices() -> None:
    assert processes_for(Load(18_000)) in (1, 2)  # two where the descriptor limit asks for it
    assert processes_for(Load(10, processes=4)) == 4
    assert processes_for(Load(2, processes=4)) == 2
    with pytest.raises(BenchError, match="load processes"):
        processes_for(Load(100_000, processes=1))


def test_ratios_of_what_was_measured() -> None:
    def part(dialect: str, rate: float, frame: dict[str, float], cpu: float | None) -> dict[str, Any]:
        groups = {"router": {"cpu_seconds_a_1000": cpu}}
        run = {"notifications_a_second": rate, "to_frame_ms": frame, "usage": {"groups": groups}}
        return {"dialect": dialect, "runs": [run]}

    parts = [part("simplepush", 1000, {"p50": 2.0}, 0.5), part("webpush", 600, {"p50": 3.0}, None)]
    found = ratios(parts, PUSH_FIGURES)
    assert {key: value for key, value in found["webpush"].items() if value is not None} == {
        "notifications_a_second": 0.6,
        "to_frame_p50": 1.5,
    }
    assert ratios(parts[:1], PUSH_FIGURES) == {}
    empty = [{"dialect": "simplepush", "runs": []}, {"dialect": "webpush", "runs": []}]
    assert set(ratios(empty, PUSH_FIGURES)["webpush"].values()) == {None}
    memory = [
        {"dialect": dialect, "connect": {"user_memory": {"workers": {"a_connection": size}}}}
        for dialect, size in (("simplepush", 800), ("webpush", 400))
    ]
    assert ratios(memory, CONNECT_FIGURES)["webpush"]["workers_memory_a_device"] == 0.5
    memory[0]["connect"]["user_memory"]["workers"]["a_connection"] = -8  # type: ignore[index]  # shrank: no ratio
    assert ratios(memory, CONNECT_FIGURES)["webpush"]["workers_memory_a_device"] is None


def test_many_runs_are_compared_a_row_each() -> None:
    name = next(iter(DIALECTS))
    modes = ("a", "b", "c", "d")
    parts = [
        {"dialect": name, "mode": mode, "runs": [{"notifications_a_second": 100.0 * number}]}
        for number, mode in enumerate(modes, 1)
    ]
    (table,) = comparison({"parts": parts, "ratios": ratios(parts, PUSH_FIGURES)}, PUSH_FIGURES)
    title = DIALECTS[name].title
    assert table.columns == ["notifications/s"] and table.title.endswith(f"{title}, a")
    assert table.rows == [
        [f"{title}, a", "100"],
        *(
            [f"{title}, {mode}", f"{rate}, {rate / 100:.2f} x"]
            for mode, rate in zip("bcd", (200, 300, 400), strict=True)
        ),
    ]
