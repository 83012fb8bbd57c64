"""The supervisor: opens every listener and keeps it, starts K routers and N workers, and starts again what dies.

A listener outlives the process that accepts from it: connections in the queue of a worker that died wait for the
next one instead of being reset. On SIGTERM the farm is not ready for `drain.notice`, then the workers let their devices
go (`farm.supervisor.draining`), then the routers finish what they accepted. On SIGHUP all processes are replaced
(`farm.supervisor.reloading`).

Failures beside the routers and the workers (the fork server, the admin port, a reload) are repaired here or tried
again, and those go on meanwhile. Every wait has an end.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import trio
import zmq

from farm import capacity
from farm.dialects import further_ports, specs
from farm.settings import AdminOptions, FarmOptions, WorkerOptions
from farm.supervisor import admin, data_folder, draining, health
from farm.supervisor.children import (
    Child,
    ForkServer,
    ForkServerClosed,
    ForkServerFailed,
    SpawnRefused,
)
from farm.supervisor.draining import Drain
from farm.supervisor.hang_watch import HangWatch
from farm.supervisor.listeners import Listeners
from farm.supervisor.preparing import prepare
from farm.supervisor.reload_file import FAILED, ReloadFile
from farm.supervisor.reloading import Reload
from farm.supervisor.slot import POLL_S, ROUTER_STOP_S, Slot
from farm.supervisor.status_link import StatusLink
from farm.supervisor.status_links import StatusLinks
from router.common import logs, priority
from router.common.errors import MendableError
from router.common.fork_server import become_subreaper, collect_strangers
from router.common.lifecycle import PRIVATE
from router.common.link_address import address
from router.common.options import Settings
from router.common.settings import Data, DrainOptions, Listen, Log, RouterOptions
from router.store.registry import Preparation

_KILLED_S: Final = 5.0  # how long a process may take to end after SIGKILL
_PEACE_S: Final = 60.0
_AGAIN_S: Final = 1.0
_LOOKS: Final = 10  # for hangs, in `farm.hang_timeout`


T = TypeVar("T")


class StartError(MendableError):
    """The farm cannot start; the text gives the reason and what to do, in one line."""


class Supervisor:
    """Everything that runs in the supervisor."""

    def __init__(self, settings: Settings, workers: int, read_again: Callable[[], Settings]) -> None:
        """read_again: reads the settings again from their sources. Raises: ListenError."""
        routers = settings.get(RouterOptions).routers
        self.listeners = Listeners(settings.get(Listen), workers, routers, further_ports(settings))
        self.given = settings  # as they were read
        self.settings = self.listeners.with_ports(settings)
        self.read_again = read_again
        self.routers = [Slot("router", n, [one]) for n, one in enumerate(self.listeners.routers)]
        self.workers = [Slot("worker", n, one) for n, one in enumerate(self.listeners.devices)]
        self.fork_server: ForkServer | None = None
        folder, context = Path(settings.get(Data).dir), zmq.Context[zmq.Socket[bytes]]()
        self.link = StatusLinks([StatusLink(context, address(folder, number)) for number in range(routers)])
        self.started = time.monotonic()
        self.stopping = trio.Event()
        self.ready = False
        self.preparing: Preparation | None = None
        self.drain: Drain | None = None
        self._reload: Reload | None = None
        self.reloads = ReloadFile(folder)
        self._hangs = HangWatch(self.slots, 1 / _LOOKS)
        self._children: set[Child] = set()  # all that run
        self._skip_notice = trio.Event()
        self._hurry = trio.Event()
        self._failed = False
        self._over = False  # everything has ended, and the fork server is not needed any more

    @property
    def slots(self) -> list[Slot]:
        """The routers and the workers."""
        return [*self.routers, *self.workers]

    @property
    def reloading(self) -> bool:
        """Whether a reload is under way."""
        return self._reload is not None

    async def run(self) -> int:
        """Run the farm until it is stopped. Returns: exit code."""
        become_subreaper()
        admin_stop = trio.Event()
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            await nursery.start(self._signals)
            nursery.start_soon(self._persist, "fork_server", self._keep_fork_server)
            for name, task in self.link.tasks():
                nursery.start_soon(self._persist, name, task)
            nursery.start_soon(self._persist, "admin", lambda: self._serve_admin(admin_stop))
            nursery.start_soon(self._persist, "hangs", self._watch_for_hangs)
            await self._prepare_store()
            for slot in self.slots:
                nursery.start_soon(self._persist, slot.name, partial(self._keep, slot))
            nursery.start_soon(self._persist, "announce", self._announce)
            await self.stopping.wait()
            await self._shut_down()
            admin_stop.set()
            nursery.cancel_scope.cancel()
        self.link.close()
        self.listeners.close()
        return 1 if self._failed else 0

    async def _prepare_store(self) -> None:
        def under_way(work: Preparation | None) -> None:
            self.preparing = work

        try:
            await prepare(self.settings, self.stopping, under_way)
        except MendableError as error:
            self._fail_start("store", str(error))

    async def _persist(self, name: str, task: Callable[[], Awaitable[None]]) -> None:
        """Run a task that the farm can do without for a while: if it fails it is begun again."""
        while True:
            try:
                await task()
                return
            except Exception as error:
                logs.limited("supervisor.task_failed", at="error", per=name, exc=error, task=name)
                await trio.sleep(_AGAIN_S)

    async def _serve_admin(self, stop: trio.Event) -> None:
        handle = os.dup(self.listeners.admin.fileno())  # it closes what it is given
        options = self.settings.get(AdminOptions)
        status, unready = partial(health.status, self), partial(health.unready, self)
        await admin.run(handle, options, status, unready, self.link.set_broadcast, specs(), stop)

    # ------------------------------------------------------------------ processes

    async def start_fork_server(self, settings: Settings) -> ForkServer:
        """A fork server that has imported everything. Raises: ForkServerFailed."""
        options = settings.get(FarmOptions)
        return await ForkServer.start(settings, self._nursery, options.spawn_timeout, options.start_timeout)

    async def _keep_fork_server(self) -> None:
        """There is a fork server; another one if it dies, or does not answer for too long."""
        options = self.settings.get(FarmOptions)
        wait = options.restart_min
        while not self._over:
            fork_server = self.fork_server
            if fork_server is None or not fork_server.alive:
                try:
                    self.fork_server = await self.start_fork_server(self.settings)
                except ForkServerFailed as error:
                    logs.limited("fork_server.failed", at="error", why=str(error))
                    if not self.ready and fork_server is None:
                        self._fail_start("fork_server", str(error))
                        return
                    await trio.sleep(wait)
                    wait = min(wait * 2, options.restart_max)
                    continue
                wait = options.restart_min
                if fork_server is not None:
                    logs.warning("fork_server.replaced", pid=self.fork_server.process.pid)
                continue
            with trio.move_on_after(options.hang_timeout / 2):
                await fork_server.process.ended.wait()
                if fork_server is self.fork_server and not self._over:
                    logs.warning("fork_server.died", pid=fork_server.process.pid, status=fork_server.process.status)
            known = [child.pid for child in self._children]
            collect_strangers([fork_server.process.pid, *known])
            if fork_server.alive:
                with contextlib.suppress(ForkServerFailed):
                    await self._tell_if_lost(fork_server, fork_server.check_alive())

    async def _tell_if_lost(self, fork_server: ForkServer, question: Awaitable[T]) -> T:
        try:
            return await question
        except ForkServerClosed:
            raise
        except ForkServerFailed as error:
            logs.warning("fork_server.lost", pid=fork_server.process.pid, why=str(error))
            raise

    def _fail_start(self, process: str, why: str) -> None:
        if not self.stopping.is_set():
            logs.error("farm.start_failed", name=process, why=why or "its own lines above say why")
            self._failed = True
            self.stopping.set()

    async def spawn(self, kind: str, number: int, listeners: list[socket.socket], fork_server: ForkServer) -> Child:
        """Fork a process from this fork server. Raises: ForkServerFailed, SpawnRefused."""
        child = await fork_server.spawn(kind, number, listeners)
        self._children.add(child)
        self._nursery.start_soon(self._forget_ended, child)
        logs.debug("process.started", kind=kind, number=number, pid=child.pid)
        return child

    async def _forget_ended(self, child: Child) -> None:
        await child.ended.wait()
        self._children.discard(child)

    async def _spawn_for(self, slot: Slot) -> Child:
        """A process for this slot, from the fork server that there is, as soon as there is one."""
        while True:
            fork_server = slot.fork_server
            if fork_server is None or not fork_server.alive:
                fork_server = self.fork_server
            if fork_server is not None and fork_server.alive:
                try:
                    spawned = self.spawn(slot.kind, slot.number, slot.listeners, fork_server)
                    return await self._tell_if_lost(fork_server, spawned)
                except ForkServerFailed:
                    pass  # there will be another one
                except SpawnRefused as error:
                    logs.limited("process.not_started", at="error", per=slot.name, name=slot.name, why=str(error))
                    await trio.sleep(self.settings.get(FarmOptions).restart_max)
            await trio.sleep(POLL_S)

    async def _keep(self, slot: Slot) -> None:
        options = self.settings.get(FarmOptions)
        wait = options.restart_min
        while not self.stopping.is_set():
            async with slot.turn:  # a reload that is about to put one there comes first
                if not slot.alive:
                    slot.put(await self._spawn_for(slot))
            child = slot.child
            assert child is not None
            if self.stopping.is_set():
                child.signal(signal.SIGTERM)
            began = time.monotonic()
            await child.relieved.wait()
            async with slot.turn:
                pass
            if self.stopping.is_set():
                return
            if slot.child is not child:
                continue
            if not self.ready and child.status == 1:
                self._fail_start(slot.name, child.why)
                return
            if time.monotonic() - began > _PEACE_S:
                wait = options.restart_min
            logs.warning("process.died", name=slot.name, pid=child.pid, status=child.status, restart_in=wait)
            with trio.move_on_after(wait):
                await self.stopping.wait()
            wait = min(wait * 2, options.restart_max)
            slot.restarts += 1

    async def _announce(self) -> None:
        while not self.ready:
            if (await health.status(self))["status"] == "ok":
                self.ready = True
            else:
                await trio.sleep(POLL_S)
        listen = self.settings.get(Listen)
        logs.event(
            "farm.ready",
            devices=f"{listen.host}:{listen.device_port}",
            app_servers=f"{listen.host}:{listen.router_port}",
            admin=f"{listen.admin_host}:{listen.admin_port}",
            workers=len(self.workers),
            routers=len(self.routers),
            pid=os.getpid(),
        )

    # ------------------------------------------------------------------ hangs

    async def _watch_for_hangs(self) -> None:
        while not self.stopping.is_set():
            await trio.sleep(self.settings.get(FarmOptions).hang_timeout / _LOOKS)
            await self._look_for_hangs()

    async def _look_for_hangs(self) -> None:
        answers = await self.link.ask()
        if not self.stopping.is_set():
            self._hangs.look(answers, self.settings)

    # ------------------------------------------------------------------ signals

    async def _signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            task_status.started()
            async for number in signals:
                if number == signal.SIGHUP:
                    self._asked_to_reload()
                elif not self.stopping.is_set():
                    self.stopping.set()
                elif not self._skip_notice.is_set():
                    self._skip_notice.set()
                else:
                    logs.warning("drain.cut_short")
                    self._hurry.set()

    def _asked_to_reload(self) -> None:
        """Begin a reload, or report why not."""
        if self._reload is not None:
            logs.warning("reload.refused", why="a reload is under way")
        elif self.stopping.is_set():
            self.reloads.refused("the farm is about to stop")
        elif not self.ready:
            self.reloads.refused("the farm has not started yet: wait until GET /health answers 200")
        else:
            self._reload = Reload(self)
            self._nursery.start_soon(self._run_reload, self._reload)

    async def _run_reload(self, reload: Reload) -> None:
        try:
            await reload.run()
        except Exception as error:
            logs.error("reload.failed", error)
            self.reloads.ended(FAILED, f"{type(error).__name__}: {error}")
        finally:
            self._reload = None

    # ------------------------------------------------------------------ the end

    async def _shut_down(self) -> None:
        options, grace = self.settings.get(DrainOptions), self.settings.get(FarmOptions).drain_grace
        notice = options.notice if self.ready and not self._failed else 0.0
        logs.event("farm.draining", notice=notice)
        self.drain = drain = Drain(options, notice)
        for child in self._children:
            child.notice()
        with trio.move_on_after(notice):
            await self._skip_notice.wait()
        self._skip_notice.set()
        for slot in self.workers:
            for listener in slot.listeners:
                listener.close()
        routers = {slot.child for slot in self.routers}
        workers = [child for child in self._children if child not in routers]
        seconds = await drain.begin_devices(self.link, workers) if self.ready else options.longest()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain.report, self.link)
            await self.end(workers, seconds + self.settings.get(WorkerOptions).close_timeout + grace)
            nursery.cancel_scope.cancel()
        drain.phase = draining.ROUTERS
        if len(self.routers) > 1:
            await self._finish_requests()
        await self.end(list(self._children), grace + ROUTER_STOP_S, may_hurry=False)
        self._over = True
        if self.fork_server is not None:
            self.fork_server.close()
            with trio.move_on_after(_KILLED_S):  # when this process has ended, nothing of the farm is left
                await self.fork_server.process.ended.wait()
        logs.event("farm.stopped")

    async def _finish_requests(self) -> None:
        """Before any of several routers ends: what one of them has accepted may need another one."""
        for slot in self.routers:
            if slot.child is not None:
                slot.child.finish()
        with trio.move_on_after(ROUTER_STOP_S):
            while any(answer["busy"] for answer in (await self.link.ask()).of.values()):
                await trio.sleep(POLL_S)

    async def end(self, children: list[Child], patience: float, may_hurry: bool = True) -> None:
        """SIGTERM to all, SIGKILL to those left when patience is over or the operator is in a hurry."""
        for child in children:
            child.signal(signal.SIGTERM)
        with trio.move_on_after(patience):
            async with trio.open_nursery() as nursery:
                if may_hurry:
                    nursery.start_soon(self._cancel_when_hurried, nursery.cancel_scope)
                for child in children:
                    await child.ended.wait()
                nursery.cancel_scope.cancel()
        for child in children:
            if not child.ended.is_set():
                logs.warning("process.killed", pid=child.pid)
                child.signal(signal.SIGKILL)
        for child in children:
            with trio.move_on_after(_KILLED_S):
                await child.ended.wait()

    async def _cancel_when_hurried(self, scope: trio.CancelScope) -> None:
        await self._hurry.wait()
        scope.cancel()

    async def joined(self, child: Child) -> bool:
        """Wait until this worker has joined every router. Returns: False if it has ended, or takes too long."""
        with trio.move_on_after(self.settings.get(FarmOptions).start_timeout):
            while not child.ended.is_set():
                answers = await self.link.ask()
                if answers.complete and answers.joined(child.pid):
                    return True
                await trio.sleep(POLL_S)
        return False


def run(settings: Settings, read_again: Callable[[], Settings]) -> int:
    """Run a farm in the foreground. Returns: exit code.

    read_again: reads the settings anew, for a reload; raises ConfigError.
    Raises: StartError.
    """
    log = settings.get(Log)
    logs.setup(log.format, log.level, process="farm")
    workers = settings.get(FarmOptions).count
    capacity.raise_descriptor_limit()
    for line in capacity.describe(capacity.limits(settings, workers)):
        name, _, text = line.partition(": ")
        logs.event("limits", **{name.replace(" ", "_"): text or line})
    os.umask(PRIVATE)
    priority.take(settings.get(RouterOptions).nice)
    try:
        with data_folder.held(settings):
            return trio.run(Supervisor(settings, workers, read_again).run)
    except MendableError as error:
        raise StartError(str(error)) from None
