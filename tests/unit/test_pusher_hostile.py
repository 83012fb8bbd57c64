"""Whatever a Pusher device sends in whatever member of whatever message: an answer, never a defect of ours."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from support.common import settings_with
from support.hostile import VALUES, Json, Listener, context, is_text, spoiled

from farm.dialects import pusher
from farm.transports.request import Request
from router.dialects.pusher.protocol import PusherOptions
from router.dialects.pusher.signatures import socket_signature, user_signature

SOCKET: Final = "1234.1234"


def _signed(member: Json, channel: str) -> Json:
    data = json.dumps(member)
    return {
        "channel": channel,
        "auth": "key:" + socket_signature("secret", SOCKET, channel, data),
        "channel_data": data,
    }


def _signing_in(user: Json) -> Json:
    data = json.dumps(user)
    return {"auth": "key:" + user_signature("secret", SOCKET, data), "user_data": data}


MESSAGES: Final[tuple[Json, ...]] = (
    {"event": "pusher:ping", "data": {}, "channel": "a"},
    {"event": "pusher:pong", "data": {}},
    {"event": "pusher:subscribe", "data": _signed({"user_id": "7", "user_info": {"name": "Eve"}}, "presence-b")},
    {"event": "pusher:subscribe", "data": _signed({"user_id": "7"}, "private-b")},
    {"event": "pusher:unsubscribe", "data": {"channel": "private-a"}},
    {"event": "pusher:signin", "data": _signing_in({"id": "7", "user_info": {}, "watchlist": ["8"]})},
    {"event": "client-a", "channel": "private-a", "data": {"x": 1}},
)


@pytest.fixture(scope="module")
def dialect(tmp_path_factory: pytest.TempPathFactory) -> Any:
    app = {"name": "a", "key": "key", "secret": "secret", "client_messages": True, "watchlists": True}
    file = tmp_path_factory.mktemp("hostile") / "apps.json"
    file.write_text(json.dumps({"applications": [app]}))
    return pusher.SIDE.make(context(settings_with((PusherOptions, {"apps": str(file)}))))


def opened(dialect: Any, greeted: bool) -> Listener:
    listener = Listener(dialect.opened(Request(b"GET", "/app/key", "protocol=7", {}, (1, 1), socket_id=SOCKET)))
    if greeted:
        auth = "key:" + socket_signature("secret", SOCKET, "private-a")
        said = {"event": "pusher:subscribe", "data": {"channel": "private-a", "auth": auth}}
        listener.hears(json.dumps(said).encode())
    return listener


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_a_message_with_any_value_anywhere_closes_no_connection(dialect: Any, value: bytes) -> None:
    listener = opened(dialect, True)
    for message in spoiled(MESSAGES, value):
        listener.hears(message, not is_text(message))
        listener.hears(b'{"event":"pusher:unsubscribe","data":{"channel":"presence-b"}}')
        assert listener.closed is None


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_any_value_inside_what_is_signed(dialect: Any, value: bytes) -> None:
    for member in spoiled(({"user_id": "7", "user_info": {"name": "Eve"}},), value):
        if is_text(member):
            signature = "key:" + socket_signature("secret", SOCKET, "presence-b", member.decode())
            data = {"channel": "presence-b", "auth": signature, "channel_data": member.decode()}
            listener = opened(dialect, False)
            listener.hears(json.dumps({"event": "pusher:subscribe", "data": data}).encode())
            assert listener.closed is None
    for user in spoiled(({"id": "7", "user_info": {}, "watchlist": ["8"]},), value):
        if is_text(user):
            signature = "key:" + user_signature("secret", SOCKET, user.decode())
            listener = opened(dialect, False)
            data = {"auth": signature, "user_data": user.decode()}
            listener.hears(json.dumps({"event": "pusher:signin", "data": data}).encode())
            assert listener.closed is None
