"""Connections of push stream's subscribers that stay: WebSocket, EventSource, streams. Pure. Polls are in `polls.py`.

An idle one is a small object and a place in the wheel, if it is pinged or has an end. What it asked for is kept only
until it is subscribed.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Final

import msgspec

from farm.dialects import (
    Authorise,
    Call,
    Close,
    Effect,
    Effects,
    Event,
    Ping,
    Respond,
    Session,
    Subscribe,
    Subscribed,
    Subscription,
    Tick,
    Unsubscribe,
)
from farm.dialects.pushstream.requests import granted_names
from farm.dialects.pushstream.shared import NEWEST, PushStreamShared
from farm.transports.retry import spread
from router.common import messages as m
from router.common.answers import Answer
from router.common.close_codes import TOO_BIG, TRY_LATER
from router.common.operation import invoke
from router.common.position import NO_TIME, AfterId, Live, LogEvent
from router.dialects.pushstream.protocol import (
    DELETED,
    EXPLAIN,
    NAME,
    NOT_READ,
    REFUSED,
    TOO_MANY_CHANNELS,
    TOO_MANY_SUBSCRIBERS,
    Publish,
    Refused,
    refusal_of,
)

SHARED: Final = 2048


@lru_cache(SHARED)
def alone(key: bytes) -> tuple[bytes, ...]:
    """The channels of a session that has only this one, which is the usual: one object for all of them."""
    return (key,)


def _order(entry: tuple[LogEvent, str]) -> tuple[int, int, int]:
    event = entry[0]
    return (event.time, event.tag, event.offset)


def merged(results: Sequence[Subscribed]) -> Iterator[tuple[LogEvent, str]]:
    """All events of these logs with the names of their channels, in the order in which they came to the router.

    Where one log knows the ID that a client has had last, a log that does not know it has nothing that is missing."""
    known = any(log is not None and log.recovered and _by_id_alone(wanted) for wanted, _, _, log in results)
    slices = []
    for wanted, _, _, log in results:
        if log is None or wanted.position is NEWEST or (known and _by_id_alone(wanted) and not log.recovered):
            continue
        _, _, name = m.label_parts(wanted.label)
        slices.append([(event, name) for event in log.events])
    return heapq.merge(*slices, key=_order)


def _by_id_alone(wanted: Subscription) -> bool:
    return type(wanted.position) is AfterId and wanted.position.time == NO_TIME


def refused(results: Sequence[Subscribed]) -> Answer | None:
    """Why a client cannot have what it asked for, if it cannot."""
    for wanted, status, _, log in results:
        if status == m.FULL:
            return TOO_MANY_CHANNELS if wanted.user is None else TOO_MANY_SUBSCRIBERS
        if status != m.OK or (log is None and type(wanted.position) is not Live):
            return NOT_READ
    return None


class RefusedSession(Session):
    """A WebSocket that is closed with the reason why it was refused: after the upgrade, as the module does."""

    __slots__ = ("_answer",)

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def begun(self, now: float) -> Effects:
        return (Close(REFUSED, Refused(self._answer).close_reason),)


class Subscriber(Session, msgspec.Struct, gc=False, eq=False):
    """What those over WebSocket and HTTP have in common. It is answered when it is subscribed."""

    _dialect: PushStreamShared
    _asked: tuple[Subscription, ...]  # none once it is subscribed
    _left: float = 0.0  # seconds until it ends; 0: it stays
    channels: tuple[bytes, ...] = ()

    def begun(self, now: float) -> Effects:
        asked = self._asked
        self.channels = alone(asked[0].key) if len(asked) == 1 else tuple(one.key for one in asked)
        return (Tick(self._dialect.patience), Subscribe(asked))

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        self._asked = ()
        answer = refused(results)
        return self._refuse(answer) if answer is not None else self._accept(results)

    def unanswered(self) -> Effects:
        return self._refuse(NOT_READ) if self._asked else ()

    def _accept(self, results: Sequence[Subscribed]) -> Effects:
        raise NotImplementedError

    def _refuse(self, answer: Answer) -> Effects:
        self._dialect.counters.commands_refused += 1
        headers = ((EXPLAIN, answer.text),)
        later = (("Retry-After", spread(self._dialect.retry_after)),) if answer.status == NOT_READ.status else ()
        return (Respond(answer.status, (*headers, *later)), Close(REFUSED))

    def _caught_up(self, results: Sequence[Subscribed]) -> Iterator[Effect]:
        yield from self._dialect.missing(results)
        for event, name in merged(results):
            yield Event(self._dialect.event_text(name, event), event)


class StreamSession(Subscriber, gc=False, eq=False):
    """A connection that stays, over HTTP."""

    def _accept(self, results: Sequence[Subscribed]) -> Effects:
        self._left = self._dialect.stream_ttl
        if step := self._dialect.step(self._left):
            yield Tick(step)
        yield from self._greeting()
        yield from self._caught_up(results)

    def tick(self, silent: float) -> tuple[Effects, float]:
        if self._asked:
            return self._refuse(NOT_READ), 0
        step = self._dialect.step(self._left)
        if not step:
            return (), 0
        if self._left:
            self._left -= step
            if self._left <= 0:
                return (*self._farewell(), Close(DELETED)), 0
        effects: tuple[Effect, ...] = (Ping(),) if self._dialect.pings and step >= self._dialect.pings else ()
        return effects, self._dialect.step(self._left)

    def terminated(self, key: bytes) -> Effects:
        """It keeps its other channels, and ends with the last."""
        channels = self.channels
        # Where they are limited its subscribers are counted by another address, behind those of all channels.
        number = len(channels) // (2 if self._dialect.options.max_subscribers_per_channel else 1)
        if number == 1:
            return ()
        ended = channels[channels.index(key) :: number]
        left = tuple(one for one in channels if one not in ended)
        self.channels = left if len(left) > 1 else alone(left[0])
        return tuple(map(Unsubscribe, ended))

    def _greeting(self) -> tuple[Effect, ...]:
        return (Respond(200),)

    def _farewell(self) -> tuple[Effect, ...]:
        return ()


class WebSocketSession(StreamSession, gc=False, eq=False):
    """A WebSocket. What it sends is ignored."""

    def _refuse(self, answer: Answer) -> Effects:
        self._dialect.counters.commands_refused += 1
        return (Close(REFUSED if answer.status < NOT_READ.status else TRY_LATER, Refused(answer).close_reason),)

    def _greeting(self) -> tuple[Effect, ...]:
        header = self._dialect.options.header_template
        return (header.encode(),) if header else ()

    def _farewell(self) -> tuple[Effect, ...]:
        footer = self._dialect.options.footer_template
        return (footer.encode(),) if footer else ()


class PublishingSession(WebSocketSession, gc=False, eq=False):
    """A WebSocket whose texts are published to all of its channels."""

    _names: tuple[str, ...] = ()
    _asks: bool = False  # the main server first

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if binary:
            return ()
        text = message.decode()
        return (Authorise(text, text, self._names),) if self._asks else self._publish(text, self._names)

    def replied(self, context: str | None, status: int, payload: m.Verdict | bytes | None, now: float) -> Effects:
        if status == m.OK and isinstance(payload, m.Verdict):
            if context is not None and payload.allowed and (names := self._granted(payload)):
                return self._publish(context, names)
        elif status == m.OK and isinstance(payload, bytes) and refusal_of(payload) is None:
            return ()
        self._dialect.counters.commands_refused += 1
        return ()

    def terminated(self, key: bytes) -> Effects:
        at = self.channels.index(key)
        effects = super().terminated(key)
        if effects:
            self._names = self._names[:at] + self._names[at + 1 :]
        return effects

    def _granted(self, verdict: m.Verdict) -> Sequence[str]:
        """To which of its channels the main server lets a message go."""
        granted = self._dialect.granted(verdict)
        if granted is None:
            return self._names
        try:
            found = granted_names(granted, self._dialect.options)
        except Refused:
            return ()
        return [name for name in self._names if name in found]

    def _publish(self, text: str, names: Sequence[str]) -> Effects:
        publish = invoke(NAME, self.channels[0], Publish(list(names), text))
        if len(publish.arguments) > m.MAX_ARGUMENTS:
            return (Close(TOO_BIG, TOO_BIG.text),)
        return (Call(publish, None),)
