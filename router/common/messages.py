"""The vocabulary between workers and the router: every message that crosses the link, with its version.

One ZeroMQ message is one msgpack array. A worker sends

    [READY, PROTOCOL, shard, incarnation, pid]       first, and again when the router says REJOIN or is another one
    [BATCH, sequence, words]                         words of many connections; sequence counts up from 1
    [BEAT, snapshot]                                 the worker's counters, a map; also keeps its lease

and the router sends

    [WELCOME, router incarnation]                    READY was accepted: announce, and repeat what is not confirmed
    [REJOIN]                                         I do not know you (any more): join and announce
    [WORDS, confirmed, words, unkept]                batches up to `confirmed` are done with; of those in `unkept` the
                                                     store may not have kept the acks

The supervisor speaks on the same link: [ASK_STATUS, number] is answered with [STATUS, number, map], and
[SET_BROADCAST, number, space, key, value or None] with [STATUS, number, {"outcome": OK, FULL or FAILED, "broadcasts":
{key: value of that space}}], once that is durable. With "" as key it only reads.

A word is an array too; its first element says which. An *ask* is the worker's number for a question; exactly one
ANSWER with that number comes back. Device and channel keys are 16 bytes. The link is ordered in each direction, and
much rests on that: an ANSWER to ATTACH comes before any DELIVER of that attachment, and a DISCONNECT always means an
attachment that has been answered.

Batches that are not confirmed when a router goes are sent again to the next one, so every word may be heard twice.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import msgpack

PROTOCOL = 4

# --- messages, worker or supervisor to router
READY = 1
BATCH = 2
BEAT = 3
ASK_STATUS = 4
SET_BROADCAST = 5
# --- messages, router to worker or supervisor
WELCOME = 11
REJOIN = 12
WORDS = 13
STATUS = 14

# --- words, worker to router
ATTACH = 20
"""(ask, device key, needs, fetch, since) This shard holds the device, since this time in ms of the machine's monotonic
clock. needs: "" or the space in which the device must have a record; fetch: how much of its inbox the answer brings: 0
nothing, EVERYTHING, or at most so many items, the first by slot. Neither of them: its address has just been made, and
nothing is stored of it. Answered with [items, record or None]: everything in order of arrival, a part in order of slot.
A part that is shorter than was asked for is the whole inbox."""
DETACH = 21
"""(device key) Its connection here has gone."""
ANNOUNCE = 22
"""(at most ANNOUNCE_CHUNK device keys, [[how many of them, since], ...]) Held since before this READY. since: as for
ATTACH, or 0 for long ago. DELIVER_STORED follows for those with something. Of two shards that claim a device the one
has it that holds it since later; the other hears DISCONNECT."""
SUBSCRIBE = 23
"""(ask or 0, channel key, offset or -1, label) This shard has a subscriber, so far one; answered with the log after
that offset, or None. label: what `channel_label` gives, for channels that app servers may list and count; else ""."""
UNSUBSCRIBE = 24
"""(channel key) The last subscriber of this shard has gone."""
ANNOUNCE_CHANNELS = 25
"""([[channel key, label, subscribers, [[user id, info], ...]], ...], at most ANNOUNCE_CHUNK of them, and of their
members) Subscribed since before this READY, with the members of presence that are here. A channel with more members
than that comes in several words, each with its number of subscribers."""
RECORD = 26
"""(ask or 0, space, key, value, ttl in s or 0) Put a record; answered when it is durable."""
FETCH = 27
"""(ask, device key, most) The inbox once more, EVERYTHING or at most so many items, as at ATTACH."""
ACK = 28
"""(device key, [[slot, version], ...]) Items up to these versions are not wanted any more."""
DROP = 29
"""(ask, device key, slot) Forget the slot whatever its version; answered when that is durable."""
PUBLISH = 30
"""(ask or 0, channel key, body, keep in s or 0, exclude) To every subscriber but the connection with the socket id
`exclude` ("": to all); with keep, first into the channel's log."""
RESULT = 31
"""(push number, outcome) What became of a DELIVER."""
SET_ADD = 32
"""(ask, space, key, member, head, ttl in s or 0, most) Add a member to a record (`router.common.id_set`), which is made
if it is missing, and write its head anew. OK when it is durable; FULL if it has `most` members already."""
SET_REMOVE = 33
"""(ask, space, key, member) Remove a member from a record. OK when that is durable, and if it was not there."""
COUNT = 34
"""(channel key, subscribers) So many are on this shard now; only for channels with a label, and once in a while."""
PRESENCE_JOIN = 35
"""(ask or 0, channel key, user id, info, most) The first socket of this user in this presence channel on this shard.
info: the dialect's text. Answered with members, {user id: info}: all, or just him where this shard was given all before
and has held the channel since; FULL if there are `most` and he is new."""
PRESENCE_LEAVE = 36
"""(channel key, user id) His last socket on this shard has gone."""
READ = 37
"""(ask, space, channel key) Answered with the value of the record that holds the channel's last event, or None."""
HAPPENED = 38
"""(label, what, detail) Something that only an app server may want to hear of (a webhook): texts of the dialect."""
ASKING = frozenset((ATTACH, SUBSCRIBE, RECORD, FETCH, DROP, PUBLISH, SET_ADD, SET_REMOVE, PRESENCE_JOIN, READ))
"""Words that begin with a question's number, or 0."""
COUNTS_TOLD = 39
"""(number) Every COUNT that there was to say when TELL_COUNTS was heard has been said."""
# --- words, router to worker
ANSWER = 40
"""(ask, status, payload)"""
DELIVER = 41
"""(push number or 0, device key, slot, version, body or None) Answered by RESULT if it has a number."""
DELIVER_STORED = 42
"""(device key, items) What waits in its store; some may have been sent on this connection before."""
DISCONNECT = 43
"""(device key) A newer connection of this device is elsewhere."""
EVENT = 44
"""(channel key, offset, body, exclude) To every subscriber of the channel on this shard, but the connection with the
socket id `exclude` ("": to all). offset: its place in the channel's log; LAST: it is now the event that READ gives; 0:
it is kept nowhere."""
BROADCAST = 45
"""(space, key, value or None) A small text of which every worker keeps a copy, or that there is none any more. At each
change, and all that there are after WELCOME."""
MEMBERS = 46
"""(channel key, whole, [[user id, info], ...], [user id, ...]) Who has come into a presence channel and who has gone;
if whole, all who are there: whoever else a worker knows of has gone. What it knows already changes nothing."""
TERMINATE = 47
"""(channel key, code, reason) Close every connection that is subscribed to this address, in sight or hidden."""
TELL_COUNTS = 49
"""(number) Say every COUNT that is put off, and then COUNTS_TOLD with this number."""
BROADCASTS_SENT = 48
"""() After WELCOME all broadcasts have been said: what else the worker knows of has gone in the meantime."""
STORE_STATE = 50
"""(why) The store refuses what is to be kept, or "": it does not (any more). At each change, and after WELCOME if it
does."""

# --- status of an ANSWER
OK = 0
UNKNOWN = 1  # the record that ATTACH needs is not there; nothing was attached, and who held the device hears DISCONNECT
FAILED = 2  # the store could not do it
FULL = 3
MOVED = 4  # ATTACH only: there is a newer connection of the device
HEARD = 5  # READ only, and never from the router: before its answer an event came that is as new or newer

# --- outcome in a RESULT
WRITTEN = 0  # the kernel took the whole frame
NOT_HERE = 1  # no such connection, or it does not read: the message stays in the store

EVERYTHING = 2**31 - 1
"""As the number of items that are asked for."""
LAST = -1
"""As the offset of an event."""

MAX_BROADCAST_KEY = 256
MAX_BROADCAST_VALUE = 1024
"""Characters of a broadcast. Its space may be as long as its key."""

ANNOUNCE_CHUNK = 2000
"""Keys in one ANNOUNCE or ANNOUNCE_CHANNELS."""

MAX_LABEL = 1024
"""Characters of a label."""
MAX_USER_ID = 256
"""Characters of a user id, as presence knows it."""

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

    Raises: VocabularyError if it is none.
    """
    parts = label.split("\0", 2)
    if len(parts) != 3 or len(label) > MAX_LABEL:
        raise VocabularyError(f"{label[:MAX_LABEL]!r} is no label of a channel")
    return parts[0], parts[1], parts[2]


_packer = msgpack.Packer(use_bin_type=True, autoreset=True)


def pack(message: Any) -> bytes:
    """One message as bytes. Not for use by two threads at once."""
    packed: bytes = _packer.pack(message)
    return packed


def unpack(data: bytes, limit: int) -> Any:
    """One message from bytes of a peer.

    Raises: VocabularyError if it is not one msgpack array within `limit` bytes.
    """
    if len(data) > limit:
        raise VocabularyError(f"message of {len(data)} bytes is over the limit of {limit}")
    try:
        message = msgpack.unpackb(data, raw=False, use_list=True, strict_map_key=False)
    except Exception as error:  # of many kinds: TypeError for a key that cannot be one, for instance
        raise VocabularyError(f"not msgpack: {error!r}") from error
    if type(message) is not list or not message:
        raise VocabularyError("a message is an array that begins with its kind")
    return message


class VocabularyError(ValueError):
    """A peer on the link does not speak our vocabulary."""
