"""Positions of subscribers: times as HTTP dates, tags, and ids of events. Pure.

A position is the time and the tag of the last message that a client has had. Both are those of the log
(`router.common.numbers`): they hold on every worker, and after a restart. A browser's EventSource knows only one id, so
a message to which the publisher gave none has `time:tag` as its id there.
"""

from __future__ import annotations

import re
from email.utils import formatdate, parsedate_to_datetime
from functools import lru_cache
from typing import Final

from router.common.position import LAST_TAG, LIVE, MAX_EVENT_ID, NO_TIME, AfterId, AfterTime, Last, Position

_MAX_TIME: Final = 2**40
_NUMBER: Final = re.compile(r"[0-9]{1,18}")
_PAIR: Final = re.compile(r"([0-9]{1,12}):([0-9]{1,18})")


@lru_cache(64)
def http_time(unix_time: int) -> str:
    """`~time~`, and Last-Modified: `Sun, 06 Nov 1994 08:49:37 GMT`."""
    return formatdate(unix_time, usegmt=True)


def unix_time(text: str) -> int | None:
    """The time that an HTTP date says; None if it is none."""
    try:
        found = int(parsedate_to_datetime(text).timestamp())
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found <= _MAX_TIME else None


def tag_of(text: str) -> int | None:
    """The tag that an Etag or an argument says; None if it is none."""
    text = text.strip().removeprefix("W/").strip('"')
    return int(text) if _NUMBER.fullmatch(text) else None


def position(backtrack: int | None, time: str, tag: str, event_id: str) -> Position:
    """From where on a subscriber wants a channel. backtrack: as the path says, it counts more than all others.

    time, tag and event_id: as headers or arguments say them; empty: nothing. What cannot be read says nothing.
    """
    if backtrack is not None:
        return Last(backtrack) if backtrack else LIVE
    at = unix_time(time) if time else None
    number = tag_of(tag) if tag else None
    pair = _PAIR.fullmatch(event_id)
    if at is None and pair is not None:  # an id of ours
        at, number = min(int(pair[1]), _MAX_TIME), int(pair[2])
    if at is not None and number is not None:
        return AfterTime(at, number)  # it is exact, also where a publisher has given an id twice
    known = LAST_TAG if number is None else number
    if event_id and len(event_id) <= MAX_EVENT_ID and "\0" not in event_id:
        return AfterId(event_id, NO_TIME if at is None else at, known)
    return LIVE if at is None else AfterTime(at, known)
