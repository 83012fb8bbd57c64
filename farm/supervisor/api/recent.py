"""`GET /history` and `GET /events`: the numbers of the last hour, and the last events of the log."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from farm.supervisor.api.frame import READ, ApiContext, ApiRoute, Asked, Limit

_LEVELS: Final = ("info", "warning", "error")

Series = dict[str, list[float | None]]
"""By name. A number a sample, oldest first; null where there is none."""


class HistoryQuery(msgspec.Struct, forbid_unknown_fields=True):
    minutes: Annotated[int, Meta(ge=1, le=60, description="From how far back.")] = 60
    after: Annotated[int, Meta(ge=-1, description="Only the samples behind this one: `last` of an answer before.")] = -1


class History(msgspec.Struct):
    """What the whole farm did: devices and other levels, rates a second, times and CPU in seconds, memory in bytes."""

    interval: float
    """Seconds between two samples."""
    end: float
    """When the newest was taken: Unix time in seconds."""
    last: int
    """Its number. It is smaller than before if the farm has started anew."""
    series: Series
    processes: dict[str, Series]
    """Memory in bytes and CPU in cores of each process."""


class EventsQuery(msgspec.Struct, forbid_unknown_fields=True):
    after: Annotated[int, Meta(ge=0, description="Only the events behind this one: `last` of an answer before.")] = 0
    limit: Limit = 200
    level: Annotated[Literal["info", "warning", "error"], Meta(description="From this one on.")] = "info"


class LogEvent(msgspec.Struct):
    number: int
    time: str
    """As it stands in the log."""
    level: str
    event: str
    process: str
    """supervisor, or for example worker 0."""
    fields: dict[str, Any]


class Events(msgspec.Struct):
    last: int
    """Number of the newest event of all. It is smaller than before if the farm has started anew."""
    events: list[LogEvent]
    """Oldest first."""


def routes(context: ApiContext) -> Iterable[ApiRoute]:
    """`/history` and `/events`."""
    farm = context.farm

    async def history(asked: Asked) -> dict[str, Any]:
        found = farm.history.since(asked.query.minutes, asked.query.after)
        age = time.monotonic() - found["last"] * found["interval"]
        return found | {"end": round(time.time() - age) if found["last"] >= 0 else 0}

    async def events(asked: Asked) -> dict[str, Any]:
        query = asked.query
        levels = frozenset(_LEVELS[_LEVELS.index(query.level) :])
        return dict(farm.events.after(query.after, query.limit, levels))

    return (
        ApiRoute(
            method="GET",
            path="/history",
            role=READ,
            summary="The farm's numbers of the last hour, a sample in ten seconds.",
            handler=history,
            answer=History,
            query=HistoryQuery,
        ),
        ApiRoute(
            method="GET",
            path="/events",
            role=READ,
            summary="The last events of the log of all processes of this host, from level info on.",
            handler=events,
            answer=Events,
            query=EventsQuery,
        ),
    )
