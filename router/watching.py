"""Who follows pushes on their way, as the settings want it: `log.pushes`, `trace.*`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from router.common.options import Settings
from router.common.settings import Log, RouterOptions
from router.core.scope import Origin, Scope
from router.http.message import Request
from router.http.routes import Handler, Reply, Route
from router.push_log import PushLog
from router.store.base import Store


class Watching:
    """What a router has for it."""

    def __init__(self, log: PushLog) -> None:
        self.watch = log
        self._log = log

    @classmethod
    def of(cls, settings: Settings, number: int, store: Store) -> Watching | None:
        """None: nobody follows pushes, and nothing of it is there. number: of the router. store: not open yet."""
        options = settings.get(Log)
        if not options.pushes:
            return None
        several = settings.get(RouterOptions).routers > 1
        fields: dict[str, object] = {"process": "router"} | ({"router": number} if several else {})
        log = PushLog(options.max_waiting_bytes, fields)
        store.watch(log.gone)
        return cls(log)

    def routes(self, routes: Iterable[Route], scope: Scope) -> Iterator[Route]:
        """These, each of which handles its requests as their origin."""
        for route in routes:
            yield replace(route, handler=self._known(route.handler, scope))

    def _known(self, handler: Handler, scope: Scope) -> Handler:
        def handle(request: Request, reply: Reply) -> None:
            scope.call(Origin(request.id()), handler, request, reply)

        return handle

    def flush(self) -> None:
        """The end of a turn."""
        self._log.flush()

    def counts(self) -> Mapping[str, float]:
        """Numbers of `ROUTER_METRICS`."""
        return {"push_lines_lost": self._log.lost}
