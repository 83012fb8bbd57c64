"""Connections that wait to be subscribed, and the events that are held for them meanwhile. Pure."""

from __future__ import annotations

from collections import deque

from farm.worker.catch_up import passed_by
from farm.worker.connection import Connection
from farm.worker.local_channel import ChannelLog, HeldEvent, Joining, LocalChannel, Part


class Holding:
    """What a worker holds, of all of its channels. most_held: bytes of events."""

    def __init__(self, most_held: int) -> None:
        self._most_held = most_held
        self.held_bytes = 0
        self.ready: deque[Joining] = deque()
        """Connections that wait for no reply any more."""

    # ------------------------------------------------------------------ events

    def came(self, channel: LocalChannel, event: HeldEvent) -> bool:
        """An event came to a channel. Returns: whether it is to be sent to the subscribers now."""
        log = channel.log
        if log is not None:
            if log.recovering:
                if self.held_bytes > self._most_held:
                    self._release(log)
                    log.again = True
                log.hold(event)
                self.held_bytes += event.size
                return False
            if event.offset:
                log.reached(event.epoch, event.offset, event.event)
        self.hold(channel, event)
        return True

    def hold(self, channel: LocalChannel, event: HeldEvent) -> None:
        """Keep an event that is sent to the subscribers for those that wait to be."""
        if channel.waiting is not None:
            channel.waiting.hold(event)
            self.held_bytes += event.size
        for part in channel.paging.values() if channel.paging is not None else ():
            if passed_by(part, event):
                part.behind.append(event)
                self.held_bytes += event.size

    def hold_change(self, parts: list[Part], event: HeldEvent) -> None:
        """Keep a change of members for these, which catch up. All others that wait are given the members when they are
        subscribed."""
        for part in parts:
            part.behind.append(event)
        self.held_bytes += len(parts) * event.size

    def _keep_passed_by(self, channel: LocalChannel) -> None:
        """Pages of its log that are being read will be read again: keep what came in the meantime and is in none."""
        waiting = channel.waiting
        assert waiting is not None
        for part in waiting.reading_on.values():
            if part.log is None:
                kept = [event for event in waiting.events(part) if passed_by(part, event)]
                part.behind += kept
                self.held_bytes += sum(event.size for event in kept)

    def _release(self, log: ChannelLog) -> None:
        self.held_bytes -= sum(event.size for event in log.take_held())

    def overdue(self, channel: LocalChannel) -> Connection | None:
        """If more is held than is allowed: the connection that has waited longest for this channel, to be closed."""
        if self.held_bytes <= self._most_held:
            return None
        for connection, part in channel.paging.items() if channel.paging is not None else ():
            if part.behind:
                return connection
        return None if channel.waiting is None else next(iter(channel.waiting.parts))

    # ------------------------------------------------------------------ connections

    def _wait_no_more(self, channel: LocalChannel, connection: Connection) -> None:
        waiting = channel.waiting
        assert waiting is not None
        self.held_bytes -= waiting.remove(connection)
        if not waiting.parts:
            channel.waiting = None

    def _settled(self, part: Part, replies: int) -> None:
        """So many of the replies that a part waited for are here, or are not waited for any more."""
        if not replies:
            return
        part.open -= replies
        part.joining.open -= replies
        if not part.joining.open:
            self.ready.append(part.joining)

    def recovered(self, channel: LocalChannel) -> None:
        """What the subscribers have missed has been sent to them."""
        log = channel.log
        if log is not None and not log.recovering:
            self.ready.extend(log.take_waiting())

    def next_ready(self) -> Joining | None:
        """The next connection that is to be given to `complete`."""
        while self.ready:
            joining = self.ready.popleft()
            for part in joining.parts:
                if (log := part.channel.log) is not None and log.recovering:
                    log.wait(joining)
                    break
            else:
                return joining
        return None
