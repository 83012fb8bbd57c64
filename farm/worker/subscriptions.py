"""The channels of a worker: which of its connections subscribe to which channel, and the members there. Pure.

A channel exists as long as a connection is subscribed to it or waits to be. The router is sent the first and the last
of them, and the first and the last connection of each user. It is not asked what is known here: a connection that
subscribes to a channel that is open is in it at once, and so is another connection of a user that is a member.

A connection subscribes to several channels in one step: it is in all of them, or refused, once the last reply is
here and its turn has come (`ready`). What comes to one of them until then is held for it. One that wants more of a log
than a page is in them with the last page (`farm.worker.catch_up`).

As a link is ordered, and all of a channel goes over one, a channel that is left while its reply is on the way needs no
care: what was sent first is received first, and the reply finds its call gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from heapq import merge
from typing import Any, NamedTuple

from farm.dialects import Subscribe, Subscribed, Subscription
from farm.worker.announcing import announced
from farm.worker.catch_up import (
    Page,
    caught_up,
    exact_end,
    gap,
    read_from,
    take_behind,
    turn,
    unsettled,
    wait_for_pages,
)
from farm.worker.connection import Connection
from farm.worker.fanout import FanOuts
from farm.worker.local_channel import (
    OPEN,
    End,
    HeldEvent,
    Joining,
    LocalChannel,
    Part,
    Waiting,
    as_they_came,
)
from farm.worker.log_reads import LogReads, Recovered
from farm.worker.presence import Presence
from farm.worker.routes import Routes
from farm.worker.subscribers import OpenCall, Subscribers
from router.common import logs
from router.common import messages as m
from router.common.position import AfterTime, Live, LogEvent, Position, rewound
from router.common.wire import reply_payload


class Change(NamedTuple):
    """A change of a presence channel's members, for all of its subscribers."""

    channel: LocalChannel
    added: list[tuple[str, str]]
    """User id and info. None of these users is among the subscribers."""
    removed: list[tuple[str, str]]
    """The same."""


class Subscriptions(Subscribers):
    """All subscriptions of a worker. `send` takes messages for the router, `number` gives numbers for calls to it.
    `fan_outs`, what is being sent to channels, gets at once which subscribers come and go.

    most_held: bytes of events that are held for connections that wait. page_bytes: of events that are read of a log at
    once. overlap: seconds by which a time for channels of several routers may be too late for some of them."""

    def __init__(
        self,
        send: Callable[[Any], None],
        number: Callable[[], int],
        fan_outs: FanOuts[LocalChannel, Connection],
        most_held: int,
        page_bytes: int,
        routes: Routes,
        overlap: float = 0,
    ) -> None:
        super().__init__(send, fan_outs, most_held, routes)
        self._number = number
        self._page_bytes = page_bytes
        self._overlap = overlap
        self.several = routes.routers > 1
        self._reads = LogReads(self._send_read, number, routes.owner)
        self._together: list[Connection] = []  # of `catch_ups`, those that have just begun because the link is new

    # ------------------------------------------------------------------ in and out

    def subscribe(self, connection: Connection, effect: Subscribe) -> list[Subscribed] | None:
        """Subscribe a connection to channels.

        Returns: what became of that; None: it waits, by the number that is in `connection.call`, until it is `ready`.
        """
        if len(effect.channels) == 1 and self._at_once(connection, effect.channels[0]):
            return [Subscribed(effect.channels[0])]
        joining = Joining(connection)
        apart = self.several and self._routes.apart(wanted.key for wanted in effect.channels if _reads(wanted))
        joining.exact = apart and connection.transport.once
        overlap = self._overlap if apart and not joining.exact else 0
        for wanted in effect.channels:
            self._begin(joining, wanted, overlap)
        if joining.open:
            joining.number = connection.call = self._number()
            return None
        return self.complete(joining)[0]

    def _at_once(self, connection: Connection, wanted: Subscription) -> bool:
        """The usual, without any of what waiting takes: a channel that is open and has no members."""
        channel = self._channels.get(wanted.key)
        if (
            channel is None
            or channel.call != OPEN
            or wanted.user is not None
            or type(wanted.position) is not Live
            or channel.has(connection)
            or channel.waits(connection) is not None
            or channel.pages(connection) is not None
        ):
            return False
        self._add(channel, connection, wanted)
        return True

    def _begin(self, joining: Joining, wanted: Subscription, overlap: float) -> None:
        connection = joining.connection
        channel = self._channels.get(wanted.key)
        if channel is None:
            channel = self._channels[wanted.key] = LocalChannel(wanted.key, wanted.dialect)
        elif channel.has(connection):
            self._show(channel, connection, wanted)
            joining.parts.append(Part(joining, channel, wanted))
            return
        elif (there := channel.waits(connection) or channel.pages(connection)) is not None:
            if not there.joining.pages:
                raise ValueError("a Subscribe names each channel once")
            there.wanted = there.wanted._replace(hidden=wanted.hidden)  # it is in it when it has caught up
            joining.parts.append(Part(joining, channel, wanted))
            return
        part = Part(joining, channel, wanted)
        if overlap:
            part.position = rewound(wanted.position, overlap, self._routes.owner(wanted.key))
        joining.parts.append(part)
        if channel.waiting is None:
            channel.waiting = Waiting()
        channel.waiting.add(part)
        if (call := self._call_for(channel, wanted)) is not None:
            call.parts.append(part)
            part.open += 1
            joining.open += 1
        if _reads(wanted):
            self._read(part)

    def _read(self, part: Part) -> None:
        part.open += 1
        part.joining.open += 1
        self._reads.read(part)

    def _call_for(self, channel: LocalChannel, wanted: Subscription) -> OpenCall | None:
        """The call that this one has to wait for, perhaps with others."""
        user = wanted.user
        if user is None:
            if channel.call == OPEN:
                return None
            if not channel.call:
                channel.call = self._call(channel, None)
                self._send_subscribe(channel, channel.call, "" if wanted.hidden else wanted.label)
            return self._calls[channel.call]
        presence = channel.presence
        if presence is None:
            presence = channel.presence = Presence()
        connections = presence.own.get(user, 0)
        presence.own[user] = connections + 1
        entering = presence.entering
        call = 0 if entering is None else entering.get(user, 0)
        if connections and not call:
            return None
        if not call:
            call = self._call(channel, user)
            if presence.entering is None:
                presence.entering = {}
            presence.entering[user] = call
            if not channel.call and not channel.counted:
                self._send_subscribe(channel, None, wanted.label)
            self._send(m.Call(call, m.PresenceJoin(channel.key, user, wanted.info, wanted.most)))
        return self._calls[call]

    def _call(self, channel: LocalChannel, user: str | None) -> int:
        number = self._number()
        self._calls[number] = OpenCall(channel, user, [])
        return number

    def _send_read(self, number: int, key: bytes, position: Position) -> None:
        self._send(m.Call(number, m.ReadLog(key, position, self._page_bytes)))

    def complete(self, joining: Joining) -> tuple[list[Subscribed], list[HeldEvent]]:
        """Complete the subscription of a connection that waits for nothing any more.

        Returns: what became of its Subscribe, and the events that came meanwhile. Where there is more of a log than a
        page, it is not in its channels yet; the rest is read when the connection has taken this page (`go_on`).
        """
        results: list[Subscribed] = []
        events: list[list[HeldEvent]] = []
        connection = joining.connection
        if connection.call != joining.number:  # it has gone
            for part in joining.parts[:]:
                self.leave(connection, part.channel.key)
            return results, []
        end = exact_end(joining, [part for part in _waiting(joining) if part.log is not None])
        for part in joining.parts:
            channel, wanted = part.channel, part.wanted
            if channel.waits(connection) is part:
                if end is not None and (part.log is not None or _from_now_on(wanted)):
                    self._turn_page(part, end)
                else:
                    events.append(self._complete_part(part))
            presence = channel.presence if part.status == m.OK and not wanted.hidden else None
            results.append(Subscribed(wanted, part.status, None if presence is None else presence.members, part.log))
        self._turned(joining)
        return results, as_they_came(events)

    def _complete_part(self, part: Part) -> list[HeldEvent]:
        """It is in its channel from now on. Returns: what is to be sent behind the log."""
        channel, connection = part.channel, part.joining.connection
        assert channel.waiting is not None
        held = channel.waiting.events(part)
        self.held_bytes -= sum(event.size for event in part.behind)
        part.log, behind = caught_up(part, held)
        self._wait_no_more(channel, connection)
        self._add(channel, connection, part.wanted)
        return behind

    # ------------------------------------------------------------------ more of a log than a page

    def _turn_page(self, part: Part, end: tuple[int, int]) -> None:
        """It is given a page of its log, and another later; or waits for those of others."""
        channel, connection = part.channel, part.joining.connection
        assert channel.waiting is not None
        held = channel.waiting.events(part)
        self.held_bytes -= sum(event.size for event in part.behind)
        if part.log is None:
            wait_for_pages(part, held)
        else:
            turn(part, held, end)
        self.held_bytes += sum(event.size for event in part.behind)
        self._wait_no_more(channel, connection)
        channel.page(part)
        self._check_count(channel)

    def _turned(self, joining: Joining) -> None:
        connection = joining.connection
        joining.parts = [part for part in joining.parts if part.channel.pages(connection) is part]
        joining.pages += 1
        if joining.parts:
            self.catch_ups.put(joining)

    def go_on(self, connection: Connection) -> None:
        """The connection has taken all that was sent to it: if it catches up, read its next page."""
        joining = self.catch_ups.take(connection)
        if joining is None:
            return
        for part in joining.parts:
            channel = part.channel
            if type(part.position) is Live:
                continue
            channel.unpage(connection)
            if channel.waiting is None:
                channel.waiting = Waiting()
            channel.waiting.add(part)
            part.log = None
            self._read(part)
        if not joining.open:
            self.ready.append(joining)

    def next_ready(self) -> Joining | None:
        while (joining := super().next_ready()) is not None:
            if not (joining.exact and self._read_again(joining)):
                return joining
        return None

    def _read_again(self, joining: Joining) -> bool:
        """Read the logs of a connection once more before it is sent anything of them, if that has to be."""
        if not joining.pages and joining.connection.call != joining.number:  # it has gone
            return False
        if any(part.status != m.OK for part in joining.parts):
            return False
        parts = [part for part in _waiting(joining) if _reads(part.wanted)]
        if not unsettled(joining, parts):
            return False
        for part in parts:
            read_from(part)
            self._read(part)
        return True

    def next_page(self, joining: Joining) -> Page | None:
        """What a connection that catches up is sent now, before it is in its channels or reads on. None: a log could
        not be read."""
        connection = joining.connection
        parts = _waiting(joining)
        if any(part.log is None for part in parts):
            return None
        end = exact_end(joining, parts)
        gaps, logs, behind = [], [], list[list[HeldEvent]]()
        for part in parts:
            before = part.position
            if end is not None:
                self._turn_page(part, end)
                if joining.exact:
                    behind.append(self._take_behind(part, end))
            else:
                behind.append(self._complete_part(part))
            log = part.log
            assert log is not None
            if gap(before, log):
                gaps.append(part.channel)
            logs.append([(part.channel, event) for event in log.events])
        for part in joining.parts if end is None else ():
            if part.channel.pages(connection) is part:
                self.held_bytes -= sum(event.size for event in part.behind)
                behind.append(part.behind)
                part.channel.unpage(connection)
                self._add(part.channel, connection, part.wanted)
        self._turned(joining)
        return Page(gaps, list(merge(*logs, key=_when)), as_they_came(behind))

    def _take_behind(self, part: Part, end: End) -> list[HeldEvent]:
        taken = take_behind(part, end)
        self.held_bytes -= sum(event.size for event in taken)
        return taken

    # ------------------------------------------------------------------ from the router

    def replied(self, number: int, status: int, payload: Any) -> Change | Recovered | bool:
        """A reply has come. Returns: False if it is for no call of ours that is open; else what changes by it, if
        anything does: it is sent to the subscribers from before, and then those that are `ready` have their turn."""
        call = self._calls.pop(number, None)
        if call is None:
            return self._was_read(number, status, payload)
        channel, user, parts = call
        change: Change | None = None
        if status == m.OK:
            channel.call = OPEN
        elif channel.call == number:
            channel.call = 0
        if user is not None:
            change = self._joined(channel, user, status, payload)
        for part in parts:
            if (waiting := channel.waiting) is None or waiting.parts.get(part.joining.connection) is not part:
                continue
            if status == m.OK:
                waiting.add(part)
                self._settled(part, 1)
            else:
                part.status = status
                self._wait_no_more(channel, part.joining.connection)
                self._settled(part, part.open)
        if status != m.OK:
            self._close_if_empty(channel)
        return True if change is None else change

    def _was_read(self, number: int, status: int, payload: Any) -> Recovered | bool:
        if number not in self._reads:
            return False
        found = None
        if status == m.OK:
            try:
                found = reply_payload(m.ReadLog, payload)
            except m.MessageError as error:  # of a router of an older version
                logs.limited("link.not_understood", at="error", per="log", peer="router", error=str(error))
        parts, recovered = self._reads.replied(number, found)
        for part in parts:
            self._settled(part, 1)
        if recovered is None:
            return True
        self.held_bytes -= recovered.freed
        return recovered

    def _joined(self, channel: LocalChannel, user: str, status: int, payload: Any) -> Change | None:
        presence = channel.presence
        assert presence is not None
        presence.entered(user)
        if status == m.OK:
            return _change(channel, presence.merge(reply_payload(m.PresenceJoin, payload).items(), ()))
        return _change(channel, ([], presence.refuse(user)))

    def changed(self, message: m.Members) -> Change | None:
        """Returns: what is another now by this."""
        added, removed = message.added, message.removed
        channel = self._channels.get(message.channel)
        if channel is None or channel.presence is None:
            return None
        if message.whole:
            there = {user for user, _ in added}
            removed = [user for user in channel.presence.members if user not in there]
        return _change(channel, channel.presence.merge(added, removed))

    def _of(self, router: int) -> Collection[LocalChannel]:
        """The channels of a router."""
        share = self._routes.share(router)
        channels = self._channels
        return channels.values() if share is None else [channels[key] for key in channels if share(key)]

    def held(self, router: int) -> Iterator[list[m.HeldChannel]]:
        """Everything that is held of this router, as ANNOUNCE_CHANNELS has it, as it does not know it. Then it is asked
        for what came while the link was away."""
        channels = self._of(router)
        yield from announced(channels)
        for channel in channels:
            if channel.waiting is not None and channel.waiting.reading_on:
                self._keep_passed_by(channel)
        self._reads.renewed(channels, router)
        together, self._together = self._together, []
        for connection in together:
            if connection.out is None:
                self.go_on(connection)

    def in_several_logs(self, router: int) -> dict[Connection, list[LocalChannel]]:
        """The subscribers of more than one channel of this router whose log is followed."""
        found: dict[Connection, list[LocalChannel]] = {}
        for channel in self._of(router):
            if channel.log is not None and channel.log.position is not None:
                for connection in channel.subscribers:
                    if connection.session is not None and len(connection.session.channels) > 1:
                        found.setdefault(connection, []).append(channel)
        return {connection: channels for connection, channels in found.items() if len(channels) > 1}

    def catch_up(self, connection: Connection, channels: list[LocalChannel]) -> None:
        """The link is new: what a subscriber has missed of these channels it is sent page by page, in the order in
        which it came to them. Nothing is due to it any more, and `held` is called next."""
        position = None
        if apart := self.apart(connection):
            channels, position = apart
        self._catch_up(connection, channels, position)
        self._together.append(connection)

    def apart(self, connection: Connection) -> tuple[list[LocalChannel], AfterTime] | None:
        """Of a connection that is answered once, and whose client comes again with one position for channels of several
        routers: those channels, and where it stands in all of them."""
        if not (self.several and connection.transport.once) or (session := connection.session) is None:
            return None
        if len(session.channels) < 2 or (position := session.position) is None:
            return None
        found = [channel for key in session.channels if (channel := self._channels.get(key)) is not None]
        found = [channel for channel in found if channel.log is not None and connection in channel.subscribers]
        return (found, position) if self._routes.apart(channel.key for channel in found) else None

    def read_up_to(
        self, connection: Connection, channels: list[LocalChannel], position: Position, upto: End, held: list[HeldEvent]
    ) -> None:
        """An event has come for such a connection, with this place: it is answered with all of these logs from this
        position up to there. held: what has come and is in no log."""
        joining = self._catch_up(connection, channels, position)
        joining.upto = upto
        joining.parts[0].behind += held
        self.held_bytes += sum(event.size for event in held)
        if connection.out is None:
            self.go_on(connection)

    def _catch_up(self, connection: Connection, channels: list[LocalChannel], position: Position | None) -> Joining:
        """position: in each of the logs; None: where their subscribers stand."""
        joining = Joining(connection)
        joining.pages = 1
        joining.exact = position is not None
        for channel in channels:
            assert channel.log is not None
            since = position or channel.log.position
            assert since is not None
            self._fan_outs.leave(channel, connection)
            wanted = Subscription(channel.key, channel.label, channel.remove(connection), position=since)
            part = Part(joining, channel, wanted)
            joining.parts.append(part)
            channel.page(part)
        self.catch_ups.put(joining)
        return joining


def _reads(wanted: Subscription) -> bool:
    """Whether it wants something of a log."""
    return type(wanted.position) is not Live and not wanted.hidden


def _waiting(joining: Joining) -> list[Part]:
    """The parts that are not in their channels yet, and have given nothing up."""
    return [part for part in joining.parts if part.channel.waits(joining.connection) is part]


def _from_now_on(wanted: Subscription) -> bool:
    """Whether it is for what comes from now on, and not for its address alone."""
    return type(wanted.position) is Live and not wanted.hidden


def _when(one: tuple[LocalChannel, LogEvent]) -> tuple[int, int]:
    return one[1].time, one[1].tag


def _change(channel: LocalChannel, changed: tuple[list[tuple[str, str]], list[tuple[str, str]]]) -> Change | None:
    added, removed = changed
    return Change(channel, added, removed) if added or removed else None
