"""WebPush: what a device sends, the requests of application servers, and their VAPID headers."""

from __future__ import annotations

import contextlib
from typing import Any, Final

from support.common import Rig
from support.webpush_vapid import Sender

import farm.dialects.webpush
import router.dialects.webpush.vapid
from fuzz.engine import Target
from fuzz.sessions import CHANNEL, UAID, WORDS, Driver, context, hello, target, update
from router.common import id_set
from router.common.item import Item
from router.common.token import Tokens
from router.dialects.webpush.protocol import DEVICES, endpoint, plain_slot, topic_slot, wire_version
from router.dialects.webpush.vapid import Vapid, VapidError


def _webpush(data: bytes) -> None:
    dialect = farm.dialects.webpush.SIDE.make(context())
    dialect.broadcasts.changed("known", "1")
    body = '"data":"aGk","headers":{"encoding":"aes128gcm"}'
    items = [Item(plain_slot(n + 1, CHANNEL), n + 1, n, 2_000_000_000, 3, body) for n in range(3)]
    items += [
        Item(topic_slot(CHANNEL, "t"), 9, 9, 2_000_000_000, 3, None),
        Item("other", 1, 10, 2_000_000_000, 0, None),
    ]
    Driver(dialect, "/", items, [None, body]).run(data)


_SEEDS: Final[list[list[Any]]] = [
    [
        hello(use_webpush=True, broadcasts={"known": "0", "b": "1"}),
        "!answer 9",
        {"messageType": "register", "channelID": CHANNEL},
        "!answer 0",
        "!deliver 0",
        update(version=wire_version(plain_slot(1, CHANNEL), 1), code=100),
        "!answer 9",
    ],
    [
        {"messageType": "hello", "use_webpush": True},
        "!answer 0",
        {"messageType": "unregister", "channelID": CHANNEL, "code": 200},
        "!answer 0",
        "!answer 9",
        {"messageType": "nack", "version": "x", "code": 301},
        {"messageType": "broadcast_subscribe", "broadcasts": {"known": ""}},
        {},
        {"messageType": "ping"},
    ],
    [hello(use_webpush=True), "!answer 25", "!stored 5", "!deliver 3", update(version="1", code=101), "!answer 1"],
    [
        {"messageType": "hello", "use_webpush": True, "uaid": UAID, "urgency": "low"},
        "!answer 4",
        "!answer 0",
        {"messageType": "register", "channelID": CHANNEL, "key": "BA" * 44, "urgency": "normal"},
        "!answer 5",
    ],
]

SETTINGS: Final = ()
REQUESTS: Final = (
    ["POST", "/wpush/v1/$WEB", "", {"ttl": "60", "topic": "a", "urgency": "low", "content-encoding": "aes128gcm"}, "x"],
    [
        "POST",
        "/wpush/$WEB",
        "",
        {"ttl": "0", "content-encoding": "aesgcm", "encryption": "salt=AA", "crypto-key": "dh=BB"},
        "x",
    ],
    ["DELETE", "/m/$WEB", "", {}, ""],
)


def prepare(rig: Rig, keys: Tokens) -> dict[bytes, str]:
    """$WEB: the token of the endpoint of a device that is registered."""
    device, member = b"d" * 16, bytes.fromhex(CHANNEL.replace("-", ""))
    rig.committer.record(DEVICES, device, id_set.added(b"\0" * 4, b"\0" * 4, member), 0)
    return {b"$WEB": endpoint("", keys, device, member).rpartition("/")[2]}


_NOW: Final = 1_700_000_000
_ORIGIN: Final = "https://push.example.org"
_sender = Sender()
_CLAIMS: Final = {"aud": _ORIGIN, "exp": _NOW + 3600, "sub": "mailto:a@b.c"}
_SIGNED: Final = _sender.vapid(_CLAIMS)
_BEARER: Final = b"WebPush " + _sender.token(_CLAIMS).encode()
_CRYPTO_KEY: Final = b"p256ecdsa=" + _sender.public.encode()


def vapid(data: bytes) -> None:
    """The Authorization and Crypto-Key headers of a push, a line each."""
    authorization, _, crypto_key = data.partition(b"\n")
    checker = Vapid(_ORIGIN, max_age=86_400, max_bytes=2048, leeway=10, cache=10, unix_time=lambda: _NOW)
    with contextlib.suppress(VapidError):
        digest = checker.check(authorization, crypto_key)
        assert digest == checker.check(_SIGNED), "signed by nobody"


TARGETS = (
    target("webpush", _webpush, farm.dialects.webpush, _SEEDS, WORDS),
    Target(
        "webpush-vapid",
        vapid,
        (router.dialects.webpush.vapid,),
        (_SIGNED, _BEARER + b"\n" + _CRYPTO_KEY, b"vapid t=a.b.c,k=d"),
        (b"vapid", b"t=", b"k=", b", ", b"=", b'"', b".", b";", _CRYPTO_KEY),
    ),
)
