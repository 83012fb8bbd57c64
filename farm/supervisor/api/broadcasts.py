"""`/broadcasts`: what all devices of a dialect may follow."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated

import msgspec
from msgspec import Meta

from farm.supervisor.api.frame import ACT, READ, ApiContext, ApiError, ApiRoute, Asked
from router.common import messages as m
from router.core.managing import BAD_REQUEST, NOT_FOUND, REFUSED, UNAVAILABLE
from router.dialects import DialectSpec, specs, spoken


class BroadcastRow(msgspec.Struct):
    """A broadcast."""

    dialect: str
    key: str
    version: str


class BroadcastList(msgspec.Struct):
    """All of them."""

    broadcasts: list[BroadcastRow]


class OfDialect(msgspec.Struct, forbid_unknown_fields=True):
    """Of which dialect."""

    dialect: Annotated[str, Meta(max_length=64, description="It may be left out where one has broadcasts.")] = ""


class NewVersion(msgspec.Struct, forbid_unknown_fields=True):
    """What devices that follow it are sent, and those that come with another one."""

    version: Annotated[str, Meta(max_length=4096)]


def routes(context: ApiContext) -> Iterable[ApiRoute]:
    """`/broadcasts`."""

    def known(wanted: str) -> list[DialectSpec]:
        """Dialects with broadcasts; the wanted one, or all."""
        found = [spec for spec in spoken(context.farm.settings, specs()) if spec.broadcast_fault is not None]
        names = [spec.name for spec in found]
        if wanted and wanted not in names:
            raise ApiError(
                NOT_FOUND, f"no dialect {wanted!r} with broadcasts is on; those: {', '.join(names) or 'none'}"
            )
        return [spec for spec in found if wanted in ("", spec.name)]

    async def ask(spec: DialectSpec, key: str, version: str | None) -> list[BroadcastRow]:
        answer = await context.farm.link.set_broadcast(spec.name, key, version)
        if answer is None:
            raise ApiError(UNAVAILABLE, "the router does not answer; whether it was set is not known")
        if answer["outcome"] == m.FULL:
            raise ApiError(REFUSED, "key or version is too long, or there are link.max_broadcasts already")
        if answer["outcome"] != m.OK:
            raise ApiError(UNAVAILABLE, "the store failed, or link.max_broadcast_changes wait for it; it was not set")
        return [BroadcastRow(spec.name, key, text) for key, text in sorted(answer["broadcasts"].items())]

    async def listed(asked: Asked) -> BroadcastList:
        return BroadcastList([row for spec in known(asked.query.dialect) for row in await ask(spec, "", None)])

    async def set_one(asked: Asked) -> BroadcastList:
        return await change(asked, asked.body.version)

    async def removed(asked: Asked) -> BroadcastList:
        return await change(asked, None)

    async def change(asked: Asked, version: str | None) -> BroadcastList:
        found = known(asked.query.dialect)
        if len(found) != 1:
            names = ", ".join(spec.name for spec in found) or "none is on"
            raise ApiError(BAD_REQUEST, f"say for which dialect: {names}")
        spec, key = found[0], asked.path["key"]
        assert spec.broadcast_fault is not None
        if fault := spec.broadcast_fault(key, version):
            raise ApiError(BAD_REQUEST, fault)
        return BroadcastList(await ask(spec, key, version))

    parts = {"key": "ID of the broadcast."}
    return (
        ApiRoute(
            method="GET",
            path="/broadcasts",
            role=READ,
            summary="All broadcasts, with their versions.",
            handler=listed,
            answer=BroadcastList,
            query=OfDialect,
        ),
        ApiRoute(
            method="PUT",
            path="/broadcasts/{key:path}",
            role=ACT,
            summary="Set the version of a broadcast, which is made if there is none.",
            handler=set_one,
            answer=BroadcastList,
            query=OfDialect,
            body=NewVersion,
            told=("version",),
            parts=parts,
        ),
        ApiRoute(
            method="DELETE",
            path="/broadcasts/{key:path}",
            role=ACT,
            summary="Remove a broadcast.",
            handler=removed,
            answer=BroadcastList,
            query=OfDialect,
            parts=parts,
        ),
    )
