"""Whatever a SimplePush device sends in whatever member of whatever message: an answer, never a defect of ours."""

from __future__ import annotations

from typing import Any, Final

import pytest
from support.common import settings_with
from support.hostile import CHANNEL, REGISTER, UAID, UNREGISTER, VALUES, Json, Listener, context, is_text, spoiled

from farm.dialects import simplepush
from farm.transports.request import Request
from router.dialects.simplepush.protocol import SimplePushOptions

MESSAGES: Final[tuple[Json, ...]] = (
    {"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL], "connect": {"type": "gcm"}},
    REGISTER,
    UNREGISTER,
    {"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": 1}], "expired": [CHANNEL]},
    {"messageType": "ping"},
    {"messageType": "purge"},
)


@pytest.fixture(scope="module")
def dialect() -> Any:
    return simplepush.SIDE.make(context(settings_with((SimplePushOptions, {"min_ping_interval": 0}))))


def opened(dialect: Any, greeted: bool) -> Listener:
    listener = Listener(dialect.opened(Request(b"GET", "/", "", {}, (1, 1))))
    if greeted:
        listener.hears(b'{"messageType":"hello","channelIDs":[]}')
        listener.session.delivered(CHANNEL, 1, None)
    return listener


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("greeted", [False, True], ids=["at first", "later"])
def test_a_message_with_any_value_anywhere(dialect: Any, value: bytes, greeted: bool) -> None:
    for message in spoiled(MESSAGES, value):
        for binary in {not is_text(message), True}:
            opened(dialect, greeted).hears(message, binary)
