"""A channel with connections of this worker, those that wait to be subscribed to it, and the events meanwhile. Pure."""

from __future__ import annotations

import sys
from heapq import merge
from typing import Final, NamedTuple

from farm.dialects import Subscription
from farm.worker.connection import Connection
from farm.worker.presence import Presence
from router.common.messages import OK
from router.common.position import ANY_EPOCH, AfterOffset, LogEvent, LogSlice, Position

_FEW: Final = 16
_ENTRY_BYTES: Final = 64
_TABLE_BYTES: Final = 1024
"""A table into which subscribers only came takes 58 bytes for each at most."""
OPEN: Final = -1
"""As `LocalChannel.call`: events of the channel come."""
EVENT_BYTES: Final = 120
"""About what an event takes that is held, beside its text."""


End = tuple[int, int]
"""A time and tag."""
NEVER: Final[End] = (-1, -1)
"""Before all events."""


class HeldEvent(NamedTuple):
    """An event that came while connections waited to be subscribed; or a gap, with the message about it, if any."""

    text: bytes
    excluded: Connection | None
    event: LogEvent | None = None  # from which its dialect makes the text; None: it came as text
    epoch: int = ANY_EPOCH
    gap: bool = False
    missed: bool = False  # it was read from the log after the link was away

    @property
    def offset(self) -> int:
        """Its place in the log; 0: it is in none."""
        return 0 if self.event is None else self.event.offset

    @property
    def size(self) -> int:
        """About the bytes that it takes."""
        return len(self.text) + EVENT_BYTES


def as_they_came(channels: list[list[HeldEvent]]) -> list[HeldEvent]:
    """Events of several channels in the order in which they came to the router, if they say when that was."""
    if len(channels) > 1 and all(event.event is not None for events in channels for event in events):
        return list(merge(*channels, key=_when))
    return [event for events in channels for event in events]


def _when(event: HeldEvent) -> tuple[int, int]:
    assert event.event is not None
    return event.event.time, event.event.tag


class Part:
    """One channel of a Subscribe that is not complete."""

    __slots__ = ("behind", "channel", "joining", "log", "open", "position", "read_at", "since", "status", "wanted")

    def __init__(self, joining: Joining, channel: LocalChannel, wanted: Subscription) -> None:
        self.joining = joining
        self.channel = channel
        self.wanted = wanted
        self.status = OK
        self.open = 0  # replies that it waits for
        self.since = 0  # the number of the first event that is held for it
        self.position: Position = wanted.position  # from where on it has nothing of the log yet
        self.log: LogSlice | None = None  # what it wanted of the log, or a page of that
        self.behind: list[HeldEvent] = []  # what came while it caught up, and is in no page
        self.read_at = 0  # the number of the first event that came behind that


class Joining:
    """A connection that waits until it is subscribed to all channels of a Subscribe."""

    __slots__ = ("connection", "exact", "number", "open", "pages", "parts", "upto")

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.exact = False  # it gets nothing that may be younger than something that is under way from another router
        self.upto: End | None = None  # then: what was known before its logs were read
        self.number = 0  # what `connection.call` is meanwhile
        self.parts: list[Part] = []
        self.open = 0  # replies that its parts wait for
        self.pages = 0  # that it has been given; the last one is none


class Waiting:
    """The connections that wait to be subscribed to a channel, and the events that came since the first of them."""

    __slots__ = ("_events", "_first", "parts", "reading_on")

    def __init__(self) -> None:
        self.parts: dict[Connection, Part] = {}  # in order of `since`
        self.reading_on: dict[Connection, Part] = {}  # of them, those that have been given a page
        self._events: list[HeldEvent] = []
        self._first = 0  # the number of the first of these events

    @property
    def unanswered(self) -> list[Connection]:
        """Those that have not been given a page."""
        return [connection for connection in self.parts if connection not in self.reading_on]

    @property
    def end(self) -> int:
        """The number of the next event."""
        return self._first + len(self._events)

    def add(self, part: Part) -> None:
        """One more waits; or one that waits, and wants what comes from now on."""
        connection = part.joining.connection
        self.parts.pop(connection, None)
        self.parts[connection] = part
        if part.joining.pages:
            self.reading_on[connection] = part
        part.since = self.end

    def restart(self) -> None:
        """Some events may not have come: those that have nothing yet want what comes from now on."""
        for part in list(self.parts.values()):
            if part.log is None:
                self.add(part)

    def hold(self, event: HeldEvent) -> None:
        """An event came."""
        self._events.append(event)

    def events(self, part: Part) -> list[HeldEvent]:
        """What came since this one waits."""
        return self._events[part.since - self._first :]

    def remove(self, connection: Connection) -> int:
        """This one does not wait any more. Returns: the bytes that are not held any more because of that."""
        del self.parts[connection]
        self.reading_on.pop(connection, None)
        if not self._events:
            return 0
        oldest = next(iter(self.parts.values()), None)
        unwanted = len(self._events) if oldest is None else oldest.since - self._first
        freed = sum(event.size for event in self._events[:unwanted])
        del self._events[:unwanted]
        self._first += unwanted
        return freed


class ChannelLog:
    """How far the subscribers of a channel have had its log, while there are any that subscribed from a position."""

    __slots__ = ("_after", "_held", "again", "position", "recovering", "youngest")

    def __init__(self) -> None:
        self.position: AfterOffset | None = None
        self.youngest: End = NEVER  # of the events that they have had: says which they have not, whatever the epoch
        self.recovering = False  # what they missed while the link was away is not here yet
        self.again = False  # nor will it be all
        self._held: list[HeldEvent] | None = None  # what came meanwhile
        self._after: list[Joining] | None = None  # those to be subscribed after that

    def reached(self, epoch: int, offset: int, event: LogEvent | None = None) -> None:
        """They have had this one and those before it. event: the youngest of those, if it is known."""
        if event is not None:
            self.youngest = max(self.youngest, (event.time, event.tag))
        if self.position is None or self.position.epoch != epoch or self.position.offset < offset:
            self.position = AfterOffset(epoch, offset)

    def hold(self, event: HeldEvent) -> None:
        """An event came while it recovers."""
        if self._held is None:
            self._held = []
        self._held.append(event)

    def take_held(self) -> list[HeldEvent]:
        """Those events, which are not held any more."""
        held, self._held = self._held, None
        return held or []

    def wait(self, joining: Joining) -> None:
        """This one wants to be subscribed when it has recovered."""
        if self._after is None:
            self._after = []
        self._after.append(joining)

    def take_waiting(self) -> list[Joining]:
        """Those; they do not wait any more."""
        after, self._after = self._after, None
        return after or []


class LocalChannel:
    """A channel with connections of this worker."""

    __slots__ = (
        "call",
        "counted",
        "dialect",
        "hidden",
        "key",
        "label",
        "log",
        "paging",
        "presence",
        "subscribers",
        "waiting",
    )

    def __init__(self, key: bytes, dialect: str = "") -> None:
        self.key = key
        self.label = ""
        self.dialect = dialect  # of its events, if it has no label
        # With the user id, for presence. Most channels have very few: a tuple takes a fifth of a table's memory.
        self.subscribers: tuple[Connection, ...] | dict[Connection, str | None] = ()
        self.hidden: dict[Connection, None] | None = None
        self.waiting: Waiting | None = None
        self.paging: dict[Connection, Part] | None = None  # those that have been given a page of the log, and wait
        self.call = 0  # the call whose reply opens it; OPEN
        self.counted = 0  # subscribers that the router knows of
        self.presence: Presence | None = None
        self.log: ChannelLog | None = None

    @property
    def empty(self) -> bool:
        """Whether no connection is in it or waits to be."""
        return not self.subscribers and self.hidden is None and self.waiting is None and self.paging is None

    def has(self, connection: Connection) -> bool:
        """Whether the connection is in it."""
        return connection in self.subscribers or (self.hidden is not None and connection in self.hidden)

    def waits(self, connection: Connection) -> Part | None:
        """What the connection waits for to be in it; None: it does not wait."""
        return None if self.waiting is None else self.waiting.parts.get(connection)

    def pages(self, connection: Connection) -> Part | None:
        """Where a connection stands that has been given a page, and has not asked for the next."""
        return None if self.paging is None else self.paging.get(connection)

    @property
    def answered(self) -> int:
        """Connections that have been answered that they are subscribed: the subscribers, and those that catch up."""
        number = len(self.subscribers)
        if self.paging is not None:
            number += len(self.paging)
        if self.waiting is not None:
            number += len(self.waiting.reading_on)
        return number

    @property
    def catching_up(self) -> list[Part]:
        """Where all those stand that have been given a page, and do not have the last."""
        parts = [] if self.paging is None else [*self.paging.values()]
        if self.waiting is not None:
            parts += self.waiting.reading_on.values()
        return parts

    def page(self, part: Part) -> None:
        """One more of those."""
        if self.paging is None:
            self.paging = {}
        self.paging[part.joining.connection] = part

    def unpage(self, connection: Connection) -> None:
        """One of those less."""
        assert self.paging is not None
        del self.paging[connection]
        if not self.paging:
            self.paging = None

    def add(self, connection: Connection, user: str | None) -> None:
        """One more subscriber."""
        subscribers = self.subscribers
        if isinstance(subscribers, tuple) and len(subscribers) < _FEW and self.presence is None:
            self.subscribers = (*subscribers, connection)
            return
        self._table()[connection] = user

    def remove(self, connection: Connection) -> str | None:
        """One that it has leaves. Returns: its user id there."""
        subscribers = self.subscribers
        if isinstance(subscribers, tuple):
            self.subscribers = tuple(other for other in subscribers if other is not connection)
            return None
        return subscribers.pop(connection)

    def shrink(self) -> None:
        """Give back what subscribers have left that came and went: a table keeps room for twice as many then."""
        table = self.subscribers
        if isinstance(table, dict) and sys.getsizeof(table) > _ENTRY_BYTES * len(table) + _TABLE_BYTES:
            self.subscribers = dict(table)  # made for as many as there are, as less than half of the room is used

    def _table(self) -> dict[Connection, str | None]:
        """The subscribers with their user ids."""
        if isinstance(self.subscribers, tuple):
            self.subscribers = dict.fromkeys(self.subscribers)
        return self.subscribers

    def hide(self, connection: Connection) -> None:
        """One more that events do not reach."""
        if self.hidden is None:
            self.hidden = {}
        self.hidden[connection] = None

    def unhide(self, connection: Connection) -> None:
        """One of those less."""
        assert self.hidden is not None
        del self.hidden[connection]
        if not self.hidden:
            self.hidden = None
