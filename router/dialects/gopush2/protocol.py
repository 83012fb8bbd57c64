"""gopush2, what both sides share: settings, addresses, how channels, tokens and messages are kept, and what refuses.

| thing | kept as |
|---|---|
| channel of a key | a record in CHANNELS with its deadline; it goes at the deadline, and its log with it |
| token | a record in TOKENS, until it is taken or the deadline that its `/ch` gave the channel |
| message | an event of the channel's log: its offset is the `mid`, its body the message as JSON text |
| subscriber of a key with a limit | a member of the address of `subscribers_address`, on all shards |

The device side has the app-server side look after channel and token: it sends what `enter` and `look` give, and
`entered` reads the reply. So one place decides which device may subscribe, whether `/ch` or `/sub` has created the
channel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final

import msgspec

from router.common import messages as m
from router.common.answers import Answer, CloseCode, Table
from router.common.auth_settings import auth_url_option
from router.common.operation import Operation, invoke
from router.common.options import Section, option
from router.common.partitions import key_in, partition

NAME: Final = "gopush2"
SUB_PATH: Final = "/sub"
CLIENT_PATH: Final = "/client"
HEARTBEAT: Final = b"h"
"""What both ends send; the first versions had an empty message instead."""
CHANNELS: Final = "gopush2.channel"
TOKENS: Final = "gopush2.token"
"""Spaces of records."""
SUBSCRIBERS: Final = "subscribers"
"""The application of the channels by which devices of a key are counted."""
MAX_MID: Final = 2**53 - 1
"""The highest ID of a message: JavaScript keeps numbers exactly up to here."""
_LONG_S: Final = 1_000_000
FOR_EVER_S: Final = 100 * 365 * 86_400
"""For longer nothing is kept."""


@dataclass(frozen=True)
class Gopush2Options(Section):
    SECTION: ClassVar[str] = "gopush2"
    HELP: ClassVar[str] = "The gopush2 dialect: offline messages by key, over WebSocket and TCP."
    AT_START: ClassVar[frozenset[str]] = frozenset(("tcp_port",))

    tcp_port: int = option(0, "port of its own for gopush2's TCP protocol; 0: none", ge=0, le=65535)
    auth: bool = option(
        True,
        "a device needs a token, which /ch gives out once; without, there is no /ch, and /sub creates channels",
    )
    admin_key: str = option(
        "",
        "what app servers show for /pub, /ch and /stat, as `Authorization: Bearer KEY` or `?admin_key=KEY`; empty: "
        "only programs on this host may come, directly, and no page of another site",
        secret=True,
    )
    one_port: bool = option(
        False,
        "app servers may come to the device port too: a connection that begins with POST, PUT, DELETE or OPTIONS, or "
        "with GET or HEAD of /ch or /stat, is passed to the router; every client of the device port then reaches all "
        "that the router port serves",
    )
    greeting: bool = option(
        True, "send `h` when a device has come; clients of gopush2's first versions take it for a message"
    )
    msg_id: bool = option(False, "messages have their ID as `msg_id` too, as clients of the first versions read it")
    debug: bool = option(False, "serve the test page /client on the device port")
    heartbeat: int = option(
        30,
        "a device that is silent for twice as long is closed; it may ask for another time",
        unit="s",
        ge=1,
        le=_LONG_S,
    )
    max_heartbeat: int = option(86_400, "the longest that a device may ask for", unit="s", ge=1, le=_LONG_S)
    message_expire: int = option(
        10_800, "how long a message is kept if /pub does not say", unit="s", ge=1, le=FOR_EVER_S
    )
    channel_expire: int = option(
        604_800,
        "how long a channel is there after the last /ch; its devices, messages and tokens go with it",
        unit="s",
        ge=1,
        le=FOR_EVER_S,
    )
    max_stored_message: int = option(
        20, "messages kept for one key; beyond, the one with the smallest ID goes", unit="messages", ge=1
    )
    max_subscriber_per_key: int = option(
        0, "devices of one key at once, over all workers; 0: no limit", unit="devices", ge=0, le=2**31 - 1
    )
    list_keys: bool = option(
        False,
        "routers know the keys that devices are connected with: operators can list them and their devices' numbers. It "
        "costs about 0.5 KiB a key. With max_subscriber_per_key they are listed in any case",
    )
    max_message_bytes: int = option(65_536, "one message, as JSON text", unit="bytes", ge=2, le=4_194_304)
    max_key_bytes: int = option(512, "a key", unit="bytes", ge=1, le=m.MAX_LABEL - 64)
    max_token_bytes: int = option(1024, "a token", unit="bytes", ge=1, le=m.MAX_ARGUMENTS // 2)
    auth_url: str = auth_url_option()


# ---------------------------------------------------------------------- addresses


def channel_address(key: str) -> bytes:
    """The address of a key's channel: of its subscribers, its log, and its record in CHANNELS."""
    return m.channel_key(NAME, "", key)


def subscribers_address(key: str) -> bytes:
    """Another address of the key, by which its subscribers are counted where there is a limit for them."""
    return m.channel_key(NAME, SUBSCRIBERS, key)


def key_label(key: str) -> str:
    """The label of a key's channel, where routers are to know it: operators list channels by it."""
    return m.channel_label(NAME, "", key)


def subscribers_label(key: str) -> str:
    """That of `subscribers_address`."""
    return m.channel_label(NAME, SUBSCRIBERS, key)


def token_address(channel: bytes, token: str) -> bytes:
    """The key of a channel's token in TOKENS. It is in the partition of the channel."""
    return key_in(partition(channel), m.channel_key(NAME, channel.hex(), token))


# ---------------------------------------------------------------------- what is kept


def deadline_value(deadline: int) -> bytes:
    """The record of a channel that is there until this time, in unix seconds."""
    return deadline.to_bytes(8, "big")


def deadline_of(value: bytes) -> int:
    """The deadline in a channel's record."""
    return int.from_bytes(value, "big")


_encode = msgspec.json.Encoder().encode


def message_body(data: bytes, most: int) -> str | None:
    """A message as its log keeps it: a JSON text; None if it has more than `most` bytes.

    As with gopush2, what is not UTF-8 is replaced.
    """
    if len(data) + len('""') > most:  # nothing is shorter as JSON
        return None
    text = _encode(data.decode("utf-8", "replace"))
    return text.decode() if len(text) <= most else None


def message_text(mid: int, body: str, msg_id: bool = False) -> bytes:
    """What a device is sent. body: as `message_body` gives it."""
    also = f',"msg_id":{mid}' if msg_id else ""
    return f'{{"mid":{mid},"msg":{body}{also}}}'.encode()


# ---------------------------------------------------------------------- what the device side has done


ENTERED: Final = 0
NO_CHANNEL_HERE: Final = 1
TOKEN_REFUSED: Final = 2


class Entry(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What becomes of a device that wants to come in, or to stay."""

    outcome: int
    """ENTERED, NO_CHANNEL_HERE or TOKEN_REFUSED."""
    seconds: int = 0
    """How long the channel is there yet, if nothing extends it. Then the device is to look again."""


class Enter(Operation, tag=1):
    """A device wants to come in. The token is used up by it; a request that is repeated has the same taker."""

    REPLY = Entry

    token: str
    taker: bytes


class Look(Operation, tag=2):
    """Is the channel (still) there?"""

    REPLY = Entry


OFTEN: Final = 9
"""Status: more messages for a channel than `limits.pushes_per_endpoint`."""
NOT_THERE: Final = 10
"""Status of a Push: the channel is not there."""
NOT_ADDED: Final = 11
"""Status of an Open: the channel has such a token, which nobody has used."""


class Push(Operation, tag=3):
    """A message for the channel, for so many seconds. mid: its ID; 0: the next one."""

    mid: int
    seconds: int
    body: str


class Open(Operation, tag=4):
    """Create the channel or extend it, and give it a token."""

    token: str


class Count(Operation, tag=5):
    """What has happened since a router was started: for `/stat`, which has all routers' together."""

    REPLY = dict[str, int]


class Present(Operation, tag=6):
    """How many devices are connected with a key that has a limit. The key is its `subscribers_address`."""

    REPLY = int
    SETTLED = True


_entry: Final = msgspec.msgpack.Decoder(Entry).decode


def enter(channel: bytes, token: str, taker: bytes) -> m.Invoke:
    """May a device with this token come into the channel? taker: 16 random bytes."""
    return invoke(NAME, channel, Enter(token, taker))


def look(channel: bytes) -> m.Invoke:
    """Is the channel there?"""
    return invoke(NAME, channel, Look())


def entered(payload: bytes | None) -> Entry | None:
    """What came with an OK; None: the router does not speak this dialect."""
    return None if payload is None else _entry(payload)


# ---------------------------------------------------------------------- what refuses

_BETTER: Final = "Connects with other parameters."
_AGAIN: Final = "Connects again."

BAD_PARAMETER: Final = CloseCode(4400, "key, mid or heartbeat is missing or cannot be used", _BETTER)
BAD_TOKEN: Final = CloseCode(4401, "the token is unknown, or was used", "Has its app server give it another token.")
NOT_GRANTED: Final = CloseCode(4403, "the main server does not grant this key", "Asks its app server for another key.")
NO_CHANNEL: Final = CloseCode(4404, "there is no such channel", "Has its app server create it: /ch.")
SILENT: Final = CloseCode(4408, "no heartbeat came in time", _AGAIN, "timeouts")
EXPIRED: Final = CloseCode(4410, "the channel has expired", "Has its app server create it anew: /ch.")
BAD_HEARTBEAT: Final = CloseCode(
    4415, "a device sends heartbeats, and nothing else", "Is defective.", "commands_refused"
)
TOO_MANY: Final = CloseCode(4429, "as many devices as may be are connected with this key", "Comes later.")
NOT_NOW: Final = CloseCode(4503, "the server cannot do it now", "Connects again after a while.")
LEAVING: Final = CloseCode(1001, "the server goes away: connect again", _AGAIN)
CLOSES: Final = Table(
    "Close codes",
    (BAD_PARAMETER, BAD_TOKEN, NOT_GRANTED, NO_CHANNEL, SILENT, EXPIRED, BAD_HEARTBEAT, TOO_MANY, NOT_NOW, LEAVING),
    "worker",
)

NO_SUBSCRIBER: Final = Answer(200, "can't get a subscriber", "Creates the channel: /ch.", "pushes_rejected", 3)
TOKEN_FAILED: Final = Answer(200, "add token failed", "Takes another token, or tries again.", "", 4)
PUSH_FAILED: Final = Answer(
    200,
    "push msg failed",
    "Has sent it before, or too late; or tries again: the store may be full.",
    "pushes_refused",
    5,
)
PARAM_ERROR: Final = Answer(
    200, "param error", "Does not send it again: the request is wrong.", "pushes_invalid", 65534
)
BAD_METHOD: Final = Answer(405, "Method Not Allowed", "Does not send it again: the request is wrong.")
TOO_OFTEN: Final = Answer(
    429, "too many messages for this key", "Sends it again after Retry-After.", "limited_pushes_per_endpoint"
)
NOT_COUNTED: Final = Answer(503, "a router did not say what it has counted", "Asks again later.")
APP_SERVERS: Final = Table(
    "Answers to app servers, by `ret`",
    (NO_SUBSCRIBER, TOKEN_FAILED, PUSH_FAILED, PARAM_ERROR, BAD_METHOD, TOO_OFTEN, NOT_COUNTED),
    "router",
)
TABLES: Final = (CLOSES, APP_SERVERS)
