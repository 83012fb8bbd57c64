"""What the store on disk sends to its statements for logs, and what these answer. Pure."""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import msgspec

from router.common.numbers import SECOND, first_sequence
from router.common.position import (
    ANY_EPOCH,
    NO_TIME,
    OWN_OFFSETS,
    AfterId,
    AfterOffset,
    AfterTime,
    Last,
    LogEvent,
    LogSlice,
    Position,
)
from router.common.settings import StoreOptions
from router.store.base import Append, ExpireLog, LogName, event_bytes, limits

_NEVER: Final = 2**63 - 1
_encode = msgspec.json.Encoder().encode


def bound(position: AfterId | AfterTime) -> int:
    """The highest sequence that is not after this time and tag; where there is no time, the highest there can be."""
    if position.time == NO_TIME:
        return _NEVER
    return min(position.time * SECOND + min(position.tag, SECOND - 1), _NEVER)


def reached(position: AfterOffset, epoch: int, last: int) -> bool:
    """Whether a position is one of the log of this epoch, whose newest offset is the last."""
    return position.epoch == OWN_OFFSETS or (position.epoch in (ANY_EPOCH, epoch) and position.offset <= last)


def log_row(place: int, write: Append | ExpireLog, options: StoreOptions) -> list[Any]:
    """A write as `router.store.log_statements` has it."""
    if isinstance(write, ExpireLog):
        return [4, write.channel, "", 0, 0, write.expires]
    headers = _encode(write.headers).decode() if write.headers else ""
    more = (place, event_bytes(write), headers, *limits(write, options))
    return [3, write.channel, write.id, write.offset, write.sequence, write.expires, write.exact, write.body, more]


def name_row(name: LogName) -> tuple[Any, ...]:
    """What is to be read, likewise."""
    channel, position, most = name
    return *_position_row(channel, position), most or _NEVER


def _position_row(channel: bytes, position: Position) -> tuple[Any, ...]:
    if isinstance(position, Last):
        return channel, position.kind, position.number, 0, ""
    if isinstance(position, AfterOffset):
        return channel, position.kind, position.epoch, position.offset, ""
    if isinstance(position, AfterId):
        return channel, position.kind, bound(position), 0, position.id
    if isinstance(position, AfterTime):
        return channel, position.kind, bound(position), 0, ""
    return channel, position.kind, 0, 0, ""


class LogRow(NamedTuple):
    """What was read of one log."""

    epoch: int
    last: int
    found: int | None
    since: int
    lost: int
    lost_sequence: int
    newest: int | None
    """The offset of the newest event after the position, if there is one."""
    events: list[LogEvent]

    def slice(self, position: Position) -> LogSlice:
        """The answer to this position."""
        more = bool(self.events) and self.newest != self.events[-1].offset
        return LogSlice(self.epoch, self.last, self._recovered(position), self.events, more)

    def _recovered(self, position: Position) -> bool:
        if isinstance(position, AfterOffset):
            known = reached(position, self.epoch, self.last)
            return known and self.lost <= position.offset
        if isinstance(position, AfterId) and self.found is not None and self.found & 1:
            return self.lost <= self.found >> 1
        if isinstance(position, AfterId) and position.time == NO_TIME:
            return False
        if isinstance(position, AfterId | AfterTime):
            return max(self.lost_sequence, first_sequence(self.epoch)) <= bound(position)
        return True
