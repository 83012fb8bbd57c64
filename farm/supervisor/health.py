"""The state of the whole farm, queried now: the admin port's /status, /health and /ready."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

from farm.supervisor.running_farm import RunningFarm
from farm.supervisor.slot import Slot
from farm.supervisor.status_links import Answers
from farm.supervisor.versions import version_note
from router import __version__
from router.common.health import LEAVING, NO_ROOM, NO_ROUTER, NO_ROUTER_HERE
from router.common.interpreter import interpreter
from router.common.memory import cpu_seconds, resident_bytes
from router.common.settings import Listen


async def status(farm: RunningFarm) -> dict[str, Any]:
    """The whole farm. `status` is ok, starting, degraded or draining; `down` names what is missing.

    `unready` says why the farm as a whole should get no new clients; empty: it is ready.
    """
    answers = await farm.link.ask()
    found = _status(farm, answers)
    return found | {"unready": _unready(farm, answers, found)}


async def unready(farm: RunningFarm) -> list[str]:
    """Why the farm as a whole should get no new clients; empty: it is ready."""
    reasons: list[str] = (await status(farm))["unready"]
    return reasons


def _unready(farm: RunningFarm, answers: Answers, found: dict[str, Any]) -> list[str]:
    """found: the status from these answers."""
    if found["status"] == "draining":
        return [LEAVING]
    if found["status"] == "starting":
        return ["the farm is starting: " + ", ".join(found["down"])]
    if not answers.complete or not all(slot.alive for slot in farm.placed):
        return [NO_ROUTER]
    reasons = [] if farm.cluster is None else list(farm.cluster.reasons)
    if farm.cluster is not None and farm.cluster.lacks_router:
        reasons.append(NO_ROUTER_HERE)
    reasons += list(dict.fromkeys(reason for answer in answers.of.values() for reason in answer.get("unready", ())))
    serving = [row for row in found["workers"] if row["state"] == "up"]
    if not serving:
        reasons.append("no worker serves")
    elif all(row.get("connections", 0) >= row.get("max_connections", 1) for row in serving):
        reasons.append(NO_ROOM)
    return reasons


def _status(farm: RunningFarm, answers: Answers) -> dict[str, Any]:
    slots = [*farm.placed, *farm.workers]
    routers = [_router(slot, answers) for slot in farm.placed]
    workers = [_worker(slot, answers) for slot in farm.workers]
    down = [slot.name for slot, row in zip(slots, (*routers, *workers), strict=True) if row["state"] != "up"]
    if farm.preparing is not None:
        down.insert(0, farm.preparing.state)
    if farm.cluster is not None:
        down += farm.cluster.reasons
    if farm.stopping.is_set():
        state = "draining"
    elif not down:
        state = "ok"
    else:
        state = "degraded" if farm.ready else "starting"
    listen = farm.settings.get(Listen)
    fork_server = farm.processes.fork_server
    drain = farm.drain
    connections = sum(row.get("connections", 0) for row in workers)
    connections_of = {pid: row["connections"] for pid, row in answers.workers.items() if "connections" in row}
    expiries = [answer["certificate_expires"] for answer in answers.of.values() if answer.get("certificate_expires")]
    return {
        "status": state,
        "down": down,
        "version": __version__,
        "version_note": version_note(
            __version__, _versions(farm.placed), _versions(farm.workers), reloading=farm.reloading
        ),
        "python": interpreter().fields(),
        "pid": os.getpid(),
        "memory": resident_bytes(),
        "cpu": cpu_seconds(),
        "uptime": round(time.monotonic() - farm.started, 1),
        "reloading": farm.reloading,
        "last_reload": farm.reloads.last,
        "reloads": dict(farm.reloads.outcomes),
        "last_replacement": farm.replacement.fields(connections_of),
        "fork_server": {"pid": fork_server.process.pid, "state": "up"}
        if fork_server is not None and fork_server.alive
        else {"pid": None, "state": "down"},
        "ports": {"device": listen.device_port, "router": listen.router_port, "admin": listen.admin_port},
        "connections": connections,
        "drain": drain.fields(connections) if drain is not None else None,
        "cluster": None if farm.cluster is None else farm.cluster.fields(),
        "certificate_expires": min(expiries, default=None),
        "routers": routers,
        "workers": workers,
    }


def _router(slot: Slot, answers: Answers) -> dict[str, Any]:
    """A router's row: its numbers are those of `router.common.metrics`."""
    answer = answers.of.get(slot.number) if slot.alive else None
    state = _state(slot, serves=answer is not None)
    row = {"number": slot.number, **_process(slot, state)}
    if answer is not None:
        row |= {name: answer[name] for name in ("pid", "age", "memory", "cpu", "store", "partitions")}
        row |= answer["router"] | answer["lease"]
    return row


def _worker(slot: Slot, answers: Answers) -> dict[str, Any]:
    """A worker's row, with the numbers that it has sent to the routers last."""
    pid = _pid(slot)
    row = answers.workers.get(pid, {}) if pid is not None else {}
    state = _state(slot, serves=pid is not None and answers.joined(pid), known=bool(row))
    return {**row, "shard": slot.number, **_process(slot, state)}


def _process(slot: Slot, state: str) -> dict[str, Any]:
    """What the supervisor itself knows of a process. Its version is not there where it has not said."""
    row: dict[str, Any] = {"pid": _pid(slot), "state": state, "restarts": slot.restarts}
    (version,) = _versions([slot]) or [""]
    return row | {"version": version} if version else row


def _versions(slots: Iterable[Slot]) -> list[str]:
    return [slot.child.version for slot in slots if slot.child is not None and slot.alive]


def _pid(slot: Slot) -> int | None:
    return slot.child.pid if slot.child is not None and slot.alive else None


def _state(slot: Slot, *, serves: bool, known: bool = False) -> str:
    """known: whether a router knows of it."""
    if serves:
        return "up"
    if (pid := _pid(slot)) is None:
        return "down"
    return "silent" if slot.served == pid and not known else "joining"
