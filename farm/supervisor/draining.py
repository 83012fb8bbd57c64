"""The devices' part of the farm's end: how fast the workers let them go, and how far that is.

The rate is the whole farm's, and each worker knows its own devices only. So what the workers hold is counted here, and
all of them are given the same time: those that hold more let more go in a second, and all end together.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import trio

from farm.supervisor.children import Child
from farm.supervisor.status_links import Answers, StatusLinks
from router.common import logs
from router.common.settings import DrainOptions

NOTICE: Final = "notice"
DEVICES: Final = "devices"
ROUTERS: Final = "routers"
_REPORT_S: Final = 10.0


def held(answers: Answers, pids: Collection[int]) -> int | None:
    """Connections of these workers; None if none of them is known. One that is not is taken for an average one."""
    rows = [row for pid, row in answers.workers.items() if pid in pids and "connections" in row]
    return round(_connections(rows) * len(pids) / len(rows)) if rows else None


def _connections(rows: Iterable[Mapping[str, Any]]) -> int:
    """Of workers of which some have not said how many they hold."""
    return sum(row.get("connections", 0) for row in rows)


async def announce(link: StatusLinks, workers: Collection[Child], options: DrainOptions, passed: float = 0.0) -> float:
    """Tell workers that are about to be ended over how many seconds to let their devices go.

    passed: seconds since the drain began. Returns: those that they take, at most.
    """
    pids = {child.pid for child in workers}
    await link.ask()
    connections = held(link.last, pids)
    if connections is None:  # they know it themselves, about
        return options.longest(passed)
    seconds = options.over(connections, passed)
    logs.event("drain.devices", workers=len(pids), connections=connections, seconds=round(seconds, 1))
    for child in workers:
        child.notice(seconds)
    return seconds


class Drain:
    """A drain that is under way."""

    def __init__(self, options: DrainOptions, notice: float) -> None:
        """notice: seconds in which it only answers probes as not ready."""
        self._options = options
        self._began = time.monotonic()
        self._until = self._began + notice
        self._connections: int | None = None
        self.phase = NOTICE

    async def begin_devices(self, link: StatusLinks, workers: Collection[Child]) -> float:
        """Tell the workers how fast to let their devices go. Returns: the seconds that this takes, at most."""
        self.phase = DEVICES
        self._until = time.monotonic()  # until it is known
        seconds = await announce(link, workers, self._options, time.monotonic() - self._began)
        self._connections = held(link.last, {child.pid for child in workers})
        self._until = time.monotonic() + seconds
        return seconds

    async def report(self, link: StatusLinks) -> None:
        """Log how far it is, now and again."""
        while True:
            await trio.sleep(_REPORT_S)
            found = self.fields(_connections((await link.ask()).workers.values()))
            logs.event("drain.progress", left=found["left"], connections=found["connections"])

    def fields(self, left: int) -> dict[str, Any]:
        """For the status. left: connections that there are still."""
        return {
            "phase": self.phase,
            "left": left,
            "connections": self._connections,
            "remaining_seconds": round(max(0.0, self._until - time.monotonic()), 1),
        }
