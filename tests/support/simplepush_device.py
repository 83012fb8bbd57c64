"""The device side of SimplePush with a router that answers what the test says."""

import json
import uuid
from typing import Any

from farm.dialects import REGISTERED, Attach, Become, Call, Close, Context, Effects, Tick
from farm.dialects.simplepush.dialect import SimplePushDialect
from farm.transports.request import Request
from router.common import messages as m
from router.common.item import Item
from router.common.metrics import WorkerCounters
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.common.wire import reply_payload
from router.dialects.simplepush.protocol import SimplePushOptions
from support.common import Clock, settings_with

UAID = "0123456789abcdef0123456789abcdef"
HYPHENS = str(uuid.UUID(UAID))
CHANNEL = "11111111-2222-3333-4444-555555555555"
OTHER = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
PLAIN_CHANNEL = "AAAAAAAABBBBCCCCDDDDEEEEEEEEEEEE"
INVALID = "Invalid Command"

HEADER = "Invalid command header"
UNSUPPORTED = "Unsupported command type"
BAD_DEVICE = "Invalid device ID"
BAD_CHANNEL = "Invalid channel ID"
MISSING = "Missing one or more required command fields"
BAD_FIELDS = "Command contains one or more invalid fields"
NO_HANDSHAKE = "Command requires handshake"
ASSIGNED = "Device ID already assigned to this client"
FLOOD = "Client sent too many pings"


class Device:
    """One session, and what came of it: replies to the device, messages for the router, the call that is open."""

    def __init__(self, **options: Any) -> None:
        self.clock = Clock()
        self.counters = WorkerCounters()
        self.tokens = Tokens([b"k" * 32])
        settings = settings_with((SimplePushOptions, options), (EndpointOptions, {"url": "https://push.example.org"}))
        self.dialect = SimplePushDialect(Context(settings, self.tokens, self.counters, self.clock.unix))
        request = Request(b"GET", "/", "", {}, (1, 1))
        self.session: Any = self.dialect.opened(request)
        self.messages: list[m.Message] = []
        self.call: Call | Attach | None = None
        self.closed: Close | None = None
        self.registered = 0
        self.next_tick = self.dialect.first_tick

    def _take(self, effects: Effects) -> list[Any]:
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
            elif isinstance(effect, Tick):
                self.next_tick = effect.seconds
            elif effect is REGISTERED:
                self.registered += 1
            else:
                assert isinstance(effect, m.Message)
                self.messages.append(effect)
        return replies

    def send(self, command: Any, binary: bool = False) -> list[Any]:
        """A command as an object, a JSON text or bytes. Returns: the replies."""
        if isinstance(command, (dict, list)):
            command = json.dumps(command)
        if isinstance(command, str):
            command = command.encode()
        return self._take(self.session.received(command, binary, self.clock.monotonic()))

    def answer(self, status: int = m.OK, payload: Any = None) -> list[Any]:
        """The router's answer to the open question. Returns: the replies."""
        assert self.call is not None
        call, self.call = self.call, None
        if status == m.OK:
            payload = reply_payload(m.Attach if isinstance(call, Attach) else type(call.request), payload)
        return self._take(self.session.replied(call.context, status, payload, self.clock.monotonic()))

    def request(self) -> Any:
        """What the open call asks for; of an Attach device, needs and fetch."""
        assert self.call is not None
        return self.call[:3] if isinstance(self.call, Attach) else self.call.request

    def greeted(self, uaid: str = UAID, items: tuple[Any, ...] = (), record: bytes | None = None) -> "Device":
        """After a hello that the router agreed to."""
        self.send({"messageType": "hello", "uaid": uaid, "channelIDs": []})
        assert self.answer(m.OK, [list(items), record])[0]["status"] == 200
        return self

    def delivered(self, slot: str, version: int, body: str | None = None) -> Any:
        return json.loads(self.session.delivered(slot, version, body))

    def stored(self, *items: Item) -> list[Any]:
        return self._take(self.session.stored(list(items), self.clock.monotonic()))

    def tick(self, silent: float) -> tuple[list[Any], float]:
        effects, again = self.session.tick(silent)
        return self._take(effects), again


def item(slot: str = CHANNEL, version: int = 1) -> list[Any]:
    """An item as it comes over the link."""
    return list(Item(slot, version, 1, 2_000_000_000, 0, None))


def update(channel: str, version: int) -> dict[str, Any]:
    return {"channelID": channel, "version": version}


def refused(device: Device, command: Any, status: int, text: str) -> dict[str, Any]:
    """The command gets this error, and the connection ends. Returns: the reply."""
    (reply,) = device.send(command)
    assert reply["status"] == status
    assert reply["reason"] == text
    assert reply["error"] == (INVALID if status == 401 else text)
    assert device.closed is not None
    assert device.closed.code == 1000
    assert device.call is None
    assert device.messages == []
    assert device.counters.commands_refused == 1
    return dict(reply)
