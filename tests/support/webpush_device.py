"""The device side of WebPush with a router that answers what the test says."""

import json
import uuid
from typing import Any

from farm.dialects import REGISTERED, Attach, Become, Call, Close, Context, Effects
from farm.dialects.webpush.dialect import WebPushDialect
from farm.transports.request import Request
from router.common import messages as m
from router.common.item import Item
from router.common.metrics import WorkerCounters
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.common.wire import reply_payload
from router.dialects.webpush.protocol import (
    WebPushOptions,
    device_address,
    plain_slot,
    topic_slot,
    wire_version,
)
from support.common import Clock, settings_with

UAID = "0123456789abcdef0123456789abcdef"
KEY = device_address(UAID)
CHANNEL = "11111111-2222-3333-4444-555555555555"
OTHER = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
THIRD = "99999999-2222-3333-4444-555555555555"
BODY = '"data":"AAEC","headers":{"encoding":"aes128gcm"}'
REQUEST = Request(b"GET", "/", "", {}, (1, 1))


def member(channel: str) -> bytes:
    return uuid.UUID(channel).bytes


class Device:
    """One session, and what came of it: replies to the device, messages for the router, the call that is open."""

    def __init__(self, dialect_: WebPushDialect | None = None, **options: Any) -> None:
        self.clock = Clock()
        self.tokens = Tokens([b"k" * 32])
        settings = settings_with((WebPushOptions, options), (EndpointOptions, {"url": "https://push.example.org"}))
        made = WebPushDialect(Context(settings, self.tokens, WorkerCounters(), self.clock.unix))
        self.dialect: WebPushDialect = dialect_ or made
        self.counters = self.dialect.counters
        self.session: Any = self.dialect.opened(REQUEST)
        self.messages: list[m.Message] = []
        self.call: Call | Attach | None = None
        self.closed: Close | None = None
        self.registered = 0

    def take(self, effects: Effects) -> list[Any]:
        replies = []
        for effect in effects:
            assert self.closed is None
            if isinstance(effect, bytes):
                replies.append(json.loads(effect))
            elif isinstance(effect, Call | Attach):
                assert self.call is None
                self.call = effect
            elif isinstance(effect, Become):
                assert effect.message is None
                self.session = effect.session
            elif isinstance(effect, Close):
                self.closed = effect
            elif effect is REGISTERED:
                self.registered += 1
            else:
                assert isinstance(effect, m.Message)
                self.messages.append(effect)
        return replies

    def send(self, command: Any, binary: bool = False) -> list[Any]:
        """A command as an object, a JSON text or bytes. Returns: the replies."""
        assert self.call is None
        if isinstance(command, (dict, list)):
            command = json.dumps(command)
        if isinstance(command, str):
            command = command.encode()
        return self.take(self.session.received(command, binary, self.clock.monotonic()))

    def answer(self, status: int = m.OK, payload: Any = None) -> list[Any]:
        """The router's answer to the open question. Returns: the replies."""
        assert self.call is not None
        call, self.call = self.call, None
        if status == m.OK:
            payload = reply_payload(m.Attach if isinstance(call, Attach) else type(call.request), payload)
        return self.take(self.session.replied(call.context, status, payload, self.clock.monotonic()))

    def request(self) -> Any:
        """What the open call asks for; of an Attach device, needs and fetch."""
        assert self.call is not None
        return self.call[:3] if isinstance(self.call, Attach) else self.call.request

    def greeted(self, *items: Any, record: bytes | None = None, broadcasts: Any = None) -> "Device":
        """After a hello that the router agreed to."""
        self.send(hello(broadcasts=broadcasts))
        reply, *self.notes = self.answer(m.OK, [list(items), record or self.dialect.today()])
        assert (reply["messageType"], reply["status"], reply["uaid"]) == ("hello", 200, UAID)
        self.told = reply["broadcasts"]
        return self

    def delivered(self, slot: str, version: int, body: str | None = BODY) -> Any:
        text = self.session.delivered(slot, version, body)
        return text if text is None else json.loads(text)

    def stored(self, *items: Any) -> list[Any]:
        return self.take(self.session.stored([Item(*item) for item in items], self.clock.monotonic()))

    def ack(self, *notes: Any) -> list[Any]:
        """Acknowledge notifications."""
        updates = [{"channelID": n["channelID"], "version": n["version"], "code": 100} for n in notes]
        return self.send({"messageType": "ack", "updates": updates})

    def news(self) -> list[Any]:
        return self.take(self.dialect.broadcasts.notify(self.session))

    def acked(self) -> list[tuple[str, int]]:
        """What has been said to the router to be acknowledged."""
        return [pair for word in self.messages if isinstance(word, m.Ack) for pair in word.updates]


def hello(uaid: str | None = UAID, **fields: Any) -> dict[str, Any]:
    return {"messageType": "hello", "uaid": uaid, "use_webpush": True, **fields}


def item(number: int, channel: str = CHANNEL, topic: str = "", body: str | None = BODY) -> list[Any]:
    """An item as it comes over the link."""
    slot = topic_slot(channel, topic) if topic else plain_slot(number, channel)
    return list(Item(slot, number, number, 2_000_000_000, 3, body))


def note(number: int, channel: str = CHANNEL, topic: str = "") -> dict[str, Any]:
    """The notification of that item."""
    slot, version, *_ = item(number, channel, topic)
    return {
        "messageType": "notification",
        "channelID": channel,
        "version": wire_version(slot, version),
        "data": "AAEC",
        "headers": {"encoding": "aes128gcm"},
    }


def refused(device: Device, command: Any, code: int = 1008) -> str:
    """The connection ends with this code. Returns: the reason."""
    assert device.send(command) == []
    assert device.closed is not None
    assert device.closed.code == code
    assert device.call is None
    assert device.messages == []
    assert device.counters.commands_refused == 1
    assert device.closed.reason
    return device.closed.reason


def tracker(**versions: str) -> WebPushDialect:
    """A dialect whose router has told these broadcasts."""
    made = Device().dialect
    for broadcast, version in versions.items():
        assert made.broadcasts.changed(broadcast, version)
    return made
