"""WebPush's devices, for operators."""

from __future__ import annotations

import re
from functools import partial
from typing import Final

from router.common import messages as m
from router.common.id_set import ids
from router.common.token import TokenError
from router.common.uuids import is_id
from router.core.managing import BAD_REQUEST, Refusal
from router.dialects.app_server import Context
from router.dialects.device_book import DeviceBook, Done, TestPush
from router.dialects.webpush.app_server import ANSWERS, Kept, Push
from router.dialects.webpush.headers import AES128GCM, NORMAL
from router.dialects.webpush.protocol import (
    DEVICES,
    NO_CHANNEL,
    NOT_KEPT,
    PURPOSE,
    WebPushOptions,
    channel_bytes,
    channel_id,
    channel_of,
    device_address,
)

_UAID: Final = re.compile(r"[0-9a-f]{32}")
_ENDPOINT: Final = re.compile(r"(?:.*/wpush/)?(?:v[12]/)?([A-Za-z0-9_=-]+)")
_STORED: Final = "created: it is sent to the device, or waits for it"


class WebPushDevices(DeviceBook):
    """An address is a hash of the uaid, so the uaid is not known from it. The record has the channels."""

    __slots__ = ("_ask", "_options", "_tokens")

    space = DEVICES

    def __init__(self, context: Context) -> None:
        self._ask = context.core.operations.at
        self._tokens = context.tokens
        self._options = context.settings.get(WebPushOptions)

    def address(self, uaid: str) -> bytes | None:
        return device_address(uaid) if _UAID.fullmatch(uaid) else None

    def of_endpoint(self, endpoint: str) -> tuple[bytes, str] | None:
        found = _ENDPOINT.fullmatch(endpoint)
        try:
            opened = b"" if found is None else self._tokens.open(PURPOSE, found[1].encode())
        except TokenError:
            return None
        return (opened[:16], channel_id(opened[16:32])) if len(opened) >= 32 else None

    def channels(self, record: bytes | None) -> list[str] | None:
        return [] if record is None else [channel_id(member) for member in ids(record)]

    def channel(self, slot: str) -> str:
        return channel_of(slot)

    def push(self, address: bytes, record: bytes | None, push: TestPush, done: Done) -> None:
        channels = self.channels(record)
        channel = push.channel or (channels[0] if channels else "")
        if not channel:
            done(NO_CHANNEL.status, "the device has no subscription")
            return
        if not is_id(channel) or len(channel) != 36:
            raise Refusal(BAD_REQUEST, "a channel ID is a UUID with hyphens")
        body = push.data.encode("utf-8", "replace")
        most = self._options.max_body_bytes
        if len(body) > most:
            raise Refusal(BAD_REQUEST, f"the data is longer than webpush.max_body_bytes, {most}")
        ttl = min(push.ttl, self._options.max_ttl)
        operation = Push(channel_bytes(channel), ttl, None, NORMAL, body, AES128GCM if body else "")
        self._ask(address, operation, partial(_pushed, done))


def _pushed(done: Done, status: int, kept: Kept | None = None) -> None:
    if status == m.OK:
        done(201, _STORED)
    else:
        answer = ANSWERS.get(status, NOT_KEPT)
        done(answer.status, answer.text)
