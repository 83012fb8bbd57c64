"""The supervisor: opens every listener and keeps it, starts K routers and N workers, and starts again what dies.

A listener outlives the process that accepts from it: connections in the queue of a worker that died wait for the
next one instead of being reset. On SIGTERM everything ends (`farm.supervisor.ending`), on SIGHUP all processes are
replaced (`farm.supervisor.reloading`).

Failures beside the routers and the workers (the fork server, the admin port, a reload) are repaired here or tried
again, and those go on meanwhile. Every wait has an end.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import trio
import zmq

from farm import capacity
from farm.dialects import further_ports, specs
from farm.settings import AdminOptions, FarmOptions
from farm.supervisor import admin, api, data_folder, health, replacing
from farm.supervisor.activation import ActivationError, GivenSockets
from farm.supervisor.api import frame
from farm.supervisor.children import Child
from farm.supervisor.cluster import Cluster
from farm.supervisor.draining import Drain
from farm.supervisor.ending import Ending
from farm.supervisor.expiry import ExpiryWatch
from farm.supervisor.hang_watch import HangWatch
from farm.supervisor.history import INTERVAL_S, History
from farm.supervisor.last_replacement import LastReplacement
from farm.supervisor.listeners import Listeners
from farm.supervisor.notify import Notifier
from farm.supervisor.preparing import prepare
from farm.supervisor.processes import Processes
from farm.supervisor.recent_events import RecentEvents
from farm.supervisor.reload_file import FAILED, ReloadFile
from farm.supervisor.reloading import Reload
from farm.supervisor.running_farm import HostOfCluster
from farm.supervisor.sampling import Sampler
from farm.supervisor.slot import POLL_S, Slot
from farm.supervisor.status_link import StatusLink
from farm.supervisor.status_links import StatusLinks
from farm.supervisor.waiting import first_of
from router.cluster.registry import JoinError
from router.common import logs, priority
from router.common.cluster_settings import ClusterOptions
from router.common.errors import MendableError
from router.common.fork_server import become_subreaper
from router.common.lifecycle import PRIVATE
from router.common.link_address import address
from router.common.options import Settings
from router.common.settings import Data, Listen, Log, RouterOptions
from router.store.registry import Preparation

_PEACE_S: Final = 60.0
_AGAIN_S: Final = 1.0
_LOOKS: Final = 10  # for hangs, in `farm.hang_timeout`


class StartError(MendableError):
    """The farm cannot start; the text gives the reason and what to do, in one line."""

    def __init__(self, why: str, vain: bool) -> None:
        """vain: whether another start would end in the same way."""
        super().__init__(why)
        self.vain = vain


class Supervisor:
    """Everything that runs in the supervisor."""

    def __init__(
        self,
        settings: Settings,
        workers: int,
        read_again: Callable[[], Settings],
        events: RecentEvents,
        notifier: Notifier,
        sockets: GivenSockets,
    ) -> None:
        """read_again: reads the settings again from their sources. events: of the log. notifier: to the service
        manager, which has given these sockets. Raises: ListenError, ActivationError.
        """
        routers, many_hosts = settings.get(RouterOptions).routers, settings.get(ClusterOptions).enabled
        self.listeners = Listeners(settings.get(Listen), workers, routers, further_ports(settings), many_hosts, sockets)
        self.given = settings  # as they were read
        self.settings = self.listeners.with_ports(settings)
        self.read_again = read_again
        self.routers = [Slot("router", n, one) for n, one in enumerate(self.listeners.routers)]
        self.workers = [Slot("worker", n, one) for n, one in enumerate(self.listeners.devices)]
        self.processes = Processes(lambda: self.settings)
        self.events = events
        self._notifier = notifier
        self.history = History()
        folder, context = Path(settings.get(Data).dir), zmq.Context[zmq.Socket[bytes]]()
        links = [StatusLink(context, None if many_hosts else address(folder, number)) for number in range(routers)]
        self.link = StatusLinks(
            links,
            lambda: [slot.number for slot in self.placed],
            lambda: self._cluster.elsewhere() if self._cluster is not None else None,
        )
        self.started = time.monotonic()
        self.stopping = trio.Event()
        self.ready = False
        self.preparing: Preparation | None = None
        self.ending = Ending(self)
        self._reload: Reload | None = None
        self.reloads = ReloadFile(folder)
        self.replacement = LastReplacement()
        self._hangs = HangWatch((*self.routers, *self.workers), 1 / _LOOKS)
        self._failed = 0  # the exit code
        self._cluster: Cluster | None = Cluster(self, settings) if many_hosts else None
        if self._cluster is not None:
            self.link.host = self._cluster.id
            for slot in self.routers:
                slot.withdraw()

    @property
    def placed(self) -> list[Slot]:
        """Those of the routers that are to run here."""
        return [slot for slot in self.routers if slot.placed]

    @property
    def cluster(self) -> HostOfCluster | None:
        """This host's part of a cluster; None: this is a farm of one host."""
        return self._cluster

    @property
    def reloading(self) -> bool:
        """Whether a reload is under way."""
        return self._reload is not None

    async def run(self) -> int:
        """Run the farm until it is stopped. Returns: exit code."""
        become_subreaper()
        admin_stop = trio.Event()
        async with trio.open_nursery() as nursery:
            self._nursery = self.processes.nursery = nursery
            await nursery.start(self._signals)
            nursery.start_soon(self._persist, "fork_server", partial(self.processes.keep_fork_server, self._is_vain))
            for name, task in self.link.tasks():
                nursery.start_soon(self._persist, name, task)
            nursery.start_soon(self._persist, "admin", lambda: self._serve_admin(admin_stop))
            nursery.start_soon(self._persist, "hangs", self._watch_for_hangs)
            nursery.start_soon(self._persist, "history", self._sample)
            nursery.start_soon(self._persist, "log_events", partial(self.processes.log_socket.run, self.events.add))
            for name, task in self._notifier.tasks(partial(health.status, self)):
                nursery.start_soon(self._persist, name, task)
            await self._prepare_store()
            if self._cluster is not None and not self.stopping.is_set() and await self._join(self._cluster):
                nursery.start_soon(self._persist, "cluster", self._cluster.run)
            for slot in (*self.routers, *self.workers):
                nursery.start_soon(self._persist, slot.name, partial(self._keep, slot))
            nursery.start_soon(self._persist, "announce", self._announce)
            await self.stopping.wait()
            self._notifier.stopping()
            await self.ending.run(bool(self._failed))
            admin_stop.set()
            nursery.cancel_scope.cancel()
        self.link.close()
        self.listeners.close()
        self.processes.log_socket.close()
        return self._failed

    async def _prepare_store(self) -> None:
        def under_way(work: Preparation | None) -> None:
            self.preparing = work

        try:
            await prepare(self.settings, self.stopping, under_way)
        except MendableError as error:
            self._fail_start("store", str(error))

    async def _join(self, cluster: Cluster) -> bool:
        try:
            await cluster.join()
        except MendableError as error:
            self._fail_start("cluster", str(error), 2 if isinstance(error, JoinError) else 1)
            return False
        return True

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
        routes = frame.mount(api.routes(frame.ApiContext(self, status)), options.max_body_bytes)
        await admin.run(handle, lambda: self.settings, status, unready, self.link.set_broadcast, specs(), routes, stop)

    # ------------------------------------------------------------------ processes

    def _is_vain(self, why: str) -> bool:
        """Whether there is no use in trying again to start a fork server."""
        if not self.ready:
            self._fail_start("fork_server", why)
        return not self.ready

    def _fail_start(self, process: str, why: str, code: int = 1) -> None:
        if not self.stopping.is_set():
            logs.error("farm.start_failed", name=process, why=why or "its own lines above say why")
            self._failed = code
            self._notifier.stopping(f"{process}: {why or 'the log says why'}")
            self.stopping.set()

    async def _keep(self, slot: Slot) -> None:
        options = self.settings.get(FarmOptions)
        wait = options.restart_min
        while not self.stopping.is_set():
            await slot.placing.wait()
            if slot.kind == "router" and self._cluster is not None and not self._cluster.in_touch and not slot.alive:
                await trio.sleep(POLL_S)
                continue
            async with slot.turn:  # a reload that is about to put one there comes first
                if not slot.alive and slot.placed:
                    slot.put(await self.processes.spawn_for(slot))
            child = slot.child
            if child is None:
                continue
            if self.stopping.is_set():
                child.signal(signal.SIGTERM)
            began = time.monotonic()
            await child.relieved.wait()
            async with slot.turn:
                pass
            if self.stopping.is_set():
                return
            if slot.child is not child or not slot.placed:
                continue
            if not self.ready and child.status == 1 and (slot.kind == "worker" or self._cluster is None):
                self._fail_start(slot.name, child.why)
                return
            if time.monotonic() - began > _PEACE_S:
                wait = options.restart_min
            logs.warning("process.died", name=slot.name, pid=child.pid, status=child.status, restart_in=wait)
            withdrawn = slot.withdrawn
            with trio.move_on_after(wait):
                await first_of(self.stopping, withdrawn)
            wait = options.restart_min if withdrawn.is_set() else min(wait * 2, options.restart_max)
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
            routers=len(self.placed),
            pid=os.getpid(),
        )
        self._notifier.ready()

    async def _sample(self) -> None:
        sampler, expiry = Sampler(), ExpiryWatch()
        while True:
            status = await health.status(self)
            expiry.look(status["certificate_expires"], time.time())
            self.history.add(time.monotonic(), sampler.sample(status, time.monotonic()))
            await trio.sleep(INTERVAL_S - time.monotonic() % INTERVAL_S)

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
                else:
                    self.ending.asked_again()

    def _asked_to_reload(self) -> None:
        """Begin a reload, or report why not."""
        why = self.request_reload()
        if why:  # the service manager may have sent the signal: then it waits for this, and for the end
            self._notifier.reloading()
        if why and self._reload is not None:  # whose outcome is not to be lost
            logs.warning("reload.refused", why=why)
        elif why:
            self.reloads.refused(why)
            self._notifier.reloaded()

    def request_reload(self) -> str:
        """Begin a reload. Returns: why not; "" if it has begun."""
        if self._reload is not None:
            return "a reload is under way"
        if worker := self.replacement.under_way:
            return f"{worker} is being replaced: farm status shows how far that is"
        if self.stopping.is_set():
            return "the farm is about to stop"
        if not self.ready:
            return "the farm has not started yet: wait until GET /health answers 200"
        self._reload = Reload(self)
        self._notifier.reloading()
        self._nursery.start_soon(self._run_reload, self._reload)
        return ""

    def replace_worker(self, shard: int, action: str) -> dict[str, Any]:
        """As `replacing.begin`."""
        return replacing.begin(self, shard, action, self._nursery)

    async def _run_reload(self, reload: Reload) -> None:
        try:
            await reload.run()
        except Exception as error:
            logs.error("reload.failed", error)
            self.reloads.ended(FAILED, f"{type(error).__name__}: {error}")
        finally:
            self._reload = None
            self._notifier.reloaded()

    @property
    def drain(self) -> Drain | None:
        """The end of the farm, once it has begun."""
        return self.ending.drain

    async def end(self, children: list[Child], patience: float, may_hurry: bool = True) -> None:
        """As `Ending.end`."""
        await self.ending.end(children, patience, may_hurry)

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
    log, events = settings.get(Log), RecentEvents()
    logs.copy_to(events.add)
    logs.setup(log.format, log.level, process="farm")
    notifier = Notifier(os.environ)
    workers = settings.get(FarmOptions).count
    capacity.raise_descriptor_limit()
    limits = capacity.limits(settings, workers)
    for line in capacity.describe(limits):
        name, _, text = line.partition(": ")
        logs.event("limits", **{name.replace(" ", "_"): text or line})
    if why := capacity.no_room(limits):
        raise StartError(why, vain=False)
    os.umask(PRIVATE)
    priority.take(settings.get(RouterOptions).nice)
    try:
        with data_folder.held(settings):
            sockets = GivenSockets(os.environ)
            return trio.run(Supervisor(settings, workers, read_again, events, notifier, sockets).run)
    except MendableError as error:
        raise StartError(str(error), vain=isinstance(error, ActivationError)) from None
