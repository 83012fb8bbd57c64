"""The state of the whole farm, queried now: the admin port's /status, /health and /ready."""

from __future__ import annotations

import os
import time
from typing import Any

from farm.supervisor.slot import RunningFarm, Slot
from router import __version__
from router.common.health import LEAVING, NO_ROOM, NO_ROUTER
from router.common.interpreter import interpreter
from router.common.memory import resident_bytes
from router.common.settings import Listen


async def status(farm: RunningFarm) -> dict[str, Any]:
    """The whole farm. `status` is ok, starting, degraded or draining; `down` names what is missing."""
    return _status(farm, await farm.link.ask())


async def unready(farm: RunningFarm) -> list[str]:
    """Why the farm as a whole should get no new clients; empty: it is ready."""
    answer = await farm.link.ask()
    found = _status(farm, answer)
    if found["status"] == "draining":
        return [LEAVING]
    if found["status"] == "starting":
        return ["the farm is starting: " + ", ".join(found["down"])]
    if answer is None or not farm.router.alive:
        return [NO_ROUTER]
    reasons = list(answer.get("unready", ()))
    serving = [row for row in found["workers"] if row["state"] == "up"]
    if not serving:
        reasons.append("no worker serves")
    elif all(row.get("connections", 0) >= row.get("max_connections", 1) for row in serving):
        reasons.append(NO_ROOM)
    return reasons


def _status(farm: RunningFarm, answer: dict[str, Any] | None) -> dict[str, Any]:
    joined = {worker["pid"]: worker for worker in answer["workers"]} if answer is not None else {}
    down = [] if answer is not None and farm.router.alive else ["router"]
    rows = []
    for slot in farm.workers:
        pid = slot.child.pid if slot.child is not None else None
        row = dict(joined.get(pid, {})) if slot.alive else {}
        if not row:
            down.append(slot.name)
        rows.append({**row, "shard": slot.shard, "pid": pid, "state": _state(farm, slot, bool(row)),
                     "restarts": slot.restarts})  # fmt: skip
    if farm.stopping.is_set():
        state = "draining"
    elif not down:
        state = "ok"
    else:
        state = "degraded" if farm.ready else "starting"
    listen = farm.settings.get(Listen)
    pid = farm.router.child.pid if farm.router.child is not None else None
    router: dict[str, Any] = {"pid": pid if farm.router.alive else None, "state": _state(farm, farm.router, False)}
    if answer is not None:
        router = {**answer["router"], "pid": answer["pid"], "memory": answer["memory"], "state": "up"}
    fork_server = farm.fork_server
    connections = sum(row.get("connections", 0) for row in rows)
    return {
        "status": state,
        "down": down,
        "version": __version__,
        "python": interpreter().fields(),
        "pid": os.getpid(),
        "memory": resident_bytes(),
        "uptime": round(time.monotonic() - farm.started, 1),
        "reloading": farm.reloading,
        "last_reload": farm.reloads.last,
        "fork_server": {"pid": fork_server.process.pid, "state": "up"}
        if fork_server is not None and fork_server.alive
        else {"pid": None, "state": "down"},
        "ports": {"device": listen.device_port, "router": listen.router_port, "admin": listen.admin_port},
        "connections": connections,
        "drain": farm.drain.fields(connections) if farm.drain is not None else None,
        "router": router,
        "workers": rows,
    }


def _state(farm: RunningFarm, slot: Slot, serves: bool) -> str:
    if serves:
        return "up"
    if slot.child is None or slot.child.ended.is_set():
        return "down"
    return "silent" if slot.served == slot.child.pid else "joining"
