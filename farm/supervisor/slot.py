"""A process that must run, and the parts of the supervisor that a reload and the status need."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final, Protocol

import trio

from farm.supervisor.children import Child, ForkServer
from farm.supervisor.draining import Drain
from farm.supervisor.listeners import Listeners
from farm.supervisor.reload_file import ReloadFile
from farm.supervisor.status_links import StatusLinks
from router.common.options import Settings
from router.store.registry import Preparation

POLL_S: Final = 0.05
ROUTER_STOP_S: Final = 5.0
"""How long a router may take at its end to finish its work, at most."""


class Slot:
    """One process that must run: a router or a worker, known by its number among those of its kind."""

    def __init__(self, kind: str, number: int, listeners: list[socket.socket]) -> None:
        self.kind = kind
        self.number = number
        self.listeners = listeners
        self.child: Child | None = None
        self.fork_server: ForkServer | None = None  # where the next one comes from; None: from the farm's
        self.turn = trio.Lock()
        """Held while another process is put in its place."""
        self.served = 0
        """The pid that has been seen to serve."""
        self.restarts = 0

    @property
    def name(self) -> str:
        """For logs and for `down` in the health answer."""
        return f"{self.kind}[{self.number}]"

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self.child is not None and not self.child.ended.is_set()

    def put(self, child: Child) -> None:
        """This process fills the slot from now on."""
        before, self.child = self.child, child
        if before is not None:
            before.relieved.set()


class RunningFarm(Protocol):
    """The supervisor, as a reload and the status see it."""

    given: Settings
    settings: Settings
    listeners: Listeners
    read_again: Callable[[], Settings]
    routers: list[Slot]
    workers: list[Slot]
    fork_server: ForkServer | None
    link: StatusLinks
    reloads: ReloadFile
    started: float
    stopping: trio.Event
    ready: bool
    preparing: Preparation | None
    drain: Drain | None

    @property
    def slots(self) -> list[Slot]:
        """The routers and the workers."""

    @property
    def reloading(self) -> bool:
        """Whether a reload is under way."""

    async def start_fork_server(self, settings: Settings) -> ForkServer:
        """A fork server that has imported everything. Raises: ForkServerFailed."""

    async def spawn(self, kind: str, number: int, listeners: list[socket.socket], fork_server: ForkServer) -> Child:
        """Fork a process from this fork server. Raises: ForkServerFailed, SpawnRefused."""

    async def joined(self, child: Child) -> bool:
        """Wait until this worker has joined every router. Returns: False if it has ended, or takes too long."""

    async def end(self, children: list[Child], patience: float, may_hurry: bool = True) -> None:
        """SIGTERM to all, SIGKILL to those left when patience is over or the operator is in a hurry."""
