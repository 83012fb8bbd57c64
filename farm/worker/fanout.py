"""Events on their way to the subscribers of a channel, a slice of them at a time. Pure.

The rules:

1. Each subscriber gets what was sent while it was subscribed, once and in order: the same as if everything were written
   at once.
2. What waits for a subscriber is one write. So the further a worker falls behind, the fewer writes an event costs.
3. A subscriber is visited once a sweep, in a fixed order; a new one is visited last.
4. Nothing is kept of a subscriber that has gone.

How: frames are numbered, and each subscriber has a level, the number of the next frame that is due to it. Sending to a
channel appends one frame, however many subscribers there are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, Generic, NamedTuple, TypeVar

Subscriber = TypeVar("Subscriber")
Channel = TypeVar("Channel")
Join = Callable[[list[Any]], Any]

WRITE_BYTES: Final = 16_384
"""To write so many bytes more costs about as much as one write more."""
_SUBSCRIBER_BYTES: Final = 120
"""Of a subscriber in a fan-out: its place in a list, and its level in a table."""
_FRAME_BYTES: Final = 150
"""Of a frame that waits, beside its bytes."""
_LOOK: Final = 8
"""To look at so many subscribers to which nothing is due costs as much as a write."""
_NOBODY: Final = 1 << 62


class Frame(NamedTuple):
    """A frame for all subscribers."""

    data: Any
    at: float
    number: int = 0
    """Its place in the order in which frames came, of all channels."""
    ordered: bool = False
    """Whether that is the order in which a subscriber of several channels has to get it."""


class Batch(NamedTuple, Generic[Subscriber]):
    """Subscribers to whom the same is due."""

    subscribers: list[Subscriber]
    data: Any
    """What is due to each of them: one frame, or several joined."""
    frames: int
    """How many frames that is."""
    first: int
    """Where the first of them is, for `FanOut.frames`."""


class FanOut(Generic[Subscriber]):
    """What is on its way to the subscribers of one channel.

    most: bytes that are joined into one write; a longer frame is a write by itself. join: makes one of several frames,
    which are bytes or have a length and are understood by it.
    """

    __slots__ = (
        "_at",
        "_end",
        "_first",
        "_floor",
        "_frames",
        "_join",
        "_joined",
        "_levels",
        "_most",
        "_ring",
        "counted",
        "size",
    )

    def __init__(self, subscribers: Iterable[Subscriber], most: int, join: Join = b"".join) -> None:
        self._join = join
        self._ring = list(subscribers)
        self._levels = dict.fromkeys(self._ring, 0)
        self._at = 0  # place in the ring of the next subscriber
        self._floor = _NOBODY  # no level given in this sweep is lower
        self._frames: list[Frame] = []
        self._first = self._end = 0  # numbers: of the first of them, and of the next one
        self._joined: dict[int, tuple[Any, int]] = {}  # level -> what is due from there, and up to where
        self._most = most
        self.size = 0
        """Bytes of the frames that wait."""
        self.counted = 0
        """What FanOuts has counted of it."""

    @property
    def memory(self) -> int:
        """About what it takes, in bytes."""
        return self.size + _SUBSCRIBER_BYTES * len(self._ring) + _FRAME_BYTES * len(self._frames)

    @property
    def since(self) -> float:
        """When the oldest frame was sent that may not have reached all."""
        return self._frames[0].at if self._frames else float("inf")

    @property
    def finished(self) -> bool:
        """Whether nothing is due to any subscriber."""
        return self._at >= len(self._ring) and self._floor >= self._end

    # ------------------------------------------------------------------ subscribers

    def join(self, subscriber: Subscriber) -> None:
        """One more subscriber: it gets what is sent from here on."""
        self._levels[subscriber] = self._end
        self._ring.append(subscriber)
        self._floor = min(self._floor, self._end)

    def leave(self, subscriber: Subscriber) -> None:
        """The subscriber has gone: nothing is due to it any more."""
        self._levels.pop(subscriber, None)

    # ------------------------------------------------------------------ frames

    def append(self, data: Any, at: float, number: int = 0, ordered: bool = False) -> None:
        """One more frame, for all subscribers."""
        self._frames.append(Frame(data, at, number, ordered))
        self._end += 1
        self._joined.clear()
        self.size += len(data)

    def leave_out(self, subscriber: Subscriber) -> None:
        """The last frame is not for this subscriber, which has been given what was due to it before."""
        if self._levels.get(subscriber, -1) == self._end - 1:
            self._levels[subscriber] = self._end

    # ------------------------------------------------------------------ turns

    def due(self, subscriber: Subscriber) -> tuple[Any, int]:
        """All that is due to this subscriber, out of turn, and how many frames that is. It counts as given."""
        frames = self.frames_due(subscriber)
        return (self._join([frame.data for frame in frames]), len(frames)) if frames else (b"", 0)

    def frames_due(self, subscriber: Subscriber) -> list[Frame]:
        """The same as single frames."""
        level = self._levels.get(subscriber, self._end)
        if level == self._end:
            return []
        self._levels[subscriber] = self._end
        return self._frames[level - self._first :]

    def frames(self, batch: Batch[Subscriber]) -> list[Frame]:
        """Those of a batch, before this sweep is over."""
        return self._frames[batch.first - self._first :][: batch.frames]

    def take(self, most: int) -> tuple[Batch[Subscriber] | None, int]:
        """The next subscribers to whom the same is due. They count as having got it.

        most: writes that may be spent. Returns: them, and what that costs, as a number of writes. No batch: this
        sweep, or what may be looked at in one call, is at its end.
        """
        ring, levels, end = self._ring, self._levels, self._end
        at = first = self._at
        stop = min(len(ring), at + most * _LOOK)
        taken: list[Subscriber] = []
        data: Any = b""
        due, upto, weight = _NOBODY, end, 1
        while at < stop:
            subscriber = ring[at]
            level = levels.get(subscriber)
            if level == due:
                taken.append(subscriber)
                levels[subscriber] = upto
                at += 1
                if len(taken) * weight >= most:
                    break
            elif level is None or level == end:
                at += 1
            elif taken:
                break  # something else is due to it
            else:
                due = level
                data, upto = self._join_up(level)
                weight += len(data) // WRITE_BYTES
        self._went_on(at, upto)
        cost = max(len(taken) * weight, (at - first) // _LOOK)
        return (Batch(taken, data, upto - due, due) if taken else None), cost

    def _went_on(self, at: int, upto: int) -> None:
        self._at = at
        self._floor = min(self._floor, upto)

    def _join_up(self, level: int) -> tuple[Any, int]:
        """What is due from a level on, as one write, and the level after it."""
        found = self._joined.get(level)
        if found is None:
            frames = self._frames[level - self._first :]
            size, many = 0, 0
            for frame in frames:
                size += len(frame.data)
                if many and size > self._most:
                    break
                many += 1
            found = self._joined[level] = (self._join([frame.data for frame in frames[:many]]), level + many)
        return found

    def sweep_again(self) -> float:
        """If the sweep is at its end, forget what all subscribers have got and begin the next one.

        Returns: when the oldest frame was sent that all have got now; infinity if there is none."""
        if self._at < len(self._ring):
            return float("inf")
        given = min(self._floor, self._end) - self._first
        oldest = self._frames[0].at if given else float("inf")
        self.size -= sum(len(frame.data) for frame in self._frames[:given])
        del self._frames[:given]
        self._first += given
        self._joined.clear()
        if not self.finished:
            if len(self._ring) > 2 * len(self._levels):  # without those that have gone
                self._ring = list(self._levels)
            self._at = 0
            self._floor = _NOBODY
        return oldest


class FanOuts(Generic[Channel, Subscriber]):
    """All fan-outs of a worker. They take turns.

    most: bytes that are joined into one write. join: makes one of several frames."""

    def __init__(self, most: int, join: Join = b"".join) -> None:
        self._most = most
        self._join = join
        self.going: dict[Channel, FanOut[Subscriber]] = {}
        self._order: deque[Channel] = deque()  # of turns
        self.get = self.going.get
        self.memory = 0
        """About what all take, in bytes."""
        self._slowest = 0.0  # s from a frame to its last subscriber, since `lag` was asked
        self._number = 0

    def begin(self, channel: Channel, subscribers: Iterable[Subscriber]) -> FanOut[Subscriber]:
        """Begin a fan-out to these, to whom nothing is due so far. The channel must have none under way."""
        fan_out = self.going[channel] = FanOut(subscribers, self._most, self._join)
        self._order.append(channel)
        self._count(fan_out)
        return fan_out

    def newest(self, data: Any, at: float, ordered: bool) -> Frame:
        """A frame that comes now, for a channel to which nothing waits to be written."""
        self._number += 1
        return Frame(data, at, self._number, ordered)

    def append(self, channel: Channel, data: Any, at: float, ordered: bool = False) -> None:
        """One more frame in a fan-out that is under way."""
        fan_out = self.going[channel]
        self._number += 1
        fan_out.append(data, at, self._number, ordered)
        self._count(fan_out)

    def join(self, channel: Channel, subscriber: Subscriber) -> None:
        """The channel has one more subscriber."""
        fan_out = self.going.get(channel)
        if fan_out is not None:
            fan_out.join(subscriber)
            self._count(fan_out)

    def leave(self, channel: Channel, subscriber: Subscriber) -> None:
        """The channel has one less."""
        fan_out = self.going.get(channel)
        if fan_out is not None:
            fan_out.leave(subscriber)

    def next(self) -> tuple[Channel, FanOut[Subscriber]]:
        """The fan-out whose turn it is. There must be one; call `took_turn` afterwards."""
        channel = self._order[0]
        return channel, self.going[channel]

    def took_turn(self, now: float) -> None:
        """The next one becomes the last one, or is finished."""
        channel = self._order.popleft()
        fan_out = self.going[channel]
        self._slowest = max(self._slowest, now - fan_out.sweep_again())
        if fan_out.finished:
            del self.going[channel]
            self.memory -= fan_out.counted
        else:
            self._order.append(channel)
            self._count(fan_out)

    def _count(self, fan_out: FanOut[Subscriber]) -> None:
        memory = fan_out.memory
        self.memory += memory - fan_out.counted
        fan_out.counted = memory

    def lag(self, now: float) -> float:
        """Seconds from a frame to its last subscriber: the most since the last call, with frames on their way."""
        slowest, self._slowest = self._slowest, 0.0
        return max(slowest, now - min((fan_out.since for fan_out in self.going.values()), default=now))
