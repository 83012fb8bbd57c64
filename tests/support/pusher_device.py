"""The device side of Pusher with a router that answers what the test wants."""

import json
from pathlib import Path
from typing import Any

from farm.dialects import Call, Close, Context, Effects, Members, Subscribe, Subscribed, Subscription, Tick, Unsubscribe
from farm.dialects.pusher.dialect import PusherDialect, RejectedSession
from farm.dialects.pusher.session import PusherSession
from farm.transports.request import Request
from router.common import messages as m
from router.common.metrics import WorkerCounters
from router.common.position import LogSlice
from router.common.token import Tokens
from router.dialects.pusher.protocol import (
    PusherOptions,
    channel_address,
)
from router.dialects.pusher.signatures import socket_signature, user_signature
from support.common import Clock, settings_with

KEY = "278d425bdf160c739803"
SECRET = "7ad3773142a6692b25b8"
SOCKET = "1234.1234"
APP = {"id": "3", "name": "shop", "key": KEY, "secret": SECRET}
QUERY = "protocol=7&client=js&version=8.6.0&flash=false"


def request(path: str = f"/app/{KEY}", query: str = QUERY, socket_id: str = SOCKET) -> Request:
    return Request(b"GET", path, query, {}, (1, 1), socket_id=socket_id)


def made(folder: Path, app: dict[str, Any] | None = None, **options: Any) -> PusherDialect:
    """The dialect with one application."""
    file = folder / "apps.json"
    file.write_text(json.dumps({"applications": [APP | (app or {})]}))
    settings = settings_with((PusherOptions, {"apps": str(file)} | options))
    return PusherDialect(Context(settings, Tokens([b"k" * 32]), WorkerCounters(), Clock().unix))


def auth(channel: str, data: str | None = None, secret: str = SECRET) -> str:
    return f"{KEY}:{socket_signature(secret, SOCKET, channel, data)}"


def address(channel: str) -> bytes:
    return channel_address("3", channel)


class Device:
    """One session, and what came of it: events for the device, messages for the router, the call that is open."""

    def __init__(self, of: PusherDialect, begin: bool = True, **how: Any) -> None:
        self.clock = Clock()
        self.dialect = of
        session = of.opened(request(**how))
        assert isinstance(session, PusherSession | RejectedSession)
        self.session = session
        self.messages: list[m.Message] = []
        self.parted: list[bytes] = []
        self.open: Subscription | Call | None = None
        self.closed: Close | None = None
        self.ticks: list[float] = []
        self.greeting = self.take(session.begun(self.clock.monotonic())) if begin else []

    def take(self, effects: Effects) -> list[Any]:
        """Carry the effects out. Returns: the events for the device, their data decoded."""
        events = []
        for effect in effects:
            assert self.closed is None
            if isinstance(effect, bytes):
                events.append(event(effect))
            elif isinstance(effect, Subscribe):
                assert self.open is None
                (self.open,) = effect.channels
            elif isinstance(effect, Call):
                assert self.open is None
                self.open = effect
            elif isinstance(effect, Unsubscribe):
                self.parted.append(effect.key)
            elif isinstance(effect, Close):
                self.closed = effect
            elif isinstance(effect, Tick):
                self.ticks.append(effect.seconds)
            else:
                assert isinstance(effect, m.Message)
                self.messages.append(effect)
        return events

    def raw(self, message: bytes, binary: bool = False) -> list[Any]:
        assert self.open is None
        return self.take(self.session.received(message, binary, self.clock.monotonic()))

    def send(self, name: str, data: Any = None, **more: Any) -> list[Any]:
        return self.raw(json.dumps({"event": name, "data": data, **more}).encode())

    def answer(self, status: int = m.OK, payload: Any = None, log: LogSlice | None = None) -> list[Any]:
        """The answer to what is open."""
        assert self.open is not None
        asked, self.open = self.open, None
        if isinstance(asked, Subscription):
            return self.take(self.session.subscribed([Subscribed(asked, status, payload, log)], self.clock.monotonic()))
        return self.take(self.session.replied(asked.context, status, payload, self.clock.monotonic()))

    def subscribe(self, channel: str, *members: str, **data: Any) -> list[Any]:
        """A subscription that the router agrees to, or one that does not get so far."""
        events = self.send("pusher:subscribe", {"channel": channel} | data)
        if self.open is None:
            return events
        assert events == []
        return self.answer(m.OK, Members((user, "") for user in members))

    def enter(self, channel: str, user: Any, *members: str, **info: Any) -> list[Any]:
        """Subscribe to a presence channel."""
        data = json.dumps({"user_id": user} | info)
        return self.subscribe(channel, *members, auth=auth(channel, data), channel_data=data)

    def sign_in(self, user: Any, **more: Any) -> list[Any]:
        data = json.dumps({"id": user} | more)
        return self.send("pusher:signin", {"auth": f"{KEY}:{user_signature(SECRET, SOCKET, data)}", "user_data": data})

    def signed_in(self, user: Any, **more: Any) -> "Device":
        assert self.sign_in(user, **more) == []
        (told,) = self.answer()
        assert told["event"] == "pusher:signin_success"
        return self

    def channels(self) -> set[bytes]:
        assert isinstance(self.session, PusherSession)
        return set(self.session.channels)


def event(text: bytes | str) -> Any:
    """An event; data that is a text holds JSON."""
    found = json.loads(text)
    if isinstance(found.get("data"), str):
        found["data"] = json.loads(found["data"])
    return found


def succeeded(channel: str, data: Any = None) -> dict[str, Any]:
    return {"event": "pusher_internal:subscription_succeeded", "channel": channel, "data": data or {}}


def error(events: list[Any]) -> tuple[int | None, str]:
    """Code and message of the one pusher:error."""
    (told,) = events
    assert told["event"] == "pusher:error"
    return told["data"]["code"], told["data"]["message"]


def denied(events: list[Any]) -> tuple[str, str, int]:
    """Channel, type and status of the one pusher:subscription_error."""
    (told,) = events
    assert told["event"] == "pusher:subscription_error"
    assert isinstance(told["data"]["error"], str)
    return told["channel"], told["data"]["type"], told["data"]["status"]
