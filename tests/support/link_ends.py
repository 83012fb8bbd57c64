"""Both ends of the link between a worker and the router, over a socket of ZeroMQ."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio
import zmq

from farm.worker.link import WorkerLink
from router.common import messages as m
from router.common.link_address import address
from router.common.places import Place
from router.common.settings import LinkOptions
from router.common.wire import VERSIONS
from router.link import RouterLink
from support.common import Rig, announced

DEVICE = b"d" * 16
HANG_S = 20
BEAT_S = 0.05


class Ends:
    """The two ends, each driven as its process drives it: pumped when its descriptor is ready, and at each beat."""

    def __init__(self, rig: Rig, where: str, options: LinkOptions, versions: range = VERSIONS) -> None:
        self.rig = rig
        self.where = where
        self.options = options
        self.zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.held: list[bytes] = []
        self.channels: list[list[m.HeldChannel]] = []
        self.heard: list[Any] = []
        self.router: RouterLink | None = RouterLink(self.zmq, where, rig.hub, options)
        self.worker = WorkerLink(
            self.zmq,
            Place(where),
            options,
            3,
            b"incarnat",
            4711,
            self.heard.extend,
            lambda: announced(self.held),
            lambda: list(self.channels),
            versions,
        )
        rig.flush = self.pump
        self._changed = trio.Event()

    def pump(self) -> None:
        if self.router is not None:
            self.router.pump()
        self.worker.pump()
        self._changed.set()
        self._changed = trio.Event()

    def say(self, *words: Any) -> None:
        """One batch."""
        self.worker.messages.extend(words)
        self.worker.pump()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait for the condition; a hang is a failure."""
        with trio.fail_after(HANG_S):
            while not condition():
                await self._changed.wait()

    def router_goes(self) -> None:
        assert self.router is not None
        self.router.close()
        self.router = None

    def router_comes(self, versions: range = VERSIONS) -> None:
        """Another router, which knows nobody."""
        self.rig.router_restarts(versions)
        self.router = RouterLink(self.zmq, self.where, self.rig.hub, self.options)

    async def beats(self) -> None:
        while True:
            self.worker.beat({"connections": len(self.held)})
            self.pump()
            await trio.sleep(BEAT_S)

    async def worker_hears(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self.worker.fileno)
            self.pump()

    async def router_hears(self) -> None:
        while True:
            if self.router is None:
                await self._changed.wait()
                continue
            with trio.move_on_after(BEAT_S):  # by then it may be another router's descriptor
                await trio.lowlevel.wait_readable(self.router.fileno)
            self.pump()


@asynccontextmanager
async def linked(rig: Rig, folder: Path, versions: range = VERSIONS) -> AsyncIterator[Ends]:
    ends = Ends(rig, address(folder, 0), rig.link, versions)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ends.beats)
            nursery.start_soon(ends.worker_hears)
            nursery.start_soon(ends.router_hears)
            await ends.until(lambda: ends.worker.joined)
            yield ends
            nursery.cancel_scope.cancel()
    finally:
        ends.worker.close()
        if ends.router is not None:
            ends.router.close()
        ends.zmq.destroy(linger=0)
