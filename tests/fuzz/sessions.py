"""A session of any dialect: what a device may send, what the router may answer, in lines.

A line is a message of the device, or "!": `!answer N` answers what is open, `!deliver N`, `!stored N`, `!tick`,
`!binary HEX`. N chooses one of a few.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from support.common import Clock, received_by_router, settings_with

from farm.dialects import (
    REGISTERED,
    Attach,
    Become,
    Call,
    Close,
    Context,
    DeviceSession,
    Effects,
    Members,
    Subscribe,
    Subscribed,
    Subscription,
    Tick,
    Unsubscribe,
)
from farm.transports.request import Request
from fuzz.engine import Target
from fuzz.structures import json_lines
from router.common import messages as m
from router.common.close_codes import INTERNAL
from router.common.item import Item
from router.common.metrics import WorkerCounters
from router.common.position import Live, LogEvent, LogSlice
from router.common.token import Tokens

CHANNEL: Final = "0a1b2c3d-2222-3333-4444-555555555555"
UAID: Final = "0123456789abcdef0123456789abcdef"
SOCKET: Final = "1234.1234"
_REASON_BYTES: Final = 123
_STATUSES: Final = (m.OK, m.OK, m.OK, m.FAILED, m.UNKNOWN, m.FULL, m.MOVED)
_MAY: Final = {
    Attach: (m.UNKNOWN, m.MOVED),
    m.SetAdd: (m.FULL,),
    Subscribe: (m.FULL,),
}


def _log(wanted: Subscription, number: int) -> LogSlice | None:
    """What the log of a channel may hold, if a position was given."""
    if type(wanted.position) is Live or not number % 3:
        return None
    body = '{"event":"e","channel":"cache-a","data":"{}"}'
    events = [LogEvent(9, 1_700_000_000, 1, 2_000_000_000, "", {}, body)] if number % 2 else []
    return LogSlice(7, 9, True, events)


class Driver:
    """One session, called with what happens and held to its part of the contract."""

    def __init__(self, dialect: Any, path: str, items: list[Item], bodies: list[Any]) -> None:
        self._now = 1000.0
        self._items = items
        self._bodies = bodies
        self.open: Call | Attach | Subscribe | None = None
        self.closed = False
        self.session = dialect.opened(Request(b"GET", path, "protocol=7", {}, (1, 1), socket_id=SOCKET))
        self.channels: set[bytes] = set()
        self._take(self.session.begun(self._now), False)

    def run(self, data: bytes) -> None:
        """Every line, until the session has closed."""
        for line in data.split(b"\n")[:60]:
            if self.closed:
                return
            self._now += 0.4
            if line.startswith(b"!"):
                self._happens(line)
            elif self.open is None:
                self._said(line)

    def _said(self, line: bytes) -> None:
        binary = False
        try:
            line.decode()
        except UnicodeDecodeError:
            binary = True
        self._take(self.session.received(line, binary, self._now), True)

    def _happens(self, line: bytes) -> None:
        what, _, rest = line[1:].partition(b" ")
        number = int(rest[:3]) if rest[:3].isdigit() else 0
        if what == b"answer" and self.open is not None:
            asked, self.open = self.open, None
            status, payload = self._answer(asked, number)
            if isinstance(asked, Subscribe):
                results = [Subscribed(wanted, status, payload, _log(wanted, number)) for wanted in asked.channels]
                self._take(self.session.subscribed(results, self._now), False)
            else:
                self._take(self.session.replied(asked.context, status, payload, self._now), False)
        elif what == b"deliver" and isinstance(self.session, DeviceSession):
            slot, version = self._items[number % len(self._items)][:2]
            message = self.session.delivered(slot, version + number, self._bodies[number % len(self._bodies)])
            if message is not None:
                json.loads(message)
        elif what == b"stored" and isinstance(self.session, DeviceSession) and not isinstance(self.open, Subscribe):
            self._take(self.session.stored(self._items[: number % 6], self._now), False)
        elif what == b"tick":
            effects, again = self.session.tick(float(number))
            assert again >= 0
            self._take(effects, False)
        elif what == b"binary" and self.open is None:
            with suppress(ValueError):
                self._take(self.session.received(bytes.fromhex(rest.decode()), True, self._now), True)

    def _answer(self, asked: Call | Attach | Subscribe, number: int) -> tuple[int, Any]:
        """An answer that the router may give to this."""
        kind: type = type(asked.request) if isinstance(asked, Call) else type(asked)
        status = _STATUSES[number % len(_STATUSES)]
        if status not in (m.OK, m.FAILED, *_MAY.get(kind, ())):
            status = m.FAILED
        if status != m.OK:
            return status, None
        items = self._items[: number // 8 % 6]
        if isinstance(asked, Subscribe):
            (wanted,) = asked.channels
            members = None if wanted.user is None else Members([(wanted.user, wanted.info), ("other", "")])
            return m.OK, members
        if isinstance(asked, Attach):
            record = b"\0\0\x4c\xe0" + bytes.fromhex(CHANNEL.replace("-", ""))
            return m.OK, m.Attached(items, record if number % 3 or asked.needs else None)
        if kind is m.Fetch:
            return m.OK, items
        return m.OK, None

    def _take(self, effects: Effects, said: bool) -> None:
        for effect in effects:
            assert not self.closed, f"{effect} after the close"
            if isinstance(effect, bytes):
                json.loads(effect)
            elif isinstance(effect, Become):
                assert effect.message is None
                self.session = effect.session
            elif isinstance(effect, Close):
                self.closed = True
                assert 1000 <= effect.code < 5000
                assert effect.code not in (1004, 1005, 1006, 1015)
                assert not (said and effect.code == INTERNAL), f"{effect} is no answer to what a device sent"
                assert len(effect.reason.encode("utf-8", "surrogatepass")) < 100_000
            elif isinstance(effect, Call | Attach | Subscribe):
                assert self.open is None, "two questions at once"
                self.open = effect
                if isinstance(effect, Call):
                    self._sent(m.Call(1, effect.request))
                elif isinstance(effect, Attach):
                    self._sent(m.Call(1, m.Attach(effect.device, effect.needs, effect.fetch, 0)))
                else:
                    for wanted in effect.channels:
                        self._join(wanted)
            elif effect is REGISTERED:
                pass
            elif isinstance(effect, Unsubscribe):
                assert len(effect.key) == 16
            elif isinstance(effect, Tick):
                assert effect.seconds > 0
            else:
                assert isinstance(effect, m.Message), effect
                self._sent(effect)

    def _join(self, join: Subscription) -> None:
        assert join.key in self.session.channels
        if not join.hidden:
            self._sent(m.Call(1, m.Subscribe(join.key, join.label)))
        if join.user is not None:
            self._sent(m.Call(1, m.PresenceJoin(join.key, join.user, join.info, join.most)))

    def _sent(self, message: m.Message) -> None:
        """It is what the router takes, as the link carries it."""
        (received,) = received_by_router(message)
        assert type(received) is type(message), received


def context(*changes: tuple[type[Any], dict[str, Any]]) -> Context:
    return Context(settings_with(*changes), Tokens([b"k" * 32]), WorkerCounters(), Clock().unix)


def target(name: str, run: Callable[[bytes], None], module: Any, seeds: list[list[Any]], words: list[str]) -> Target:
    lines = [[one if isinstance(one, str) else json.dumps(one) for one in seed] for seed in seeds]
    happens = ["!answer 0", "!answer 9", "!answer 3", "!answer 4", "!answer 17", "!deliver 0", "!deliver 1", "!tick 0"]
    happens += ["!stored 3", "!tick 500", "!binary 00ff", "[]", "null", "{", "{}", '{"a":' * 500, ""]
    return Target(
        name,
        run,
        (module,),
        tuple("\n".join(one).encode() for one in lines),
        tuple(word.encode() for word in words),
        json_lines([*happens, *(line for one in lines for line in one)]),
    )


def update(**more: Any) -> dict[str, Any]:
    return {"messageType": "ack", "updates": [{"channelID": CHANNEL, "version": 1, **more}]}


def hello(**more: Any) -> dict[str, Any]:
    return {"messageType": "hello", "uaid": UAID, "channelIDs": [CHANNEL], **more}


WORDS: Final = [
    "messageType",
    "channelID",
    "uaid",
    CHANNEL,
    UAID,
    "null",
    '"',
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0",
    "{",
    "[",
]
