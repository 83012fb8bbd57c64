"""A dialect whose devices have an address and follow broadcasts, as small as it can be: for the tests of the worker."""

from __future__ import annotations

import json
from typing import Any, Final

import msgspec

from farm.dialects import (
    REGISTERED,
    Attach,
    Become,
    BroadcastTracker,
    Call,
    Close,
    DeviceSession,
    Dialect,
    Effect,
    Effects,
    Session,
)
from farm.transports.request import Request
from router.common import messages as m
from router.common.close_codes import POLICY
from router.common.item import Item

NAME: Final = "pager"
UAID: Final = "0123456789abcdef0123456789abcdef"
KEY: Final = bytes.fromhex(UAID)
CHANNEL: Final = "11111111-2222-3333-4444-555555555555"
HELLO: Final = {"messageType": "hello", "uaid": UAID}
HEAD: Final = bytes(4)


def said(**message: Any) -> bytes:
    """A message to a device."""
    return json.dumps(message, separators=(",", ":")).encode()


class Pager(Dialect):
    """max_unacked: messages that a device may leave unacknowledged."""

    def __init__(self, max_unacked: int = 128) -> None:
        self.max_unacked = max_unacked
        self.tracker = Tracker()

    @property
    def first_tick(self) -> float:
        return 5.0

    @property
    def broadcasts(self) -> BroadcastTracker:
        return self.tracker

    def opened(self, request: Request) -> Unknown:
        return Unknown(self)


class Tracker(BroadcastTracker):
    """The broadcasts as the router last told them."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._unheard: set[str] = set()
        self._changed: dict[str, str] = {}

    @property
    def session_type(self) -> type[Session]:
        return Paged

    def changed(self, key: str, value: str | None) -> bool:
        self._unheard.discard(key)
        if value is None or self._known.get(key) == value:
            return False
        self._known[key] = self._changed[key] = value
        return True

    def renewed(self) -> None:
        self._unheard = set(self._known)

    def complete(self) -> None:
        for key in self._unheard:
            del self._known[key]

    def notify(self, session: Any) -> Effects:
        told, self._changed = self._changed, {}  # there is one device
        return (said(messageType="broadcast", broadcasts=told),)


class Unknown(Session, msgspec.Struct, gc=False, eq=False):
    """A device that has not said hello, or has no answer."""

    _dialect: Pager

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        key = bytes.fromhex(json.loads(message)["uaid"])
        return (Attach(key, "", m.EVERYTHING, key),)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        if status != m.OK:
            return (Close(POLICY, "not attached"),)
        return (Become(Paged(self._dialect, context)), said(messageType="hello", status=200))

    def tick(self, silent: float) -> tuple[Effects, float]:
        return (Close(POLICY, "no hello in time"),), 0


class Paged(DeviceSession, msgspec.Struct, gc=False, eq=False):
    """One that is attached."""

    _dialect: Pager
    key: bytes
    _unacked: int = 0

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        command = json.loads(message)
        if command["messageType"] == "register":
            member = bytes.fromhex(command["channelID"].replace("-", ""))
            return (Call(m.SetAdd(NAME, self.key, member, HEAD, 60, 100), command["channelID"]),)
        acks: list[Effect] = [m.Ack(self.key, [(one["channelID"], one["version"]) for one in command["updates"]])]
        return acks

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        return (said(messageType="register", channelID=context, status=200), REGISTERED)

    def delivered(self, slot: str, version: int, body: str | None) -> bytes | None:
        if self._unacked >= self._dialect.max_unacked:
            return None
        self._unacked += 1
        return said(messageType="notification", channelID=slot, version=version)

    def stored(self, items: list[Item], now: float) -> Effects:
        return ()
