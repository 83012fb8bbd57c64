"""How much each application has in the store: the last events of its cache channels. Pure.

Counted by the router that owns the channels, as they are published, until they expire. What was stored before the
router began is not known until it is published again, or gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

EVENT_BYTES: Final = 256
"""What an event takes besides its frame, about."""


class Event(NamedTuple):
    """One that is stored."""

    size: int
    expires: float


class Change(NamedTuple):
    """What was counted for a channel before an event for it was about to be stored, and what is since."""

    before: Event | None
    after: Event


class KeptBytes:
    """Bytes by application. most: of one, of what this router owns."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._apps: dict[str, _Kept] = {}

    def keep(
        self, app: str, events: Sequence[tuple[bytes, int]], now: float, expires: float
    ) -> Mapping[bytes, Change] | None:
        """Events for channels by key, each with its bytes, are about to be stored. Returns: what has changed for each
        key, for `not_stored`; None if they may not all be, and then nothing is counted. expires: never before that of
        events that came earlier."""
        kept = self._apps.get(app)
        if kept is None:
            kept = self._apps[app] = _Kept()
        kept.forget(now)
        new = dict(events)
        change = sum(EVENT_BYTES + size - kept.size(key) for key, size in new.items())
        if change > 0 and kept.total + change > self._most:
            return None
        return {key: kept.put(key, Event(EVENT_BYTES + size, expires)) for key, size in new.items()}

    def not_stored(self, app: str, key: bytes, change: Change) -> None:
        """The store has not taken an event after all, so what it had before is still there."""
        if (kept := self._apps.get(app)) is not None:
            kept.undo(key, change)

    def of(self, app: str, now: float) -> int:
        """Bytes of an application."""
        kept = self._apps.get(app)
        if kept is None:
            return 0
        kept.forget(now)
        return kept.total


class _Kept:
    """The events of an application, the first to expire first."""

    __slots__ = ("_events", "total")

    def __init__(self) -> None:
        self._events: OrderedDict[bytes, Event] = OrderedDict()
        self.total = 0

    def size(self, key: bytes) -> int:
        found = self._events.get(key)
        return 0 if found is None else found.size

    def put(self, key: bytes, event: Event) -> Change:
        before = self._events.get(key)
        self.total += event.size - self.size(key)
        self._events[key] = event
        self._events.move_to_end(key)
        return Change(before, event)

    def undo(self, key: bytes, change: Change) -> None:
        """What was before keeps the place of what is undone: it may be forgotten later than it expires, and no other
        one is."""
        if self._events.get(key) is not change.after:  # expired, or another one has come
            return
        if change.before is None:
            del self._events[key]
            self.total -= change.after.size
        else:
            self._events[key] = change.before
            self.total += change.before.size - change.after.size

    def forget(self, now: float) -> None:
        """What has expired."""
        events = self._events
        while events:
            key, event = next(iter(events.items()))
            if event.expires > now:
                return
            del events[key]
            self.total -= event.size
