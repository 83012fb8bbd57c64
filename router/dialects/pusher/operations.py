"""What the owner of a channel, a user's channel or a webhook's outbox does: the dialect's operations.

Each is performed by `publishing`, `directory`, `app_server` or `webhooks`, whose request made it.
"""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from router.common.messages import Key, User
from router.common.operation import Operation

OVER: Final = 10
"""Status: as much is stored as `store.max_bytes` allows, and nothing was sent."""
BUSY: Final = 11
"""Status: as much waits for the store as may wait, and nothing was sent."""
OFTEN: Final = 12
"""Status: more events for a channel than `limits.pushes_per_endpoint`, and nothing was sent."""
TOO_MUCH_KEPT: Final = 13
"""Status: more in the store than `limits.store_bytes_per_application`, and nothing was sent."""

Counts = dict[str, int]
"""What was asked for of a channel, by the names of the HTTP API."""


class Sent(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """An event for some channels, each with its key."""

    name: str
    data: str
    exclude: str
    channels: list[tuple[Key, str]]


class Publish(Operation, tag=1):
    """Send events, in order. The reply has the counts of each of their channels, in order; nothing if none is wanted.
    The key is that of any of the channels, all of which have one owner."""

    REPLY = list[Counts]
    SETTLED = True

    events: list[Sent]
    wanted: list[str]


class PublishKept(Publish, tag=7):
    """The same where what an application has in the store is counted."""

    app: str


class Terminate(Operation, tag=2):
    """Close the sockets that are signed in as the user whose channel the key is."""

    SETTLED = True


class Cached(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The last event of a cache channel: its frame, and when it expires (unix seconds)."""

    frame: str
    expires: int


class State(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Of a channel: whether it has subscribers, the counts that were wanted, and its cached event."""

    occupied: bool
    counts: Counts
    cached: Cached | None = None


class Look(Operation, tag=3):
    """The state of one channel."""

    REPLY = State
    SETTLED = True

    channel: str
    wanted: list[str]
    cached: bool
    """Whether its cached event is wanted."""


class Members(Operation, tag=4):
    """The members of a presence channel: user id and info, as presence has them. Empty if there is none."""

    REPLY = list[tuple[User, str]]
    SETTLED = True


class List(Operation, tag=5):
    """The channels of an application that have subscribers here, and whose names begin so, with their counts."""

    REPLY = dict[str, Counts]
    SETTLED = True

    app: str
    prefix: str
    wanted: list[str]


class HandOver(Operation, tag=6):
    """Events for the webhook whose outbox has this key, as JSON. OK once they are kept there; they may come twice."""

    events: Annotated[list[str], Meta(max_length=1000)]
