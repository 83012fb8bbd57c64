"""A reload (SIGHUP): new code and new settings take over, or nothing changes.

The new fork server shows that all modules can be imported, and a process of it that everything can be made from the new
settings, before any process is replaced. Then the workers are replaced one at a time: the new one accepts beside the
old one before that is drained. The routers are last, also one at a time: each has its part of the address map alone,
so the old one has to end first. It finishes what it accepted; connections that come meanwhile wait in its listener.
If a new process does not come to serve, or dies within `farm.reload_watch`, those that were replaced are replaced once
more, from the old fork server with the old settings.

Its progress, and the outcome of the last one, are kept in a file (`farm.supervisor.reload_file`).
"""

from __future__ import annotations

import signal
from typing import Final

import trio

from farm.config import ConfigError
from farm.control import DONE
from farm.settings import FarmOptions
from farm.supervisor import health, interface
from farm.supervisor.children import Child, ForkServer, ForkServerFailed, SpawnRefused
from farm.supervisor.reload_file import CUT_SHORT, REFUSED, ROLLED_BACK
from farm.supervisor.replacing import END_S, failure, let_go
from farm.supervisor.running_farm import RunningFarm
from farm.supervisor.slot import POLL_S, ROUTER_STOP_S, Slot
from farm.supervisor.waiting import first_of
from router.common import logs
from router.common.options import Settings, as_mapping
from router.common.settings import Log

_FORK_SERVERS: Final = 5  # that may be lost while one process is put back
_SOON: Final = ", soon after it had begun to serve"


class _Failed(Exception):
    """The reload cannot go on; the text gives the reason."""


class _ForkServerLost(_Failed):
    """A fork server has died or does not answer."""


class _Stopping(Exception):
    """The farm was stopped meanwhile."""


class Reload:
    """One reload."""

    def __init__(self, farm: RunningFarm) -> None:
        self._farm = farm
        self._replaced: list[Slot] = []
        self._new: ForkServer | None = None
        self._new_children: list[tuple[str, Child]] = []

    async def run(self) -> None:
        """Reload. The outcome is in the log, in the status and in the file."""
        farm = self._farm
        farm.reloads.began()
        loser: ForkServer | None = None
        try:
            given, needs_restart = self._settings()
            settings = farm.listeners.with_ports(given)
            farm.reloads.step("starting the new code")
            self._new = await self._started(settings)
            await self._check(self._new)
            logs.event("reload.began", workers=len(farm.workers), routers=len(farm.placed), version=self._new.version)
            await self._replace_all(self._new)
            loser, farm.processes.fork_server = farm.processes.fork_server, self._new
            self._new = None
            farm.given, farm.settings = given, settings
            for slot in (*farm.routers, *farm.workers):
                slot.fork_server = None
            log = settings.get(Log)
            logs.setup(log.format, log.level, process="farm")
            logs.event("reload.done", needs_restart=needs_restart)
            farm.reloads.ended(DONE, needs_restart=needs_restart)
        except _Failed as error:
            await self._give_up(str(error))
        except _Stopping:
            farm.reloads.ended(CUT_SHORT, "the farm is about to stop")
        finally:
            for fork_server in (loser, self._new):
                if fork_server is not None:
                    fork_server.close()

    def _settings(self) -> tuple[Settings, list[str]]:
        """The settings as they are now, but for what a running farm cannot change; and what that would have been."""
        try:
            found = self._farm.read_again()
        except ConfigError as error:
            raise _Failed(str(error)) from None
        kept = []
        before = as_mapping(self._farm.given)
        for section in found:
            for name in sorted(section.AT_START):
                old = before[section.SECTION][name]
                if getattr(section, name) != old:
                    kept.append(f"{section.SECTION}.{name}")
                    found = found.replace(type(section), **{name: old})
        return found, kept

    async def _started(self, settings: Settings) -> ForkServer:
        processes = self._farm.processes
        try:
            found = await processes.start_fork_server(settings)
        except ForkServerFailed as error:
            raise _Failed(f"the new code does not start: {error}") from None
        running = processes.fork_server
        if running is not None and (why := interface.why_not_beside(found.hello, running.hello)):
            found.close()
            raise _Failed(f"the new code does not start: {why}")
        return found

    async def _check(self, fork_server: ForkServer) -> None:
        """Make everything once, in a process that owns nothing."""
        checker = await self._spawn(fork_server, "check")
        with trio.move_on_after(self._farm.settings.get(FarmOptions).start_timeout):
            await checker.ended.wait()
        if checker.ended.is_set():
            if checker.status != 0:
                raise _Failed(failure("the check of the new code", checker))
        else:
            checker.signal(signal.SIGKILL)
            raise _Failed("the check of the new code does not end")

    async def _spawn(self, fork_server: ForkServer, kind: str, slot: Slot | None = None) -> Child:
        if self._farm.stopping.is_set():
            raise _Stopping
        number, listeners = (-1, []) if slot is None else (slot.number, slot.listeners)
        try:
            return await self._farm.processes.spawn(kind, number, listeners, fork_server)
        except ForkServerFailed as error:
            raise _ForkServerLost(f"{slot.name if slot else kind}: the fork server {error}") from None
        except SpawnRefused as error:
            raise _Failed(f"{slot.name if slot else kind}: {error}") from None

    async def _replace_all(self, fork_server: ForkServer) -> None:
        for slot in self._farm.workers:
            await self._replace_worker(slot, fork_server)
            self._look_for_deaths()
        while olds := [slot for slot in self._farm.placed if slot.fork_server is not fork_server]:
            await self._replace_router(olds[0], fork_server)
            await self._watch(olds[0].child)
            self._look_for_deaths()

    async def _watch(self, child: Child | None) -> None:
        """Wait for `farm.reload_watch`, or until this process ends or the farm is about to stop."""
        farm = self._farm
        with trio.move_on_after(farm.settings.get(FarmOptions).reload_watch):
            await first_of(farm.stopping, *([] if child is None else [child.ended]))

    def _look_for_deaths(self) -> None:
        """New code may start well and fail soon. A SIGKILL is not its fault: it comes from outside.

        Raises: _Failed.
        """
        for name, child in self._new_children:
            if child.ended.is_set() and child.status not in (None, -signal.SIGKILL):
                raise _Failed(failure(name, child) + _SOON)

    async def _replace_worker(self, slot: Slot, fork_server: ForkServer, undoing: bool = False) -> None:
        farm = self._farm
        farm.reloads.step(slot.name)
        async with slot.turn:
            new = await self._spawn(fork_server, slot.kind, slot)
            if not await farm.joined(new):
                why = failure(slot.name, new) + ", and has not joined every router"
                await farm.end([new], END_S)
                raise _Failed(why)
            if not undoing:
                await self._watch(new)
                if new.ended.is_set():
                    raise _Failed(failure(slot.name, new) + _SOON)
            old = slot.child
            slot.put(new)
            slot.fork_server = fork_server
            self._replaced.append(slot)
            self._new_children.append((slot.name, new))
        if farm.stopping.is_set():
            raise _Stopping
        if old is not None:
            await let_go(farm, old)
        logs.event("reload.replaced", name=slot.name, pid=new.pid)

    async def _replace_router(self, slot: Slot, fork_server: ForkServer, undoing: bool = False) -> None:
        """undoing: the workers may be some that never join."""
        farm = self._farm
        farm.reloads.step(slot.name)
        async with slot.turn:
            if farm.stopping.is_set():
                raise _Stopping
            if not slot.placed:  # it has moved to another host meanwhile
                return
            if slot.child is not None:
                grace = farm.settings.get(FarmOptions).drain_grace
                await farm.end([slot.child], grace + ROUTER_STOP_S, may_hurry=False)
            self._replaced.append(slot)
            new = await self._spawn(fork_server, slot.kind, slot)
            slot.put(new)
            slot.fork_server = fork_server
            with trio.move_on_after(farm.settings.get(FarmOptions).start_timeout):
                while not farm.stopping.is_set() and slot.placed and not new.ended.is_set():
                    down = (await health.status(farm))["down"]
                    if not down or (undoing and slot.name not in down):
                        self._new_children.append((slot.name, new))
                        logs.event("reload.replaced", name=slot.name, pid=new.pid)
                        return
                    if not undoing:
                        self._look_for_deaths()
                    await trio.sleep(POLL_S)
            if farm.stopping.is_set():
                raise _Stopping
            why = failure(slot.name, new)
            new.signal(signal.SIGKILL)
            await new.ended.wait()
            if slot.placed:
                raise _Failed(why)

    async def _give_up(self, why: str) -> None:
        farm = self._farm
        if not self._replaced:
            logs.error("reload.refused", why=why)
            farm.reloads.ended(REFUSED, why)
            return
        logs.error("reload.failed", why=why, hint="what was replaced is replaced once more, by what there was before")
        again = self._replaced
        self._replaced, self._new_children = [], []
        for slot in again:
            slot.fork_server = None
        for slot in sorted(again, key=lambda slot: slot.kind != "router"):  # so that the workers have them to join
            try:
                await self._restore(slot)
            except (_Failed, _Stopping) as error:
                logs.error("reload.not_rolled_back", name=slot.name, why=str(error) or "the farm is about to stop")
                why = f"{why}; and {slot.name} is not what it was: {error}"
        farm.reloads.ended(ROLLED_BACK, why)

    async def _restore(self, slot: Slot) -> None:
        """Put a process of the old code in this place again."""
        replace = self._replace_router if slot.kind == "router" else self._replace_worker
        for _ in range(_FORK_SERVERS):
            fork_server = await self._old_fork_server()
            try:
                await replace(slot, fork_server, undoing=True)
                return
            except _ForkServerLost as error:
                logs.warning("fork_server.lost", pid=fork_server.process.pid, why=str(error))
            finally:
                slot.fork_server = None
        raise _Failed("no fork server answers")

    async def _old_fork_server(self) -> ForkServer:
        """The farm's own; if that has died meanwhile, the one that is started in its place."""
        farm = self._farm
        with trio.move_on_after(farm.settings.get(FarmOptions).start_timeout):
            while not farm.stopping.is_set():
                if farm.processes.fork_server is not None and farm.processes.fork_server.alive:
                    return farm.processes.fork_server
                await trio.sleep(POLL_S)
        raise _Failed("there is no fork server")
