"""The supervisor: opens every listener and keeps it, starts one router and N workers, and starts again what dies.

A listener outlives the process that accepts from it: connections in the queue of a worker that died wait for the
next one instead of being reset. On SIGTERM the workers let their devices go over `drain.seconds`, then the router
finishes what it accepted. On SIGHUP the workers are replaced one at a time and then the router, from a new forker, so
that new code and the file of applications count.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import trio
import zmq

from farm import admin, applications, capacity
from farm.config import ConfigError
from farm.control import pid_file
from farm.forker import Child, Forker, ForkerGone
from farm.settings import DrainOptions, FarmOptions, WorkerOptions
from farm.status_link import StatusLink
from router import __version__, handover, logs
from router.link import SOCKET_NAME, LinkError, address
from router.listener import ListenError, base_url, open_listener
from router.memory import resident_bytes
from router.options import Settings
from router.settings import Data, EndpointOptions, Listen, Log, TokenOptions
from router.token import KeyFormatError, load_or_make_keys

_JOIN_POLL_S: Final = 0.05
_JOIN_TIMEOUT_S: Final = 30.0
_ROUTER_STOP_S: Final = 5.0  # what it gives its own work, at most
_PEACE_S: Final = 60.0
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class StartError(Exception):
    """The farm cannot start; the text says why and what to do, in one line."""


class Slot:
    """One process that must run: the router, or the worker of one shard."""

    def __init__(self, kind: str, shard: int, listener: socket.socket) -> None:
        self.kind = kind
        self.shard = shard
        self.listener = listener
        self.child: Child | None = None
        self.renewal: trio.Event | None = None  # set once a reload has put another child in its place
        self.restarts = 0

    @property
    def name(self) -> str:
        """For logs and for `down` in the health answer."""
        return "router" if self.kind == "router" else f"worker[{self.shard}]"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.child is not None and not self.child.ended.is_set()


class Supervisor:
    """Everything that runs in the supervisor."""

    def __init__(self, settings: Settings, workers: int) -> None:
        self._listeners = Listeners(settings.get(Listen), workers)
        self.settings = _with_ports(settings, self._listeners)
        self._router = Slot("router", -1, self._listeners.router)
        self._workers = [Slot("worker", n, one) for n, one in enumerate(self._listeners.devices)]
        self._forker: Forker | None = None
        self._old_forkers: list[Forker] = []  # replaced by a reload, but parent of something that still runs
        self._started = time.monotonic()
        self._stopping = trio.Event()
        self._hurry = trio.Event()
        self._ready = False
        self._failed = False
        self._reloading = False
        self._between: list[Child] = []  # of a reload: not in their slot yet, or not any more
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._link = StatusLink(self._context, address(Path(settings.get(Data).dir)))

    async def run(self) -> int:
        """Run the farm until it is told to stop. Returns: exit code."""
        async with trio.open_nursery() as nursery:
            self._forker = Forker(self.settings)
            nursery.start_soon(self._signals, nursery)
            nursery.start_soon(self._watch_forker, self._forker, nursery)
            nursery.start_soon(self._link.run)
            admin_stop = trio.Event()
            handle = self._listeners.admin.detach()
            nursery.start_soon(admin.run, handle, self.status, self._link.set_notice, admin_stop)
            for slot in (self._router, *self._workers):
                nursery.start_soon(self._keep, slot)
            nursery.start_soon(self._announce)
            await self._stopping.wait()
            await self._shut_down()
            admin_stop.set()
            nursery.cancel_scope.cancel()
        self._forker.close()
        self._link.close()
        self._context.destroy(linger=0)
        self._listeners.close()
        return 1 if self._failed else 0

    # ------------------------------------------------------------------ processes

    async def _keep(self, slot: Slot) -> None:
        options = self.settings.get(FarmOptions)
        wait = options.restart_min
        while not self._stopping.is_set():
            assert self._forker is not None
            began = time.monotonic()
            slot.child = child = await self._forker.spawn(slot.kind, slot.shard, slot.listener)
            logs.debug("process.started", name=slot.name, pid=child.pid)
            while True:
                await child.ended.wait()
                if slot.renewal is not None:
                    await slot.renewal.wait()
                if slot.child is child:
                    break
                child = slot.child  # a reload has put another in its place
            if self._stopping.is_set():
                return
            if not self._ready and child.status == 1:
                logs.error("farm.start_failed", process=slot.name, hint="its own line above says why")
                self._failed = True
                self._stopping.set()
                return
            if time.monotonic() - began > _PEACE_S:
                wait = options.restart_min
            logs.warning("process.died", name=slot.name, pid=child.pid, status=child.status, restart_in=wait)
            with trio.move_on_after(wait):
                await self._stopping.wait()
            wait = min(wait * 2, options.restart_max)
            slot.restarts += 1

    async def _watch_forker(self, forker: Forker, nursery: trio.Nursery) -> None:
        try:
            await forker.run()
        except (ForkerGone, trio.ClosedResourceError):
            if forker is self._forker and not self._stopping.is_set():
                # Nothing could be started again: better to be started anew as a whole, while devices still drain.
                logs.error("forker.died", pid=forker.pid)
                self._failed = True
                self._stopping.set()

    async def _signals(self, nursery: trio.Nursery) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
            async for number in signals:
                if number == signal.SIGHUP:
                    if self._reloading or self._stopping.is_set():
                        logs.warning("reload.refused", why="a reload or a drain is under way")
                    else:
                        self._reloading = True
                        nursery.start_soon(self._reload, nursery)
                elif self._stopping.is_set():
                    logs.warning("drain.cut_short")
                    self._hurry.set()
                else:
                    self._stopping.set()

    async def _announce(self) -> None:
        while (await self.status())["status"] != "ok":
            await trio.sleep(_JOIN_POLL_S)
        self._ready = True
        listen = self.settings.get(Listen)
        logs.event(
            "farm.ready",
            devices=f"{listen.host}:{listen.device_port}",
            app_servers=f"{listen.host}:{listen.router_port}",
            admin=f"{listen.admin_host}:{listen.admin_port}",
            workers=len(self._workers),
            pid=os.getpid(),
        )

    async def _shut_down(self) -> None:
        grace = self.settings.get(FarmOptions).drain_grace
        seconds = self.settings.get(DrainOptions).seconds
        logs.event("farm.draining", seconds=seconds)
        for slot in self._workers:
            slot.listener.close()
        workers = [slot.child for slot in self._workers if slot.child is not None] + self._between
        await self._end(workers, seconds + self.settings.get(WorkerOptions).close_timeout + grace)
        if self._router.child is not None:
            await self._end([self._router.child], grace + _ROUTER_STOP_S, may_hurry=False)
        logs.event("farm.stopped")

    async def _end(self, children: list[Child], patience: float, may_hurry: bool = True) -> None:
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
            with trio.move_on_after(5.0):
                await child.ended.wait()

    async def _cancel_when_hurried(self, scope: trio.CancelScope) -> None:
        await self._hurry.wait()
        scope.cancel()

    async def _reload(self, nursery: trio.Nursery) -> None:
        """Replace the workers one at a time: the new one accepts beside the old one before that is told to drain.
        Then the router: by now it is known that what it is replaced with can run."""
        try:
            applications.check(self.settings)
        except ConfigError as error:
            logs.error("reload.refused", why="; ".join(error.problems))
            self._reloading = False
            return
        logs.event("reload.began", workers=len(self._workers))
        old_forker, self._forker = self._forker, Forker(self.settings)
        nursery.start_soon(self._watch_forker, self._forker, nursery)
        seconds = self.settings.get(DrainOptions).seconds + self.settings.get(WorkerOptions).close_timeout
        patience = seconds + self.settings.get(FarmOptions).drain_grace
        for slot in self._workers:
            if self._stopping.is_set():
                return
            old = slot.child
            new = await self._forker.spawn(slot.kind, slot.shard, slot.listener)
            self._between.append(new)
            if not await self._joined(new):
                logs.error("reload.stopped", process=slot.name, why="the new worker did not join the router")
                await self._end([new], 1.0)
                break
            if self._stopping.is_set():
                return
            slot.child = new
            self._between.remove(new)
            if old is not None:
                self._between.append(old)
                await self._end([old], patience)
                self._between.remove(old)
            logs.event("reload.replaced", process=slot.name, pid=new.pid)
        else:
            await self._renew_router()
            logs.event("reload.done")
        if old_forker is not None:
            self._old_forkers.append(old_forker)
        for forker in [forker for forker in self._old_forkers if forker.childless]:
            self._old_forkers.remove(forker)
            forker.close()
        self._reloading = False

    async def _renew_router(self) -> None:
        """There is but one at a time. It finishes what it accepted; who comes meanwhile waits in the listener."""
        slot = self._router
        grace = self.settings.get(FarmOptions).drain_grace
        slot.renewal = trio.Event()
        try:
            if slot.child is not None:
                await self._end([slot.child], grace + _ROUTER_STOP_S, may_hurry=False)
            assert self._forker is not None
            slot.child = await self._forker.spawn(slot.kind, slot.shard, slot.listener)
        finally:
            slot.renewal.set()
            slot.renewal = None
        with trio.move_on_after(_JOIN_TIMEOUT_S):
            while not self._stopping.is_set() and (await self.status())["down"]:
                await trio.sleep(_JOIN_POLL_S)
        logs.event("reload.replaced", process=slot.name, pid=slot.child.pid)

    async def _joined(self, child: Child) -> bool:
        with trio.move_on_after(_JOIN_TIMEOUT_S):
            while not child.ended.is_set():
                told = await self._link.ask()
                if told is not None and any(worker["pid"] == child.pid for worker in told["workers"]):
                    return True
                await trio.sleep(_JOIN_POLL_S)
        return False

    # ------------------------------------------------------------------ status

    async def status(self) -> dict[str, Any]:
        """The whole farm, asked now. `status` is ok, starting, degraded or draining; `down` names what is missing."""
        told = await self._link.ask()
        joined = {worker["pid"]: worker for worker in told["workers"]} if told is not None else {}
        down = [] if told is not None and self._router.alive else ["router"]
        rows = []
        for slot in self._workers:
            pid = slot.child.pid if slot.child is not None else None
            row = dict(joined.get(pid, {})) if slot.alive else {}
            state = "up" if row else "joining" if slot.alive else "down"
            if not row:
                down.append(slot.name)
            rows.append({**row, "shard": slot.shard, "pid": pid, "state": state, "restarts": slot.restarts})
        if self._stopping.is_set():
            state = "draining"
        elif not down:
            state = "ok"
        else:
            state = "degraded" if self._ready else "starting"
        listen = self.settings.get(Listen)
        router: dict[str, Any] = {"pid": None, "state": "down"}
        if told is not None:
            router = {**told["router"], "pid": told["pid"], "memory": told["memory"], "state": "up"}
        return {
            "status": state,
            "down": down,
            "version": __version__,
            "pid": os.getpid(),
            "memory": resident_bytes(),
            "uptime": round(time.monotonic() - self._started, 1),
            "reloading": self._reloading,
            "ports": {"device": listen.device_port, "router": listen.router_port, "admin": listen.admin_port},
            "connections": sum(row.get("connections", 0) for row in rows),
            "router": router,
            "workers": rows,
        }


class Listeners:
    """Every listening socket of the farm."""

    def __init__(self, options: Listen, workers: int) -> None:
        self.devices: list[socket.socket] = []
        port = options.device_port
        try:
            # SO_REUSEPORT would let us share the port with a stranger: see first that nobody has it.
            open_listener(options.host, port, options.backlog, "listen.device_port").close()
            for _ in range(workers):
                listener = open_listener(options.host, port, options.backlog, "listen.device_port", reuse_port=True)
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.devices.append(listener)
                port = listener.getsockname()[1]
            self.router = open_listener(options.host, options.router_port, options.backlog, "listen.router_port")
            self.admin = open_listener(options.admin_host, options.admin_port, 128, "listen.admin_port")
        except ListenError as error:
            for listener in self.devices:
                listener.close()
            raise StartError(str(error)) from None

    def close(self) -> None:
        """Close what is still open."""
        for listener in (*self.devices, self.router, self.admin):
            listener.close()


def _with_ports(settings: Settings, listeners: Listeners) -> Settings:
    """The settings with the ports that were really opened, and the endpoints' base."""
    options = settings.get(Listen)
    settings = settings.replace(
        Listen,
        device_port=listeners.devices[0].getsockname()[1],
        router_port=listeners.router.getsockname()[1],
        admin_port=listeners.admin.getsockname()[1],
    )
    if not settings.get(EndpointOptions).url:
        url = base_url(options.host, settings.get(Listen).router_port)
        if options.host not in _LOOPBACK:
            logs.warning("endpoint.url_not_set", endpoints=url, hint="set endpoint.url to the public base")
        settings = settings.replace(EndpointOptions, url=url)
    return settings


@contextlib.contextmanager
def _data_folder(settings: Settings) -> Iterator[None]:
    """Make the data folder, own it (flock on the pid file), and leave no control socket behind."""
    folder = Path(settings.get(Data).dir)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        handle = os.open(pid_file(settings), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartError(f"data.dir: cannot use {folder}: {(error.strerror or str(error)).lower()}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"data.dir: another farm runs on {folder}; stop it (farm drain) or choose another"
            ) from None
        os.ftruncate(handle, 0)
        os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        try:
            load_or_make_keys(settings.get(TokenOptions).keys, folder)
            address(folder)
        except (KeyFormatError, LinkError, OSError) as error:
            raise StartError(str(error)) from None
        yield
        with contextlib.suppress(OSError):
            for name in (SOCKET_NAME, handover.SOCKET_NAME):
                (folder / name).unlink(missing_ok=True)
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def worker_count(settings: Settings) -> int:
    """How many workers `farm.workers` means: auto is one a core."""
    wanted = settings.get(FarmOptions).workers
    if wanted == "auto":
        return len(os.sched_getaffinity(0))
    return int(wanted)


def run(settings: Settings) -> int:
    """Run a farm in the foreground. Returns: exit code. Raises: StartError."""
    log = settings.get(Log)
    logs.setup(log.format, log.level, process="farm")
    workers = worker_count(settings)
    capacity.raise_descriptor_limit()
    for line in capacity.describe(capacity.limits(settings, workers)):
        name, _, text = line.partition(": ")
        logs.event("limits", **{name.replace(" ", "_"): text or line})
    with _data_folder(settings):
        supervisor = Supervisor(settings, workers)
        return trio.run(supervisor.run)
