"""PushGo's status pages on the router port: `/realstatus/` and `/metrics/`, with the numbers of all routers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from router import __version__
from router.common import messages as m
from router.common.operation import Operation
from router.common.settings import EndpointOptions
from router.core.operations import Done
from router.dialects.app_server import Context
from router.dialects.simplepush.protocol import BAD_METHOD, FAILED, NAME
from router.http.message import Request, Response
from router.http.parts import Parts, one_a_turn
from router.http.routes import Reply

_PUSHGO_OF_ROUTER: Final = {
    "pushes": "counter.updates.appserver.received",
    "pushes_refused": "counter.updates.appserver.error",
    "pushes_rejected": "counter.updates.appserver.rejected",
    "pushes_invalid": "counter.updates.appserver.invalid",
    "pushes_too_long": "counter.updates.appserver.toolong",
    "http_requests": "counter.updates.appserver.incoming",
    "http_connects": "counter.endpoint.socket.connect",
    "http_disconnects": "counter.endpoint.socket.disconnect",
}
_PUSHGO_OF_WORKERS: Final = {
    "connections": "gauge.update.client.connections",
    "connects": "counter.client.socket.connect",
    "disconnects": "counter.client.socket.disconnect",
    "hellos": "counter.updates.client.hello",
    "registers": "counter.updates.client.register",
    "unregisters": "counter.updates.client.unregister",
    "acks": "counter.updates.client.ack",
    "pings": "counter.updates.client.ping",
    "pings_too_many": "counter.updates.client.too_many_pings",
    "updates_sent": "counter.updates.sent",
}
"""The names of the farm's numbers on PushGo's `/metrics/` page; those of workers are summed up."""


class _OfRouter(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Numbers of one router."""

    store_ok: bool
    devices: int
    counters: dict[str, int]


class _Count(Operation, tag=2):
    """The numbers of every router."""

    REPLY = _OfRouter


_BAD_METHOD: Final = Response(
    BAD_METHOD.status, msgspec.json.encode(BAD_METHOD.text), headers=(("Allow", "GET, HEAD"),)
)
_FAILED: Final = Response(FAILED.status, msgspec.json.encode(FAILED.text))


class Pages:
    """One page a turn is made, as all numbers of the farm are asked for."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._operations = context.core.operations
        self._turns = Parts(context.turns, 1, 1)
        context.core.operations.register(NAME, {_Count: self._count})

    def _count(self, key: bytes, asked: _Count, done: Done) -> None:
        counters = self._context.status()["router"]
        named = {name: int(counters[name]) for name in _PUSHGO_OF_ROUTER}
        done(m.OK, _OfRouter(bool(counters["store_ok"]), self._context.core.messages.devices, named))

    def real_status(self, request: Request, reply: Reply) -> None:
        """`GET /realstatus/`: 503 if any part is not well."""
        self._page(request, reply, self._real_status)

    def _real_status(self, found: list[_OfRouter]) -> Response:
        workers = self._context.status()["workers"]
        parts = [
            {"name": "store", "ok": bool(found) and all(router.store_ok for router in found)},
            {"name": "router", "ok": bool(found) and bool(workers)},
        ]
        well = all(part["ok"] for part in parts)
        body = {
            "ok": well,
            "clientCount": sum(router.devices for router in found),
            "maxClients": sum(worker.get("max_connections", 0) for worker in workers),
            "maxEndpointConns": self._context.settings.get(EndpointOptions).max_connections * max(1, len(found)),
            "plugins": parts,
            "goroutines": 0,
            "version": __version__,
        }
        return Response(200 if well else 503, msgspec.json.encode(body))

    def metrics(self, request: Request, reply: Reply) -> None:
        """`GET /metrics/`: flat JSON under PushGo's names."""
        self._page(request, reply, self._metrics)

    def _metrics(self, found: list[_OfRouter]) -> Response:
        if not found:  # a number that counts one router less is worse than none
            return _FAILED
        state = self._context.status()
        body: dict[str, Any] = {"server.age": int(state["age"])}
        for name, pushgo in _PUSHGO_OF_ROUTER.items():
            body[pushgo] = sum(router.counters[name] for router in found)
        for name, pushgo in _PUSHGO_OF_WORKERS.items():
            body[pushgo] = sum(worker.get(name, 0) for worker in state["workers"])
        return Response(200, msgspec.json.encode(body))

    def _page(self, request: Request, reply: Reply, make: Callable[[list[_OfRouter]], Response]) -> None:
        """Without numbers if a router has not said them."""
        if request.method not in (b"GET", b"HEAD"):
            reply(_BAD_METHOD)
            return

        def ask() -> None:
            self._operations.at_all(_Count(), lambda status, found: reply(make(found)))

        one_a_turn(self._turns, request.pending, ask, lambda: reply(_FAILED))
