"""The fork server that the farm's processes come from, and all that were forked and run."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import TypeVar

import trio

from farm.settings import FarmOptions
from farm.supervisor.children import KILLED_S, Child, ForkServer, ForkServerClosed, ForkServerFailed, SpawnRefused
from farm.supervisor.log_socket import LogSocket
from farm.supervisor.slot import POLL_S, Slot
from router.common import logs
from router.common.fork_server import collect_strangers
from router.common.options import Settings

T = TypeVar("T")


class Processes:
    """Those of one farm. `keep_fork_server` has to run.

    nursery: for tasks beside them; to be set before anything is started.
    """

    nursery: trio.Nursery

    def __init__(self, settings: Callable[[], Settings]) -> None:
        """settings: the farm's, as they are now."""
        self._settings = settings
        self._over = False  # everything has ended, and the fork server is not needed any more
        self.fork_server: ForkServer | None = None
        self.log_socket = LogSocket()
        self._children: list[Child] = []

    @property
    def running(self) -> list[Child]:
        """All that run."""
        self._children = [child for child in self._children if not child.ended.is_set()]
        return list(self._children)

    async def start_fork_server(self, settings: Settings) -> ForkServer:
        """A fork server that has imported everything. Raises: ForkServerFailed."""
        options = settings.get(FarmOptions)
        return await ForkServer.start(settings, self.nursery, options.spawn_timeout, options.start_timeout)

    async def keep_fork_server(self, is_vain: Callable[[str], bool]) -> None:
        """There is a fork server; another one if it dies, or does not answer for too long.

        is_vain: is told why the first one does not start, and says whether to give up.
        """
        options = self._settings().get(FarmOptions)
        wait = options.restart_min
        while not self._over:
            fork_server = self.fork_server
            if fork_server is None or not fork_server.alive:
                try:
                    self.fork_server = await self.start_fork_server(self._settings())
                except ForkServerFailed as error:
                    logs.limited("fork_server.failed", at="error", why=str(error))
                    if fork_server is None and is_vain(str(error)):
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
            known = [child.pid for child in self.running]
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

    async def spawn(self, kind: str, number: int, listeners: list[socket.socket], fork_server: ForkServer) -> Child:
        """Fork a process from this fork server. Raises: ForkServerFailed, SpawnRefused."""
        child = await fork_server.spawn(kind, number, [*listeners, self.log_socket.theirs])
        self._children = [*self.running, child]
        logs.debug("process.started", kind=kind, number=number, pid=child.pid)
        return child

    async def spawn_for(self, slot: Slot) -> Child:
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
                    await trio.sleep(self._settings().get(FarmOptions).restart_max)
            await trio.sleep(POLL_S)

    async def close(self) -> None:
        """End the fork server: what it has forked has ended."""
        self._over = True
        if self.fork_server is not None:
            self.fork_server.close()
            with trio.move_on_after(KILLED_S):  # when this process has ended, nothing of the farm is left
                await self.fork_server.process.ended.wait()
