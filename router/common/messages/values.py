"""What the messages of the link are made of: versions, statuses, limits, types of fields, and addresses."""

from __future__ import annotations

from hashlib import blake2b
from typing import Annotated, Final

from msgspec import Meta

PROTOCOL: Final = 8
"""The version of all this. It goes up with every change that the version before would not understand."""
LOWEST_PROTOCOL: Final = 6
"""The oldest that is still spoken, so that workers and routers may be upgraded one after the other. What differs is in
`router.common.wire`."""
COUNTED: Final = 7
"""From this version on each end counts what it is sent, and knows if something was lost with a connection."""
INSPECTED: Final = 8
"""From this version on a router may ask a worker about its connections, and a worker that has drained says LEAVE."""

# --- status of a reply
OK = 0
UNKNOWN = 1  # the record that ATTACH needs is not there; nothing was attached, and who held the device gets DISCONNECT
FAILED = 2  # the store could not do it
FULL = 3
MOVED = 4  # ATTACH only: there is a newer connection of the device
UNREACHED = 5  # of an operation only: the router that owns its key did not answer; it may have been done

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
MAX_PLACEMENTS = 512
"""In one PLACEMENTS: more routers than there are partitions cannot be."""
MAX_ARGUMENTS = 65_536
"""Bytes of the arguments of an INVOKE."""
MAX_INSPECTED = 1000
"""Rows of an INSPECTED."""
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
Host = Annotated[str, Meta(max_length=300)]
Incarnation = Annotated[bytes, Meta(min_length=1, max_length=64)]
Member = tuple[User, str]
"""User id and info, a text of the dialect."""


class MessageError(ValueError):
    """What a peer on the link has sent is none of our messages."""


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
