"""`GET /session` and `GET /status`: who asks, and what runs."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

import msgspec

from farm.settings import AdminOptions
from farm.supervisor.api.frame import READ, ApiContext, ApiRoute, Asked
from router import __version__
from router.dialects import specs, spoken


class Session(msgspec.Struct):
    """Who asks, and whom."""

    role: str
    """read or act."""
    host: str
    version: str
    show_contents: bool
    """Whether contents of messages are shown: `admin.show_contents`."""
    dialects: list[str]
    """Those that are on."""


class Status(msgspec.Struct):
    """The state of the farm: ok, starting, degraded or draining. What else stands in it is what `farm status` shows."""

    status: str
    down: list[str]


def routes(context: ApiContext) -> Iterable[ApiRoute]:
    """`/session` and `/status`."""

    async def session(asked: Asked) -> Session:
        settings = context.farm.settings
        contents = settings.get(AdminOptions).show_contents
        names = sorted(spec.name for spec in spoken(settings, specs()))
        return Session(asked.role, socket.gethostname(), __version__, contents, names)

    async def status(asked: Asked) -> dict[str, Any]:
        return await context.status()

    return (
        ApiRoute(
            method="GET",
            path="/session",
            role=READ,
            summary="Who asks: the role of the token, and the host and the version of the farm.",
            handler=session,
            answer=Session,
        ),
        ApiRoute(
            method="GET",
            path="/status",
            role=READ,
            summary="The state of the farm, with a row for each router and each worker.",
            handler=status,
            answer=Status,
        ),
    )
