"""A message of the queue: `{"channel": 7, "message": "text"}`, or a JSON text that holds that, as gogin's are. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from router.dialects.pushstream.channels import publisher_path
from router.dialects.pushstream.protocol import PushStreamOptions, Refused


class NotificationError(ValueError):
    """What came is no notification."""


class Notification(NamedTuple):
    """What is to be published."""

    names: list[str]
    text: str


class _Wire(msgspec.Struct):
    channel: int | str
    message: str


_decode = msgspec.json.Decoder(_Wire | str).decode


def notification(data: bytes, options: PushStreamOptions) -> Notification:
    """Raises: NotificationError."""
    try:
        found = _decode(data)
        if isinstance(found, str):
            found = _decode(found)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise NotificationError(str(error)) from error
    if isinstance(found, str):
        raise NotificationError("a JSON text in a JSON text in a JSON text")
    try:
        return Notification(publisher_path(str(found.channel), options), found.message)
    except Refused as refused:
        raise NotificationError(refused.answer.text) from refused
