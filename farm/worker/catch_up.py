"""Connections that want more of a log than fits into a page. Pure.

A Subscribe with positions is answered with a page of each of its logs. What is behind them is read page by page, the
next one when the connection has taken all that was sent to it: so a slow reader is given as much as it reads, and
between two pages nothing of a log is held for it. With the last page it is subscribed.

The rules by which nothing is missing and nothing comes twice:

1. All logs of one Subscribe go on together. Their pages end at the same time and tag, that of the log which has come
   least far: so a client that knows only the time and tag that it had last has all before that, in each channel.
2. An event that comes between two pages is in a later page if its offset is above where the connection stands. If it is
   below, which is so only where a dialect gives the offsets itself, or if it is in no log, it is held (`Part.behind`),
   and is sent behind the last page.
   Nor is a channel that is wanted from now on joined before the last page: all that comes to it is held.
3. While a page is read, all events are held. Those that came before the reply are in the log that was read; of those
   behind it the ones above the page are in the next page, or added to this one if it is the last.
4. A client of a transport that answers once has one time and tag for all its channels. Where they are of several
   routers it is sent nothing that is younger than what was known when the read of its logs began (`unsettled`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import NamedTuple

from farm.worker.connection import Connection
from farm.worker.local_channel import End, HeldEvent, Joining, LocalChannel, Part
from router.common.position import ANY_EPOCH, OWN_OFFSETS, AfterOffset, Last, Live, LogEvent, LogSlice, Position


class Page(NamedTuple):
    """What a connection that catches up is sent next."""

    gaps: list[LocalChannel]
    """Those in which something is missing before this page."""
    events: list[tuple[LocalChannel, LogEvent]]
    behind: list[HeldEvent]
    """What came meanwhile, and is to be sent behind that."""


class CatchUps:
    """The connections that have been given a page, and wait until they have taken it."""

    def __init__(self) -> None:
        self._waiting: dict[Connection, list[Joining]] = {}  # in order of turns

    def __contains__(self, connection: Connection) -> bool:
        return connection in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, joining: Joining) -> None:
        """It has been given a page, and there is more."""
        self._waiting.setdefault(joining.connection, []).append(joining)

    def take(self, connection: Connection) -> Joining | None:
        """The Subscribe of this connection whose next page is to be read now, if any."""
        joinings = self._waiting.get(connection)
        if joinings is None:
            return None
        joining = joinings[0]
        self.remove(joining)
        return joining

    def remove(self, joining: Joining) -> None:
        """It does not wait."""
        joinings = self._waiting.get(joining.connection, [])
        if joining in joinings:
            joinings.remove(joining)
            if not joinings:
                del self._waiting[joining.connection]


def common_end(parts: Iterable[Part]) -> End | None:
    """Where the pages of these end; None: no log has more."""
    ends = [
        max((event.time, event.tag) for event in part.log.events)
        for part in parts
        if part.log is not None and part.log.more and part.log.events
    ]
    return min(ends) if ends else None


def exact_end(joining: Joining, parts: Sequence[Part]) -> End | None:
    """Where a page of these ends; None: it has all that there is."""
    end, upto = common_end(parts), joining.upto
    if upto is None or (end is None and max(_known(parts), default=upto) <= upto):
        return end
    return upto if end is None else min(end, upto)


def unsettled(joining: Joining, parts: Sequence[Part]) -> bool:
    """Whether these logs have to be read again, as nothing that was read may be sent yet: `joining.upto` says then up
    to where it may be, once they have been.

    Of two events of different routers the younger one may be here first. The older one has its place in a log before
    the younger one is known here, as the routers of a host have one clock: so a read that begins then finds it."""
    if any(part.log is None for part in parts):
        return False
    known = sorted(_known(parts))
    if not known or (joining.upto is not None and known[0] <= joining.upto):
        return False
    joining.upto = common_end(parts) or known[-1]
    return True


def _known(parts: Iterable[Part]) -> Iterator[End]:
    """The places of all that there is for these, in their logs and behind them."""
    for part in parts:
        assert part.log is not None and part.channel.waiting is not None
        events = [*part.log.events, *(held.event for held in part.behind if held.event is not None)]
        for number, held in enumerate(part.channel.waiting.events(part), part.since):
            if held.event is not None and (number >= part.read_at or not held.offset):
                events.append(held.event)
        for event in events:
            yield event.time, event.tag


def read_from(part: Part) -> None:
    """Its log is to be read again, from the same place: the newest events are others by then."""
    log = part.log
    if log is not None and type(part.position) is Last:
        part.position = AfterOffset(log.epoch, log.events[0].offset - 1 if log.events else log.offset)
    part.log = None


def take_behind(part: Part, end: End) -> list[HeldEvent]:
    """What came while it caught up, is in no log, and not younger than this. The part does not hold it any more."""
    taken, left = list[HeldEvent](), list[HeldEvent]()
    for held in part.behind:
        event = held.event
        (taken if event is not None and (event.time, event.tag) <= end else left).append(held)
    part.behind = left
    return taken


def turn(part: Part, held: list[HeldEvent], end: End) -> None:
    """This part is given its page, `part.log`, up to `end`, and another one later. held: what came since it waits."""
    log = part.log
    assert log is not None
    events = list(takewhile(lambda event: (event.time, event.tag) <= end, log.events))
    if len(events) == len(log.events):
        after = log.end
    else:
        after = AfterOffset(log.epoch, (events[-1].offset if events else log.events[0].offset - 1))
    part.behind += _in_no_page(part, held, {event.offset for event in events}, after)
    part.log = LogSlice(log.epoch, after.offset, log.recovered, events, True)
    part.position = after


def _in_no_page(part: Part, held: list[HeldEvent], page: set[int], after: AfterOffset) -> Iterator[HeldEvent]:
    """Of what came while a page was read, what is in no page, where the next one begins after this."""
    for number, event in enumerate(held, part.since):
        if number < part.read_at:
            left = passed_by(part, event)
        else:
            left = event.excluded is not part.joining.connection and below(event, after)
            left = left and event.offset not in page
        if left:
            yield event


def below(event: HeldEvent, position: Position) -> bool:
    """Whether no page that begins here has this event."""
    if event.gap or event.missed:
        return False
    if not event.offset:
        return True
    return isinstance(position, AfterOffset) and event.epoch == position.epoch and event.offset <= position.offset


def passed_by(part: Part, event: HeldEvent) -> bool:
    """Whether an event that comes between two pages is to be sent behind the last one."""
    if event.excluded is part.joining.connection:
        return False
    if type(part.position) is Live:
        return not event.gap
    return below(event, part.position) if part.joining.pages else not event.offset and not event.gap


def caught_up(part: Part, held: list[HeldEvent]) -> tuple[LogSlice | None, list[HeldEvent]]:
    """A connection is subscribed to a channel now. held: what came since it waits.

    Returns: the last page of the log up to now, if there is one, and what is to be sent behind that.
    """
    log, connection = part.log, part.joining.connection
    if log is None:
        return None, [event for event in held if event.excluded is not connection and (event.text or not event.gap)]
    known = {event.offset for event in log.events}
    newer: dict[int, LogEvent] = {}
    behind = part.behind
    recovered = log.recovered
    for number, event in enumerate(held, part.since):
        if event.excluded is connection:
            continue
        if event.gap:
            recovered = recovered and number < part.read_at
        elif number < part.read_at:
            if passed_by(part, event):
                behind.append(event)
        elif not event.offset or event.epoch != log.epoch:
            behind.append(event)
        elif event.offset in known or (event.missed and event.offset <= log.offset):
            continue
        elif part.joining.pages and below(event, part.position):
            behind.append(event)
        elif event.event is not None:
            newer[event.offset] = event.event
    if newer:
        events = sorted([*log.events, *newer.values()])
        if type(part.position) is Last:
            events = events[max(len(events) - part.position.number, 0) :]
        log = log._replace(offset=max(log.offset, *newer), events=events)
    if recovered is not log.recovered:
        log = log._replace(recovered=recovered)
    return log, behind


def wait_for_pages(part: Part, held: list[HeldEvent]) -> None:
    """This part wants no log, and waits for the last page of the others. held: what came since it waits."""
    part.behind += [event for event in held if passed_by(part, event)]


def counts_anew(part: Part) -> bool:
    """Whether its page is of a log with another epoch than the page before: what is in it may have been sent."""
    before, log = part.position, part.log
    if not isinstance(before, AfterOffset) or before.epoch in (ANY_EPOCH, OWN_OFFSETS) or log is None:
        return False
    return before.epoch != log.epoch and bool(log.events)


def gap(before: Position, log: LogSlice) -> bool:
    """Whether something is missing in a page that begins here, or before it. A log in which something has gone behind
    the position says so with each page; it is reported with the page where it is."""
    if log.recovered:
        return False
    if not isinstance(before, AfterOffset) or before.epoch != log.epoch or not log.events:
        return True
    return log.events[-1].offset - before.offset != len(log.events)
