"""The admin port: dashboard, health, metrics, status, the API and the pages of dialects, served by hypercorn."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final

import trio
from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from farm.settings import AdminOptions
from farm.supervisor import dashboard
from farm.supervisor.admin_access import WHY, AdminAccess
from farm.supervisor.admin_port import AdminPort
from farm.supervisor.api.frame import BAD_METHOD, error
from farm.supervisor.cluster_status import cluster_families
from farm.supervisor.versions import counted
from router.common.exposition import CONTENT_TYPE, exposition, families, family
from router.common.health import LIVE, READY, page
from router.common.metrics import Metric as Number
from router.common.options import Settings
from router.core.managing import NOT_FOUND
from router.dialects import AdminContext, DialectSpec, all_metrics

Status = dict[str, Any]
Unready = Callable[[], Awaitable[list[str]]]
SetBroadcast = Callable[[str, str, str | None], Awaitable[dict[str, Any] | None]]


FARM_METRICS: Final = (
    Number("build_info", "gauge", "1, with the supervisor's version and that of its interpreter."),
    Number(
        "processes",
        "gauge",
        "Processes that run, by what they are and the version of their code: after a reload workers and routers have "
        "the new one, and the supervisor has the old one until a restart.",
    ),
    Number("up", "gauge", "Whether all routers and workers serve."),
    Number("ready", "gauge", "Whether new clients should come here, as /ready on the admin port says."),
    Number("draining", "gauge", "Whether the farm is about to stop (SIGTERM)."),
    Number("fork_server_up", "gauge", "Whether processes can be started again."),
    Number("reloads", "counter", "Reloads that have ended, by outcome: `done`, or why not."),
    Number("router_restarts", "counter", "Times the router was started again."),
    Number("worker_restarts", "counter", "Times the worker was started again."),
    Number(
        "worker_max_connections",
        "gauge",
        "Device connections that the worker may hold: worker.max_connections, or what its descriptor limit leaves.",
    ),
    Number(
        "certificate_expiry_timestamp_seconds",
        "gauge",
        "When the first of the certificates in use expires (Unix time); without TLS there is no such number.",
    ),
    Number("admin_refused", "counter", "Requests that the admin port refused for their Host, page, token or role."),
)
"""Of the whole farm."""


def _families(status: Status, dialects: Sequence[DialectSpec]) -> Iterator[Metric]:
    """The whole farm's numbers."""
    python = status["python"]
    build = {"version": status["version"], "python": python["version"], "implementation": python["implementation"]}
    labels: dict[str, tuple[str, ...]] = {
        "build_info": tuple(build),
        "processes": ("process", "version"),
        "reloads": ("outcome",),
        "router_restarts": ("router",),
        "worker_restarts": ("shard",),
        "worker_max_connections": ("shard",),
        "admin_refused": ("reason",),
    }
    rows: dict[str, list[tuple[list[str], float]]] = {
        "build_info": [(list(build.values()), 1)],
        "processes": [([*name], number) for name, number in counted(status).items()],
        "up": [([], status["status"] == "ok")],
        "ready": [([], not status["unready"])],
        "draining": [([], status["status"] == "draining")],
        "fork_server_up": [([], status["fork_server"]["state"] == "up")],
        "reloads": [([outcome.replace(" ", "_")], number) for outcome, number in status["reloads"].items()],
        "router_restarts": [([str(row["number"])], row["restarts"]) for row in status["routers"]],
        "worker_restarts": [([str(row["shard"])], row["restarts"]) for row in status["workers"]],
        "worker_max_connections": [
            ([str(row["shard"])], row["max_connections"]) for row in status["workers"] if "max_connections" in row
        ],
        "certificate_expiry_timestamp_seconds": [([], expires)] if (expires := status["certificate_expires"]) else [],
        "admin_refused": [([why], number) for why, number in status.get("admin_refused", {}).items()],
    }
    for metric in FARM_METRICS:
        of = list(labels.get(metric.name, ()))
        yield family(metric.kind, f"farm_{metric.name}", metric.help, of, rows[metric.name])
    if (cluster := status["cluster"]) is not None:
        yield from cluster_families(cluster)
    yield from families(status["routers"], status["workers"], *all_metrics(dialects), status)


def metrics_page(status: Status, dialects: Sequence[DialectSpec]) -> bytes:
    """`GET /metrics` of a farm with this status. dialects: all of them, on or off."""
    return exposition(_families(status, dialects))


async def _not_found(request: Request, missing: Exception) -> Response:
    # A route's own pattern does not match a line break, so what is below /api/v1 comes here, too.
    return error(NOT_FOUND, "there is no such page")


async def _bad_method(request: Request, wrong: Exception) -> Response:
    headers = wrong.headers if isinstance(wrong, HTTPException) else None
    return error(BAD_METHOD, f"this page has {(headers or {}).get('Allow', 'no such method')}", headers)


def application(
    status: Callable[[], Awaitable[Status]],
    unready: Unready,
    set_broadcast: SetBroadcast,
    dialects: Sequence[DialectSpec],
    api: Iterable[BaseRoute] = (),
    refused: Mapping[str, int] = MappingProxyType({}),
) -> Starlette:
    """The admin port's pages, with those of the dialects.

    status: queries the whole farm; its `status` is "ok" when everything serves. unready: why the farm should get no
    new clients. dialects: all of them, on or off. api: the routes of `/api/v1`. refused: requests
    that were, by why.
    """

    async def live(request: Request) -> Response:
        code, body = page(LIVE, (), 0)
        return Response(body, code, media_type="application/json")

    async def ready(request: Request) -> Response:
        code, body = page(READY, await unready(), 0)
        return Response(body, code, media_type="application/json")

    async def health(request: Request) -> Response:
        found = await status()
        brief = {"status": found["status"], "down": found["down"]}
        brief |= {kind: len(found[kind]) for kind in ("routers", "workers")}
        return JSONResponse(brief, 200 if found["status"] == "ok" else 503)

    async def full(request: Request) -> Response:
        return JSONResponse(await status())

    async def metrics(request: Request) -> Response:
        found = await status() | {"admin_refused": refused}
        return Response(metrics_page(found, dialects), media_type=CONTENT_TYPE)

    async def shown(request: Request) -> Response:
        found = dashboard.page()
        return Response(found.body, headers=found.headers, media_type="text/html")

    of_dialects = [
        route
        for spec in dialects
        for route in spec.admin_routes(AdminContext(status, partial(set_broadcast, spec.name)))
    ]
    return Starlette(
        routes=[
            Route("/", shown),
            Route("/live", live),
            Route("/ready", ready),
            Route("/health", health),
            Route("/status", full),
            Route("/metrics", metrics),
            *of_dialects,
            *api,
        ],
        exception_handlers={404: _not_found, 405: _bad_method},
    )


async def run(
    listener: int,
    settings: Callable[[], Settings],
    status: Callable[[], Awaitable[Status]],
    unready: Unready,
    set_broadcast: SetBroadcast,
    dialects: Sequence[DialectSpec],
    api: Iterable[BaseRoute],
    stop: trio.Event,
) -> None:
    """Serve the admin port on an open listener's descriptor, which is closed at the end, until `stop` is set.

    settings: those in force.
    """
    dashboard.page()  # now: its files may be replaced by those of another release
    refused = dict.fromkeys(WHY, 0)
    pages = application(status, unready, set_broadcast, dialects, api, refused)
    options = settings().get(AdminOptions)
    await AdminPort(AdminAccess(pages, settings, refused), options).run(listener, stop.wait)
