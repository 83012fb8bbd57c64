"""A worker is replaced by another process: in a reload, or by itself, because an operator wants it to be.

The new process accepts beside the old one before that lets its devices go. If it does not come to serve, nothing
changes. For operators that is done one at a time, and never beside a reload or the farm's end. How far the last one is,
or how it ended, is in the status (`farm.supervisor.last_replacement`).
"""

from __future__ import annotations

from typing import Any, Final

import trio

from farm.control import DONE
from farm.settings import FarmOptions, WorkerOptions
from farm.supervisor.children import Child, ForkServerFailed, SpawnRefused
from farm.supervisor.draining import announce
from farm.supervisor.reload_file import CUT_SHORT, FAILED
from farm.supervisor.running_farm import RunningFarm
from farm.supervisor.slot import Slot
from router.common import logs
from router.common.settings import DrainOptions

DRAIN: Final = "drain"
"""Its devices are let go as fast as in a drain of the farm."""
RESTART: Final = "restart"
"""They are let go within `RESTART_S`."""
RESTART_S: Final = 1.0
END_S: Final = 1.0
"""For a process that has no connections yet."""


class Refused(Exception):
    """It is not done now; the text says why, for an operator."""


class _Failed(Exception):
    """It cannot go on; the text gives the reason."""


def failure(name: str, child: Child) -> str:
    """Why a new process is of no use."""
    if child.why:
        return f"{name}: {child.why}"
    return f"{name}: it {f'ended with {child.status}' if child.ended.is_set() else 'does not serve'}"


async def let_go(farm: RunningFarm, old: Child, over: float | None = None) -> None:
    """Have a worker whose place another one has taken let its devices go, and wait for its end.

    over: seconds for that; None: as long as a drain takes.
    """
    if over is None:
        over = await announce(farm.link, [old], farm.settings.get(DrainOptions))
    else:
        old.notice(over)
    patience = over + farm.settings.get(WorkerOptions).close_timeout + farm.settings.get(FarmOptions).drain_grace
    await farm.end([old], patience)


def begin(farm: RunningFarm, shard: int, action: str, nursery: trio.Nursery) -> dict[str, Any]:
    """Begin to replace a worker. action: DRAIN or RESTART. Returns: as `LastReplacement.fields`. Raises: Refused."""
    if farm.stopping.is_set():
        raise Refused("the farm is about to stop")
    if farm.reloading:
        raise Refused("a reload is under way, which replaces every worker: farm status shows how far it is")
    if name := farm.replacement.under_way:
        raise Refused(f"{name} is being replaced: farm status shows how far that is")
    if not farm.ready:
        raise Refused("the farm has not started yet: wait until GET /health answers 200")
    farm.replacement.began(shard, action)
    nursery.start_soon(_run, farm, farm.workers[shard], action)
    return dict(farm.replacement.fields({}) or {})


async def _run(farm: RunningFarm, slot: Slot, action: str) -> None:
    try:
        await _replace(farm, slot, action)
        farm.replacement.ended(DONE)
        logs.event("worker.replaced", name=slot.name, action=action, pid=slot.child.pid if slot.child else None)
    except _Failed as error:
        if farm.stopping.is_set():
            farm.replacement.ended(CUT_SHORT, "the farm is about to stop")
            return
        logs.error("worker.not_replaced", name=slot.name, why=str(error))
        farm.replacement.ended(FAILED, str(error))
    except Exception as error:
        logs.error("worker.not_replaced", error, name=slot.name)
        farm.replacement.ended(FAILED, f"{type(error).__name__}: {error}")


async def _replace(farm: RunningFarm, slot: Slot, action: str) -> None:
    async with slot.turn:
        new = await _spawn(farm, slot)
        if not await farm.joined(new):
            why = failure(slot.name, new) + ", and has not joined every router"
            await farm.end([new], END_S)
            raise _Failed(why)
        old, alive = slot.child, slot.alive
        slot.put(new)
    if old is not None and alive:
        farm.replacement.letting_go(old.pid)
        await let_go(farm, old, None if action == DRAIN else RESTART_S)


async def _spawn(farm: RunningFarm, slot: Slot) -> Child:
    fork_server = farm.processes.fork_server
    if fork_server is None or not fork_server.alive:
        raise _Failed("the fork server is being started: try again in a few seconds")
    try:
        return await farm.processes.spawn(slot.kind, slot.number, slot.listeners, fork_server)
    except (ForkServerFailed, SpawnRefused) as error:
        raise _Failed(f"{slot.name} cannot be started: {error}") from None
