"""gopush2, device side: one connection subscribes to one key from a message ID on.

A connection is answered first, and then asked for what it needs, as with gopush2 itself; where gopush2 closes without a
word, the close says why. The order is: is there room for one more of this key, is its token good, and only then its
subscription. So a token is used up only by a connection that gets what it asks for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final, NamedTuple
from urllib.parse import parse_qsl

import msgspec

from farm.dialects import Become, Call, Close, Effects, Event, Session, Subscribe, Subscribed, Subscription, Tick
from farm.dialects.gopush2.shared import Gopush2Shared
from router.common import messages as m
from router.common.answers import CloseCode
from router.common.position import OWN_OFFSETS, AfterOffset, LogSlice
from router.dialects.gopush2.protocol import (
    BAD_HEARTBEAT,
    BAD_TOKEN,
    ENTERED,
    EXPIRED,
    HEARTBEAT,
    LEAVING,
    NAME,
    NO_CHANNEL,
    NOT_NOW,
    SILENT,
    TOKEN_REFUSED,
    TOO_MANY,
    Gopush2Options,
    channel_address,
    enter,
    entered,
    key_label,
    look,
    subscribers_address,
    subscribers_label,
)

_SHARED: Final = 2048  # keys whose subscribers share the objects that are their address
_NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}")
_HIGHEST: Final = 2**63 - 1
_MAX_PARAMETERS: Final = 16
_TAKER_BYTES: Final = 16
_ASKED: Final = -1
"""As a deadline: the router is asked whether the channel is there."""


class BadParameter(ValueError):
    """A parameter is missing or cannot be used; says which."""


class Wanted(NamedTuple):
    """What a connection asks for."""

    key: str
    mid: int
    heartbeat: int  # s
    token: str


def wanted(query: str, options: Gopush2Options) -> Wanted:
    """Raises: BadParameter."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MAX_PARAMETERS)
    except ValueError:
        raise BadParameter(f"a query has UTF-8 text and at most {_MAX_PARAMETERS} parameters") from None
    given = dict(reversed(pairs))  # the first one counts
    key, token = given.get("key", ""), given.get("token", "")
    if not 0 < len(key.encode()) <= options.max_key_bytes:
        raise BadParameter(f"key has 1 to {options.max_key_bytes} bytes")
    if len(token.encode()) > options.max_token_bytes:
        raise BadParameter(f"token has at most {options.max_token_bytes} bytes")
    heartbeat = options.heartbeat
    if given.get("heartbeat"):
        heartbeat = _number("heartbeat", given)
        if not 0 < heartbeat <= options.max_heartbeat:
            raise BadParameter(f"heartbeat is 1 to {options.max_heartbeat} seconds")
    return Wanted(key, _number("mid", given), heartbeat, token)


def _number(name: str, given: dict[str, str]) -> int:
    text = given.get(name, "")
    if _NUMBER.fullmatch(text) is None or not -_HIGHEST - 1 <= (number := int(text)) <= _HIGHEST:
        raise BadParameter(f"{name} is missing, or no whole number of 64 bits")
    return number


class _Channel(NamedTuple):
    """A key's channel."""

    address: bytes
    alone: tuple[bytes]
    """The channels of a session that has only this one."""


@lru_cache(_SHARED)
def _channel(key: str) -> _Channel:
    """The same objects for all subscribers of this key."""
    address = channel_address(key)
    return _Channel(address, (address,))


@lru_cache(_SHARED)
def _shared(number: int) -> int:
    """The same number as one object for all that have it."""
    return number


class RefusedSession(Session, msgspec.Struct, gc=False, eq=False):
    """A connection that is closed with the reason why it was refused."""

    _code: CloseCode
    _reason: str

    def begun(self, now: float) -> Effects:
        return (Close(self._code, self._reason),)


class JoiningSession(Session, msgspec.Struct, gc=False, eq=False):
    """A connection that is not subscribed yet."""

    _dialect: Gopush2Shared
    _wanted: Wanted
    _socket_id: str
    _deadline: int = 0
    channels: tuple[bytes, ...] = ()
    farewell: ClassVar[tuple[int, str]] = (LEAVING, LEAVING.text)

    def begun(self, now: float) -> Effects:
        most = self._dialect.options.max_subscriber_per_key
        if not most:
            return self._enter()
        # Presence counts over all shards. An address of its own: no event reaches the connection before its token is
        # looked at.
        key = self._wanted.key
        address = subscribers_address(key)
        self.channels = (address,)
        return (Subscribe((Subscription(address, subscribers_label(key), self._socket_id, most=most),)),)

    def _enter(self) -> Effects:
        channel = _channel(self._wanted.key).address
        return (Call(enter(channel, self._wanted.token, os.urandom(_TAKER_BYTES)), None),)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        entry = entered(payload) if status == m.OK else None
        if entry is None:
            return (Close(NOT_NOW, NOT_NOW.text),)
        if entry.outcome != ENTERED:
            code = BAD_TOKEN if entry.outcome == TOKEN_REFUSED else NO_CHANNEL
            return (Close(code, code.text),)
        channel = _channel(self._wanted.key)
        self._deadline = self._dialect.deadline(entry.seconds)
        self.channels = (*self.channels, channel.address) if self.channels else channel.alone
        # Behind the token: what comes from here on is for this device alone. There is no message below 1.
        position = AfterOffset(OWN_OFFSETS, max(self._wanted.mid, 0))
        label = key_label(self._wanted.key) if self._dialect.options.list_keys else ""
        return (Subscribe((Subscription(channel.address, label, position=position, dialect=NAME),)),)

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        ((subscription, status, _, log),) = results
        if status == m.FULL:
            return (Close(TOO_MANY, TOO_MANY.text),)
        if status != m.OK:
            return (Close(NOT_NOW, NOT_NOW.text),)
        if subscription.user is not None:
            return self._enter()
        if log is None:
            return (Close(NOT_NOW, NOT_NOW.text),)
        return self._begin(log)

    def _begin(self, log: LogSlice) -> Effects:
        """What gopush2 sends first: its heartbeat, and the messages behind the one that the client has."""
        dialect, heartbeat = self._dialect, self._wanted.heartbeat
        if dialect.options.greeting:
            yield HEARTBEAT
        for event in log.events:
            yield Event(dialect.event_text("", event), event)
        patience, there = _shared(2 * heartbeat), self._deadline - dialect.unix_time()
        dialect.devices += 1
        dialect.subscribed += 1
        yield Become(SubscribedSession(dialect, patience, self._deadline, self.channels))
        yield Tick(min(patience, max(there, 1)))

    def tick(self, silent: float) -> tuple[Effects, float]:
        return (Close(NOT_NOW, NOT_NOW.text),), 0


class SubscribedSession(Session, msgspec.Struct, gc=False, eq=False):
    """A connection that is."""

    _dialect: Gopush2Shared
    _patience: int  # s, after which a connection that is silent is closed
    _deadline: int  # when to look whether the channel is still there, in unix seconds; or _ASKED
    channels: tuple[bytes, ...]
    farewell: ClassVar[tuple[int, str]] = (LEAVING, LEAVING.text)

    def closed(self) -> None:
        self._dialect.devices -= 1

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if message == HEARTBEAT or not message:
            return (message,)
        self._dialect.counters.commands_refused += 1
        return (Close(BAD_HEARTBEAT, BAD_HEARTBEAT.text),)

    def tick(self, silent: float) -> tuple[Effects, float]:
        if self._deadline == _ASKED:  # and not read until the reply is here
            return (), self._patience
        left = self._patience - silent
        if left <= 0:
            self._dialect.counters.timeouts += 1
            return (Close(SILENT, SILENT.text),), 0
        there = self._deadline - self._dialect.unix_time()
        if there <= 0:
            self._deadline = _ASKED
            return (Call(look(self.channels[-1]), None),), left
        return (), min(left, there)

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        entry = entered(payload) if status == m.OK else None
        if entry is None:
            self._deadline = 0  # it is asked again at the next tick
            return ()
        if entry.outcome != ENTERED:
            return (Close(EXPIRED, EXPIRED.text),)
        self._deadline = self._dialect.deadline(entry.seconds)
        return ()
