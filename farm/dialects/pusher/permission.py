"""Which users and subscriptions an application's own server vouches for."""

from __future__ import annotations

import msgspec

from farm.dialects.pusher.commands import UNREADABLE, SubscribeCommand, json_of, read_member, user_name
from router.common.answers import Answer
from router.dialects.pusher.applications import App
from router.dialects.pusher.protocol import AUTH_ERROR, INFO_TOO_LONG, INVALID_DATA, PusherOptions, member_info
from router.dialects.pusher.signatures import socket_signature


class Refused(Exception):
    """A subscription that is refused: type, error and status as pusher-js hands them to the page."""

    def __init__(self, answer: Answer, text: str) -> None:
        super().__init__(text)
        self.answer = answer
        self.text = text


def check_signature(app: App, socket_id: str, command: SubscribeCommand, *channel_data: str | None) -> None:
    """Raises: Refused unless the application's own server has signed this subscription, with one of these as data."""
    if not command.auth:
        raise Refused(AUTH_ERROR, f"auth is missing: {command.channel} needs it")
    for data in dict.fromkeys(channel_data):
        if app.signed_by_us(command.auth, socket_signature(app.secret, socket_id, command.channel, data)):
            return
    raise Refused(AUTH_ERROR, f"Invalid signature of the subscription to {command.channel}")


def presence_member(channel_data: str, options: PusherOptions) -> tuple[str, str]:
    """The user who subscribes to a presence channel, and what the others are shown of it. Raises: Refused."""
    try:
        member = read_member(channel_data.encode())
    except UNREADABLE as error:
        raise Refused(INVALID_DATA, f"channel_data cannot be used: {error}") from None
    return checked_user(member.user_id, member.user_info, options)


def checked_user(user: str | int, user_info: msgspec.Raw, options: PusherOptions) -> tuple[str, str]:
    """A user's ID and what the others are shown of it, as presence has them. Raises: Refused."""
    name = user_name(user)
    if not is_user_id(name, options):
        raise Refused(INVALID_DATA, f"The ID of a user has 1 to {options.max_user_id} characters")
    text = json_of(user_info)
    if len(text) > options.max_user_info_bytes:
        raise Refused(INFO_TOO_LONG, f"user_info has at most {options.max_user_info_bytes} bytes")
    return name, member_info(text.decode(), type(user) is int)


def is_user_id(name: str, options: PusherOptions) -> bool:
    """Whether a user may have this ID."""
    return 0 < len(name) <= options.max_user_id
