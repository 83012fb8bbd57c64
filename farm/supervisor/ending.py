"""The end of a farm, and of each of its processes.

The farm is not ready for `drain.notice`; then the workers let their devices go (`farm.supervisor.draining`), and then
the routers finish what they accepted; in a cluster other hosts take them over first. An operator in a hurry may cut
short all but the last.
"""

from __future__ import annotations

import signal

import trio

from farm.settings import FarmOptions, WorkerOptions
from farm.supervisor import draining
from farm.supervisor.children import KILLED_S, Child
from farm.supervisor.draining import Drain
from farm.supervisor.running_farm import RunningFarm
from farm.supervisor.slot import POLL_S, ROUTER_STOP_S
from router.common import logs
from router.common.settings import DrainOptions


class Ending:
    """Of one farm."""

    def __init__(self, farm: RunningFarm) -> None:
        self._farm = farm
        self._skip_notice = trio.Event()
        self._hurry = trio.Event()
        self.drain: Drain | None = None
        """Once it has begun."""

    def asked_again(self) -> None:
        """The operator wants it to go faster."""
        if not self._skip_notice.is_set():
            self._skip_notice.set()
        else:
            logs.warning("drain.cut_short")
            self._hurry.set()

    async def run(self, failed: bool) -> None:
        """End everything. failed: the farm did not start."""
        farm = self._farm
        options, grace = farm.settings.get(DrainOptions), farm.settings.get(FarmOptions).drain_grace
        notice = options.notice if farm.ready and not failed else 0.0
        logs.event("farm.draining", notice=notice)
        self.drain = drain = Drain(options, notice)
        for child in farm.processes.running:
            child.notice()
        with trio.move_on_after(notice):
            await self._skip_notice.wait()
        self._skip_notice.set()
        for slot in farm.workers:
            for listener in slot.listeners:
                listener.close()
        routers = {slot.child for slot in farm.routers}
        workers = [child for child in farm.processes.running if child not in routers]
        seconds = await drain.begin_devices(farm.link, workers) if farm.ready else options.longest()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain.report, farm.link)
            await self.end(workers, seconds + farm.settings.get(WorkerOptions).close_timeout + grace)
            nursery.cancel_scope.cancel()
        drain.phase = draining.ROUTERS
        if farm.cluster is not None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._cancel_when_hurried, nursery.cancel_scope)
                await farm.cluster.give_all()
                nursery.cancel_scope.cancel()
        if len(farm.routers) > 1:
            await self._finish_requests()
        await self.end(farm.processes.running, grace + ROUTER_STOP_S, may_hurry=False)
        if farm.cluster is not None:
            await farm.cluster.leave()
        await farm.processes.close()
        logs.event("farm.stopped")

    async def _finish_requests(self) -> None:
        """Before any of several routers ends: what one of them has accepted may need another one."""
        for slot in self._farm.routers:
            if slot.child is not None:
                slot.child.finish()
        with trio.move_on_after(ROUTER_STOP_S):
            while any(answer["busy"] for answer in (await self._farm.link.ask()).of.values()):
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
            with trio.move_on_after(KILLED_S):
                await child.ended.wait()

    async def _cancel_when_hurried(self, scope: trio.CancelScope) -> None:
        await self._hurry.wait()
        scope.cancel()
