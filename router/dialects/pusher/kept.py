"""How much each application has in the store: the last events of its cache channels. Pure.

Counted by the router that owns the channels, as they are published, until they expire. What was stored before the
router began is not known until it is published again, or gone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

EVENT_BYTES: Final = 256
"""What an event takes besides its frame, about."""


class KeptBytes:
    """Bytes by application. most: of one, of what this router owns."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._apps: dict[str, _Kept] = {}

    def keep(self, app: str, events: Sequence[tuple[bytes, int]], now: float, expires: float) -> bool:
        """Events for channels by key, each with its bytes, are about to be stored. Returns: whether they all may be; if
        not nothing is counted. expires: never before that of events that came earlier."""
        kept = self._apps.get(app)
        if kept is None:
            kept = self._apps[app] = _Kept()
        kept.forget(now)
        new = dict(events)
        change = sum(EVENT_BYTES + size - kept.size(key) for key, size in new.items())
        if change > 0 and kept.total + change > self._most:
            return False
        for key, size in new.items():
            kept.put(key, EVENT_BYTES + size, expires)
        return True

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
        self._events: OrderedDict[bytes, tuple[int, float]] = OrderedDict()
        self.total = 0

    def size(self, key: bytes) -> int:
        found = self._events.get(key)
        return 0 if found is None else found[0]

    def put(self, key: bytes, size: int, expires: float) -> None:
        self.total += size - self.size(key)
        self._events[key] = (size, expires)
        self._events.move_to_end(key)

    def forget(self, now: float) -> None:
        """What has expired."""
        events = self._events
        while events:
            key, (size, expires) = next(iter(events.items()))
            if expires > now:
                return
            del events[key]
            self.total -= size
