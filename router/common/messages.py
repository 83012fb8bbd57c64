"""Every message between workers, the supervisor and the router: types with named fields, with their bounds.

What crosses the link as one ZeroMQ message is an **envelope**: a msgpack array that begins with the number of its kind,
and then has the fields in their order. Two of them, the batches, carry **messages**, which are arrays of the same form.
`router.common.wire` makes bytes of envelopes and envelopes of bytes, and holds what comes from the other end against
the types here, once: after that nothing of the wrong kind is found in a table or in the store.

A worker sends READY first, and again when the router sends REJOIN or is another one. After WELCOME it announces what it
holds, and repeats the batches that are not confirmed. So every message may be received twice.

A **call** is a request with the worker's number for it; exactly one REPLY with that number comes back. A request that
may also come without a number is not replied to then. `REPLY` of a request is the type of the payload when the status
is OK.

Device and channel keys are 16 bytes. The link is ordered in each direction, and much rests on that: the reply to ATTACH
comes before any DELIVER of that attachment, and a DISCONNECT always means an attachment that has been replied to.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Any, ClassVar, Final

import msgspec
from msgspec import Meta

from router.common.item import Item
from router.common.position import LogEvent, LogSlice

PROTOCOL: Final = 5
"""The version of all this. It goes up with every change that the version before would not understand."""
LOWEST_PROTOCOL: Final = 4
"""The oldest that is still spoken: one before, so that workers and routers may be upgraded one after the other. What
differs is in `router.common.wire`."""

# --- status of a reply
OK = 0
UNKNOWN = 1  # the record that ATTACH needs is not there; nothing was attached, and who held the device gets DISCONNECT
FAILED = 2  # the store could not do it
FULL = 3
MOVED = 4  # ATTACH only: there is a newer connection of the device

# --- outcome in a RESULT
WRITTEN = 0  # the kernel took the whole frame
NOT_HERE = 1  # no such connection, or it does not read: the message stays in the store

EVERYTHING = 2**31 - 1
"""As the number of items that are asked for."""

MAX_BROADCAST_KEY = 256
MAX_BROADCAST_VALUE = 1024
"""Characters of a broadcast. Its space may be as long as its key."""
ANNOUNCE_CHUNK = 2000
"""Keys in one ANNOUNCE or ANNOUNCE_CHANNELS."""
MAX_LABEL = 1024
"""Characters of a label."""
MAX_USER_ID = 256
"""Characters of a user id, as presence knows it."""

Key = Annotated[bytes, Meta(min_length=16, max_length=16)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[int, Meta(ge=0, le=2**40)]
Count = Annotated[int, Meta(ge=0, le=EVERYTHING)]
Space = Annotated[str, Meta(max_length=MAX_BROADCAST_KEY)]
Label = Annotated[str, Meta(max_length=MAX_LABEL)]
User = Annotated[str, Meta(max_length=MAX_USER_ID)]
Slot = Annotated[str, Meta(max_length=1024)]
Incarnation = Annotated[bytes, Meta(min_length=1, max_length=64)]
Member = tuple[User, str]
"""User id and info, a text of the dialect."""


class MessageError(ValueError):
    """What a peer on the link has sent is none of our messages."""


class Part(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What envelopes and messages have in common. Nothing in them refers back to them, so the collector has no need to
    know of them."""


class Envelope(Part):
    """One ZeroMQ message."""


class Message(Part):
    """What a batch carries."""


class Request(Message):
    """A message that is, or may be, part of a call."""

    REPLY: ClassVar[Any] = None
    """Type of the payload of an OK."""


# ---------------------------------------------------------------------- messages of workers: requests


class Attached(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Payload of the reply to ATTACH. Items: everything in order of arrival, a part in order of slot. A part that is
    shorter than was asked for is the whole inbox."""

    items: list[Item]
    record: bytes | None


class Attach(Request, tag=20):
    """This shard holds the device, since this time in ms of the machine's monotonic clock. needs: "" or the space in
    which the device must have a record; fetch: how much of its inbox the reply brings: 0 nothing, EVERYTHING, or at
    most so many items, the first by slot. Neither of them: its address has just been made, and nothing is stored of it.
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
    """The channel's log from a position (`router.common.position`). The reply comes behind every event that it may have
    in it, if the shard has subscribed before, and before every other."""

    REPLY = LogSlice

    channel: Key
    position: tuple[Any, ...]


class Record(Request, tag=26):
    """Put a record, or remove it (None). ttl: s, 0: for ever. Replied to when it is durable."""

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


class Take(Request, tag=54):
    """Delete a record and have its value, once; None if it is not there. taker: 16 random bytes: the request repeated
    with these gets the value again."""

    REPLY = bytes | None

    space: Space
    key: Key
    taker: Key


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


AnyRequest = Attach | Fetch | Drop | Subscribe | ReadLog | Record | SetAdd | SetRemove | Take | Publish | PresenceJoin


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


class Happened(Message, tag=38):
    """Something that only an app server may want to know of (a webhook): texts of the dialect."""

    label: Label
    what: str
    detail: str


# ---------------------------------------------------------------------- messages of a router


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
    """The same for an event that the channel's log holds, in this epoch."""

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
    """Who has come into a presence channel and who has gone; if whole, all who are there: whoever else a worker knows
    of has gone. What it knows already changes nothing."""

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
)
"""Messages of a worker."""

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
)
"""Messages of a router."""


class Malformed(msgspec.Struct):
    """In the place of a message that is none of ours, in a batch that was received. number: of the call, if it is
    one."""

    error: str
    number: int | None = None


# ---------------------------------------------------------------------- envelopes


class Ready(Envelope, tag=1):
    """A worker is there. It speaks all versions from the lowest to the highest; lowest None: only the highest. This and
    REFUSED must be understood by every version from 5 on."""

    highest: Count
    shard: Count
    incarnation: Incarnation
    pid: Count
    lowest: Count | None = None


class WorkerBatch(Envelope, tag=2):
    """Messages of many connections. Sequence counts up from 1."""

    sequence: Number
    messages: list[ToRouter]


class Beat(Envelope, tag=3):
    """The worker's counters; also keeps its lease."""

    snapshot: Annotated[dict[Annotated[str, Meta(max_length=100)], int | float | bool], Meta(max_length=1000)]


class AskStatus(Envelope, tag=4):
    """The supervisor wants the router's status."""

    number: Number


class SetBroadcast(Envelope, tag=5):
    """Set a broadcast, remove it (None), or only read (key ""): answered by STATUS with {"outcome": OK, FULL or FAILED,
    "broadcasts": {key: value of that space}} once that is durable."""

    number: Number
    space: str
    key: str
    value: str | None


class Welcome(Envelope, tag=11):
    """READY was accepted: this version is spoken from here on. Announce, and repeat what is not confirmed."""

    incarnation: Incarnation
    version: Count = 4


class Rejoin(Envelope, tag=12):
    """The router does not know this worker (any more): it is to send READY and to announce."""


class Refused(Envelope, tag=15):
    """READY was not accepted: the router speaks the versions from the lowest to the highest."""

    lowest: Count
    highest: Count


class RouterBatch(Envelope, tag=13):
    """Batches up to `confirmed` are done with; of those in `unkept` the store may not have kept the acks."""

    confirmed: Number
    messages: list[ToWorker]
    unkept: list[Number]


class Status(Envelope, tag=14):
    """The answer to ASK_STATUS or SET_BROADCAST with this number."""

    number: Number
    answer: dict[str, Any]


OfWorker = Ready | WorkerBatch | Beat | AskStatus | SetBroadcast
"""Envelopes that a router receives."""
OfRouter = Welcome | Rejoin | Refused | RouterBatch | Status
"""Envelopes that a router sends."""


# ---------------------------------------------------------------------- addresses

_SEPARATOR = b"\x00"


def channel_key(dialect: str, application: str, channel: str) -> bytes:
    """The 16-byte address of a channel: a hash of who speaks, for whom, and the channel's name."""
    joined = _SEPARATOR.join(part.encode() for part in (dialect, application, channel))
    return blake2b(joined, digest_size=16, person=b"farm channel").digest()


def channel_label(dialect: str, application: str, channel: str) -> str:
    """What the router lists a channel by. Neither the dialect's nor the application's name holds a NUL."""
    return f"{dialect}\0{application}\0{channel}"


def label_parts(label: str) -> tuple[str, str, str]:
    """Dialect, application and channel of a label.

    Raises: MessageError if it is none.
    """
    parts = label.split("\0", 2)
    if len(parts) != 3 or len(label) > MAX_LABEL:
        raise MessageError(f"{label[:MAX_LABEL]!r} is no label of a channel")
    return parts[0], parts[1], parts[2]
