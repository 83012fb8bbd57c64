"""The page of all numbers, by Prometheus' own tool and parser; histograms and their quantiles."""

from __future__ import annotations

import random
import subprocess
from itertools import pairwise
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.installed import find_program

from farm.dialects import specs
from farm.supervisor.admin import metrics_page
from farm.supervisor.reload_file import OUTCOMES
from router.common.histogram import BOUNDS, Histogram, added, counts_in, quantile, without_buckets
from router.common.metrics import RouterCounters, WorkerCounters
from router.dialects import all_metrics

HOST: dict[str, Any] = {"name": "a", "id": "1", "beat_age": 0.5, "routers": [0], "devices": 3, "isolated": False}
CLUSTER: dict[str, Any] = {
    "hosts": [HOST | {"leaving": False, "clock_offset": -0.01}],
    "placements": [{"number": 0, "state": "nowhere"}],
}


def status() -> dict[str, Any]:
    """A farm's, where every number there is has been counted."""
    of_router, of_worker = ({metric.name: 1.0 for metric in metrics} for metrics in all_metrics(specs()))
    router, worker = RouterCounters(), WorkerCounters()
    router.push_delivered_seconds.observe(0.0015)
    router.push_delivered_seconds.observe(60.0)
    worker.hello_seconds.observe(0.004)
    process = {"memory": 1_000_000, "cpu": 2.5, "restarts": 0}
    new = {"pid": 11, "version": "1.1"}
    return {
        "status": "ok",
        "unready": [],
        "version": "1.0",
        "python": {"implementation": "CPython", "version": "3.11.7"},
        "memory": 1_000_000,
        "cpu": 0.25,
        "fork_server": {"state": "up"},
        "reloads": dict.fromkeys(OUTCOMES, 0),
        "cluster": CLUSTER,
        "certificate_expires": 1_800_000_000.0,
        "routers": [{**of_router, **router.snapshot(), **process, "number": 0, "pid": 10, "version": "1.0"}],
        "workers": [
            {**of_worker, **worker.snapshot(), **process, **new, "shard": 0, "max_connections": 9000},
            {"shard": 1, "restarts": 2, "pid": 12},
            {"shard": 2, "restarts": 2, "pid": None},
        ],
    }


def test_the_page_is_clean_to_promtool() -> None:
    page = metrics_page(status(), specs())
    checked = subprocess.run(
        [find_program("promtool"), "check", "metrics"], input=page, capture_output=True, timeout=60, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_the_page_has_every_number() -> None:
    page = metrics_page(status(), specs()).decode()
    found = {sample.name: sample for family in text_string_to_metric_families(page) for sample in family.samples}
    of_router, of_worker = all_metrics(specs())
    endings = {"counter": "_total", "gauge": "", "histogram": "_count"}
    wanted = {f"farm_router_{one.name}{endings[one.kind]}" for one in of_router if not one.reason}
    wanted |= {f"farm_worker_{one.name}{endings[one.kind]}" for one in of_worker if not one.reason}
    assert wanted <= found.keys()
    samples = [one for family in text_string_to_metric_families(page) for one in family.samples]
    limited = {(one.labels["reason"], one.labels["shard"]) for one in samples if one.name == "farm_limited_total"}
    assert limited >= {(one.reason, "0") for one in of_worker if one.reason} >= {("connections_per_address", "0")}
    rooms = [(one.labels["shard"], one.value) for one in samples if one.name == "farm_worker_max_connections"]
    assert rooms == [("0", 9000)]  # of a worker that has sent no numbers yet it is not known
    assert found["farm_ready"].value == 1
    assert b"farm_ready 0.0" in metrics_page(status() | {"unready": ["no worker serves"]}, specs())
    assert found["farm_router_push_delivered_seconds_sum"].value == pytest.approx(60.0015)
    assert found["farm_router_push_delivered_seconds_count"].value == 2
    below = {one.labels["le"]: one.value for one in samples if one.name == "farm_router_push_delivered_seconds_bucket"}
    assert (below["0.001"], below["0.0015"], below["5"], below["+Inf"]) == (0, 1, 1, 2)
    cpu = [tuple(one.labels.values()) for one in samples if one.name == "farm_cpu_seconds_total"]
    assert sorted(cpu) == [("router", "0", ""), ("supervisor", "", ""), ("worker", "", "0")]
    running = {tuple(one.labels.values()): one.value for one in samples if one.name == "farm_processes"}
    assert running == {("router", "1.0"): 1, ("supervisor", "1.0"): 1, ("worker", "1.1"): 1, ("worker", ""): 1}
    (build,) = (one for one in samples if one.name == "farm_build_info")
    assert (build.labels["version"], build.labels["python"]) == ("1.0", "3.11.7")


def test_quantiles_are_those_of_what_was_observed_to_within_a_bucket() -> None:
    chance = random.Random(7)
    values = sorted(chance.expovariate(200) for _ in range(5000))
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    row = histogram.snapshot("x_seconds")
    counts = counts_in(row, "x_seconds")
    assert counts is not None and sum(counts) == 5000
    assert row["x_seconds_sum"] == pytest.approx(sum(values), abs=1e-5)
    edges = [0.0, *BOUNDS]
    for share in (0.001, 0.5, 0.9, 0.99, 1.0):
        found, exact = quantile(counts, share), values[round(share * 5000) - 1]
        assert found is not None
        low, high = next((a, b) for a, b in pairwise(edges) if a < exact <= b)
        assert low <= found <= high, share
    assert added([row, row, {}], "x_seconds") == [2 * count for count in counts]


def test_a_histogram_of_nothing_has_no_quantile_and_one_beyond_all_bounds_has_the_last() -> None:
    assert quantile(Histogram().counts, 0.5) is None
    assert counts_in({}, "x_seconds") is None
    histogram = Histogram()
    histogram.observe(1000.0)
    assert quantile(histogram.counts, 0.5) == BOUNDS[-1]
    histogram = Histogram()
    histogram.observe(-0.001)  # by a clock that was set back
    assert histogram.counts[0] == 1


def test_people_see_one_number_of_a_histogram() -> None:
    histogram = Histogram()
    histogram.observe(0.0021)
    histogram.observe(0.4)
    none = Histogram().snapshot("hello_seconds")
    row = {"pushes": 3, **histogram.snapshot("push_seconds"), **none, "x_le_7": 1, "store_seconds_sum": 4}
    assert without_buckets(row) == {"pushes": 3, "push_p99_ms": 494.0, "x_le_7": 1, "store_seconds_sum": 4}
