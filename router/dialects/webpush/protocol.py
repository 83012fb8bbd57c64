"""WebPush, what both sides share: settings, endpoints, and how a message is named in the store and on the wire.

A message's *number* is the hub's sequence number: its order of arrival, and the version of its slot. Slots sort as
they are to be delivered: messages with a topic first, the others by number.

| | slot | `version` on the wire |
|---|---|---|
| plain | `:<number>:<channel ID>` | `<number>` |
| with a topic | `#<channel ID>:<topic>` | `<number>#<topic>` |

where <number> is 16 hexadecimal digits. The stored body is a ready piece of JSON, in ASCII:
`"data":"...","headers":{...}`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import blake2b
from typing import ClassVar

from router.common.options import Section, Settings, option
from router.common.settings import EndpointOptions, Listen
from router.common.token import Tokens

NAME = "webpush"
PURPOSE = b"webpush"
MESSAGE_PURPOSE = b"webpush.message"
DEVICES = "webpush.device"
"""Space of the records by which a device and its channels are known: written at its first register."""


@dataclass(frozen=True)
class WebPushOptions(Section):
    SECTION: ClassVar[str] = "webpush"
    HELP: ClassVar[str] = "The WebPush dialect: Firefox, and all that speaks autopush's protocol."

    max_body_bytes: int = option(5630, "encrypted body of one push", unit="bytes", ge=0)
    max_ttl: int = option(
        2_592_000, "how long a message waits for its device at most; a longer TTL is cut", unit="s", ge=0
    )
    timeout_uaid: int = option(
        5_184_000, "a device not seen for this long is forgotten and gets a fresh uaid; 0: never", unit="s", ge=0
    )
    max_channels: int = option(1000, "subscriptions of one device", unit="channels", ge=1)
    min_ping_interval: float = option(
        45.0, "two pings of a device closer than this close it; 0: no limit", unit="s", ge=0
    )
    hello_timeout: float = option(5.0, "from accept to hello; 0: no limit", unit="s", ge=0, le=1000)
    bare_hello: bool = option(
        False,
        "on a path shared with SimplePush a hello without use_webpush and without channelIDs, which SimplePush "
        "refuses, is WebPush's: UnifiedPush distributors send it",
    )
    batch: int = option(
        10, "stored messages sent at once; the next ones when all of them are acknowledged", unit="messages", ge=1
    )
    max_unacked: int = option(
        128, "messages a device may leave unacknowledged; what comes then waits in the store", unit="messages", ge=1
    )
    max_broadcasts: int = option(100, "broadcasts one device may follow", unit="broadcasts", ge=0)
    max_broadcast_sets: int = option(
        1000, "different sets of broadcasts that the devices of one worker follow", unit="sets", ge=1
    )
    vapid_cache: int = option(
        10_000, "verified Authorization headers that are remembered: a signature is checked once", unit="headers", ge=2
    )
    key_cache: int = option(
        1000, "keys of app servers that a worker remembers, so that each is checked once", unit="keys", ge=2
    )
    max_vapid_age: int = option(86_400, "how far ahead the exp of a VAPID token may lie", unit="s", ge=1)
    vapid_leeway: int = option(
        10, "by so much a sender's clock may differ from ours: exp may be past, or too far ahead", unit="s", ge=0
    )
    max_vapid_bytes: int = option(2048, "Authorization header of one push", unit="bytes", ge=256)
    max_crypto_bytes: int = option(
        512, "Encryption and Crypto-Key headers of one aesgcm message, kept with it", unit="bytes", ge=128
    )


# ---------------------------------------------------------------------- names of messages and channels

_CHANNEL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_WIRE = re.compile(r"([0-7][0-9a-f]{15})(?:#([A-Za-z0-9_-]{1,32}))?")  # a number is below 2 ** 63


def device_address(uaid: str) -> bytes:
    """The 16-byte address of the device with this uaid, a hash of its own: in other dialects it is another device."""
    return blake2b(bytes.fromhex(uaid), digest_size=16, person=b"farm webpush").digest()


def channel_member(chid: str) -> bytes | None:
    """The 16 bytes of a channel ID, None if it is not a hyphenated UUID in lower case."""
    return bytes.fromhex(chid.replace("-", "")) if _CHANNEL.fullmatch(chid) else None


def channel_id(member: bytes) -> str:
    """The channel ID of these 16 bytes."""
    digits = member.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def plain_slot(number: int, chid: str) -> str:
    """Slot of a message without topic: its own."""
    return f":{number:016x}:{chid}"


def topic_slot(chid: str, topic: str) -> str:
    """Slot of messages with a topic: the newest replaces the one before."""
    return f"#{chid}:{topic}"


def wire_version(slot: str, version: int) -> str:
    """The `version` by which a device knows this message: another for each message of a channel."""
    return slot[1:17] if slot[0] == ":" else f"{version:016x}#{slot[38:]}"


def parse_wire(chid: str, wire: str) -> tuple[str, int] | None:
    """Slot and version of the message that a device names so; None if nothing of ours can be named so."""
    found = _WIRE.fullmatch(wire)
    if found is None or not _CHANNEL.fullmatch(chid):
        return None
    digits, topic = found.groups()
    return (f":{digits}:{chid}" if topic is None else topic_slot(chid, topic)), int(digits, 16)


def channel_of(slot: str) -> str:
    """The channel ID of a slot."""
    return slot[18:] if slot[0] == ":" else slot[1:37]


def base_url(settings: Settings) -> str:
    """What every endpoint begins with, without a slash at its end."""
    listen = settings.get(Listen)
    return settings.get(EndpointOptions).url or f"http://{listen.host}:{listen.router_port}"


def endpoint(base: str, tokens: Tokens, device: bytes, member: bytes, digest: bytes = b"") -> str:
    """A push endpoint for this channel, with a fresh token.

    digest: `vapid.key_digest` of the key without whose signature nobody may push here, if there is one.
    """
    return f"{base}/wpush/{'v2' if digest else 'v1'}/{tokens.seal(PURPOSE, device + member + digest)}"
