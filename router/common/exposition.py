"""Numbers of routers and workers in Prometheus' text format: `farm_router_*` by router, `farm_worker_*` by shard."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from router.common.metrics import Metric as Number

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST


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


def families(
    routers: list[dict[str, Any]],
    workers: list[dict[str, Any]],
    of_router: Iterable[Number],
    of_workers: Iterable[Number],
) -> Iterator[Metric]:
    """What routers count, and the last counts that workers have sent them, with the tables that define them.

    routers, workers: a row each, with its `number` or `shard`, its `memory` and its counts, as far as they are known.
    """
    for metric in of_router:
        rows = [([str(r["number"])], r[metric.name]) for r in routers if metric.name in r]
        yield family(metric.kind, f"farm_router_{metric.name}", metric.help, ["router"], rows)
    memory = [(["router", str(r["number"]), ""], r["memory"]) for r in routers if "memory" in r]
    memory += [(["worker", "", str(w["shard"])], w["memory"]) for w in workers if "memory" in w]
    yield family("gauge", "farm_memory_bytes", "Resident memory.", ["process", "router", "shard"], memory)
    for metric in of_workers:
        rows = [([str(w["shard"])], w[metric.name]) for w in workers if metric.name in w]
        yield family(metric.kind, f"farm_worker_{metric.name}", metric.help, ["shard"], rows)


def family(kind: str, name: str, text: str, labels: list[str], rows: list[tuple[list[str], float]]) -> Metric:
    """One metric, a row for each of its label values."""
    make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    made = make(name, text, labels=labels)
    for values, number in rows:
        made.add_metric(values, float(number))
    assert isinstance(made, Metric)
    return made
