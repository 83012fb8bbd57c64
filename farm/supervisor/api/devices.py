"""`/devices`: find one, see what is known of it, and act on it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from farm.settings import AdminOptions
from farm.supervisor.api.frame import ACT, READ, ApiContext, ApiError, ApiRoute, Asked, Limit
from router.core.managing import REFUSED

_DEVICE: Final = {"device": "Its uaid, or its address (`device` of a list): 32 hexadecimal digits."}
_HEX: Final = "[0-9A-Fa-f]"
_UAID: Final = f"(?:{_HEX}{{32}}|{_HEX}{{8}}(?:-{_HEX}{{4}}){{3}}-{_HEX}{{12}})"
"""A UUID in either spelling."""
Dialect = Annotated[str, Meta(max_length=64, description="Its dialect; left out: any.")]


class FindQuery(msgspec.Struct, forbid_unknown_fields=True):
    """One of the three says which."""

    uaid: Annotated[str, Meta(pattern=f"^(?:{_UAID})?$", description="A uaid, or the address of a device.")] = ""
    endpoint: Annotated[str, Meta(max_length=2048, description="A push endpoint.")] = ""
    address: Annotated[str, Meta(max_length=64, description="IP address of connected clients.")] = ""
    limit: Limit = 100


class FoundDevice(msgspec.Struct):
    """A device in a list. What is null is not known, or it is not connected."""

    device: str
    """Its address in the farm."""
    dialect: str
    uaid: str | None
    shard: int | None
    """The worker that holds it, and the name of its host in a cluster."""
    host: str | None
    since: float | None
    """Seconds since it has connected; null as well where that is longer ago than the farm remembers."""
    address: str | None
    """Of the client."""
    channel: str | None
    """ID of the channel whose endpoint was asked for."""


class FoundDevices(msgspec.Struct):
    """Devices that were found. more: there are others, or a worker did not answer."""

    devices: list[FoundDevice]
    more: bool


class OneQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which dialect is meant."""

    dialect: Dialect = ""


class ShowQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which page of the messages that wait."""

    dialect: Dialect = ""
    after: Annotated[str, Meta(max_length=1024, description="`next` of the page before.")] = ""
    limit: Limit = 100


class DeviceConnection(msgspec.Struct):
    """Where it is connected. What is null its worker has not answered."""

    shard: int
    host: str
    since: float | None
    address: str | None
    silent: float | None
    """Seconds since something was read of it."""
    buffered: int | None
    """Bytes that wait for it in the worker."""


class WaitingMessage(msgspec.Struct):
    """A message that waits."""

    id: str
    channel: str
    version: str
    size: int
    """Bytes of its body, as it is stored."""
    age: float
    ttl: int
    """Seconds until it expires."""
    content: str | None
    """As it is stored; null unless `admin.show_contents`, or where it has none."""


class Inbox(msgspec.Struct):
    """What waits for it."""

    messages: int
    bytes: int
    items: list[WaitingMessage]
    """A page."""
    next: str | None
    """As `after` for the next page; null: this is the last."""


class Device(msgspec.Struct):
    """All that is known of a device."""

    device: str
    dialect: str
    uaid: str | None
    registered: bool
    """Whether the store has a record of it."""
    channels: list[str] | None
    """IDs; null: its dialect does not keep them."""
    connection: DeviceConnection | None
    inbox: Inbox


class PushBody(msgspec.Struct, forbid_unknown_fields=True):
    """A test message."""

    channel: Annotated[str, Meta(max_length=200, description="ID; needed where the dialect does not keep them.")] = ""
    data: Annotated[str, Meta(max_length=65_536, description="As an app server would send it.")] = ""
    ttl: Annotated[int, Meta(ge=0, le=2**31 - 1, description="Seconds, where the dialect has it.")] = 60


class Pushed(msgspec.Struct):
    """What an app server would be answered."""

    status: int
    outcome: str


class Emptied(msgspec.Struct):
    """How many messages were removed."""

    removed: int


class Disconnected(msgspec.Struct):
    """Whether there was a connection."""

    disconnected: bool


class Forgotten(msgspec.Struct):
    """Whether anything was known of it."""

    forgotten: bool


def routes(context: ApiContext) -> Iterable[ApiRoute]:
    """All of `/devices`."""

    def name_host(row: dict[str, Any] | None) -> None:
        """Routers know hosts by their IDs."""
        cluster = None if context.farm.cluster is None else context.farm.cluster.fields()
        if row is not None and cluster is not None:
            names = {host["id"]: host["name"] for host in cluster["hosts"]}
            row["host"] = names.get(row["host"], row["host"])

    async def find(asked: Asked) -> dict[str, Any]:
        found = await context.ask("devices", **msgspec.structs.asdict(asked.query))
        for row in found["devices"]:
            name_host(row)
        return found

    async def show(asked: Asked) -> dict[str, Any]:
        contents = context.farm.settings.get(AdminOptions).show_contents
        query = msgspec.structs.asdict(asked.query)
        found = await context.ask("device", device=asked.path["device"], contents=contents, **query)
        name_host(found["connection"])
        return found

    async def push(asked: Asked) -> dict[str, Any]:
        body, dialect = msgspec.structs.asdict(asked.body), asked.query.dialect
        found = await context.ask(
            "device.push", device=asked.path["device"], dialect=dialect, push=body, request_id=asked.request_id
        )
        if found["status"] >= 300:
            raise ApiError(REFUSED, f"{found['status']}: {found['outcome']}")
        return found

    def act(action: str) -> Callable[[Asked], Awaitable[dict[str, Any]]]:
        """What needs nothing but the device."""

        async def done(asked: Asked) -> dict[str, Any]:
            return await context.ask(action, device=asked.path["device"], dialect=asked.query.dialect)

        return done

    of_one = partial(ApiRoute, parts=_DEVICE, patterns={"device": _UAID})
    return (
        ApiRoute(
            method="GET",
            path="/devices",
            role=READ,
            summary="Find devices by uaid, by push endpoint, or (connected ones) by the client's IP address.",
            handler=find,
            answer=FoundDevices,
            query=FindQuery,
        ),
        of_one(
            method="GET",
            path="/devices/{device}",
            role=READ,
            summary="A device: its registration, channels, connection, and a page of the messages that wait for it.",
            handler=show,
            answer=Device,
            query=ShowQuery,
        ),
        of_one(
            method="DELETE",
            path="/devices/{device}",
            role=ACT,
            summary="Forget a device: its registration and what waits for it go, and its connection is closed.",
            handler=act("device.forget"),
            answer=Forgotten,
            query=OneQuery,
        ),
        of_one(
            method="POST",
            path="/devices/{device}/push",
            role=ACT,
            summary="Send it a test message, as an app server would. What refuses it is in the error.",
            handler=push,
            answer=Pushed,
            query=OneQuery,
            body=PushBody,
            told=("channel",),
        ),
        of_one(
            method="DELETE",
            path="/devices/{device}/inbox",
            role=ACT,
            summary="Remove the messages that wait for it.",
            handler=act("device.empty"),
            answer=Emptied,
            query=OneQuery,
        ),
        of_one(
            method="POST",
            path="/devices/{device}/disconnect",
            role=ACT,
            summary="Close its connection; it may come back at once.",
            handler=act("device.disconnect"),
            answer=Disconnected,
            query=OneQuery,
        ),
    )
