"""The router process: one trio program around the hub, the committer, the link and the HTTP port."""

from __future__ import annotations

import os
import select
import socket
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import trio
import zmq

from router.auth.main_server import MainServer
from router.common import health, lifecycle, logs, priority
from router.common.client_keys import ClientKeys
from router.common.cluster_settings import ClusterOptions
from router.common.fd_passing import FdReceiver, socket_path
from router.common.guard import guarded
from router.common.limit_settings import LimitOptions
from router.common.link_address import address
from router.common.listener import open_listener
from router.common.memory import Bursts, give_back
from router.common.numbers import seconds_until
from router.common.options import Settings
from router.common.partitions import BROADCASTS, fixed_owners, key_in, partition
from router.common.places import Places
from router.common.poller import READ, Poller
from router.common.settings import Data, EndpointOptions, LinkOptions, Listen, RouterOptions, StoreOptions
from router.common.tls import Contexts, contexts
from router.common.tls_settings import TlsOptions
from router.common.token import Tokens
from router.common.wires import PLAIN, TlsWire
from router.core.commit_queue import AHEAD_S
from router.core.committer import GroupCommitter
from router.core.gathering import Gathering
from router.core.hearing import Hearing
from router.core.hub import Hub
from router.core.keeping import Keeper
from router.core.push_limits import PushLimits
from router.dialects import DialectSpec, app_server_reads, specs, spoken
from router.dialects.app_server import Context
from router.dialects.channel_actions import ChannelActions
from router.dialects.device_actions import DeviceActions
from router.gate import Gate
from router.gatekeeper import Gatekeeper
from router.http.http_port import HttpPort
from router.http.routes import Route, Router
from router.http.turns import Turns
from router.key_file import load_or_make_keys
from router.link import RouterLink
from router.peers import Peers
from router.state import RouterState
from router.store.base import StoreError
from router.store.registry import for_one, open_store
from router.watching import Watching

_TICK_S = 0.1
_PORT_TICK_S = 1.0
_STOP_S = 5.0
_QUIET_S = 1.0
"""How long other routers may take to say that they send this one no more. What they send later is lost."""
_READ_S = 0.05
"""So long the connections of other routers stay when they have been answered: what is unread goes with a connection."""
_LONG_AGO_S = 600.0
"""For devices that are attached for longer the time is not kept: no older connection can still be there without having
been replaced."""
_SWITCH_INTERVAL_S = 0.0005
"""The store's thread wants the GIL back after each statement; Python's default lets it wait for 5 ms."""


class RouterProcess:
    """Everything the router is made of, wired."""

    def __init__(
        self,
        settings: Settings,
        number: int,
        listener: socket.socket,
        context: zmq.Context[zmq.Socket[bytes]],
        workers: int | None = None,
        tls: Contexts | None = None,
    ) -> None:
        """number: its place among the farm's routers, from 0. workers: how many the farm has; None: it is not known.
        tls: what was made before the fork; None: it is made here, if it is needed."""
        settings = for_one(settings)
        store_options = settings.get(StoreOptions)
        endpoint = settings.get(EndpointOptions)
        link = settings.get(LinkOptions)
        data = Path(settings.get(Data).dir)
        tokens = Tokens(load_or_make_keys(settings))
        self.settings = settings
        self.number = number
        owners = fixed_owners(settings.get(RouterOptions).routers)
        self._probe = key_in(owners.index(number), b"probe")
        self._owns_broadcasts = owners[partition(BROADCASTS)] == number
        self.store = open_store(settings, number)
        self.watching = Watching.of(settings, number, self.store)
        self.committer = GroupCommitter(self.store, store_options, time.time, time.monotonic)
        self.hub = Hub(
            self.committer,
            link,
            endpoint.delivery_timeout,
            os.urandom(8),
            time.monotonic,
            time.time,
            router=number,
            routers=settings.get(RouterOptions).routers,
            workers=workers,
            watch=None if self.watching is None else self.watching.watch,
            common=time.time if settings.get(ClusterOptions).enabled else None,
        )
        self.state = state = RouterState(self)
        self.hub.on_status(state.status)
        self.main_server = MainServer(settings, self.hub.counters)
        self.hub.on_authorise(self.main_server.questions)
        self.leaving = False
        self._finishing = False
        self.turns = Turns()
        dialects = spoken(settings, specs())
        self.gate = gate = None if self.store.lease is None else Gate(self.store.lease)
        context_of_dialects = Context(
            self.hub.core,
            tokens,
            settings,
            time.time,
            state.status,
            self.turns,
            state.metrics_page,
            lambda: gate is None or not gate.look(),
            PushLimits(
                settings.get(LimitOptions),
                ClientKeys(settings.get(Listen).proxies),
                self.hub.counters,
                time.monotonic,
            ),
        )
        of_dialects = _routes(dialects, context_of_dialects)
        if self.watching is not None:
            self.turns.scope = self.hub.scope
            of_dialects = self.watching.routes(of_dialects, self.hub.scope)
        routes = Router((*(Route(path.encode(), state.health_page) for path in health.PAGES), *of_dialects))
        books = {spec.name: book for spec in dialects if (book := spec.book(context_of_dialects)) is not None}
        ChannelActions(books, context_of_dialects).register(self.hub.actions)
        devices = {spec.name: found for spec in dialects if (found := spec.devices(context_of_dialects)) is not None}
        DeviceActions(devices, self.hub).register(self.hub.actions)
        if gate is not None:
            self.hub.actions.shut = lambda: gate.why if gate.look() else ""
        kept = [records for spec in dialects for records in spec.kept(settings)]
        self.keeper = Keeper(self.committer, self.hub.map, kept, time.time, time.monotonic)
        self.services = [service for spec in dialects for service in spec.services(context_of_dialects)]
        self.poller = Poller()
        tls_options = settings.get(TlsOptions)
        self.tls = contexts(tls_options) if tls is None else tls
        shared = settings.get(ClusterOptions).enabled  # by all routers that are on this host
        self.port = HttpPort(
            listener,
            self.poller,
            routes,
            endpoint,
            self.hub.counters,
            time.monotonic,
            self.turns,
            shared,
            settings.get(Listen),
            PLAIN if self.tls is None or not tls_options.for_app_servers else TlsWire(self.tls.front),
            tls_options,
        )
        self.places = places = Places.of(settings)
        self.hub.placed(places.look())
        self._expect_workers()
        listening = places.listening(number)
        self.gatekeeper = Gatekeeper(context, places.keys) if listening is not None else None
        self.link = RouterLink(context, address(data, number), self.hub, link, listening and listening[0])
        self.poller.register(self.link.fileno, READ)
        self.peers = Peers(context, places, number, self.hub, link, self.poller) if self.hub.asking.owners else None
        if self.gatekeeper is not None:
            self.gatekeeper.watch(self.link.server)
            if self.peers is not None:
                self.gatekeeper.watch(self.peers.server)
        self.link.gate = self.port.gate = gate
        if self.peers is not None:
            self.peers.gate = gate
        self._more = os.eventfd(0)  # readable while the link is behind: its own descriptor does not show that
        self._told_more = False
        self.poller.register(self._more, READ)
        self.gathering = Gathering(endpoint.gather_ms / 1000)
        self.fd_receiver = (
            FdReceiver(socket_path(data, number), self.poller, self.port.adopt)
            if app_server_reads(settings, dialects) is not None
            else None
        )
        self._starvation = priority.Starvation(settings.get(RouterOptions).nice)

    def flush(self) -> None:
        """Send what the last events have produced: messages first, because their answers may be there already."""
        self.link.pump()
        behind = self.link.behind
        if self.peers is not None:
            behind = self.peers.pump_with(self.link) or behind
        self.port.flush()
        if self.watching is not None:
            self.watching.flush()
        if behind != self._told_more:
            self._told_more = behind
            os.eventfd_write(self._more, 1) if self._told_more else os.eventfd_read(self._more)

    async def run(self, stop: trio.Event) -> None:
        """Serve until `stop` is set, then finish what was accepted."""
        await self.committer.open()
        logs.event("store.opened", kind=self.settings.get(StoreOptions).kind, promise=self.store.promise)
        if self.settings.get(RouterOptions).routers > 1:
            # Else its first events would be younger than what other routers are given a moment later.
            await trio.sleep(min(seconds_until(self.committer.newest, time.time()), AHEAD_S))
        self.hub.begin_after(self.committer.newest)
        if self._owns_broadcasts:
            self.hub.broadcasts.load()
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.store.run)
                nursery.start_soon(self.committer.run, self.flush)
                nursery.start_soon(self._serve)
                nursery.start_soon(self._tick)
                nursery.start_soon(self.main_server.run, self.flush)
                if self.gatekeeper is not None:
                    nursery.start_soon(self.gatekeeper.run)
                for service in self.services:
                    nursery.start_soon(service.run)
                logs.event("router.ready", port=self.settings.get(Listen).router_port, pid=os.getpid())
                await stop.wait()
                alone = not self._finishing  # otherwise all routers end, and none of them asks another
                self.finish()
                self.hub.leave()
                for service in self.services:
                    service.close()
                guarded("router.flush_failed", self.flush)
                with trio.move_on_after(_STOP_S):
                    while self.busy or self.hub.answering:
                        await trio.sleep(0.01)
                    with trio.move_on_after(_QUIET_S if alone else 0):
                        while not self.hub.answering.quiet or self.hub.answering:
                            await trio.sleep(0.01)
                        if self.peers is not None:
                            guarded("router.flush_failed", self.flush)
                            await trio.sleep(_READ_S)
                nursery.cancel_scope.cancel()
        finally:
            if self.fd_receiver is not None:
                self.fd_receiver.close()
            self.flush()
            self.port.close()
            if self.gatekeeper is not None:
                self.gatekeeper.close()
            self.link.close()
            if self.peers is not None:
                self.peers.close()
            self.poller.close()
            os.close(self._more)
            with trio.CancelScope(shield=True):
                await self._close_store()
                if self.watching is not None:
                    await self.watching.close()

    async def _close_store(self) -> None:
        """What it committed is durable, so a disk that fails now costs only a log line."""
        try:
            await self.store.close()
        except StoreError as error:
            logs.error("store.close_failed", why=str(error))

    async def _serve(self) -> None:
        ready = self.port.ready if self.fd_receiver is None else self._ready
        sessions = self.hub.sessions
        while True:
            await self._gather()
            happened = await self.poller.ready(wait=not self.turns.waiting)
            if self.gate is not None:
                self.gate.look()  # it may have slept for long
            for fd, events in happened:
                guarded("router.event_failed", ready, fd, events)  # nothing for the link's: flush receives from it
                if sessions.pressing:
                    guarded("router.flush_failed", self.link.send)
            self.turns.run()
            guarded("router.flush_failed", self.flush)

    async def _gather(self) -> None:
        """Let more come before the next turn, where that is worth it. What is here already goes to the store first."""
        now = time.monotonic()
        waiting = max(self.committer.pushes_waiting, self.hub.in_work) + self.hub.asking.open - self.hub.answering.open
        free = self.port.senders.count(now) - waiting
        rest = (
            0.0
            if self.turns.waiting or self._told_more
            else self.gathering.rest(now, self.committer.pushes_taken, free)
        )
        if rest > 0:
            self.hub.counters.waits += 1
            await trio.lowlevel.checkpoint()
            # trio would wake for the commit, and sleeps for whole milliseconds. And time.sleep fails under libfaketime,
            # which takes its deadline for one of the other clock.
            select.select((), (), (), rest)

    def _ready(self, fd: int, events: int) -> None:
        assert self.fd_receiver is not None
        if not self.fd_receiver.ready(fd):
            self.port.ready(fd, events)

    async def _tick(self) -> None:
        options = self.settings.get(StoreOptions)
        next_port = next_sweep = time.monotonic()
        hearing = Hearing(self.settings.get(LinkOptions).lease, next_port)
        bursts = Bursts()
        while True:
            await trio.sleep(_TICK_S)
            heard_until = hearing.until(time.monotonic(), self.link.heard_until)
            guarded("router.tick_failed", self.hub.tick, heard_until)
            guarded("router.tick_failed", self.keeper.tick)
            guarded("router.tick_failed", self._look_for_moves)
            now = time.monotonic()
            self.hub.store_state(self.state.store_refuses())
            if now >= next_port:
                next_port = now + _PORT_TICK_S
                guarded("router.tick_failed", self.port.tick)
                if self.tls is not None:
                    guarded("router.tick_failed", self.tls.look, now)
                guarded("router.tick_failed", self.committer.probe, self._probe)
                guarded("router.tick_failed", self._look_for_starvation, now)
                counted = self.hub.counters
                if bursts.over(self.committer.answered + counted.http_connects + counted.http_disconnects):
                    give_back()
                if self.fd_receiver is not None:
                    guarded("router.tick_failed", self.fd_receiver.tick)
            if now >= next_sweep:
                next_sweep = now + options.sweep_interval
                self.committer.sweep_soon(options.sweep_batch)
                common = time.time() if self.places.move else now  # as workers say since when they have a device
                self.hub.map.sweep(options.sweep_batch, int((common - _LONG_AGO_S) * 1000))
            guarded("router.flush_failed", self.flush)

    def _look_for_moves(self) -> None:
        """Of routers of a cluster, and whether the port for other hosts is free by now."""
        if not self.places.move:
            return
        self.link.listening.listen()
        if self.peers is not None:
            self.peers.listening.listen()
        changed = self.places.look()
        self._expect_workers()
        if changed:
            self.hub.placed(changed)
            if self.peers is not None:
                self.peers.follow(one.number for one in changed)

    def _expect_workers(self) -> None:
        """Of all hosts of a cluster that live."""
        if self.places.move and not self.hub.settling.over:
            self.hub.settling.expect({host.id: host.workers for host in self.places.hosts})

    def _look_for_starvation(self, now: float) -> None:
        changed = self._starvation.look(now)
        if changed:
            logs.event("router.comes_first", nice=self._starvation.nice)
        elif changed is not None:
            logs.event("router.waits_its_turn")

    def notice(self, over: float | None = None) -> None:
        """Answer probes as not ready from now on, and go on serving."""
        self.leaving = self.port.leaving = True

    def finish(self) -> None:
        """Take no more requests of app servers, and finish those that there are."""
        self._finishing = True
        self.notice()
        self.port.stop_listening()
        if self.fd_receiver is not None:
            self.fd_receiver.close()

    @property
    def busy(self) -> bool:
        """Whether something that was accepted is not finished."""
        return self.port.waiting or self.hub.in_work > 0 or not self.committer.settled


def _routes(dialects: Iterable[DialectSpec], context: Context) -> Iterator[Route]:
    for spec in dialects:
        yield from spec.routes(context)


def check(settings: Settings) -> None:
    """Make what a router makes from these settings, but for what only one may have, beside a router that runs.

    Raises: what would end it.
    """
    contexts(settings.get(TlsOptions))
    options = settings.get(StoreOptions)
    tokens = Tokens(load_or_make_keys(settings))
    stores = [open_store(settings, number) for number in range(settings.get(RouterOptions).routers)]
    for store in stores:
        store.check()
    committer = GroupCommitter(stores[0], options, time.time, time.monotonic)
    delay = settings.get(EndpointOptions).delivery_timeout
    hub = Hub(committer, settings.get(LinkOptions), delay, bytes(8), time.monotonic, time.time)
    Router(_routes(spoken(settings, specs()), Context(hub.core, tokens, settings, time.time, dict)))


def run(
    settings: Settings,
    number: int,
    listener: socket.socket,
    line: int | None,
    workers: int | None = None,
    tls: Contexts | None = None,
) -> int:
    """Run the router of this number on an open listener until SIGTERM, or until the supervisor's end of `line` closes.

    workers, tls: as `RouterProcess` has them. Returns: exit code.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    fields = {"router": number} if settings.get(RouterOptions).routers > 1 else {}
    return lifecycle.run(
        lambda context: RouterProcess(settings, number, listener, context, workers, tls),
        settings,
        line,
        "router",
        **fields,
    )


def run_single(settings: Settings, number: int) -> int:
    """A router on its own (`farm router`): opens its listener itself and stops at SIGTERM or SIGINT.

    Raises: ListenError.
    """
    options = settings.get(Listen)
    several = settings.get(RouterOptions).routers > 1
    listener = open_listener(
        options.host, options.router_port, options.backlog, "listen.router_port", reuse_port=several
    )
    port = listener.getsockname()[1]
    return run(settings.replace(Listen, router_port=port), number, listener, None)
