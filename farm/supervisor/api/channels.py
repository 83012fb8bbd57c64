"""`/channels` and `/users`: what is subscribed to in the whole farm, test events, the end of a user's connections."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from farm.supervisor.api.frame import ACT, READ, ApiContext, ApiRoute, Asked, Limit
from router.dialects.channel_book import ChannelRow, ChannelState, TestEvent

_Text = Annotated[str, Meta(max_length=2048)]


class ChannelQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Which channels."""

    dialect: Annotated[str, Meta(max_length=64, description="Of this dialect; left out: of all.")] = ""
    application: Annotated[str | None, Meta(description="Of this application; left out: of all.")] = None
    prefix: Annotated[str, Meta(max_length=1024, description="Whose names begin so.")] = ""
    after: Annotated[str, Meta(max_length=2048, description="Behind this one: `next` of the page before.")] = ""
    limit: Limit = 100


class OfApplication(msgspec.Struct, forbid_unknown_fields=True):
    """Which application."""

    application: Annotated[
        str, Meta(max_length=256, description="Its ID; it may be left out where there is one, or none.")
    ] = ""


class EventBody(TestEvent, forbid_unknown_fields=True):
    """A test event."""


class ChannelPage(msgspec.Struct):
    """A page of channels, by dialect, application and name."""

    channels: list[ChannelRow]
    next: str | None
    """As `after` for the next page; null: this is the last one."""


class Accepted(msgspec.Struct):
    """What an app server would have been answered, as a status of HTTP."""

    status: int


def routes(context: ApiContext) -> Iterable[ApiRoute]:
    """`/channels` and `/users`."""

    async def listed(asked: Asked) -> dict[str, Any]:
        return await context.ask("channels", **msgspec.to_builtins(asked.query))

    def named(asked: Asked) -> dict[str, Any]:
        return {**asked.path, "application": asked.query.application}

    async def shown(asked: Asked) -> dict[str, Any]:
        return await context.ask("channel", **named(asked))

    async def published(asked: Asked) -> dict[str, Any]:
        return await context.ask("channel.publish", **named(asked), event=msgspec.to_builtins(asked.body))

    async def terminated(asked: Asked) -> dict[str, Any]:
        return await context.ask("user.terminate", **named(asked))

    dialect = {"dialect": "Name of the dialect, as in the settings."}
    channel = dialect | {"channel": "Name of the channel, or key."}
    return (
        ApiRoute(
            method="GET",
            path="/channels",
            role=READ,
            summary="Channels with their subscribers, of the whole farm, a page at a time.",
            handler=listed,
            answer=ChannelPage,
            query=ChannelQuery,
        ),
        ApiRoute(  # before the next one, whose channel would take its path
            method="POST",
            path="/channels/{dialect}/{channel:path}/events",
            role=ACT,
            summary="Publish a test event, as an app server would.",
            handler=published,
            answer=Accepted,
            query=OfApplication,
            body=EventBody,
            told=("event",),
            parts=channel,
        ),
        ApiRoute(
            method="GET",
            path="/channels/{dialect}/{channel:path}",
            role=READ,
            summary="One channel: subscribers, members, and what the store holds of it.",
            handler=shown,
            answer=ChannelState,
            query=OfApplication,
            parts=channel,
        ),
        ApiRoute(
            method="POST",
            path="/users/{dialect}/{user}/terminate",
            role=ACT,
            summary="Close the connections of a user, as an app server would.",
            handler=terminated,
            answer=Accepted,
            query=OfApplication,
            parts={"dialect": "Name of the dialect; `-`: the only one that knows users.", "user": "ID of the user."},
        ),
    )
