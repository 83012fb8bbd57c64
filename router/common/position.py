"""Positions in a channel's log, and what a log answers to one. Pure: requests of workers and answers of the router.

A subscriber of a channel names the position from which it wants the log:

| type | wire form | what it is sent |
|---|---|---|
| `Live` | `[0]` | nothing of the log, only what comes from now on |
| `Last` | `[number, 1]` | the newest `number` events |
| `AfterOffset` | `[epoch, offset, 2]` | what follows the event with this offset |
| `AfterId` | `[id, time, tag, 3]` | what follows the event to which the application gave this id |
| `AfterTime` | `[time, tag, 4]` | what was logged later |

A position is a tuple, so msgpack packs it as it is. The kind comes last: thus two positions are equal only if they are
of one kind. `position`, `log_event` and `log_slice` check what a peer sent.

Doubles between a log and what comes live have the same offset. They are dropped by that and not by order, for the
offsets of a log whose dialect gives them itself, as IDs of messages, may come in any order.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import Meta

from router.common.numbers import MAX_ROUTERS, SECOND

MAX_EVENT_ID: Final = 1024
"""Characters of an event's id, and of each name and value of its headers. None of them is U+0000."""
MAX_HEADERS: Final = 16
"""Headers of one event."""
ANY_EPOCH: Final = 0
"""As the epoch of `AfterOffset`: whatever the log's is. For protocols whose clients know no epoch."""
OWN_OFFSETS: Final = 2**63 - 1
"""The same where the dialect gives the offsets itself, as IDs of messages: a log that has not reached the offset has
nothing behind it, and nothing is missing."""
LAST_TAG: Final = 2**63 - 1
"""As the tag of `AfterTime`: all events of that second are known."""
NO_TIME: Final = -1
"""As the time of `AfterId`: there is only the id to go by."""

_Number = Annotated[int, Meta(ge=0, le=2**63 - 1)]
_Text = Annotated[str, Meta(max_length=MAX_EVENT_ID, pattern=r"\A[^\0]*\Z")]


class PositionError(ValueError):
    """What a peer sent is no position, event or slice of a log."""


class Live(NamedTuple):
    """Only what comes from now on."""

    kind: Literal[0] = 0


class Last(NamedTuple):
    """The newest `number` events, and what comes. It never misses anything."""

    number: Annotated[int, Meta(ge=0, le=2**31 - 1)]
    kind: Literal[1] = 1


class AfterOffset(NamedTuple):
    """What follows the event with this offset in this epoch of the log. Offset 0: everything. An epoch that is not the
    log's, or an offset that the log has not reached, is a gap, except with OWN_OFFSETS."""

    epoch: _Number
    offset: _Number
    kind: Literal[2] = 2


class AfterId(NamedTuple):
    """What follows the oldest event with this id, or begins with the oldest one after (time, tag), whichever is first:
    as the push stream module's scan. Where the log has no event with this id and no time is given, that is a gap."""

    id: _Text
    time: Annotated[int, Meta(ge=NO_TIME, le=2**40)] = NO_TIME
    tag: _Number = LAST_TAG
    kind: Literal[3] = 3


class AfterTime(NamedTuple):
    """What was logged later: time in unix seconds, and of those of the same second the ones with a higher tag. Tags are
    comparable over all channels of one router."""

    time: Annotated[int, Meta(ge=0, le=2**40)]
    tag: _Number = LAST_TAG
    kind: Literal[4] = 4


Position = Live | Last | AfterOffset | AfterId | AfterTime

LIVE: Final = Live()


class LogEvent(NamedTuple):
    """One event of a channel's log."""

    offset: _Number  # its place in the log; 0: it is in none
    time: Annotated[int, Meta(ge=0, le=2**40)]  # unix seconds, never less than that of an event before it
    tag: _Number  # of two events of the same second, the later one's is higher
    expires: _Number  # unix seconds
    id: _Text  # the application's; "": none
    headers: Annotated[dict[_Text, _Text], Meta(max_length=MAX_HEADERS)]  # the application's
    body: str


class LogSlice(NamedTuple):
    """What a log holds after a position, in order of offset, and where a reader of it stands then.

    `recovered`: nothing is missing between the position and now. Otherwise there is a gap, and the events are all that
    is left after the position; all that the log holds where the position is not one of this log.

    `more`: the log holds further events behind these, which are as many as were asked for.
    """

    epoch: _Number  # another one: the log was lost or began anew, and its offsets are other events'
    offset: _Number  # of the newest event there ever was; 0: none yet
    recovered: bool
    events: list[LogEvent]
    more: bool = False

    @property
    def end(self) -> AfterOffset:
        """The position after these events."""
        return AfterOffset(self.epoch, self.events[-1].offset if self.more and self.events else self.offset)


_TYPES: Final[tuple[type[Position], ...]] = (Live, Last, AfterOffset, AfterId, AfterTime)
_convert = msgspec.convert


def rewound(position: Position, seconds: float, router: int) -> Position:
    """So much earlier, if it is a time that another router than this one gave: what this one has logged up to then
    may have come later than the event that the time is of."""
    if not isinstance(position, AfterTime | AfterId) or position.time == NO_TIME:
        return position
    tag = min(position.tag, SECOND - 1)
    if tag == position.tag and tag % MAX_ROUTERS == router:
        return position
    time, tag = divmod(max(position.time * SECOND + tag - int(seconds * SECOND), 0), SECOND)
    return position._replace(time=time, tag=tag)


def position(value: Any) -> Position:
    """A position from its wire form.

    Raises: PositionError.
    """
    kind = value[-1] if type(value) in (list, tuple) and value else None
    if type(kind) is not int or not 0 <= kind < len(_TYPES):
        raise PositionError("a position is an array that ends with its kind")
    shape = _TYPES[kind]
    if len(value) != len(shape._fields):  # a kind that is missing would be put in as a default
        raise PositionError(f"{shape.__name__} of {len(value)} members")
    found: Position = _checked(value, shape)
    return found


def log_event(value: Any) -> LogEvent:
    """An event from its wire form, an array of its members.

    Raises: PositionError.
    """
    event: LogEvent = _checked(value, LogEvent)
    return event


def log_slice(value: Any) -> LogSlice:
    """A slice from its wire form, an array of its members.

    Raises: PositionError.
    """
    found: LogSlice = _checked(value, LogSlice)
    return found


def _checked(value: Any, shape: type[Any]) -> Any:
    try:
        return _convert(value, shape)
    except (msgspec.ValidationError, RecursionError) as error:
        raise PositionError(f"{shape.__name__}: {error}") from error
