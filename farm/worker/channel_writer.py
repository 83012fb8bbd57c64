"""Writes frames to the subscribers of channels: at once, or a slice a turn.

What is for few is written at once. What is for many goes out a slice a turn (`farm.worker.fanout`), and what waits for
the same subscriber meanwhile is one write with it. So other devices have their turns in between.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sized
from operator import attrgetter
from typing import Final

from farm.settings import WorkerOptions
from farm.transports.frames import encode_text
from farm.transports.websocket import WEBSOCKET
from farm.worker.connection import Connection
from farm.worker.encoded import Data, Encoded, Frame, Joined, by_transport, join
from farm.worker.fanout import WRITE_BYTES, FanOut, FanOuts
from farm.worker.fanout import Frame as Waiting
from farm.worker.local_channel import HeldEvent, LocalChannel
from farm.worker.subscriptions import Subscriptions
from router.common import logs
from router.common.metrics import WorkerCounters
from router.common.position import LogEvent

_number: Final = attrgetter("number")


class ChannelWriter:
    """Writes to the subscribers of channels. What it does to a connection it does by these:

    drop(connection)           close it at once
    put(connection, data)      write it, or buffer what the kernel does not take
    answered(connection, data) this is the whole answer of a transport that answers once
    buffer(connection, data)   the kernel has not taken this
    write(fd, data)            the wire's, of its descriptor
    """

    def __init__(
        self,
        subscriptions: Subscriptions,
        fan_outs: FanOuts[LocalChannel, Connection],
        options: WorkerOptions,
        counters: WorkerCounters,
        drop: Callable[[Connection], None],
        put: Callable[[Connection, bytes], bool],
        answered: Callable[[Connection, bytes], bool],
        buffer: Callable[[Connection, bytes], None],
        write: Callable[[int, bytes], int],
    ) -> None:
        self._subscriptions = subscriptions
        self._fan_outs = fan_outs
        self._counters = counters
        self._drop = drop
        self._put = put
        self._answered = answered
        self._various = subscriptions.various
        self._several = subscriptions.several
        self._buffer = buffer
        self._write_fd = write
        self._slice = options.fanout_slice
        self._most_memory = options.max_fanout_bytes
        self._most_a_channel = options.write_buffer_bytes // 2
        """So that a subscriber that reads never has more waiting than its buffer takes."""
        self._left = options.fanout_slice  # writes that may be made at once in this turn

    def _frame(self, channel: LocalChannel, text: bytes, event: bool, logged: LogEvent | None = None) -> Frame:
        """A message for a channel; event: whether it is an event, and not a change of members."""
        if channel in self._various:
            return Encoded(text, event, logged)
        return WEBSOCKET.event(text, logged) if event else encode_text(text)

    def _send(
        self,
        channel: LocalChannel,
        frame: Frame,
        now: float,
        excluded: Connection | None = None,
        ordered: bool = False,
    ) -> None:
        """ordered: subscribers of several channels get it in the order in which events came to all of these."""
        fan_outs = self._fan_outs
        fan_out = fan_outs.going.get(channel)
        if fan_out is None:
            subscribers: Collection[Connection] = channel.subscribers
            cost = len(subscribers) * (1 + len(frame) // WRITE_BYTES)
            if cost <= self._left:
                self._left -= cost
                if excluded is not None and excluded in subscribers:
                    subscribers = [connection for connection in subscribers if connection is not excluded]
                if fan_outs.going:
                    newest = fan_outs.newest(frame, now, ordered)
                    subscribers = self._write_in_order(channel, subscribers, [newest])
                self._write(subscribers, frame, 1)
                return
        if fan_outs.memory > self._most_memory or (fan_out is not None and not self._fits(fan_out, frame)):
            self._hurry(channel, frame, now)
            fan_out = fan_outs.get(channel)
        if fan_out is None:
            fan_out = fan_outs.begin(channel, channel.subscribers)
        if excluded is not None:
            due, frames = fan_out.due(excluded)
            self._counters.events_sent += frames
            if frames:
                self._give(excluded, due)
        fan_outs.append(channel, frame, now, ordered)
        if excluded is not None:
            fan_out.leave_out(excluded)

    def _fits(self, fan_out: FanOut[Connection], frame: Sized) -> bool:
        return not fan_out.size or fan_out.size + len(frame) <= self._most_a_channel

    def _hurry(self, channel: LocalChannel, frame: Sized, now: float) -> None:
        """More waits than is allowed: write it at once."""
        self._counters.fanouts_hurried += 1
        logs.limited("worker.fanout_behind", hint="events come faster than they can be written to their subscribers")
        fan_outs = self._fan_outs
        while fan_outs.going and fan_outs.memory > self._most_memory:
            self._step(self._slice, now)
        while (fan_out := fan_outs.get(channel)) is not None and not self._fits(fan_out, frame):
            self._step(self._slice, now)

    def _step(self, budget: int, now: float) -> None:
        fan_outs = self._fan_outs
        while budget > 0 and fan_outs.going:
            channel, fan_out = fan_outs.next()
            try:
                budget -= self._serve(channel, fan_out, budget)
            finally:
                fan_outs.took_turn(now)

    def _serve(self, channel: LocalChannel, fan_out: FanOut[Connection], budget: int) -> int:
        """Returns: what was spent of the budget."""
        spent = 0
        while spent < budget:
            batch, cost = fan_out.take(budget - spent)
            spent += cost
            if batch is None:
                break
            subscribers: Collection[Connection] = batch.subscribers
            if len(self._fan_outs.going) > 1:
                subscribers = self._write_in_order(channel, subscribers, fan_out.frames(batch))
            self._write(subscribers, batch.data, batch.frames)
        return spent

    def _write(self, subscribers: Collection[Connection], data: Data, frames: int) -> None:
        """Write the same to many connections."""
        if isinstance(data, bytes):
            self._write_bytes(subscribers, data, frames)
            return
        for transport, connections in by_transport(subscribers).items():
            found = data.by(transport)
            if transport.once:
                for connection in connections:
                    if not (self._several and self._read_first(connection, data)):
                        self._answered(connection, found)
                self._counters.events_sent += len(connections) * frames
            else:
                self._write_bytes(connections, found, frames)

    def _write_in_order(
        self, channel: LocalChannel, subscribers: Collection[Connection], frames: list[Waiting]
    ) -> Collection[Connection]:
        """Write these to those of the subscribers for which other events wait, and all of these too, in the order in
        which they came. A client that has one position for all of its channels comes back with the last that it had: it
        would miss what was before that, and had not reached it yet.

        Returns: the other subscribers.
        """
        ordered = frames[-1].ordered
        if not ordered and channel not in self._various:
            return subscribers
        others = []
        for connection in list(subscribers):
            keys = connection.session.channels if connection.session is not None else ()
            if (
                len(keys) > 1
                and (ordered or connection.transport.once)
                and (more := self._frames_due(connection, keys))
            ):
                self._counters.events_sent += len(frames)
                self._give(connection, in_order([*frames, *more]))
            else:
                others.append(connection)
        return others

    def _frames_due(self, connection: Connection, keys: Iterable[bytes]) -> list[Waiting]:
        """What waits for a connection in these channels. It counts as given."""
        found: list[Waiting] = []
        for key in keys:
            channel = self._subscriptions.get(key)
            if channel is not None and (fan_out := self._fan_outs.get(channel)) is not None:
                found += fan_out.frames_due(connection)
        self._counters.events_sent += len(found)
        return found

    def _give(self, connection: Connection, data: Data) -> None:
        """Write this to one connection."""
        if isinstance(data, bytes):
            self._put(connection, data)
        elif connection.transport.once:
            if not (self._several and self._read_first(connection, data)):
                self._answered(connection, data.by(connection.transport))
        else:
            self._put(connection, data.by(connection.transport))

    def _read_first(self, connection: Connection, data: Encoded | Joined) -> bool:
        """Whether it has its answer, or waits for it, as events of other routers that are older may be under way."""
        events = data.logged
        if not events or (found := self._subscriptions.apart(connection)) is None:
            return False
        channels, position = found
        held = [HeldEvent(text, None, event) for text, event in events if not event.offset]
        if len(held) < len(events):
            upto = max((event.time, event.tag) for _, event in events)
            self._subscriptions.read_up_to(connection, channels, position, upto, held)
            return True
        # They are in no log: the client comes again with the position that it had.
        transport, (time, tag, _) = connection.transport, position
        parts = [transport.event(text, event._replace(time=time, tag=tag)) for text, event in events]
        self._answered(connection, transport.answer(parts, 0, ""))
        return True

    def _write_bytes(self, subscribers: Collection[Connection], data: bytes, frames: int) -> None:
        """Write the same bytes to many connections, which is all that this loop does.

        No connection is closed while it runs, so `subscribers` may be a channel's own table. Those that cannot take all
        of it now are handled after the others.
        """
        write, size = self._write_fd, len(data)
        late: list[tuple[Connection, int]] = []
        for connection in subscribers:
            sent = 0
            if connection.out is None:
                try:
                    sent = write(connection.fd, data)
                except BlockingIOError:
                    pass
                except OSError:
                    sent = -1
                if sent == size:
                    continue
                if sent >= 0:
                    connection.out = bytearray()
            late.append((connection, sent))
        self._counters.events_sent += len(subscribers) * frames
        for connection, sent in late:
            if sent < 0:
                self._drop(connection)
            elif connection.out is not None:  # else it had to make room for those before it
                self._buffer(connection, data[sent:])

    def due(self, connection: Connection, keys: Iterable[bytes] | None = None) -> bytes:
        """What was sent to channels of this connection and waits for its turn there: it goes out before anything else
        that is written now. keys: the channels, if not all that it is subscribed to."""
        if self._several and self._subscriptions.apart(connection) is not None:
            return b""  # its client has them with the next request
        if keys is None:
            keys = connection.session.channels if connection.session is not None else ()
        frames = self._frames_due(connection, keys)
        if not frames:
            return b""
        data = in_order(frames)
        return data if isinstance(data, bytes) else data.by(connection.transport)

    def count(self, now: float) -> None:
        """To be called once a second: update the metrics."""
        self._counters.fanout_waiting = self._fan_outs.memory
        self._counters.fanout_lag_seconds = round(self._fan_outs.lag(now), 4)


def in_order(frames: list[Waiting]) -> Data:
    """What waits, as one."""
    return join([frame.data for frame in sorted(frames, key=_number)])
