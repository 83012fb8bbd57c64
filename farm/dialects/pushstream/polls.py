"""Polls of push stream's subscribers: requests that are answered once. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import ClassVar, Final

import msgspec

from farm.dialects import Become, Close, Effects, Respond, Session, Subscribed, Tick
from farm.dialects.pushstream.sessions import SHARED, Subscriber
from farm.dialects.pushstream.shared import PushStreamShared
from farm.transports.long_poll import position_headers
from router.common.close_codes import NORMAL
from router.common.position import LAST_TAG, NO_TIME, AfterId, AfterTime, Position
from router.dialects.pushstream.protocol import LONGEST_TIMER, NOT_READ

Place = tuple[int, int]
_START: Final = (0, 0)


@lru_cache(SHARED)
def _shared(place: Place) -> Place:
    """One object for all that wait behind the same event."""
    return place


class PollSession(Subscriber, gc=False, eq=False):
    """A request that is answered once: with what came since the client's position, or when something comes."""

    waits: ClassVar[bool] = True  # until something comes

    def _accept(self, results: Sequence[Subscribed]) -> Effects:
        place = max(_known(wanted.position) for wanted, *_ in results)
        for *_, log in results:
            if log is not None and log.events:
                place = max(place, (log.events[-1].time, log.events[-1].tag))
        effects = tuple(self._caught_up(results))
        if effects:
            return (Respond(200, _headers(place)), *effects)
        if not self.waits:
            return _nothing_came(place)
        left = self._dialect.poll_ttl
        waiting = Become(WaitingPoll(self._dialect, _shared(place), left, self.channels))
        return (waiting, Tick(min(left, LONGEST_TIMER))) if left else (waiting,)

    def tick(self, silent: float) -> tuple[Effects, float]:
        return self._refuse(NOT_READ) if self._asked else (), 0


class ImmediatePollSession(PollSession, gc=False, eq=False):
    """One that is answered in any case, perhaps with nothing."""

    waits: ClassVar[bool] = False


class WaitingPoll(Session, msgspec.Struct, gc=False, eq=False):
    """One that is subscribed, and has nothing to say yet: apart, as an idle one is the smaller for it."""

    _dialect: PushStreamShared
    _place: Place  # the client has had what came up to it
    _left: float  # seconds until it ends; 0: it stays
    channels: tuple[bytes, ...]

    @property
    def position(self) -> AfterTime:
        return AfterTime(*self._place)

    def tick(self, silent: float) -> tuple[Effects, float]:
        if not self._left:
            return (), 0
        self._left -= min(self._left, LONGEST_TIMER)
        if self._left > 0:
            return (), min(self._left, LONGEST_TIMER)
        return _nothing_came(self._place, self._dialect.timed_out), 0

    def unanswered(self) -> Effects:
        return _nothing_came(self._place)


def _nothing_came(place: Place, body: bytes = b"") -> Effects:
    if body:
        return (Respond(200, _headers(place)), body, Close(NORMAL))
    return (Respond(304, _headers(place)), Close(NORMAL))


def _headers(place: Place) -> tuple[tuple[str, str], ...]:
    time, tag = place
    # Without a tag all of that second is known.
    return position_headers(time, tag)[: 1 if tag == LAST_TAG else 2]


def _known(position: Position) -> Place:
    """Up to where a client has had everything."""
    if isinstance(position, AfterTime | AfterId) and position.time != NO_TIME:
        return (position.time, position.tag)
    return _START
