"""`/workers` and `/reload`: the processes of this host, and what replaces them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from farm.supervisor.api.frame import ACT, READ, ApiContext, ApiError, ApiRoute, Asked
from farm.supervisor.replacing import DRAIN, RESTART, Refused
from router.core.managing import CONFLICT, NOT_FOUND


class WorkerRow(msgspec.Struct):
    """A worker, with the numbers that it has sent last."""

    shard: int
    pid: int | None
    state: str
    """up, joining, silent or down."""
    restarts: int
    version: str | None = None
    """Of the code that it runs."""
    connections: int | None = None
    max_connections: int | None = None
    devices: int | None = None
    """Those that a router has attached; subscribers of channels are none."""
    channels: int | None = None
    memory: int | None = None
    """Bytes."""
    cpu: float | None = None
    """Seconds of CPU since it was started."""
    running: float | None = None
    """Seconds since it was started."""


class Progress(msgspec.Struct, kw_only=True):
    """What there is of both: one at a time is under way."""

    number: int
    """1 for the first since the farm was started, and so on."""
    when: str
    """When it began, ISO 8601."""
    outcome: str
    """running, done, failed or cut short; of a reload also refused or rolled back."""
    why: str
    step: str | None = None
    """While it is running."""
    seconds: float | None = None
    """How long it took."""


class Replacement(Progress, kw_only=True):
    """How far the replacement of a worker is, or how the last one ended."""

    action: str
    """drain or restart."""
    worker: int
    left: int | None = None
    """Connections of the old process, once these are let go."""


class Workers(msgspec.Struct):
    """The workers of this host."""

    workers: list[WorkerRow]
    replacement: Replacement | None


class ReloadState(Progress, kw_only=True):
    """How far a reload is, or how the last one ended."""

    needs_restart: list[str] = []
    """Settings that have changed and keep their old value until the farm is restarted."""


class Reloading(msgspec.Struct):
    """Whether a reload is under way, and the last one."""

    reloading: bool
    last: ReloadState | None


def routes(context: ApiContext) -> Iterable[ApiRoute]:
    """`/workers` and `/reload`."""

    async def workers(asked: Asked) -> Workers:
        found = await context.status()
        rows = [msgspec.convert(_known(row, WorkerRow), WorkerRow) for row in found["workers"]]
        return Workers(rows, _record(found["last_replacement"], Replacement))

    async def drain(asked: Asked) -> Replacement:
        return _replace(asked, DRAIN)

    async def restart(asked: Asked) -> Replacement:
        return _replace(asked, RESTART)

    def _replace(asked: Asked, action: str) -> Replacement:
        text = asked.path["shard"]
        if not (text.isascii() and text.isdigit() and len(text) < 6 and int(text) < len(context.farm.workers)):
            raise ApiError(NOT_FOUND, f"there is no worker {text}: they are 0 to {len(context.farm.workers) - 1}")
        try:
            return msgspec.convert(context.farm.replace_worker(int(text), action), Replacement)
        except Refused as refused:
            raise ApiError(CONFLICT, str(refused)) from None

    async def reloading(asked: Asked) -> Reloading:
        return _reloading()

    async def reload(asked: Asked) -> Reloading:
        if why := context.farm.request_reload():
            raise ApiError(CONFLICT, why)
        return Reloading(True, None)

    def _reloading() -> Reloading:
        return Reloading(context.farm.reloading, _record(context.farm.reloads.last, ReloadState))

    shard = {"shard": "Number of the worker."}
    return (
        ApiRoute(
            method="GET",
            path="/workers",
            role=READ,
            summary="The workers of this host, and how far the replacement of one is.",
            handler=workers,
            answer=Workers,
        ),
        ApiRoute(
            method="POST",
            path="/workers/{shard}/drain",
            role=ACT,
            summary="Replace a worker: the new process accepts, the old one lets its devices go as in a drain.",
            handler=drain,
            answer=Replacement,
            parts=shard,
        ),
        ApiRoute(
            method="POST",
            path="/workers/{shard}/restart",
            role=ACT,
            summary="Replace a worker at once: the old process lets its devices go within a second.",
            handler=restart,
            answer=Replacement,
            parts=shard,
        ),
        ApiRoute(
            method="GET",
            path="/reload",
            role=READ,
            summary="Whether a reload is under way, and how the last one ended.",
            handler=reloading,
            answer=Reloading,
        ),
        ApiRoute(
            method="POST",
            path="/reload",
            role=ACT,
            summary="Begin a reload: new code and new settings, one process after another.",
            handler=reload,
            answer=Reloading,
        ),
    )


def _record(found: dict[str, Any] | None, kind: Any) -> Any:
    return None if found is None else msgspec.convert(_known(found, kind), kind)


def _known(row: dict[str, Any], kind: Any) -> dict[str, Any]:
    """What the type has a field for."""
    return {name: row[name] for name in kind.__struct_fields__ if name in row}
