"""SimplePush's devices, for operators."""

from __future__ import annotations

from functools import partial
from typing import Final

from router.common import messages as m
from router.common.token import TokenError
from router.common.uuids import device_key, is_id
from router.core.managing import BAD_REQUEST, Refusal
from router.core.pushes import DELIVERED, REFUSED_FAILED, REFUSED_FULL, REFUSED_OFTEN, REFUSED_OVER, STORED
from router.dialects.app_server import Context
from router.dialects.device_book import DeviceBook, Done, TestPush
from router.dialects.simplepush.app_server import Push
from router.dialects.simplepush.protocol import (
    DEVICES,
    INBOX_FULL,
    NOT_KEPT,
    PURPOSE,
    STORE_FULL,
    TOO_OFTEN,
    SimplePushOptions,
)

_ACCEPTED: Final = {
    DELIVERED: (200, "delivered: written to the device's connection"),
    STORED: (202, "stored: it waits for the device"),
}
_REFUSED: Final = {REFUSED_FULL: INBOX_FULL, REFUSED_OVER: STORE_FULL, REFUSED_OFTEN: TOO_OFTEN}


class SimplePushDevices(DeviceBook):
    """A uaid is its address; of the channels only the device knows all."""

    __slots__ = ("_ask", "_max_data", "_tokens")

    space = DEVICES

    def __init__(self, context: Context) -> None:
        self._ask = context.core.operations.at
        self._tokens = context.tokens
        self._max_data = context.settings.get(SimplePushOptions).max_data_bytes

    def address(self, uaid: str) -> bytes | None:
        return device_key(uaid) if is_id(uaid) else None

    def uaid(self, address: bytes) -> str | None:
        return address.hex()

    def of_endpoint(self, endpoint: str) -> tuple[bytes, str] | None:
        token = endpoint.partition("?")[0].rpartition("/update/")[2]
        try:
            opened = self._tokens.open(PURPOSE, token.encode("utf-8", "replace"))
            return opened[:16], opened[16:].decode()
        except (TokenError, UnicodeDecodeError):
            return None

    def channel(self, slot: str) -> str:
        return slot

    def push(self, address: bytes, record: bytes | None, push: TestPush, done: Done) -> None:
        if not is_id(push.channel):
            raise Refusal(BAD_REQUEST, "a channel ID (a UUID) is needed: only the device knows which it has")
        if len(push.data.encode("utf-8", "replace")) > self._max_data:
            raise Refusal(BAD_REQUEST, f"the data is longer than simplepush.max_data_bytes, {self._max_data}")
        self._ask(address, Push(push.channel, None, push.data or None), partial(_pushed, done))


def _pushed(done: Done, status: int, outcome: int | None = None) -> None:
    known = REFUSED_FAILED if status != m.OK or outcome is None else outcome
    if known in _ACCEPTED:
        done(*_ACCEPTED[known])
    else:
        answer = _REFUSED.get(known, NOT_KEPT)
        done(answer.status, answer.text)
