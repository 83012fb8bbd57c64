"""The broadcasts on the admin port: `GET /broadcasts`, `PUT` and `DELETE /broadcasts/{id}`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from router.common import messages as m
from router.dialects import AdminContext
from router.dialects.webpush.protocol import broadcast_fault

_MAX_VERSION_BYTES: Final = 4096


def routes(context: AdminContext) -> Iterable[Route]:
    """The dialect's routes on the admin port."""
    broadcasts = _Broadcasts(context)
    return (
        Route("/broadcasts", broadcasts.all),
        Route("/broadcasts/{id:path}", broadcasts.one, methods=["PUT", "DELETE"]),
    )


class _Refused(Exception):
    """A request that is answered with an error in plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.response = PlainTextResponse(text + "\n", status)


class _Broadcasts:
    """`GET /broadcasts`, `PUT` and `DELETE /broadcasts/{id}`: what devices may follow."""

    def __init__(self, context: AdminContext) -> None:
        self._set_broadcast = context.set_broadcast

    async def all(self, request: Request) -> Response:
        try:
            return JSONResponse(await self._ask("", None))
        except _Refused as refused:
            return refused.response

    async def one(self, request: Request) -> Response:
        try:
            broadcast = request.path_params["id"]
            version = await _version(request) if request.method == "PUT" else None
            if fault := broadcast_fault(broadcast, version):
                raise _Refused(400, fault)
            await self._ask(broadcast, version)
        except _Refused as refused:
            return refused.response
        return Response(status_code=204)

    async def _ask(self, key: str, value: str | None) -> dict[str, str]:
        answer = await self._set_broadcast(key, value)
        if answer is None:
            raise _Refused(503, "the router does not answer; whether it was set is not known")
        if answer["outcome"] == m.FULL:
            raise _Refused(400, "ID or version is too long, or there are link.max_broadcasts already")
        if answer["outcome"] != m.OK:
            raise _Refused(503, "the store failed, or link.max_broadcast_changes wait for it; it was not set")
        broadcasts: dict[str, str] = answer["broadcasts"]
        return broadcasts


async def _version(request: Request) -> str:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > _MAX_VERSION_BYTES:
            raise _Refused(400, "the version is too long")
    try:
        return body.decode().strip()
    except UnicodeDecodeError:
        raise _Refused(400, "the version is not UTF-8") from None
