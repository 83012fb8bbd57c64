"""The parts of the supervisor that a reload, the end of the farm and its status need."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import trio

from farm.supervisor.children import Child
from farm.supervisor.draining import Drain
from farm.supervisor.history import History
from farm.supervisor.last_replacement import LastReplacement
from farm.supervisor.listeners import Listeners
from farm.supervisor.processes import Processes
from farm.supervisor.recent_events import RecentEvents
from farm.supervisor.reload_file import ReloadFile
from farm.supervisor.slot import Slot
from farm.supervisor.status_links import StatusLinks
from router.common.options import Settings
from router.store.registry import Preparation


class HostOfCluster(Protocol):
    """This host's part of a farm over many hosts (`farm.supervisor.cluster`)."""

    @property
    def reasons(self) -> list[str]:
        """What is wrong with it."""

    @property
    def lacks_router(self) -> bool:
        """Whether none is on it, though one is to come."""

    def fields(self) -> dict[str, Any] | None:
        """For the status: all hosts, and where the routers are."""

    async def give_all(self) -> None:
        """Have other hosts take over the routers that are here."""

    async def leave(self) -> None:
        """Be no host any more: all processes have ended."""


class RunningFarm(Protocol):
    """The supervisor, as a reload and the status see it."""

    given: Settings
    settings: Settings
    listeners: Listeners
    read_again: Callable[[], Settings]
    routers: list[Slot]
    workers: list[Slot]
    processes: Processes
    link: StatusLinks
    reloads: ReloadFile
    history: History
    events: RecentEvents
    replacement: LastReplacement
    started: float
    stopping: trio.Event
    ready: bool
    preparing: Preparation | None

    @property
    def cluster(self) -> HostOfCluster | None:
        """None: this is a farm of one host."""

    @property
    def drain(self) -> Drain | None:
        """The end of the farm, once it has begun."""

    @property
    def placed(self) -> list[Slot]:
        """Those of the routers that are to run here."""

    @property
    def reloading(self) -> bool:
        """Whether a reload is under way."""

    def request_reload(self) -> str:
        """Begin a reload. Returns: why not; "" if it has begun."""

    def replace_worker(self, shard: int, action: str) -> dict[str, Any]:
        """As `farm.supervisor.replacing.begin`."""

    async def joined(self, child: Child) -> bool:
        """Wait until this worker has joined every router. Returns: False if it has ended, or takes too long."""

    async def end(self, children: list[Child], patience: float, may_hurry: bool = True) -> None:
        """As `farm.supervisor.ending.Ending.end`."""
