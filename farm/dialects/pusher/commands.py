"""Messages of a Pusher device as types, and their readers."""

from __future__ import annotations

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What readers raise for a message that they cannot read."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """Any message of a device. Everywhere below null counts as absent."""

    event: str
    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


class SubscribeCommand(msgspec.Struct, frozen=True, gc=False):
    channel: str
    auth: str | None = None
    channel_data: str | None = None


class UnsubscribeCommand(msgspec.Struct, frozen=True, gc=False):
    channel: str


class SignIn(msgspec.Struct, frozen=True, gc=False):
    auth: str
    user_data: str


class Member(msgspec.Struct, frozen=True, gc=False):
    """`channel_data` of a presence channel."""

    user_id: str | int
    user_info: msgspec.Raw = msgspec.Raw(b"")


class User(msgspec.Struct, frozen=True, gc=False):
    """`user_data` of a sign-in."""

    id: str | int
    user_info: msgspec.Raw = msgspec.Raw(b"")
    watchlist: list[str | int] | None = None


read_message = msgspec.json.Decoder(Message).decode
_read_text = msgspec.json.Decoder(str).decode
read_subscribe = msgspec.json.Decoder(SubscribeCommand).decode
read_unsubscribe = msgspec.json.Decoder(UnsubscribeCommand).decode
read_sign_in = msgspec.json.Decoder(SignIn).decode
read_member = msgspec.json.Decoder(Member).decode
read_user = msgspec.json.Decoder(User).decode


def json_of(raw: msgspec.Raw) -> bytes:
    """A member's JSON; b"" if it is absent or null."""
    data = bytes(raw)
    return b"" if data == b"null" else data


def data_of(raw: msgspec.Raw) -> bytes:
    """The data of a command: an object, or a string that holds one, as some libraries send it."""
    data = json_of(raw)
    return _read_text(data).encode() if data.startswith(b'"') else data or b"{}"


def user_name(user: str | int) -> str:
    """A user's ID as a text: 7 and "7" are the same user."""
    return user if isinstance(user, str) else str(user)
