"""Messages that a worker sends."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from router.common.item import Item
from router.common.messages.authorise import Authorise
from router.common.messages.base import Message, Request
from router.common.messages.values import (
    ANNOUNCE_CHUNK,
    EVERYTHING,
    MAX_ARGUMENTS,
    MAX_INSPECTED,
    Count,
    Key,
    Label,
    Member,
    Number,
    Seconds,
    Slot,
    Space,
    User,
)
from router.common.position import LogSlice


class Attached(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Payload of the reply to ATTACH. Items: everything in order of arrival, a part in order of slot. A part that is
    shorter than was asked for is the whole inbox."""

    items: list[Item]
    record: bytes | None


class Attach(Request, tag=20):
    """This shard holds the device, since this time in ms of the machine's monotonic clock, in a cluster of unix time.
    needs: "" or the space in which the device must have a record; fetch: how much of its inbox the reply brings: 0
    nothing, EVERYTHING, or at most so many items, the first by slot. Neither of them: its address has just been made,
    and nothing is stored of it.
    """

    REPLY = Attached

    device: Key
    needs: Space
    fetch: Count
    since: Number


class Fetch(Request, tag=27):
    """The inbox once more, EVERYTHING or at most so many items, as at ATTACH."""

    REPLY = list[Item]

    device: Key
    most: Annotated[int, Meta(ge=1, le=EVERYTHING)]


class Drop(Request, tag=29):
    """Forget the slot whatever its version; replied to when that is durable."""

    device: Key
    slot: Slot


class Subscribe(Request, tag=23):
    """This shard has a subscriber, so far one. label: what `channel_label` gives, for channels that app servers may
    list and count; else ""."""

    channel: Key
    label: Label


class ReadLog(Request, tag=52):
    """The channel's log from a position (`router.common.position`), about so many bytes of it at most; 0: as many as
    the router gives. The reply comes behind every event that it may have in it, if the shard has subscribed before, and
    before every other."""

    REPLY = LogSlice

    channel: Key
    position: tuple[Any, ...]
    most: Count = 0


class Record(Request, tag=26):
    """Put a record, or remove it (None). ttl: s, 0: no end. Replied to when it is durable."""

    space: Space
    key: Key
    value: bytes | None
    ttl: Seconds


class SetAdd(Request, tag=32):
    """Add a member to a record (`router.common.id_set`), which is made if it is missing, and write its head anew. OK
    when it is durable; FULL if it has `most` members already."""

    space: Space
    key: Key
    member: Key
    head: Annotated[bytes, Meta(min_length=4, max_length=4)]
    ttl: Seconds
    most: Count


class SetRemove(Request, tag=33):
    """Remove a member from a record. OK when that is durable, and if it was not there."""

    space: Space
    key: Key
    member: Key


class Publish(Request, tag=30):
    """To every subscriber but the connection with the socket id `exclude` ("": to all); with keep (s), first into the
    channel's log. Replied to with its offset."""

    REPLY = int

    channel: Key
    body: str
    keep: Seconds
    exclude: Annotated[str, Meta(max_length=256)]


class PresenceJoin(Request, tag=35):
    """The first socket of this user in this presence channel on this shard. info: the dialect's text. Replied to with
    members, {user id: info}: all, or only this one where this shard was given all before and has held the channel
    since; FULL if there are `most` and this one is new."""

    REPLY = dict[str, str]

    channel: Key
    user: User
    info: str
    most: Count


class Invoke(Request, tag=58):
    """Have the app-server side of this dialect perform an operation at this address (`router.common.operation`):
    arguments and reply are an operation of the dialect's and what it is replied to with, encoded. It may be received
    twice. None: the router does not speak the dialect."""

    REPLY = bytes | None

    dialect: Annotated[str, Meta(max_length=64)]
    key: Key
    arguments: Annotated[bytes, Meta(max_length=MAX_ARGUMENTS)]


AnyRequest = (
    Attach
    | Fetch
    | Drop
    | Subscribe
    | ReadLog
    | Record
    | SetAdd
    | SetRemove
    | Publish
    | PresenceJoin
    | Invoke
    | Authorise
)


class Call(Message, tag=51):
    """A request that is to be replied to."""

    number: Number
    request: AnyRequest


# ---------------------------------------------------------------------- messages of workers: others


class Detach(Message, tag=21):
    """Its connection here has gone."""

    device: Key


class Announce(Message, tag=22):
    """Held since before this READY. runs: how many of the devices, and since when: as for ATTACH, or 0 for long ago.
    DELIVER_STORED follows for those with something. Of two shards that claim a device the one has it that holds it
    since later; the other gets DISCONNECT."""

    devices: Annotated[list[Key], Meta(max_length=ANNOUNCE_CHUNK)]
    runs: list[tuple[Count, Number]]


class HeldChannel(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A channel that a shard has subscribers of, and those members of presence that are there."""

    channel: Key
    label: Label
    subscribers: Count
    members: list[Member]


class AnnounceChannels(Message, tag=25):
    """Subscribed since before this READY, at most ANNOUNCE_CHUNK of them, and of their members. A channel with more
    members than that comes in several messages, each with its number of subscribers."""

    channels: Annotated[list[HeldChannel], Meta(max_length=ANNOUNCE_CHUNK)]


class Unsubscribe(Message, tag=24):
    """The last subscriber of this shard has gone."""

    channel: Key


class Ack(Message, tag=28):
    """Items of these slots up to these versions are not wanted any more."""

    device: Key
    updates: list[tuple[Slot, Number]]


class Result(Message, tag=31):
    """What became of the DELIVER with this number."""

    number: Number
    outcome: Count


class Counted(Message, tag=34):
    """So many subscribers are on this shard now; only for channels with a label, and once in a while."""

    channel: Key
    subscribers: Count


class CountsSent(Message, tag=39):
    """Every COUNTED that there was to send when SEND_COUNTS of this number was received has been sent."""

    number: Number


class PresenceLeave(Message, tag=36):
    """The user's last socket on this shard has gone."""

    channel: Key
    user: User


class Withdraw(Message, tag=59):
    """The reply to the AUTHORISE with this number is not waited for any more: its connection has ended. None comes, or
    it is on its way. It may be received twice, and by a router that was not asked."""

    number: Number


class Inspection(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The connection of a device, as its worker knows it."""

    device: Key
    dialect: Annotated[str, Meta(max_length=64)]
    address: Annotated[str, Meta(max_length=64)]
    """Of its client; "": it has just gone."""
    silent: float
    """Seconds since something was read of it."""
    buffered: Count
    """Bytes that wait for it."""


class Inspected(Message, tag=60):
    """The answer to the INSPECT with this number. more: there are further ones. It may come twice."""

    number: Number
    found: Annotated[list[Inspection], Meta(max_length=MAX_INSPECTED)]
    more: bool


class Happened(Message, tag=38):
    """Something that only an app server may want to know of (a webhook): texts of the dialect."""

    label: Label
    what: str
    detail: str


ToRouter = (
    Call
    | Detach
    | Announce
    | Subscribe
    | Unsubscribe
    | AnnounceChannels
    | Record
    | SetAdd
    | Ack
    | Publish
    | Result
    | Counted
    | CountsSent
    | PresenceJoin
    | PresenceLeave
    | Happened
    | Withdraw
    | Inspected
)
"""Messages of a worker."""
