"""The admin port: health, metrics and status, served by hypercorn and Starlette inside the supervisor."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.metrics import ROUTER_METRICS, WORKER_METRICS

Status = dict[str, Any]


class _StatusCollector(Collector):
    """One status as Prometheus metrics: `farm_router_*`, and `farm_worker_*` with the label shard."""

    def __init__(self, status: Status) -> None:
        self._status = status

    def collect(self) -> Iterator[Metric]:
        status = self._status
        yield _family(
            "gauge", "farm_up", "Whether the router and all workers serve.", [], [([], status["status"] == "ok")]
        )
        router = status.get("router", {})
        for metric in ROUTER_METRICS:
            value = router.get(metric.name)
            if value is not None:
                yield _family(metric.kind, f"farm_router_{metric.name}", metric.help, [], [([], value)])
        memory = [(["router", ""], router["memory"])] if "memory" in router else []
        memory += [(["worker", str(w["shard"])], w["memory"]) for w in status["workers"] if "memory" in w]
        yield _family("gauge", "farm_memory_bytes", "Resident memory.", ["process", "shard"], memory)
        for metric in WORKER_METRICS:
            rows = [([str(w["shard"])], w[metric.name]) for w in status["workers"] if metric.name in w]
            yield _family(metric.kind, f"farm_worker_{metric.name}", metric.help, ["shard"], rows)
        restarts = [([str(w["shard"])], w["restarts"]) for w in status["workers"]]
        yield _family("counter", "farm_worker_restarts", "Times the worker was started again.", ["shard"], restarts)


def _family(kind: str, name: str, text: str, labels: list[str], rows: list[tuple[list[str], float]]) -> Metric:
    make = CounterMetricFamily if kind == "counter" else GaugeMetricFamily
    family = make(name, text, labels=labels)
    for values, number in rows:
        family.add_metric(values, float(number))
    assert isinstance(family, Metric)
    return family


def application(status: Callable[[], Awaitable[Status]]) -> Starlette:
    """The admin port's pages. `status` asks the whole farm; its `status` is "ok" when everything serves."""

    async def health(request: Request) -> Response:
        found = await status()
        brief = {"status": found["status"], "down": found["down"], "workers": len(found["workers"])}
        return JSONResponse(brief, 200 if found["status"] == "ok" else 503)

    async def full(request: Request) -> Response:
        return JSONResponse(await status())

    async def metrics(request: Request) -> Response:
        registry = CollectorRegistry()
        registry.register(_StatusCollector(await status()))
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/health", health), Route("/status", full), Route("/metrics", metrics)])


async def run(listener: int, status: Callable[[], Awaitable[Status]], stop: trio.Event) -> None:
    """Serve the admin port on an open listener's descriptor, which is closed at the end, until `stop` is set."""
    config = Config()
    config.bind = [f"fd://{listener}"]
    config.accesslog = None
    logger = logging.getLogger("hypercorn.admin")
    logger.setLevel(logging.WARNING)
    config.errorlog = logger
    config.graceful_timeout = 0.2
    config.shutdown_timeout = 0.5
    await serve(application(status), config, shutdown_trigger=stop.wait)  # type: ignore[arg-type]
