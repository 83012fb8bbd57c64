"""The events that a Pusher device is sent, as text messages."""

from __future__ import annotations

from typing import Final

import msgspec

from farm.dialects import Members
from router.dialects.pusher.protocol import shown_member

PONG: Final = b'{"event":"pusher:pong","data":"{}"}'
PING: Final = b'{"event":"pusher:ping","data":"{}"}'

SHOWN: Final = 64
"""How many characters of an unknown name an error shows."""

_encode = msgspec.json.Encoder().encode


def event(name: str, data: bytes, channel: str | None = None) -> bytes:
    """data: JSON; it is sent as a string that holds it."""
    where = b"" if channel is None else b',"channel":%s' % _encode(channel)
    return b'{"event":"%s"%s,"data":%s}' % (name.encode(), where, _encode(data.decode()))


def established(socket_id: str, activity_timeout: int) -> bytes:
    """The greeting."""
    data = b'{"socket_id":"%s","activity_timeout":%d}' % (socket_id.encode(), activity_timeout)
    return event("pusher:connection_established", data)


def error(code: int | None, text: str) -> bytes:
    # `data` is an object here, not a string that holds one: the protocol has this exception for this event alone.
    data = {"code": None if code is None else int(code), "message": text}
    return b'{"event":"pusher:error","data":%s}' % _encode(data)


def subscription_error(channel: str, kind: str, text: str, status: int) -> bytes:
    """A subscription that is refused, as pusher-js hands it to the page."""
    return event("pusher:subscription_error", _encode({"type": kind, "error": text, "status": status}), channel)


def succeeded(channel: str, members: Members | None) -> bytes:
    """members: all of a presence channel, with what is shown of them as JSON. The text is kept until they change."""
    if members is None:
        return event("pusher_internal:subscription_succeeded", b"{}", channel)
    if members.made is None:
        ids, shown = [], {}
        for user, info in members.items():
            user_id, user_info = shown_member(user, info)
            ids.append(msgspec.Raw(user_id))
            shown[user] = msgspec.Raw(user_info or b"null")
        data = _encode({"presence": {"ids": ids, "hash": shown, "count": len(members)}})
        members.made = event("pusher_internal:subscription_succeeded", data, channel)
    made: bytes = members.made
    return made


def member_added(channel: str, user: str, info: str) -> bytes:
    """info: as presence has it."""
    user_id, user_info = shown_member(user, info)
    member = b'{"user_id":%s%s}' % (user_id, b',"user_info":' + user_info if user_info else b"")
    return event("pusher_internal:member_added", member, channel)


def member_removed(channel: str, user: str, info: str) -> bytes:
    """info: as presence has it."""
    return event("pusher_internal:member_removed", b'{"user_id":%s}' % shown_member(user, info)[0], channel)


def cache_miss(channel: str) -> bytes:
    """A cache channel that holds no event."""
    return b'{"event":"pusher:cache_miss","channel":%s,"data":"{}"}' % _encode(channel)


def client_event(name: str, channel: str, data: bytes, user: bytes | None) -> str:
    """A client event as the other subscribers receive it. data: JSON. user: the sender's ID as JSON, if it has one."""
    of_user = b"" if user is None else b',"user_id":%s' % user
    start = b'{"event":%s,"channel":%s,"data":' % (_encode(name), _encode(channel))
    return b"".join((start, data, of_user, b"}")).decode()


def watchlist_events(online: list[str], offline: list[str]) -> bytes:
    """The users of a watchlist that have come online or gone offline."""
    data = [{"name": name, "user_ids": users} for name, users in (("online", online), ("offline", offline)) if users]
    return event("pusher_internal:watchlist_events", _encode({"events": data}))


def signed_in(user_data: str) -> bytes:
    """user_data: as it was sent."""
    return event("pusher:signin_success", _encode({"user_data": user_data}))
