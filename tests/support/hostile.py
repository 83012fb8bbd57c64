"""JSON that is wrong in every way, in any member of any message, and what carries out the effects of a session."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from farm.dialects import (
    Attach,
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
)
from router.common import messages as m
from router.common.close_codes import INTERNAL
from router.common.metrics import WorkerCounters
from router.common.options import Settings
from router.common.settings import EndpointOptions
from router.common.token import Tokens
from support.common import Clock, received_by_router

CHANNEL: Final = "11111111-2222-3333-4444-555555555555"
UAID: Final = "0123456789abcdef0123456789abcdef"
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
REGISTER: Final = {"messageType": "register", "channelID": CHANNEL}
UNREGISTER: Final = {"messageType": "unregister", "channelID": CHANNEL}
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
                subscribe = m.Call(1, m.Subscribe(wanted.key, "" if wanted.hidden else wanted.label))
                assert received_by_router(subscribe) == [subscribe]
                if wanted.user is not None:
                    enter = m.Call(2, m.PresenceJoin(wanted.key, wanted.user, wanted.info, wanted.most))
                    assert received_by_router(enter) == [enter]
                self._take(self.session.subscribed([Subscribed(wanted, m.OK, members)], 1000.0))
            elif isinstance(effect, Attach):
                attach = m.Call(1, m.Attach(effect.device, effect.needs, effect.fetch, 0))
                assert received_by_router(attach) == [attach]
                self._take(self.session.replied(effect.context, m.OK, m.Attached([], None), 1000.0))
            elif isinstance(effect, Call):
                call = m.Call(1, effect.request)
                assert received_by_router(call) == [call]
                payload = [] if isinstance(effect.request, m.Fetch) else None
                self._take(self.session.replied(effect.context, m.OK, payload, 1000.0))
            elif isinstance(effect, Become):
                self.session = effect.session
            elif isinstance(effect, m.Message):
                assert received_by_router(effect) == [effect]
            else:
                assert not isinstance(effect, Binary)
                assert isinstance(effect, Unsubscribe | Registered | Tick)


def context(settings: Settings) -> Context:
    """What a dialect is given. settings: with those of the dialect."""
    settings = settings.replace(EndpointOptions, url="https://push.example.org/")
    return Context(settings, Tokens([b"k" * 32]), WorkerCounters(), Clock().unix)


def is_text(message: bytes) -> bool:
    """Whether it may come as a text message: what is no UTF-8 ends the connection before it reaches a session."""
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True
