"""Commands of a WebPush device as types, and how they are read. Members that are not named here are ignored."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

EMPTY: Final = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*\}[ \t\r\n]*")
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_Channel = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z")]


class Command(msgspec.Struct, frozen=True, gc=False, tag_field="messageType"):
    """A command of a device. Members that are not named here are ignored."""


class Hello(Command, tag="hello", frozen=True, gc=False):
    uaid: str | None = None
    channelIDs: list[str] | None = None
    broadcasts: dict[str, str | None] | None = None


class Register(Command, tag="register", frozen=True, gc=False):
    channelID: _Channel
    key: str | None = None


class Unregister(Command, tag="unregister", frozen=True, gc=False):
    channelID: _Channel
    code: int | None = None


class Update(msgspec.Struct, frozen=True, gc=False):
    channelID: _Channel
    version: str
    code: int | None = None


class Ack(Command, tag="ack", frozen=True, gc=False):
    updates: list[Update]


class Nack(Command, tag="nack", frozen=True, gc=False):
    version: str
    code: int | None = None


class BroadcastSubscribe(Command, tag="broadcast_subscribe", frozen=True, gc=False):
    broadcasts: dict[str, str | None]


class Urgency(Command, tag="urgency", frozen=True, gc=False):
    """The least urgency that a device wants to be woken for: autopush-rs may be built with it, and Sunup sends it."""


class Ping(Command, tag="ping", frozen=True, gc=False):
    pass


decode_anything = msgspec.json.Decoder().decode
decode_command = msgspec.json.Decoder(
    Hello | Register | Unregister | Ack | Nack | BroadcastSubscribe | Urgency | Ping
).decode
PING: Final = Ping()


def named_broadcasts(versions: Mapping[str, str | None] | None) -> dict[str, str]:
    """The broadcasts that a device names."""
    return {broadcast: version for broadcast, version in (versions or {}).items() if version is not None}
