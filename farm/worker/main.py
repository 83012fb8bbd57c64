"""The worker process: one trio task that waits for sockets and link, one for time, and the drain."""

from __future__ import annotations

import gc
import os
import resource
import socket
import time
from collections.abc import Iterable
from pathlib import Path

import trio
import zmq

from farm.capacity import raise_descriptor_limit, reserved_descriptors
from farm.dialects import Context, DeviceSide, Dialect, FurtherListener, further_listeners, further_ports, sides, specs
from farm.settings import FarmOptions, WorkerOptions
from farm.worker.auth_dialects import asked_about, differing_urls
from farm.worker.drain import drain
from farm.worker.edge import Edge
from farm.worker.fd_passing import FdSender
from farm.worker.health import Health
from farm.worker.links import Links
from farm.worker.routes import Routes
from farm.worker.shared_path import by_path
from farm.worker.sockets import Sockets
from router.common import lifecycle, logs, tls
from router.common.auth_settings import AuthOptions
from router.common.cluster_settings import ClusterOptions
from router.common.errors import MendableError
from router.common.guard import guarded
from router.common.limit_settings import LimitOptions
from router.common.listener import base_url, open_listener
from router.common.memory import Bursts, cpu_seconds, give_back, resident_bytes
from router.common.metrics import WorkerCounters
from router.common.options import Settings
from router.common.pace import Pace
from router.common.places import Places
from router.common.poller import READ, Poller
from router.common.settings import Data, DrainOptions, EndpointOptions, LinkOptions, Listen, Log, RouterOptions
from router.common.tls import Contexts
from router.common.tls_settings import TlsOptions
from router.common.token import Tokens
from router.dialects import app_server_reads, is_on
from router.key_file import load_or_make_keys

_TICK_S = 0.25
_ADMIT_S = 0.02
"""Between two moments at which new connections are accepted, where they are held back."""
_LINGER_S = 0.002
_SATURATED_WAIT_S = 0.05
_FREEZE_EVERY = 2000
"""After so many more connections, gc.freeze() keeps the garbage collector from looking at what lives."""


def connection_limit(options: WorkerOptions, routers: int) -> int:
    """Open connections this process may hold: the option, or what the descriptor limit leaves."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    by_descriptors = soft - reserved_descriptors(routers)
    return min(options.max_connections or by_descriptors, by_descriptors)


def matched(
    listeners: list[socket.socket], wanted: Iterable[FurtherListener], settings: Settings
) -> list[tuple[FurtherListener, socket.socket | None]]:
    """The inherited listener of each that is wanted, found by its port; None: it is not there. One that is not
    wanted any more stays open and unused."""
    by_port = {listener.getsockname()[1]: listener for listener in listeners}
    return [(further, by_port.get(further.port(settings))) for further in wanted]


class GarbagePauses:
    """How long garbage collections stop this process."""

    def __init__(self, counters: WorkerCounters) -> None:
        self._counters = counters
        self._started = 0.0
        gc.callbacks.append(self._collected)

    def _collected(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._started = time.perf_counter()
        else:
            pause = time.perf_counter() - self._started
            if pause > self._counters.gc_pause_max_seconds:
                self._counters.gc_pause_max_seconds = round(pause, 6)


class Worker:
    """Everything a worker is made of, wired."""

    def __init__(
        self,
        settings: Settings,
        shard: int,
        listeners: list[socket.socket],
        context: zmq.Context[zmq.Socket[bytes]],
        contexts: Contexts | None = None,
    ) -> None:
        """listeners: the device port's first, then those of dialects that have a port of their own. contexts: of TLS;
        None without it."""
        self._started = time.monotonic()
        self._contexts = contexts
        self._over: float | None = None
        options = settings.get(WorkerOptions)
        data = Path(settings.get(Data).dir)
        self.settings = settings
        self.shard = shard
        self.counters = WorkerCounters()
        tokens = Tokens(load_or_make_keys(settings))
        self._dialects = _dialects(settings, tokens, self.counters)
        self.limit = connection_limit(options, settings.get(RouterOptions).routers)
        routes = Routes(settings.get(RouterOptions).routers)
        self.links = Links(
            context,
            Places.of(settings),
            settings.get(LinkOptions),
            routes,
            shard,
            os.urandom(8),
            os.getpid(),
            lambda: self.sockets,
        )
        pace = Pace(options.wakeup_interval, settings.get(FarmOptions).count)
        self.poller = Poller(_LINGER_S, pace, self.links.fileno)
        self.health = Health(self.links.each, settings.get(LinkOptions), time.monotonic)
        reads = app_server_reads(settings, specs())
        self._fd_sender = (
            FdSender(data, reads, settings.get(RouterOptions).routers, shard) if reads is not None else None
        )
        paths = by_path(self._dialects)
        self.sockets = Sockets(
            self.poller,
            options,
            paths,
            self.counters,
            self.limit,
            self.links.send,
            time.monotonic,
            {side.spec.name: dialect for side, dialect in self._dialects},
            self._fd_sender,
            self.health,
            settings.get(LimitOptions),
            asked_about(settings, self._dialects, paths),
            settings.get(AuthOptions),
            routes,
            time.time if settings.get(ClusterOptions).enabled else None,
            settings.get(FarmOptions).count,
            settings.get(Listen).proxies,
            Edge.of(settings, contexts),
            settings.get(Log),
        )
        self.sockets.on_placements(self.links.placed)
        self.poller.register(self.links.fileno, READ)
        backlog = settings.get(Listen).backlog
        self.sockets.listen(listeners[0], backlog=backlog)
        for further, inherited in matched(listeners[1:], further_listeners(settings), settings):
            if inherited is not None:
                self.sockets.listen(inherited, further.transport, backlog)
            else:  # it was not wanted when the farm was started
                logs.warning("worker.listener_needs_restart", setting=further.setting)
        self._pauses = GarbagePauses(self.counters)

    def notice(self, over: float | None = None) -> None:
        """Report from now on that no new connections should be sent here, and go on serving. over: seconds over which
        the devices are let go at the end; None: as the settings say, if all workers hold as many as this one."""
        self.health.leaving = True
        self._over = over

    def finish(self) -> None:
        """Nothing: devices are let go at SIGTERM."""

    async def run(self, stop: trio.Event) -> None:
        """Serve until `stop` is set, then let the devices go as `drain` in the settings says."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._serve)
                nursery.start_soon(self._tick)
                await stop.wait()
                self.health.leaving = True
                default = self.settings.get(DrainOptions).over(len(self.sockets) * self.settings.get(FarmOptions).count)
                await drain(
                    self.sockets,
                    self.links,
                    lambda: default if self._over is None else self._over,
                    self.settings.get(WorkerOptions).close_timeout,
                )
                nursery.cancel_scope.cancel()
        finally:
            self.sockets.drop_all()
            if self._fd_sender is not None:
                self._fd_sender.close()
            self.links.close()
            self.poller.close()

    async def _serve(self) -> None:
        links, sockets, poller = self.links, self.sockets, self.poller
        ready, ready_of_some = sockets.ready, sockets.ready_where_routers_keep_up
        while True:
            if links.saturated:
                # No router keeps up: devices wait in the kernel, only the links are read.
                with trio.move_on_after(0 if sockets.speaking else _SATURATED_WAIT_S):
                    await trio.lowlevel.wait_readable(links.fileno)
                sockets.begin_turn(time.monotonic())
                for fd, mask in poller.ready_now():
                    sockets.ready_but_not_read(fd, mask)
            else:
                # No descriptor reports what has been read already.
                events = await poller.ready(not (links.behind or sockets.waiting or sockets.speaking))
                sockets.begin_turn(time.monotonic())
                if not links.saturated:  # while we waited; the poller will report these again
                    handle = ready_of_some if links.shut else ready
                    for fd, mask in events:
                        handle(fd, mask)
                    sockets.turn()
            guarded("worker.events_failed", sockets.speak)
            links.pump()

    async def _tick(self) -> None:
        options = self.settings.get(LinkOptions)
        next_beat = 0.0
        frozen_at = 0
        bursts = Bursts()
        while True:
            next_tick = time.monotonic() + _TICK_S
            while self._pending and time.monotonic() < next_tick:  # nothing else would wake the task that serves
                await trio.lowlevel.checkpoint()
                if not self.links.saturated:
                    self.sockets.turn()
                guarded("worker.events_failed", self.sockets.speak)
                self.links.pump()
            while self.sockets.held_back and (left := next_tick - time.monotonic()) > 0:
                await trio.sleep(min(left, _ADMIT_S))
                guarded("worker.tick_failed", self.sockets.admit)
            while self.sockets.inspections.waiting and time.monotonic() < next_tick:
                guarded("worker.tick_failed", self.sockets.inspections.go_on)
                self.links.pump()
                await trio.lowlevel.checkpoint()
            await trio.sleep(max(0.0, next_tick - time.monotonic()))
            guarded("worker.tick_failed", self.sockets.tick)
            guarded("worker.tick_failed", self.links.look)
            if (now := time.monotonic()) >= next_beat:
                next_beat = now + options.heartbeat
                guarded("worker.beat_failed", self._beat)
                if len(self.sockets) - frozen_at > _FREEZE_EVERY:
                    frozen_at = len(self.sockets)
                    gc.freeze()
                if bursts.over(self.counters.connects + self.counters.disconnects):
                    give_back()
            self.links.pump()

    def _beat(self) -> None:
        if self._contexts is not None:
            self._contexts.look(time.monotonic())
        self.links.beat(self.snapshot())

    @property
    def _pending(self) -> bool:
        """Whether something waits that no descriptor reports."""
        return self.links.behind or self.sockets.speaking or (self.sockets.waiting and not self.links.saturated)

    def snapshot(self) -> dict[str, float]:
        """The worker's numbers, for its beat."""
        self.counters.link_unconfirmed = self.links.unconfirmed
        self.counters.link_refused = self.links.refused
        self.counters.link_dropped = self.links.dropped
        self.counters.waits = self.poller.waits
        numbers = self.counters.snapshot()
        for _, dialect in self._dialects:
            numbers |= dialect.counts()
        numbers["memory"] = resident_bytes()
        numbers["cpu"] = cpu_seconds()
        numbers["running"] = round(time.monotonic() - self._started, 1)
        numbers["max_connections"] = self.limit
        numbers["draining"] = self.sockets.draining
        return numbers


def _dialects(settings: Settings, tokens: Tokens, counters: WorkerCounters) -> list[tuple[DeviceSide, Dialect]]:
    """The dialects that are on."""
    context = Context(settings, tokens, counters, time.time)
    spoken = [side for side in sides() if is_on(settings, side.spec)]
    if problems := differing_urls(settings, spoken):
        raise MendableError(*problems)
    return [(side, side.make(context)) for side in spoken]


def check(settings: Settings) -> None:
    """Make what a worker makes from these settings, but for what only one may have. Raises: what would end it."""
    keys = load_or_make_keys(settings)
    by_path(_dialects(settings, Tokens(keys), WorkerCounters()))


def run(
    settings: Settings, shard: int, listeners: list[socket.socket], line: int | None, contexts: Contexts | None = None
) -> int:
    """Run a worker on open listeners until SIGTERM, or until the supervisor's end of `line` closes. contexts: of TLS.

    Returns: exit code.
    """
    return lifecycle.run(
        lambda context: Worker(settings, shard, listeners, context, contexts), settings, line, "worker", shard=shard
    )


def run_single(settings: Settings, shard: int) -> int:
    """A worker on its own (`farm worker`): opens its listener itself and stops at SIGTERM or SIGINT.

    Raises: ListenError, TlsError.
    """
    raise_descriptor_limit()
    options = settings.get(Listen)
    ports = (("listen.device_port", options.device_port), *further_ports(settings))
    listeners = [open_listener(options.host, port, options.backlog, name, reuse_port=True) for name, port in ports]
    if not settings.get(EndpointOptions).url:
        tls_there = settings.get(TlsOptions).for_app_servers
        settings = settings.replace(EndpointOptions, url=base_url(options.host, options.router_port, tls_there))
    return run(settings, shard, listeners, None, tls.contexts(settings.get(TlsOptions)))
