"""What every message and word on the link must look like: its members, their types and their bounds.

Whatever comes from the other end is held against this before anything of it is acted on, so that a defect there ends
a word or a message and nothing else, and nothing of the wrong kind is found in a table or in the store later.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta

from router.common import messages as v

Key = Annotated[bytes, Meta(min_length=16, max_length=16)]
Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[int, Meta(ge=0, le=2**40)]
Count = Annotated[int, Meta(ge=0, le=v.EVERYTHING)]
Space = Annotated[str, Meta(max_length=v.MAX_BROADCAST_KEY)]
Label = Annotated[str, Meta(max_length=v.MAX_LABEL)]
User = Annotated[str, Meta(max_length=v.MAX_USER_ID)]
Slot = Annotated[str, Meta(max_length=1024)]
Incarnation = Annotated[bytes, Meta(min_length=1, max_length=64)]
Update = tuple[Slot, Number]
Member = tuple[User, str]
HeldChannel = tuple[Key, Label, Count, list[Member]]


class _Shape(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    kind: int


# --- messages of workers and of the supervisor


class _Join(_Shape):
    protocol: Any
    shard: Count
    incarnation: Incarnation
    pid: Count


class _Batch(_Shape):
    sequence: Number
    words: list[Any]


class _Beat(_Shape):
    snapshot: Annotated[dict[Annotated[str, Meta(max_length=100)], int | float | bool], Meta(max_length=1000)]


class _AskStatus(_Shape):
    number: Number


class _SetBroadcast(_Shape):
    number: Number
    space: str
    key: str
    value: str | None


# --- words of workers


class _Attach(_Shape):
    ask: Number
    device: Key
    needs: Space
    fetch: Count
    since: Number


class _Key(_Shape):
    key: Key


class _Hold(_Shape):
    devices: Annotated[list[Key], Meta(max_length=v.ANNOUNCE_CHUNK)]
    runs: list[tuple[Count, Number]]


class _Subscribe(_Shape):
    ask: Number
    channel: Key
    since: Annotated[int, Meta(ge=-1, le=2**63 - 1)]
    label: Label


class _HoldChannels(_Shape):
    channels: Annotated[list[HeldChannel], Meta(max_length=v.ANNOUNCE_CHUNK)]


class _Record(_Shape):
    ask: Number
    space: Space
    key: Key
    value: bytes | None
    ttl: Seconds


class _Fetch(_Shape):
    ask: Number
    device: Key
    most: Annotated[int, Meta(ge=1, le=v.EVERYTHING)]


class _Ack(_Shape):
    device: Key
    updates: list[Update]


class _Drop(_Shape):
    ask: Number
    device: Key
    slot: Slot


class _Publish(_Shape):
    ask: Number
    channel: Key
    body: str
    keep: Seconds
    exclude: Annotated[str, Meta(max_length=256)]


class _Result(_Shape):
    number: Number
    outcome: Count


class _Enlist(_Shape):
    ask: Number
    space: Space
    key: Key
    member: Key
    head: Annotated[bytes, Meta(min_length=4, max_length=4)]
    ttl: Seconds
    most: Count


class _Delist(_Shape):
    ask: Number
    space: Space
    key: Key
    member: Key


class _Count(_Shape):
    channel: Key
    subscribers: Count


class _Number(_Shape):
    number: Number


class _Enter(_Shape):
    ask: Number
    channel: Key
    user: User
    info: str
    most: Count


class _Exit(_Shape):
    channel: Key
    user: User


class _Read(_Shape):
    ask: Number
    space: Space
    channel: Key


class _Happened(_Shape):
    label: Label
    what: str
    detail: str


# --- messages and words of a router


class _Welcome(_Shape):
    incarnation: Incarnation


class _Rejoin(_Shape):
    pass


class _Words(_Shape):
    confirmed: Number
    words: list[Any]
    unkept: list[Number]


class _Status(_Shape):
    number: Number
    answer: dict[str, Any]


class _Answer(_Shape):
    ask: Number
    status: Count
    payload: Any


class _Deliver(_Shape):
    number: Number
    device: Key
    slot: Slot
    version: Number
    body: str | None


class _DeliverStored(_Shape):
    device: Key
    items: list[tuple[Slot, Number, Number, Number, Count, str | None]]


class _Event(_Shape):
    channel: Key
    offset: Annotated[int, Meta(ge=v.LAST, le=2**63 - 1)]
    body: str
    exclude: str


class _Broadcast(_Shape):
    space: str
    key: str
    value: str | None


class _Members(_Shape):
    channel: Key
    whole: bool
    added: list[Member]
    removed: list[User]


class _Dismiss(_Shape):
    channel: Key
    code: Count
    reason: Annotated[str, Meta(max_length=123)]


class _BroadcastsSent(_Shape):
    pass


class _StoreState(_Shape):
    why: Annotated[str, Meta(max_length=v.MAX_BROADCAST_VALUE)]


TO_ROUTER: Final[dict[int, type[_Shape]]] = {
    v.READY: _Join,
    v.BATCH: _Batch,
    v.BEAT: _Beat,
    v.ASK_STATUS: _AskStatus,
    v.SET_BROADCAST: _SetBroadcast,
}
"""Messages that a router hears."""

OF_ROUTER: Final[dict[int, type[_Shape]]] = {
    v.WELCOME: _Welcome,
    v.REJOIN: _Rejoin,
    v.WORDS: _Words,
    v.STATUS: _Status,
}
"""Messages that a router says."""

WORDS_TO_ROUTER: Final[dict[int, type[_Shape]]] = {
    v.ATTACH: _Attach,
    v.DETACH: _Key,
    v.ANNOUNCE: _Hold,
    v.SUBSCRIBE: _Subscribe,
    v.UNSUBSCRIBE: _Key,
    v.ANNOUNCE_CHANNELS: _HoldChannels,
    v.RECORD: _Record,
    v.FETCH: _Fetch,
    v.ACK: _Ack,
    v.DROP: _Drop,
    v.PUBLISH: _Publish,
    v.RESULT: _Result,
    v.SET_ADD: _Enlist,
    v.SET_REMOVE: _Delist,
    v.COUNT: _Count,
    v.COUNTS_TOLD: _Number,
    v.PRESENCE_JOIN: _Enter,
    v.PRESENCE_LEAVE: _Exit,
    v.READ: _Read,
    v.HAPPENED: _Happened,
}

WORDS_OF_ROUTER: Final[dict[int, type[_Shape]]] = {
    v.ANSWER: _Answer,
    v.DELIVER: _Deliver,
    v.DELIVER_STORED: _DeliverStored,
    v.DISCONNECT: _Key,
    v.EVENT: _Event,
    v.BROADCAST: _Broadcast,
    v.MEMBERS: _Members,
    v.TERMINATE: _Dismiss,
    v.BROADCASTS_SENT: _BroadcastsSent,
    v.TELL_COUNTS: _Number,
    v.STORE_STATE: _StoreState,
}

_convert = msgspec.convert
_AS_THEY_ARE: Final = (bytes,)  # without this a text would be taken for bytes in base64


def check(shapes: dict[int, type[_Shape]], what: Any) -> None:
    """Hold a message or a word, as it was unpacked, against its shape.

    Raises: VocabularyError if it is none of them.
    """
    if type(what) is not list or not what or type(what[0]) is not int:
        raise v.VocabularyError("a message or word is an array that begins with its kind")
    shape = shapes.get(what[0])
    if shape is None:
        raise v.VocabularyError(f"unknown kind {what[0]}")
    try:
        _convert(what, shape, builtin_types=_AS_THEY_ARE)
    except (msgspec.ValidationError, RecursionError) as error:
        raise v.VocabularyError(f"kind {what[0]}: {error}") from error
