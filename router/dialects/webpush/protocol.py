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
from typing import ClassVar, Final

from router.common.answers import Answer, CloseCode, Table
from router.common.auth_settings import auth_url_option
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
    auth_url: str = auth_url_option()


# ---------------------------------------------------------------------- names of messages and channels

_CHANNEL = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_BESIDE: Final = "errors"  # a member beside the broadcasts in what a device is sent
_WIRE = re.compile(r"([0-7][0-9a-f]{15})(?:#([A-Za-z0-9_-]{1,32}))?")  # a number is below 2 ** 63


def device_address(uaid: str) -> bytes:
    """The 16-byte address of the device with this uaid, a hash of its own: in other dialects it is another device."""
    return blake2b(bytes.fromhex(uaid), digest_size=16, person=b"farm webpush").digest()


def channel_id(member: bytes) -> str:
    """The channel ID of these 16 bytes."""
    digits = member.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def channel_bytes(channel: str) -> bytes:
    """The 16 bytes of a channel ID, a UUID with hyphens: so it stands in the record of its device."""
    return bytes.fromhex(channel.replace("-", ""))


def broadcast_fault(broadcast: str, version: str | None) -> str:
    """What is wrong with the ID and the version of a broadcast; "" if nothing is. version: None where it is removed."""
    if not broadcast or not broadcast.isprintable() or broadcast == _BESIDE:
        return f"a broadcast's ID is printable text, and not `{_BESIDE}`"
    if version is not None and (not version or not version.isprintable()):
        return "a broadcast's version is printable text"
    return ""


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

    digest: `vapid.key_digest` of the key whose signature every push needs here, if there is one.
    """
    return f"{base}/wpush/{'v2' if digest else 'v1'}/{tokens.seal(PURPOSE, device + member + digest)}"


# ---------------------------------------------------------------------- what refuses

_UNREAD: Final = "commands_refused"
_NEVER: Final = "Does not send it again: the request is wrong."
_FORGET: Final = "Does not use this endpoint again."
_LATER: Final = "Sends it again after Retry-After."

UNSUPPORTED: Final = CloseCode(1003, "only text messages are understood", "Is defective: it sends text.", _UNREAD)
REFUSED: Final = CloseCode(1008, "a command was refused", "Connects again, and sends another command.", _UNREAD)
NO_HELLO: Final = CloseCode(1008, "no hello in time", "Connects again, and sends hello at once.", "timeouts")
TOO_MANY_PINGS: Final = CloseCode(
    1008, "too many pings", "Connects again, and pings less often: webpush.min_ping_interval.", "pings_too_many"
)
MOVED: Final = CloseCode(1001, "a newer connection of this device came", "Goes on with its newer connection.")
STORE_FAILED: Final = CloseCode(1013, "the store failed", "Connects again, after a while.")
CLOSES: Final = Table("Close codes", (MOVED, UNSUPPORTED, REFUSED, TOO_MANY_PINGS, NO_HELLO, STORE_FAILED), "worker")

BAD_KEY: Final = Answer(400, "register: why the key is none", "Subscribes with another applicationServerKey.")
TOO_MANY_CHANNELS: Final = Answer(
    400, "The device has too many channels", "Goes on with the channels that it has: webpush.max_channels."
)
NOT_DONE: Final = Answer(500, "register, unregister: the store failed", "Sends it again, after a while.")
NO_URGENCY: Final = Answer(501, "urgency", "Goes on hearing of everything.")
COMMANDS: Final = Table("Errors of commands", (BAD_KEY, TOO_MANY_CHANNELS, NOT_DONE, NO_URGENCY), "worker")

BAD_TOKEN: Final = Answer(404, "", _FORGET, "pushes_rejected")
BAD_MESSAGE: Final = Answer(400, "There is no such message URL", _NEVER, "", 102)
BAD_ENCODING: Final = Answer(400, "Content-Encoding must be aes128gcm or aesgcm", _NEVER, "pushes_invalid", 110)
NOT_OF_AES128GCM: Final = Answer(
    400, "With aes128gcm salt and dh belong into the body, not into headers", _NEVER, "pushes_invalid", 110
)
BAD_ENCRYPTION: Final = Answer(
    400, "With aesgcm the Encryption header needs a salt in base64url", _NEVER, "pushes_invalid", 110
)
BAD_CRYPTO_KEY: Final = Answer(
    400, "With aesgcm the Crypto-Key header needs a dh in base64url", _NEVER, "pushes_invalid", 110
)
BAD_TTL: Final = Answer(400, "The TTL header is missing or no integer", _NEVER, "pushes_invalid", 111)
BAD_TOPIC: Final = Answer(400, "Topic must be 1 to 32 characters of A-Z a-z 0-9 _ -", _NEVER, "pushes_invalid", 113)
NEGATIVE_TTL: Final = Answer(400, "TTL is negative", _NEVER, "pushes_invalid", 114)
BAD_URGENCY: Final = Answer(400, "Urgency must be very-low, low, normal or high", _NEVER, "pushes_invalid", 115)
BAD_SENDER: Final = Answer(
    401,
    "what is wrong with the VAPID signature",
    "Signs with the key of the subscription.",
    "pushes_rejected",
    109,
)
ONLY_POST: Final = Answer(405, "An endpoint takes POST", _NEVER, "", 999)
ONLY_DELETE: Final = Answer(405, "A message can be deleted", _NEVER, "", 999)
NO_DEVICE: Final = Answer(410, "The device is gone: do not use this endpoint again", _FORGET, "pushes_rejected", 103)
NO_CHANNEL: Final = Answer(
    410, "The subscription has ended: do not use this endpoint again", _FORGET, "pushes_rejected", 106
)
TOO_LONG: Final = Answer(413, "The body is too long", "Sends less: webpush.max_body_bytes.", "pushes_too_long", 104)
FROM_ADDRESS: Final = Answer(429, "Too many pushes from this address", _LATER, "limited_pushes_per_address", 201)
OF_SENDER: Final = Answer(429, "Too many pushes of this VAPID key", _LATER, "limited_pushes_per_application", 201)
TO_ENDPOINT: Final = Answer(429, "Too many pushes to this endpoint", _LATER, "limited_pushes_per_endpoint", 201)
INBOX_FULL: Final = Answer(503, "The device has too many messages waiting", _LATER, "pushes_refused", 201)
BUSY: Final = Answer(503, "Too much waits for the store", _LATER, "pushes_refused", 201)
STORE_FULL: Final = Answer(503, "The store is full (store.max_bytes)", _LATER, "pushes_over", 201)
NOT_KEPT: Final = Answer(503, "The store could not do it", _LATER, "pushes_refused", 202)
APP_SERVERS: Final = Table(
    "Errors of app servers' requests",
    (
        BAD_MESSAGE,
        BAD_ENCODING,
        NOT_OF_AES128GCM,
        BAD_ENCRYPTION,
        BAD_CRYPTO_KEY,
        BAD_TTL,
        BAD_TOPIC,
        NEGATIVE_TTL,
        BAD_URGENCY,
        BAD_SENDER,
        BAD_TOKEN,
        ONLY_POST,
        ONLY_DELETE,
        NO_DEVICE,
        NO_CHANNEL,
        TOO_LONG,
        FROM_ADDRESS,
        OF_SENDER,
        TO_ENDPOINT,
        INBOX_FULL,
        BUSY,
        STORE_FULL,
        NOT_KEPT,
    ),
    "router",
)
TABLES: Final = (CLOSES, COMMANDS, APP_SERVERS)
