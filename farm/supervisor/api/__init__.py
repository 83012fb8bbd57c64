"""The JSON interface of the admin port, everything under `/api/v1`: what people, the dashboard and the commands use.

`frame` has what a route is and how it is served, `openapi` describes all of them, and each other module has the routes
of one subject. A route sees the farm through its `ApiContext`.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from farm.supervisor.api import broadcasts, channels, devices, recent, session, workers
from farm.supervisor.api.frame import READ, ApiContext, ApiRoute, Asked
from farm.supervisor.api.openapi import description

_SUBJECTS: Final = (session.routes, devices.routes, channels.routes, workers.routes, broadcasts.routes, recent.routes)


class OpenApi(msgspec.Struct):
    """An OpenAPI 3.1 document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]


def routes(context: ApiContext) -> list[ApiRoute]:
    """All routes, in the order in which they are described."""

    async def described(asked: Asked) -> dict[str, Any]:
        return description(found)

    found = [route for subject in _SUBJECTS for route in subject(context)]
    found.append(
        ApiRoute(
            method="GET",
            path="/openapi.json",
            role=READ,
            summary="This description.",
            handler=described,
            answer=OpenApi,
        )
    )
    return found
