"""Numbers of routers and workers in Prometheus' text format: `farm_router_*` by router, `farm_worker_*` by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from router.common.histogram import buckets, counts_in
from router.common.metrics import Metric as Number

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
LIMITED: Final = "farm_limited"
LIMITED_HELP: Final = "Times that a limit was reached: the option of that name in [limits]."


class _Given(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterator[Metric]:
        yield from self._families


def exposition(families: Iterable[Metric]) -> bytes:
    """These as text, of `CONTENT_TYPE`."""
    registry = CollectorRegistry()
    registry.register(_Given(families))
    return generate_latest(registry)


PROCESSES: Final = (
    Number("memory_bytes", "gauge", "Resident memory of a process."),
    Number("cpu_seconds", "counter", "CPU time that a process has used, of all its threads."),
)
"""Of each process: the supervisor, the routers and the workers."""


def families(
    routers: list[dict[str, Any]],
    workers: list[dict[str, Any]],
    of_router: Iterable[Number],
    of_workers: Iterable[Number],
    supervisor: dict[str, Any] | None = None,
) -> Iterator[Metric]:
    """What routers count, and the last counts that workers have sent them, with the tables that define them.

    routers, workers: a row each, with its `number` or `shard`, its `memory`, `cpu` and counts, as far as they are
    known. supervisor: its own `memory` and `cpu`.
    """
    of_router, of_workers = list(of_router), list(of_workers)
    for metric in of_router:
        if not metric.reason:
            yield _of_rows(metric, "router", [(str(row["number"]), row) for row in routers])
    processes = [] if supervisor is None else [(["supervisor", "", ""], supervisor)]
    processes += [(["router", str(row["number"]), ""], row) for row in routers]
    processes += [(["worker", "", str(row["shard"])], row) for row in workers]
    for metric, name in zip(PROCESSES, ("memory", "cpu"), strict=True):
        known = [(labels, row[name]) for labels, row in processes if name in row]
        yield family(metric.kind, f"farm_{metric.name}", metric.help, ["process", "router", "shard"], known)
    for metric in of_workers:
        if not metric.reason:
            yield _of_rows(metric, "worker", [(str(row["shard"]), row) for row in workers])
    limited = [(metric, str(row["number"]), "", row) for metric in of_router for row in routers]
    limited += [(metric, "", str(row["shard"]), row) for metric in of_workers for row in workers]
    reached = [
        ([metric.reason, router, shard], row[metric.name])
        for metric, router, shard, row in limited
        if metric.reason and metric.name in row
    ]
    yield family("counter", LIMITED, LIMITED_HELP, ["reason", "router", "shard"], reached)


def _of_rows(metric: Number, kind: str, rows: list[tuple[str, dict[str, Any]]]) -> Metric:
    """kind: "router" or "worker". rows: with their number."""
    name, label = f"farm_{kind}_{metric.name}", "router" if kind == "router" else "shard"
    if metric.kind != "histogram":
        known = [([number], row[metric.name]) for number, row in rows if metric.name in row]
        return family(metric.kind, name, metric.help, [label], known)
    made = HistogramMetricFamily(name, metric.help, labels=[label])
    for number, row in rows:
        if (counts := counts_in(row, metric.name)) is not None:
            made.add_metric([number], buckets(counts), row[f"{metric.name}_sum"])
    assert isinstance(made, Metric)
    return made


def family(kind: str, name: str, text: str, labels: list[str], rows: list[tuple[list[str], float]]) -> Metric:
    """One metric, a row for each of its label values."""
    make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    made = make(name, text, labels=labels)
    for values, number in rows:
        made.add_metric(values, float(number))
    assert isinstance(made, Metric)
    return made
