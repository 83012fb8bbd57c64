"""What the owners of channels do: the dialect's operations, beside those that devices ask for (`protocol`)."""

from __future__ import annotations

from typing import Final

import msgspec

from router.common.operation import Operation
from router.dialects.pushstream.formats import ChannelInfo

UNREAD: Final = 10
"""Status: the store could not be read, and nothing was done."""


class Outcome(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """What became of a message: the text of what refuses it, "" if nothing does, and the numbers that were wanted."""

    refusal: str = ""
    infos: list[ChannelInfo] = []


class Put(Operation, tag=10):
    """A message for channels of one owner, each named once; those that there are not are made. OK when all have it:
    where messages are stored, durably."""

    REPLY = Outcome
    SETTLED = True

    names: list[str]
    text: str
    event_id: str
    event_type: str
    info: bool
    """Whether the numbers of the channels are wanted, as they are afterwards."""


class Delete(Operation, tag=11):
    """These channels go, and their subscribers are sent this text. The reply: how many of them there were."""

    REPLY = int
    SETTLED = True

    names: list[str]
    text: str


class Ask(Operation, tag=12):
    """The numbers of those of these channels that there are."""

    REPLY = list[ChannelInfo]
    SETTLED = True

    names: list[str]


class Enter(Operation, tag=13):
    """Whether a subscriber may have these channels. The reply: the text of what refuses it."""

    REPLY = str

    names: list[str]


class List(Operation, tag=14):
    """The numbers of all channels whose names begin so."""

    REPLY = list[ChannelInfo]
    SETTLED = True

    prefix: str


class Sums(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """Of all channels of an owner."""

    published: int
    stored: int
    subscribers: dict[int, int]
    """Of each worker, by its shard."""


class Sum(Operation, tag=15):
    """The sums over all channels."""

    REPLY = Sums
    SETTLED = True


class Totals(Operation, tag=16):
    """How many channels there are, and how many of them have the wildcard prefix; that as it was so long ago at most,
    in seconds."""

    REPLY = tuple[int, int]
    SETTLED = True

    age: float


class Announce(Operation, tag=17):
    """Messages for the events channel."""

    SETTLED = True

    texts: list[str]
