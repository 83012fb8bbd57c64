"""Messages that a router sends."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from router.common.directory import Placement
from router.common.item import Item
from router.common.messages.base import Message
from router.common.messages.values import (
    MAX_BROADCAST_VALUE,
    MAX_INSPECTED,
    MAX_PLACEMENTS,
    Count,
    Key,
    Member,
    Number,
    Slot,
    User,
)
from router.common.position import LogEvent


class Reply(Message, tag=40):
    """To the call of this number. payload: of the request's type `REPLY` if the status is OK; else nothing."""

    number: Number
    status: Count
    payload: Any


class Deliver(Message, tag=41):
    """A message for a device. With a number (else 0) RESULT is to report what became of it."""

    number: Number
    device: Key
    slot: Slot
    version: Number
    body: str | None


class DeliverStored(Message, tag=42):
    """What waits in the device's store; some may have been sent on this connection before."""

    device: Key
    items: list[Item]


class Disconnect(Message, tag=43):
    """A newer connection of this device is elsewhere."""

    device: Key


class Event(Message, tag=44):
    """To every subscriber of the channel on this shard, but the connection with the socket id `exclude` ("": to all).
    It is in no log."""

    channel: Key
    body: str
    exclude: str


class LoggedEvent(Message, tag=53):
    """The same for an event that the channel's log holds, in this epoch; with the offset 0: that has an ID and headers,
    and is in no log."""

    channel: Key
    epoch: Number
    event: LogEvent
    exclude: str


class Broadcast(Message, tag=45):
    """A small text of which every worker keeps a copy, or that there is none any more. At each change, and all that
    there are after WELCOME."""

    space: str
    key: str
    value: str | None


class BroadcastsSent(Message, tag=48):
    """After WELCOME all broadcasts have been sent: what else the worker knows of has gone in the meantime."""


class Members(Message, tag=46):
    """Users that have joined a presence channel and that have left it; if whole, all of its members: every other one
    that a worker knows of has left. What it knows already changes nothing."""

    channel: Key
    whole: bool
    added: list[Member]
    removed: list[User]


class Terminate(Message, tag=47):
    """Close every connection that is subscribed to this address, in sight or hidden."""

    channel: Key
    code: Count
    reason: Annotated[str, Meta(max_length=123)]


class SendCounts(Message, tag=49):
    """Send every COUNTED that is put off, and then COUNTS_SENT with this number."""

    number: Number


class StoreState(Message, tag=50):
    """Why the store refuses what is to be kept, or "": it does not (any more). At each change, and after WELCOME if it
    does."""

    why: Annotated[str, Meta(max_length=MAX_BROADCAST_VALUE)]


class Placements(Message, tag=61):
    """Where routers of the cluster are: all that are known after WELCOME, and later what changes. Not before version
    7."""

    placements: Annotated[list[Placement], Meta(max_length=MAX_PLACEMENTS)]


class Inspect(Message, tag=62):
    """What is known of connections here: INSPECTED with this number answers. device: of this one; b"": of those of this
    client address, at most so many. Not before version 8."""

    number: Number
    device: Annotated[bytes, Meta(max_length=16)]
    address: Annotated[str, Meta(max_length=64)]
    limit: Annotated[int, Meta(ge=1, le=MAX_INSPECTED)]


class LetGo(Message, tag=63):
    """Close the connection of this device, with 1001 and this reason. Not before version 8."""

    device: Key
    reason: Annotated[str, Meta(max_length=123)]


ToWorker = (
    Reply
    | Deliver
    | DeliverStored
    | Disconnect
    | Event
    | LoggedEvent
    | Broadcast
    | BroadcastsSent
    | Members
    | Terminate
    | SendCounts
    | StoreState
    | Placements
    | Inspect
    | LetGo
)
"""Messages of a router."""


class Malformed(msgspec.Struct):
    """In the place of a message that is none of ours, in a batch that was received. number: of the call, if it is
    one."""

    error: str
    number: int | None = None
