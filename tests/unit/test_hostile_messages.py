"""Whatever a device says in whatever member of whatever message: its dialect's answer, never a defect of ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.common import Clock, settings_with

from farm.dialects import (
    Become,
    Binary,
    Call,
    Close,
    Context,
    Effects,
    Members,
    Registered,
    Session,
    Subscribe,
    Subscribed,
    Tick,
    Unsubscribe,
    pusher,
    simplepush,
    webpush,
)
from farm.worker.frames import INTERNAL
from farm.worker.upgrade import Request
from router.common import messages as v
from router.common.metrics import WorkerCounters
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from router.dialects.pusher.applications import socket_signature, user_signature
from router.dialects.pusher.protocol import PusherOptions
from router.dialects.simplepush.protocol import SimplePushOptions
from router.dialects.webpush.protocol import WebPushOptions

CHANNEL: Final = "11111111-2222-3333-4444-555555555555"
UAID: Final = "0123456789abcdef0123456789abcdef"
SOCKET: Final = "1234.1234"

VALUES: Final = {
    "nothing": b"null",
    "true": b"true",
    "false": b"false",
    "0": b"0",
    "-1": b"-1",
    "beyond 64 bits": b"18446744073709551616",
    "40 digits": b"-" + b"9" * 40,
    "4,000 digits": b"9" * 4000,
    "5,000 digits": b"9" * 5000,
    "half": b"1.5",
    "huge": b"1e308",
    "beyond floats": b"1e999",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "empty": b'""',
    "text": b'"x"',
    "escapes": rb'"\u0000\"\\\n\ud83d\ude00"',
    "half a character": rb'"\ud800"',
    "the other half": rb'"\udc00x"',
    "long text": b'"' + b"x" * 200_000 + b'"',
    "long text of escapes": b'"' + rb"\u00e4" * 40_000 + b'"',
    "no UTF-8": b'"\xff\xfe"',
    "half a text": b'"x',
    "list": b"[]",
    "list of nothing": b"[null]",
    "list of everything": b'[1,"x",{},[],true,1.5,null]',
    "object": b"{}",
    "object of nothing": b'{"a":null,"":null}',
    "many members": b"{" + b",".join(b'"m%d":%d' % (number, number) for number in range(5000)) + b"}",
    "nested": b"[" * 400 + b"]" * 400,
    "nested deeper": b'{"a":' * 990 + b"1" + b"}" * 990,
    "nested too deeply": b"[" * 100_000 + b"]" * 100_000,
    "nested without an end": b'{"a":' * 100_000,
    "two values": b"1,2",
    "a member more": b'1,"messageType":"hello","event":"pusher:ping","more":null',
}

Json = dict[str, Any]
_REGISTER: Final = {"messageType": "register", "channelID": CHANNEL}
_UNREGISTER: Final = {"messageType": "unregister", "channelID": CHANNEL}

SIMPLEPUSH: Final[tuple[Json, ...]] = (
    {"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL], "connect": {"type": "gcm"}},
    _REGISTER,
    _UNREGISTER,
    {"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": 1}], "expired": [CHANNEL]},
    {"messageType": "ping"},
    {"messageType": "purge"},
)
WEBPUSH: Final[tuple[Json, ...]] = (
    {"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL], "broadcasts": {"b": "1"}, "use_webpush": True},
    _REGISTER | {"key": "x"},
    _UNREGISTER | {"code": 200},
    {"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": "0000000000000001", "code": 100}]},
    {"messageType": "nack", "version": "0000000000000001", "code": 301},
    {"messageType": "broadcast_subscribe", "broadcasts": {"b": "1"}},
    {"messageType": "urgency", "min": "low"},
    {"messageType": "ping"},
)


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


PUSHER: Final[tuple[Json, ...]] = (
    {"event": "pusher:ping", "data": {}, "channel": "a"},
    {"event": "pusher:pong", "data": {}},
    {"event": "pusher:subscribe", "data": _signed({"user_id": "7", "user_info": {"name": "Eve"}}, "presence-b")},
    {"event": "pusher:subscribe", "data": _signed({"user_id": "7"}, "private-b")},
    {"event": "pusher:unsubscribe", "data": {"channel": "private-a"}},
    {"event": "pusher:signin", "data": _signing_in({"id": "7", "user_info": {}, "watchlist": ["8"]})},
    {"event": "client-a", "channel": "private-a", "data": {"x": 1}},
)
_MARK: Final = "\N{REPLACEMENT CHARACTER}here"


def _marked(message: Any) -> Iterator[Any]:
    """The message, again and again, with a mark where one of its values was, at every depth; and beside them all."""
    if isinstance(message, dict):
        for name, value in message.items():
            for changed in (_MARK, *_marked(value)):
                yield message | {name: changed}
        yield message | {"more": _MARK}
        yield {"more": _MARK} | message
    elif isinstance(message, list):
        for index, value in enumerate(message):
            for changed in (_MARK, *_marked(value)):
                yield [*message[:index], changed, *message[index + 1 :]]


def spoiled(messages: tuple[Json, ...], value: bytes) -> Iterator[bytes]:
    """Each message with this JSON in place of each of its values, and as a member more."""
    mark = json.dumps(_MARK).encode()
    for message in messages:
        for changed in _marked(message):
            yield json.dumps(changed).encode().replace(mark, value)
    yield value


class Listener:
    """What the worker is to a session: carries its effects out, answers what it asks, and keeps what it closes with."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.closed: Close | None = None

    def hears(self, message: bytes, binary: bool = False) -> None:
        if self.closed is None:
            self._take(self.session.received(message, binary, 1000.0))

    def _take(self, effects: Effects) -> None:
        for effect in effects:
            if isinstance(effect, bytes):
                json.loads(effect)
            elif isinstance(effect, Close):
                assert effect.code != INTERNAL, effect.reason
                self.closed = effect
            elif isinstance(effect, Subscribe):
                (wanted,) = effect.channels
                members = None if wanted.user is None else Members([(wanted.user, wanted.info)])
                v.pack([wanted.key, wanted.label, wanted.user, wanted.info])
                self._take(self.session.subscribed([Subscribed(wanted, v.OK, members)], 1000.0))
            elif isinstance(effect, Call):
                v.pack(effect.word)
                payload: Any = {v.ATTACH: ([], None), v.FETCH: []}.get(effect.word[0])
                self._take(self.session.replied(effect.context, v.OK, payload, 1000.0))
            elif isinstance(effect, Become):
                self.session = effect.session
            elif type(effect) is tuple:
                v.pack(effect)
            else:
                assert not isinstance(effect, Binary)
                assert isinstance(effect, Unsubscribe | Registered | Tick)


class Speakers:
    """Sessions of every dialect, each before and after its first messages."""

    def __init__(self, folder: Path) -> None:
        app = {"name": "a", "key": "key", "secret": "secret", "client_messages": True, "watchlists": True}
        file = folder / "apps.json"
        file.write_text(json.dumps({"applications": [app]}))
        settings = settings_with(
            (SimplePushOptions, {"min_ping_interval": 0}),
            (WebPushOptions, {"min_ping_interval": 0}),
            (PusherOptions, {"apps": str(file)}),
            (EndpointOptions, {"url": "https://push.example.org/"}),
        )
        context = Context(settings, Tokens([b"k" * 32]), WorkerCounters(), Clock().unix)
        self._simplepush = simplepush.SIDE.make(context)
        self.webpush = webpush.SIDE.make(context)
        self._pusher = pusher.SIDE.make(context)

    def simplepush(self, greeted: bool) -> Listener:
        listener = Listener(self._simplepush.opened(Request(b"GET", "/", "", {}, (1, 1))))
        if greeted:
            listener.hears(b'{"messageType":"hello","channelIDs":[]}')
            listener.session.delivered(CHANNEL, 1, None)
        return listener

    def of_webpush(self, greeted: bool) -> Listener:
        listener = Listener(self.webpush.opened(Request(b"GET", "/", "", {}, (1, 1))))
        if greeted:
            listener.hears(b'{"messageType":"hello","use_webpush":true}')
        return listener

    def pusher(self, greeted: bool) -> Listener:
        request = Request(b"GET", "/app/key", "protocol=7", {}, (1, 1), socket_id=SOCKET)
        listener = Listener(self._pusher.opened(request))
        if greeted:
            auth = "key:" + socket_signature("secret", SOCKET, "private-a")
            said = {"event": "pusher:subscribe", "data": {"channel": "private-a", "auth": auth}}
            listener.hears(json.dumps(said).encode())
        return listener


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> Speakers:
    return Speakers(tmp_path_factory.mktemp("hostile"))


def is_text(message: bytes) -> bool:
    """Whether it may come as a text message: what is no UTF-8 ends the connection before any session hears of it."""
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("greeted", [False, True], ids=["at first", "later"])
def test_simplepush(speakers: Speakers, value: bytes, greeted: bool) -> None:
    for message in spoiled(SIMPLEPUSH, value):
        for binary in {not is_text(message), True}:
            speakers.simplepush(greeted).hears(message, binary)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
@pytest.mark.parametrize("greeted", [False, True], ids=["at first", "later"])
def test_webpush(speakers: Speakers, value: bytes, greeted: bool) -> None:
    for message in spoiled(WEBPUSH, value):
        speakers.webpush.claims(message)
        speakers.of_webpush(greeted).hears(message, not is_text(message))


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_pusher_which_closes_nobody_for_it(speakers: Speakers, value: bytes) -> None:
    listener = speakers.pusher(True)
    for message in spoiled(PUSHER, value):
        listener.hears(message, not is_text(message))
        listener.hears(b'{"event":"pusher:unsubscribe","data":{"channel":"presence-b"}}')
        assert listener.closed is None


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_pusher_inside_what_is_signed(speakers: Speakers, value: bytes) -> None:
    for member in spoiled(({"user_id": "7", "user_info": {"name": "Eve"}},), value):
        if is_text(member):
            signature = "key:" + socket_signature("secret", SOCKET, "presence-b", member.decode())
            data = {"channel": "presence-b", "auth": signature, "channel_data": member.decode()}
            listener = speakers.pusher(False)
            listener.hears(json.dumps({"event": "pusher:subscribe", "data": data}).encode())
            assert listener.closed is None
    for user in spoiled(({"id": "7", "user_info": {}, "watchlist": ["8"]},), value):
        if is_text(user):
            signature = "key:" + user_signature("secret", SOCKET, user.decode())
            listener = speakers.pusher(False)
            data = {"auth": signature, "user_data": user.decode()}
            listener.hears(json.dumps({"event": "pusher:signin", "data": data}).encode())
            assert listener.closed is None
