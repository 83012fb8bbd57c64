"""What comes for a worker's channels, and what its subscribers are sent of it: events, changes of members, what they
have missed, and answers to those that subscribe. How it is written is in `farm.worker.channel_writer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Final

from farm.dialects import Dialect, Subscribed
from farm.settings import WorkerOptions
from farm.worker.catch_up import counts_anew
from farm.worker.channel_writer import ChannelWriter
from farm.worker.connection import Connection
from farm.worker.effects import failed
from farm.worker.fanout import WRITE_BYTES, FanOuts
from farm.worker.local_channel import HeldEvent, Joining, LocalChannel, as_they_came
from farm.worker.log_reads import Recovered
from farm.worker.subscriptions import Change, Subscriptions
from router.common import logs
from router.common import messages as m
from router.common.close_codes import TRY_LATER
from router.common.metrics import WorkerCounters
from router.common.position import LogEvent

_MEMBER_BYTES: Final = 64
"""About how much one member adds to the list that a new subscriber gets."""

_UNSURE: Final = "what came meanwhile is not known: connect again"

Answer = Callable[[Connection, int, Sequence[Subscribed], Sequence[HeldEvent]], None]


class Events(ChannelWriter):
    """All channels of a worker. Beside what a ChannelWriter does to a connection:

    close(connection, code, reason)
    answer(connection, number, results, events)   the results of the Subscribe of this number, and events to send
                               after them
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        fan_outs: FanOuts[LocalChannel, Connection],
        options: WorkerOptions,
        counters: WorkerCounters,
        dialects: Mapping[str, Dialect],
        drop: Callable[[Connection], None],
        put: Callable[[Connection, bytes], bool],
        answered: Callable[[Connection, bytes], bool],
        buffer: Callable[[Connection, bytes], None],
        write: Callable[[int, bytes], int],
        close: Callable[[Connection, int, str], None],
        answer: Answer,
    ) -> None:
        super().__init__(subscriptions, fan_outs, options, counters, drop, put, answered, buffer, write)
        self._dialects = dialects
        self._close = close
        self._answer = answer

    # ------------------------------------------------------------------ from the router

    def event(self, channel: LocalChannel, event: HeldEvent, now: float) -> None:
        """An event of a channel, for all but one."""
        self._counters.events_heard += 1
        idle = channel.waiting is None and channel.log is None and channel.paging is None
        if idle or self._subscriptions.came(channel, event):
            frame = self._frame(channel, event.text, True, event.event)
            self._send(channel, frame, now, event.excluded, event.event is not None)
        if channel.waiting is not None or channel.paging is not None:
            self._close_overdue(channel)

    def logged(
        self, channel: LocalChannel, epoch: int, event: LogEvent, excluded: Connection | None, now: float
    ) -> None:
        """An event of a channel's log, for all but one."""
        self.event(channel, HeldEvent(self._text(channel, event), excluded, event, epoch), now)

    def _text(self, channel: LocalChannel, event: LogEvent) -> bytes:
        dialect, name = self._dialect_of(channel)
        return event.body.encode() if dialect is None else dialect.event_text(name, event)

    def _dialect_of(self, channel: LocalChannel) -> tuple[Dialect | None, str]:
        if not channel.label:
            return self._dialects.get(channel.dialect), ""
        name, _, of_channel = m.label_parts(channel.label)
        return self._dialects.get(name), of_channel

    def recovered(self, found: Recovered, now: float) -> None:
        """What the subscribers of a channel have missed while the link was away, and then what came since."""
        channel = found.channel
        if found.unsure and (dialect := self._dialect_of(channel)[0]) is not None and dialect.resumes:
            for connection in tuple(channel.subscribers):
                self._close(connection, TRY_LATER, _UNSURE)
                self._subscriptions.leave(connection, channel.key)
            if channel.empty:
                return
        if found.gap:
            text = self._missed_text(channel)
            self._subscriptions.hold(channel, HeldEvent(text or b"", None, gap=True))
            if text is not None:
                self._send(channel, self._frame(channel, text, False), now)
        missed = (
            HeldEvent(self._text(channel, event), None, event, found.epoch, missed=True) for event in found.missed
        )
        for event in chain(missed, found.held):
            self._subscriptions.hold(channel, event)
            frame = self._frame(channel, event.text, True, event.event)
            self._send(channel, frame, now, event.excluded, event.event is not None)
        if channel.waiting is not None or channel.paging is not None:
            self._close_overdue(channel)
        self._subscriptions.recovered(channel)

    def _close_overdue(self, channel: LocalChannel) -> None:
        """Close those subscribers-to-be of a channel for which too much is held."""
        subscriptions = self._subscriptions
        while (late := subscriptions.overdue(channel)) is not None:
            self._counters.catch_ups_given_up += 1
            logs.limited("worker.catch_up_given_up", hint="worker.max_held_bytes")
            self._close(late, TRY_LATER, "more came than may wait for a subscription")
            subscriptions.leave(late, channel.key)

    def changed(self, change: Change, now: float) -> None:
        """Send the subscribers of a presence channel which members have come and gone."""
        channel = change.channel
        catching_up = channel.catching_up
        if not (channel.subscribers or catching_up) or not channel.label:
            return
        dialect, name = self._dialect_of(channel)
        presence = None if dialect is None else dialect.presence
        if presence is None:
            return
        for text_of, users in ((presence.member_added, change.added), (presence.member_removed, change.removed)):
            for user, info in users:
                try:
                    text = text_of(name, user, info)
                    frame = self._frame(channel, text, False)
                except Exception as error:  # the other members are sent, and waiting subscribers get in
                    logs.limited("dialect.failed", at="error", per=type(error).__name__, exc=error)
                else:
                    self._subscriptions.hold_change(catching_up, HeldEvent(text, None))
                    self._send(channel, frame, now)
        if catching_up:
            self._close_overdue(channel)

    def admit(self) -> None:
        """Complete subscriptions that wait for nothing any more, as many as may be answered at once in this turn."""
        while self._left > 0 and self._subscriptions.ready:
            self._left -= self._answer_next()

    def _answer_next(self) -> int:
        """Complete the next one, and answer it. Returns: what that cost, in writes."""
        joining = self._subscriptions.next_ready()
        if joining is None:
            return 0
        connection, cost = joining.connection, _cost(joining)
        if joining.pages:
            self._write_page(joining)
        else:
            results, events = self._subscriptions.complete(joining)
            self._counters.events_sent += len(events)
            self._answer(connection, joining.number, results, events)
        if connection.out is None:
            self._subscriptions.go_on(connection)
        return cost

    def renewed(self, router: int) -> None:
        """The link to this router is new: have subscribers of several of its channels catch up in all of them
        together."""
        for connection, channels in self._subscriptions.in_several_logs(router).items():
            if due := self.due(connection):
                (self._answered if connection.transport.once else self._put)(connection, due)
            if connection.session is not None:
                self._subscriptions.catch_up(connection, channels)

    def _write_page(self, joining: Joining) -> None:
        """A page that is not the first is sent as live events are: the session is not called."""
        connection = joining.connection
        for part in joining.parts:
            if counts_anew(part) and (dialect := self._dialect_of(part.channel)[0]) is not None and dialect.resumes:
                self._close(connection, TRY_LATER, _UNSURE)
                return
        page = self._subscriptions.next_page(joining)
        if page is None:  # it has a position from which to go on
            self._close(connection, TRY_LATER, "the log cannot be read now")
            return
        transport = connection.transport
        try:
            frames = [transport.text(text) for text in map(self._missed_text, page.gaps) if text is not None]
            events = [HeldEvent(self._text(channel, event), None, event) for channel, event in page.events]
        except Exception as error:
            failure = failed(error)
            self._close(connection, failure.code, failure.reason)
            return
        frames += [transport.event(event.text, event.event) for event in as_they_came([events, page.behind])]
        self._counters.events_sent += len(frames)
        if frames and transport.once:
            self._answered(connection, transport.answer(frames, 0, ""))
        elif data := b"".join(frames):
            self._put(connection, data)

    def _missed_text(self, channel: LocalChannel) -> bytes | None:
        dialect, name = self._dialect_of(channel)
        return None if dialect is None else dialect.missed_text(name)

    # ------------------------------------------------------------------ turns

    @property
    def waiting(self) -> bool:
        """Whether anything waits for its turn."""
        return bool(self._fan_outs.going or self._subscriptions.ready)

    def turn(self, now: float) -> None:
        """Answer the next of those that wait for it, and write the next slice, if anything waits."""
        self._left = budget = self._slice
        if ready := self._subscriptions.ready:
            most = budget // 2 if self._fan_outs.going else budget
            while ready and most > 0:
                cost = self._answer_next()
                most -= cost
                budget -= cost
        if self._fan_outs.going:
            self._step(max(budget, 1), now)


def _cost(joining: Joining) -> int:
    """What an answer costs, in writes of a usual size."""
    size = 0
    for part in joining.parts:
        if (presence := part.channel.presence) is not None:
            size += len(presence.members) * _MEMBER_BYTES
        if part.log is not None:
            size += sum(len(event.body) for event in part.log.events)
    return 1 + size // WRITE_BYTES
