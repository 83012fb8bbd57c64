"""Whatever a WebPush device sends in whatever member of whatever message: an answer, never a defect of ours."""

from __future__ import annotations

from typing import Any, Final

import pytest
from support.common import settings_with
from support.hostile import CHANNEL, REGISTER, UAID, UNREGISTER, VALUES, Json, Listener, context, is_text, spoiled

from farm.dialects import webpush
from farm.transports.request import Request
from router.dialects.webpush.protocol import WebPushOptions

MESSAGES: Final[tuple[Json, ...]] = (
    {"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL], "broadcasts": {"b": "1"}, "use_webpush": True},
    REGISTER | {"key": "x"},
    UNREGISTER | {"code": 200},
    {"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": "0000000000000001", "code": 100}]},
    {"messageType": "nack", "version": "0000000000000001", "code": 301},
    {"messageType": "broadcast_subscribe", "broadcasts": {"b": "1"}},
    {"messageType": "urgency", "min": "low"},
    {"messageType": "ping"},
)


@pytest.fixture(scope="module")
def dialect() -> Any:
    return webpush.SIDE.make(context(settings_with((WebPushOptions, {"min_ping_interval": 0}))))


def opened(dialect: Any, greeted: bool) -> Listener:
    listener = Listener(dialect.opened(Request(b"GET", "/", "", {}, (1, 1))))
    if greeted:
        listener.hears(b'{"messageType":"hello","use_webpush":true}')
    return listener


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("greeted", [False, True], ids=["at first", "later"])
def test_a_message_with_any_value_anywhere(dialect: Any, value: bytes, greeted: bool) -> None:
    for message in spoiled(MESSAGES, value):
        dialect.claims(message)
        opened(dialect, greeted).hears(message, not is_text(message))
