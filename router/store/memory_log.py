"""One channel's log in memory: the model by which the other stores' are tested. Pure."""

from __future__ import annotations

from typing import Final

from router.common.numbers import SECOND, first_sequence
from router.common.position import (
    NO_TIME,
    AfterId,
    AfterOffset,
    AfterTime,
    Last,
    LogEvent,
    LogSlice,
    Position,
)
from router.store.base import EVENT_BYTES, MAX_OFFSET, Append, LogSize, event_bytes
from router.store.log_rows import bound, reached

ENTRY_BYTES: Final = 200
"""Of memory for an entry besides its texts, about."""
_NEVER: Final = 2**63 - 1


class MemoryLog:
    """Events by offset, lowest first, and what is known of those that have gone."""

    __slots__ = ("bytes", "epoch", "events", "expires", "last", "lost", "lost_sequence", "next_expiry", "until")

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch
        self.last = 0
        self.lost = 0  # the highest offset of those that have gone
        self.lost_sequence = 0  # and the highest sequence
        self.expires = 0  # of the event that lives longest, also of those that have gone
        self.until = 0  # of all of it
        self.next_expiry = _NEVER  # no event expires before
        self.bytes = 0
        self.events: dict[int, Append] = {}

    @property
    def used(self) -> int:
        """Bytes of memory, about."""
        return self.bytes + ENTRY_BYTES * len(self.events)

    def dead(self, now: int) -> bool:
        """Whether all of it has ended."""
        return 0 < self.until <= now

    def append(self, event: Append, most: int, most_bytes: int, now: int) -> int | None:
        """Returns: its offset, None if it is refused."""
        self.purge(now)
        offset = event.offset if event.exact else max(self.last + 1, event.offset)
        if offset > MAX_OFFSET or offset in self.events or (event.exact and event_bytes(event) > most_bytes):
            return None
        self.events[offset] = event
        if offset < self.last:
            self.events = dict(sorted(self.events.items()))
        self.last = max(self.last, offset)
        self.expires = max(self.expires, event.expires)
        self.next_expiry = min(self.next_expiry, event.expires)
        self.bytes += event_bytes(event)
        while len(self.events) > most or self.bytes > most_bytes:
            lowest = iter(self.events)
            first = next(lowest)
            self.drop(next(lowest) if event.exact and first == offset else first)
        return offset

    def purge(self, now: int) -> None:
        """Drop what has expired."""
        if self.next_expiry > now:
            return
        for offset in [offset for offset, event in self.events.items() if event.expires <= now]:
            self.drop(offset)
        self.next_expiry = min((event.expires for event in self.events.values()), default=_NEVER)

    def drop(self, offset: int) -> None:
        """An event goes."""
        event = self.events.pop(offset)
        self.bytes -= event_bytes(event)
        self.lost = max(self.lost, offset)
        self.lost_sequence = max(self.lost_sequence, event.sequence)

    def size(self, now: int) -> LogSize:
        """How much it holds."""
        number = len(self.events)
        if self.next_expiry <= now:
            number = sum(event.expires > now for event in self.events.values())
        return LogSize(self.last, number, self.expires)

    def slice(self, position: Position, now: int, most: int = 0) -> LogSlice:
        """What there is after a position: so many bytes of it (`router.store.base.LogName`), 0: all."""
        alive, gone = self.events, []
        if self.next_expiry <= now:
            alive = {offset: event for offset, event in self.events.items() if event.expires > now}
            gone = [(offset, event.sequence) for offset, event in self.events.items() if event.expires <= now]
        lost = max([self.lost, *(offset for offset, _ in gone)])
        lost_sequence = max([first_sequence(self.epoch), self.lost_sequence, *(sequence for _, sequence in gone)])
        since, after = self.last, -1
        recovered = True
        if isinstance(position, Last):
            newest = list(alive)[-position.number :] if position.number else []
            since = newest[0] - 1 if newest else self.last
        elif isinstance(position, AfterOffset):
            known = reached(position, self.epoch, self.last)
            since = position.offset if known else 0
            recovered = known and lost <= since
        elif isinstance(position, AfterTime):
            since, after = 0, bound(position)
            recovered = lost_sequence <= after
        elif isinstance(position, AfterId):
            since, recovered = self._after_id(position, alive, lost, lost_sequence)
        events: list[LogEvent] = []
        left = most or _NEVER
        for offset, event in alive.items():
            if offset > since and event.sequence > after:
                if left <= 0:
                    return LogSlice(self.epoch, self.last, recovered, events, True)
                left -= event_bytes(event) + EVENT_BYTES
                time_tag = divmod(event.sequence, SECOND)
                events.append(LogEvent(offset, *time_tag, event.expires, event.id, event.headers, event.body))
        return LogSlice(self.epoch, self.last, recovered, events)

    def _after_id(self, position: AfterId, alive: dict[int, Append], lost: int, lost_sequence: int) -> tuple[int, bool]:
        after = bound(position)
        for offset, event in alive.items():
            if event.id == position.id != "":
                return offset, lost <= offset
            if event.sequence > after:
                return offset - 1, lost_sequence <= after
        if position.time == NO_TIME:
            return 0, False
        return self.last, lost_sequence <= after
