"""A load process of subscribers: devices that share channels, so that one event comes to thousands of them.

It shares the cores with the server that it measures, and there is an arrival every few microseconds. So nothing is
parsed that was parsed before: all subscribers of a channel get the same bytes. The events of a channel are a chain in
the order in which they were sent, each with the bytes of its frame; a subscriber is a place in that chain. If what it
reads is the frame of the next event, byte for byte, then that arrived, once, whole, in order and on the right channel,
and its place moves on by one. Whatever else it reads goes the long way: the first arrival of an event anywhere, several
frames in one read, and all that a server may do wrong.

An event is identified by its channel and version, the microsecond of CLOCK_MONOTONIC at which it was sent or due. An
arrival counts as of the moment at which epoll reported it. The messages of `bench.load.devices`, and:

    <- tally    what arrived since the last time, and begin anew -> tallied
"""

import gc
import os
import select
import socket
import time
from array import array
from typing import Any, Final

from bench.load.device_sockets import GONE, NOT_CONNECTED, READ_BYTES, READY, microseconds
from bench.load.devices import EVENTS, VirtualUsers
from bench.load.frames import PeerError
from bench.load.link import Link, LinkClosedError
from bench.load.samples import DATA_RIGHT
from bench.load.shared_counts import numbers_in
from bench.load.sockets import error_name

MOST_GAPS: Final = 1_000_000
"""Gaps in the events of single subscribers that are remembered; what comes late into a further one is a duplicate."""
_CHANNEL_BITS: Final = 32
_WATCH: Final = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLET


class Event:
    """An event of a channel and where it stands in it. `frame`: what subscribers read, None while that is not known;
    `count`: of those who have it; `first` and `last`: when the first and the last of them had; `position`: where a
    subscriber goes on that has it, empty if it can't."""

    __slots__ = ("channel", "count", "first", "frame", "last", "next", "position", "version")

    def __init__(self, channel: int, version: int, now: int) -> None:
        self.channel = channel
        self.version = version
        self.frame: bytes | None = None
        self.next: Event = _NOTHING
        self.position = b""
        self.count = 0
        self.first = self.last = now


_NOTHING: Final[Event] = Event.__new__(Event)
_NOTHING.frame, _NOTHING.next, _NOTHING.version, _NOTHING.position = None, _NOTHING, 0, b""
"""What comes after the last event: no bytes are equal to its frame."""


class Subscribers(VirtualUsers):
    """The subscribers of this process and their loop."""

    def __init__(self, link: Link, order: dict[str, Any]) -> None:
        super().__init__(link, order)
        self.counts = numbers_in(order["counts"])
        self.slot: int = order["slot"]
        self.shared: int = order["shared"]
        self.places: list[Event] = []  # the newest event of the subscriber, by its descriptor
        self.listening = array("I", bytes(4 * self.shared))
        self.now = self.arrived = 0
        self.heads: list[Event] = []
        self.left: dict[int, tuple[Event, bytes]] = {}
        """Subscribers that come back: the event that each had last, and the position behind it."""
        self._begin()

    def _begin(self) -> None:
        """Forget what came, and which subscribers are gone."""
        self.since = microseconds()
        before, self.heads = self.heads, [Event(channel, 0, 0) for channel in range(self.shared)]
        for old, new in zip(before, self.heads, strict=False):
            new.position = old.position
        self.known: dict[int, Event] = {}
        self.gaps: dict[int, list[tuple[int, int]]] = {}
        self.late: set[tuple[int, Event]] = set()
        self.room_for_gaps = MOST_GAPS
        self.gone_channels, self.gone_versions = array("I"), array("q")
        self.duplicates = self.reordered = self.wrong = self.stale = 0
        for number, descriptor in enumerate(self.descriptors):
            if descriptor != NOT_CONNECTED and self.stages[descriptor] == READY:
                self.places[descriptor] = self.heads[self._channel_of(number)]
        for number, (_, position) in self.left.items():
            self.left[number] = self.heads[self._channel_of(number)], position

    def _channel_of(self, number: int) -> int:
        return self.protocol.scenario.channel_of(self.first + number)

    # ---- the loop

    def run(self) -> None:
        control = self.link.sock.fileno()
        self.epoll.register(control, select.EPOLLIN)
        self.link.send("up")
        poll, read, clock, places = self.epoll.poll, os.read, time.monotonic_ns, self.places
        readable = select.EPOLLIN
        while not self.stopped:
            if self.going:
                self._open_due()
            if self.left:
                self._open_returns()
            ready = poll(self._patience(), EVENTS)
            self.now = now = clock() // 1000
            others = 0
            for descriptor, events in ready:
                if events != readable or descriptor == control:
                    others += 1
                    self._other(descriptor, events, control)
                    continue
                try:
                    data = read(descriptor, READ_BYTES)
                except OSError as error:
                    others += 1
                    self._unreadable(descriptor, error)
                    continue
                event = places[descriptor].next
                if event.frame == data:
                    event.count += 1
                    event.last = now
                    places[descriptor] = event
                else:
                    others += 1
                    self._read(descriptor, data)
            self.arrived += len(ready) - others
            self.counts[self.slot] = self.arrived
            self.send_replies()
            self._look_around()
        self.leave()

    def _other(self, descriptor: int, events: int, control: int) -> None:
        if descriptor == control:
            self._commands()
        elif self.stages[descriptor] != GONE:
            self._event(descriptor, events)
            if self.stages[descriptor] == READY:  # there may be more to read, and EPOLLET does not report it again
                self.epoll.modify(descriptor, _WATCH)

    def _unreadable(self, descriptor: int, error: OSError) -> None:
        # what was closed in this turn may still be in its list
        if self.stages[descriptor] != GONE and not isinstance(error, BlockingIOError):
            self._drop(descriptor, error_name(error))

    def _read(self, descriptor: int, data: bytes) -> None:
        """Bytes that are not just the next event."""
        while self.stages[descriptor] != GONE:
            if not data:
                self._drop(descriptor, self.transport.broken_off)
                return
            try:
                self._received(descriptor, data)
                if len(data) < READ_BYTES or self.stages[descriptor] == GONE:
                    return
                data = os.read(descriptor, READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                self._drop(descriptor, error_name(error))
            except PeerError as error:
                self._drop(descriptor, str(error))

    def _command(self, kind: str) -> None:
        if kind == "tally":
            self._tally()

    # ---- subscribers that come and go

    def _open(self, number: int, due: float) -> None:
        super()._open(number, due)
        if (more := len(self.stages) - len(self.places)) > 0:
            self.places.extend([_NOTHING] * more)

    def _request(self, number: int) -> bytes:
        if number in self.left:
            return self.protocol.resume(self.first + number, self.left[number][1])
        return super()._request(number)

    def _set_up(self, descriptor: int, number: int) -> None:
        super()._set_up(descriptor, number)
        channel = self._channel_of(number)
        self.listening[channel] += 1
        self.places[descriptor], _ = self.left.pop(number, (self.heads[channel], b""))
        self.epoll.modify(descriptor, _WATCH)

    def _drop(self, descriptor: int, why: str) -> None:
        if self.stages[descriptor] == READY:
            number, place = self.numbers[descriptor], self.places[descriptor]
            channel = self._channel_of(number)
            if place.position and self.reconnects.backoff is not None:
                self.left[number] = place, place.position
            self.listening[channel] -= 1
            self.gone_channels.append(channel)
            self.gone_versions.append(place.version)
            self.places[descriptor] = _NOTHING
        super()._drop(descriptor, why)

    # ---- the long way

    def _received(self, descriptor: int, data: bytes) -> None:
        if self.stages[descriptor] != READY:
            super()._received(descriptor, data)
            return
        if descriptor in self._unfinished:
            rest, parts = self._unfinished[descriptor]
            if parts:
                super()._received(descriptor, data)
                return
            del self._unfinished[descriptor]
            data = rest + data
        at, size, message_end = 0, len(data), self.transport.end
        while at < size:
            event = self.places[descriptor].next
            if event.frame is not None and data.startswith(event.frame, at):
                at += len(event.frame)
                self._arrive(descriptor, event)
                continue
            end = message_end(data, at)
            if not end:
                break
            frame = data[at:end]
            at = end
            self._message(descriptor, self.transport.payload(frame), frame)
            if self.stages[descriptor] == GONE:
                return
        if at < size:
            super()._received(descriptor, data[at:])

    def _message(self, descriptor: int, payload: bytes, frame: bytes = b"") -> None:
        if self.stages[descriptor] != READY:
            super()._message(descriptor, payload)
            return
        received = self.protocol.received(self.first + self.numbers[descriptor], payload)
        if received is None:
            return
        updates, reply, strays, pong, position = received
        if reply:
            self.replies.append((descriptor, reply))
        self.seen.strays += strays
        if pong:
            self.pings.pong(self.numbers[descriptor])
        alone = len(updates) == 1 and not reply and not strays
        for channel, version, data in updates:
            self._take(descriptor, channel, version, data, frame if alone else b"")
        if (
            updates
            and position
            and (event := self.known.get(updates[-1][1] << _CHANNEL_BITS | updates[-1][0])) is not None
        ):
            event.position = position

    def _take(self, descriptor: int, channel: int, version: int, data: int, frame: bytes) -> None:
        """An event came to a subscriber."""
        if version < self.since:
            self.stale += 1
            return
        key = version << _CHANNEL_BITS | channel
        event = self.known.get(key)
        if event is None:
            event = self.known[key] = Event(channel, version, self.now)
            head = self.heads[channel]
            if version > head.version:
                self.heads[channel] = head.next = event
        if data != DATA_RIGHT:
            self.wrong += 1
        elif frame and event.frame is None:
            event.frame = frame
        number, place = self.numbers[descriptor], self.places[descriptor]
        if version > place.version:
            if place.next is not event and self.room_for_gaps:
                self.room_for_gaps -= 1
                self.gaps.setdefault(number, []).append((place.version, version))
            self._arrive(descriptor, event)
        elif (number, event) not in self.late and self._in_gap(number, version):
            self.late.add((number, event))
            self.reordered += 1
            self._count(event)
        else:
            self.duplicates += 1

    def _in_gap(self, number: int, version: int) -> bool:
        return any(low < version < high for low, high in self.gaps.get(number, ()))

    def _arrive(self, descriptor: int, event: Event) -> None:
        self.places[descriptor] = event
        self._count(event)

    def _count(self, event: Event) -> None:
        event.count += 1
        event.last = self.now
        self.arrived += 1

    # ---- the report

    def _tally(self) -> None:
        events = self.known.values()
        self.link.send(
            "tallied",
            array("I", [event.channel for event in events]).tobytes(),
            array("q", [event.version for event in events]).tobytes(),
            array("I", [event.count for event in events]).tobytes(),
            array("q", [event.first for event in events]).tobytes(),
            array("q", [event.last for event in events]).tobytes(),
            self.listening.tobytes(),
            self.gone_channels.tobytes(),
            self.gone_versions.tobytes(),
            duplicates=self.duplicates,
            reordered=self.reordered,
            wrong_data=self.wrong,
            stale=self.stale,
        )
        self._begin()


def main(descriptor: int) -> None:
    gc.disable()  # a collection would show as latency of the server; a run is too short for its few cycles
    link = Link(socket.socket(fileno=descriptor))
    try:
        Subscribers(link, link.wait().fields).run()
    except LinkClosedError:
        return
