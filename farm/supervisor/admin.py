"""The admin port: health, metrics, status and broadcasts, served by hypercorn and Starlette inside the supervisor."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import trio
from prometheus_client.core import Metric
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from farm.settings import AdminOptions
from farm.supervisor.admin_port import AdminPort
from router.common import messages as v
from router.common.exposition import CONTENT_TYPE, exposition, families, family
from router.common.health import LIVE, READY, page
from router.dialects.webpush import NAME as BROADCASTS

Status = dict[str, Any]
Unready = Callable[[], Awaitable[list[str]]]
SetBroadcast = Callable[[str, str, str | None], Awaitable[dict[str, Any] | None]]
_MAX_VERSION_BYTES = 4096
_RESERVED = "errors"  # stands among the broadcasts that a device is told


def _families(status: Status) -> Iterator[Metric]:
    """The whole farm's numbers."""
    yield family("gauge", "farm_up", "Whether the router and all workers serve.", [], [([], status["status"] == "ok")])
    forks = status["fork_server"]["state"] == "up"
    yield family("gauge", "farm_fork_server_up", "Whether processes can be started again.", [], [([], forks)])
    yield from families(status.get("router", {}), status["workers"])
    restarts = [([str(w["shard"])], w["restarts"]) for w in status["workers"]]
    yield family("counter", "farm_worker_restarts", "Times the worker was started again.", ["shard"], restarts)


class _Refused(Exception):
    """A request that is answered with an error in plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = PlainTextResponse(text + "\n", status)


class _Broadcasts:
    """`GET /broadcasts`, `PUT` and `DELETE /broadcasts/{id}`: what devices of the WebPush dialect may follow."""

    def __init__(self, set_broadcast: SetBroadcast) -> None:
        self._set_broadcast = set_broadcast

    async def all(self, request: Request) -> Response:
        try:
            return JSONResponse(await self._ask("", None))
        except _Refused as refused:
            return refused.response

    async def one(self, request: Request) -> Response:
        try:
            broadcast = request.path_params["id"]
            if not broadcast or not broadcast.isprintable() or broadcast == _RESERVED:
                raise _Refused(400, "a broadcast's ID is printable text, and not `errors`")
            version = await _version(request) if request.method == "PUT" else None
            await self._ask(broadcast, version)
        except _Refused as refused:
            return refused.response
        return Response(status_code=204)

    async def _ask(self, key: str, value: str | None) -> dict[str, str]:
        answer = await self._set_broadcast(BROADCASTS, key, value)
        if answer is None:
            raise _Refused(503, "the router does not answer; whether it was set is not known")
        if answer["outcome"] == v.FULL:
            raise _Refused(400, "ID or version is too long, or there are link.max_broadcasts already")
        if answer["outcome"] != v.OK:
            raise _Refused(503, "the store failed, or link.max_broadcast_changes wait for it; it was not set")
        broadcasts: dict[str, str] = answer["broadcasts"]
        return broadcasts


async def _version(request: Request) -> str:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_VERSION_BYTES:
            raise _Refused(400, "the version is too long")
    try:
        version = body.decode().strip()
    except UnicodeDecodeError:
        raise _Refused(400, "the version is not UTF-8") from None
    if not version or not version.isprintable():
        raise _Refused(400, "the body is the broadcast's version: printable text")
    return version


def application(status: Callable[[], Awaitable[Status]], unready: Unready, set_broadcast: SetBroadcast) -> Starlette:
    """The admin port's pages. `status` asks the whole farm; its `status` is "ok" when everything serves.
    `unready` tells why the farm should get nothing new."""

    async def live(request: Request) -> Response:
        code, body = page(LIVE, (), 0)
        return Response(body, code, media_type="application/json")

    async def ready(request: Request) -> Response:
        code, body = page(READY, await unready(), 0)
        return Response(body, code, media_type="application/json")

    async def health(request: Request) -> Response:
        found = await status()
        brief = {"status": found["status"], "down": found["down"], "workers": len(found["workers"])}
        return JSONResponse(brief, 200 if found["status"] == "ok" else 503)

    async def full(request: Request) -> Response:
        return JSONResponse(await status())

    async def metrics(request: Request) -> Response:
        return Response(exposition(_families(await status())), media_type=CONTENT_TYPE)

    broadcasts = _Broadcasts(set_broadcast)
    return Starlette(
        routes=[
            Route("/live", live),
            Route("/ready", ready),
            Route("/health", health),
            Route("/status", full),
            Route("/metrics", metrics),
            Route("/broadcasts", broadcasts.all),
            Route("/broadcasts/{id:path}", broadcasts.one, methods=["PUT", "DELETE"]),
        ]
    )


async def run(
    listener: int,
    options: AdminOptions,
    status: Callable[[], Awaitable[Status]],
    unready: Unready,
    set_broadcast: SetBroadcast,
    stop: trio.Event,
) -> None:
    """Serve the admin port on an open listener's descriptor, which is closed at the end, until `stop` is set."""
    await AdminPort(application(status, unready, set_broadcast), options).run(listener, stop.wait)
