"""SimplePush: what a device sends, and the requests of app servers."""

from __future__ import annotations

from typing import Any, Final

from support.common import Rig

import farm.dialects.simplepush
from fuzz.sessions import CHANNEL, WORDS, Driver, context, hello, target, update
from router.common.item import Item
from router.common.token import Tokens


def _simplepush(data: bytes) -> None:
    dialect = farm.dialects.simplepush.SIDE.make(context())
    items = [Item(CHANNEL[:-1] + str(n), n + 1, n, 2_000_000_000, 0, None) for n in range(6)]
    Driver(dialect, "/", items, [None, "data", "\u20ac\0"]).run(data)


_SEEDS: Final[list[list[Any]]] = [
    [hello(), "!answer 9", {"messageType": "register", "channelID": CHANNEL}, "!answer 0", "!deliver 0", update()],
    [hello(uaid="", channelIDs=[]), "!answer 0", {"messageType": "unregister", "channelID": CHANNEL}, "!answer 0", {}],
    [hello(), "!answer 4", "!answer 0", "!stored 3", update(), hello(), "!answer 9", {"messageType": "purge"}],
    [hello(), "!answer 17", {"messageType": "ping"}, {"messageType": "ack", "updates": [], "expired": [CHANNEL]}],
]

SETTINGS: Final = ()
_FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
_MULTIPART: Final = '--x\r\nContent-Disposition: form-data; name="version"\r\n\r\n7\r\n--x--\r\n'
REQUESTS: Final = (
    ["PUT", "/update/$SIMPLE", "", _FORM, "version=7&data=hi"],
    ["PUT", "/update/$SIMPLE", "version=8", {}, ""],
    ["PUT", "/update/$SIMPLE", "", {"content-type": "multipart/form-data; boundary=x"}, _MULTIPART],
    ["POST", "/v1/push", "", {}, '{"token":"$SIMPLE","version":3,"data":"a"}\\n{"endpoint":"/update/$SIMPLE"}\\n{'],
    ["GET", "/realstatus/", "", {}, ""],
)


def prepare(rig: Rig, keys: Tokens) -> dict[bytes, str]:
    """$SIMPLE: the token of an endpoint."""
    return {b"$SIMPLE": keys.seal(b"simplepush", b"d" * 16 + CHANNEL.encode())}


TARGETS = (target("simplepush", _simplepush, farm.dialects.simplepush, _SEEDS, WORDS),)
