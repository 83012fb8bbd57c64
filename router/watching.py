"""Who follows pushes on their way, as the settings want it: `log.pushes`, `trace.*`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import trio

from router.common.options import Settings
from router.common.settings import Log, RouterOptions
from router.common.trace_settings import TraceOptions
from router.core.push_watch import PushWatch, Watched
from router.core.scope import Origin, Scope
from router.http.message import Request
from router.http.routes import Handler, Reply, Route
from router.push_log import PushLog
from router.push_trace import Tracer
from router.store.base import Store

_CLOSE_S: Final = 2.0
"""For what a trace has not sent yet, at the end of a router."""


class Watching:
    """What a router has for it. log, tracer: None where that is off."""

    def __init__(self, log: PushLog | None, tracer: Tracer | None) -> None:
        self._log = log
        self._tracer = tracer
        watches = [watch for watch in (log, tracer) if watch is not None]
        self.watch: PushWatch = watches[0] if len(watches) == 1 else _Both(watches)

    @classmethod
    def of(cls, settings: Settings, number: int, store: Store) -> Watching | None:
        """None: nobody follows pushes, and nothing of it is there. number: of the router. store: not open yet."""
        options, trace = settings.get(Log), settings.get(TraceOptions)
        log = tracer = None
        if options.pushes:
            several = settings.get(RouterOptions).routers > 1
            log = PushLog(options.max_waiting_bytes, {"process": "router"} | ({"router": number} if several else {}))
            store.watch(log.gone)
        if trace.endpoint:
            tracer = Tracer(trace, number)
        return None if log is None and tracer is None else cls(log, tracer)

    def routes(self, routes: Iterable[Route], scope: Scope) -> Iterator[Route]:
        """These, each of which handles its requests as their origin; and so does the scope what other routers ask."""
        scope.read = self._read
        for route in routes:
            yield replace(route, handler=self._known(route.handler, route.path.decode("latin-1"), scope))

    def _known(self, handler: Handler, path: str, scope: Scope) -> Handler:
        logged, tracer = self._log is not None, self._tracer

        def handle(request: Request, reply: Reply) -> None:
            request_id = request.id() if logged else ""
            followed = None if tracer is None else tracer.follows(request, path)
            if followed is not None and tracer is not None:
                reply = tracer.replying(followed, reply)
            scope.call(Origin(request_id, followed), handler, request, reply)

        return handle

    def _read(self, text: str) -> Origin:
        request_id, _, traceparent = text.partition(" ")
        return Origin(request_id, self._tracer.elsewhere(traceparent) if self._tracer and traceparent else None)

    def flush(self) -> None:
        """The end of a turn."""
        if self._log is not None:
            self._log.flush()

    def counts(self) -> Mapping[str, float]:
        """Numbers of `ROUTER_METRICS`."""
        return {} if self._log is None else {"push_lines_lost": self._log.lost}

    async def close(self) -> None:
        """Send what waits, as far as that does not take long."""
        if self._tracer is not None:
            with trio.move_on_after(_CLOSE_S, shield=True):
                await trio.to_thread.run_sync(self._tracer.close, abandon_on_cancel=True)


class _Both:
    """Several that want to know."""

    def __init__(self, watches: Sequence[PushWatch]) -> None:
        self._watches = watches

    def begins(self, push: Watched) -> None:
        for watch in self._watches:
            watch.begins(push)

    def accepted(self, push: Watched) -> None:
        for watch in self._watches:
            watch.accepted(push)

    def refused(self, push: Watched, why: str) -> None:
        for watch in self._watches:
            watch.refused(push, why)

    def delivered(self, push: Watched) -> None:
        for watch in self._watches:
            watch.delivered(push)

    def undelivered(self, push: Watched) -> None:
        for watch in self._watches:
            watch.undelivered(push)

    def acked(self, device: bytes, updates: Iterable[tuple[str, int]]) -> None:
        for watch in self._watches:
            watch.acked(device, updates)

    def gone(self, why: str, device: bytes, slot: str, version: int) -> None:
        for watch in self._watches:
            watch.gone(why, device, slot, version)
