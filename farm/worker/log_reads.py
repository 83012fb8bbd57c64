"""Logs of channels: read for connections that subscribe from a position, and for subscribers after the link was away.

Nothing is missing and nothing comes twice, because of the order in which things happen:

1. A channel is known to the router before its log is read, and events are held from before that.
2. The router sends an event of a log to the workers when the log has it, and the reply to a read behind all events that
   the read could see. So of what came before the reply, what is logged is in the reply, or is not after the position;
   what comes behind it is not in it, and a double, should there be one, has the offset of another.
   A read gives a page; how a connection goes on with the next ones stands in `farm.worker.catch_up`.
3. While the link is away, events may be missed. So every read that is open is made again once the channels are
   announced, and before those the log of each channel is read from where its subscribers stand. Until that is here, no
   event goes to them, and no connection that had to wait for a reply joins them. One that wants only what comes joins
   at once, and is sent what they have missed, too: what came since it joined is among that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from farm.worker.catch_up import below
from farm.worker.local_channel import NEVER, ChannelLog, End, HeldEvent, LocalChannel, Part
from router.common.position import ANY_EPOCH, Last, LogEvent, LogSlice, Position

_RECOVERIES: Final = 1000
"""So many channels are read at once after the link was new."""


class Recovered(NamedTuple):
    """What the subscribers of a channel have missed."""

    channel: LocalChannel
    epoch: int
    missed: list[LogEvent]
    gap: bool
    """Whether more is missing than these."""
    held: list[HeldEvent]
    """What came meanwhile and is not among them: it is to be sent behind them."""
    freed: int
    """Bytes of what was held."""
    unsure: bool
    """Whether the log could not be read, or events may be sent twice: it counts anew, and the subscribers have had none
    to compare these with, or there is more than a page of them."""


class _Read:
    """A read that is open."""

    __slots__ = ("channel", "parts", "position", "upto")

    def __init__(self, channel: LocalChannel, position: Position, upto: End | None = None) -> None:
        self.channel = channel
        self.position = position
        self.upto = upto  # of the Joinings that it is for: it began when that was known
        self.parts: list[Part] | None = None  # None: it is for the subscribers

    @property
    def wanted(self) -> bool:
        """Whether anything waits for it."""
        if self.parts is None:
            return not self.channel.empty
        return any(self.channel.waits(part.joining.connection) is part for part in self.parts)


class LogReads:
    """All reads of a worker. `send(number, key, position)` asks a router, `number` gives numbers for that, `owner` the
    router of a channel."""

    def __init__(
        self,
        send: Callable[[int, bytes, Position], None],
        number: Callable[[], int],
        owner: Callable[[bytes], int],
    ) -> None:
        self._send = send
        self._number = number
        self._owner = owner
        self._reads: dict[int, _Read] = {}
        self._shared: dict[tuple[LocalChannel, Position, End | None], _Read] = {}
        # For each router, so that one does not wait for another: channels whose turn has not come, and open reads.
        self._unrecovered: dict[int, dict[LocalChannel, None]] = {}
        self._recoveries: dict[int, int] = {}

    def read(self, part: Part) -> None:
        """Read what this one wants; one read serves all that want the same."""
        channel, position, upto = part.channel, part.position, part.joining.upto
        read = self._shared.get((channel, position, upto))
        if read is None:
            self._recover_first(channel)
            read = self._shared[channel, position, upto] = _Read(channel, position, upto)
            read.parts = []
            self._ask(read)
        assert read.parts is not None
        read.parts.append(part)

    def _ask(self, read: _Read) -> None:
        number = self._number()
        self._reads[number] = read
        self._send(number, read.channel.key, read.position)

    def __contains__(self, number: int) -> bool:
        return number in self._reads

    def replied(self, number: int, found: LogSlice | None) -> tuple[list[Part], Recovered | None]:
        """The reply to a read that is open; None: the log could not be read. Returns: for whom it is, and what it
        recovers."""
        read = self._reads.pop(number)
        if read.parts is None:
            router = self._owner(read.channel.key)
            self._recoveries[router] -= 1
            recovered = None if read.channel.empty else self._recovered(read, found)
            self._recover(router)
            return [], recovered
        del self._shared[read.channel, read.position, read.upto]
        parts = [part for part in read.parts if read.channel.waits(part.joining.connection) is part]
        waiting = read.channel.waiting
        for part in parts:
            assert waiting is not None
            part.log = found
            part.read_at = waiting.end
        if parts:
            log = _log(read.channel)  # from now on it is followed, whatever was found
            if found is not None and not log.recovering:
                log.reached(found.epoch, found.offset, _youngest(found))
        return parts, None

    # ------------------------------------------------------------------ after the link was new

    def renewed(self, channels: Iterable[LocalChannel], router: int) -> None:
        """The link to this router is new, and these channels, all that there are of it, have been announced."""
        reads, self._reads = self._reads, {}
        again: list[_Read] = []
        for number, read in reads.items():
            if self._owner(read.channel.key) != router:
                self._reads[number] = read
            elif read.parts is not None:
                del self._shared[read.channel, read.position, read.upto]
                again.append(read)
        unrecovered = self._unrecovered[router] = {}
        self._recoveries[router] = 0
        for channel in channels:
            if channel.log is not None:
                channel.log.recovering = True
                unrecovered[channel] = None
            if channel.waiting is not None:
                channel.waiting.restart()
        for read in again:
            if read.wanted:
                self._recover_first(read.channel)
                self._shared[read.channel, read.position, read.upto] = read
                self._ask(read)
        self._recover(router)

    def _recover_first(self, channel: LocalChannel) -> None:
        """The log of this channel is about to be read: the reply must come behind that for its subscribers."""
        unrecovered = self._unrecovered.get(self._owner(channel.key))
        if unrecovered and channel in unrecovered:
            del unrecovered[channel]
            self._ask_missed(channel)

    def _recover(self, router: int) -> None:
        unrecovered = self._unrecovered[router]
        while unrecovered and self._recoveries[router] < _RECOVERIES:
            channel = next(iter(unrecovered))
            del unrecovered[channel]
            if not channel.empty:
                self._ask_missed(channel)

    def _ask_missed(self, channel: LocalChannel) -> None:
        assert channel.log is not None
        self._recoveries[self._owner(channel.key)] += 1
        self._ask(_Read(channel, channel.log.position or Last(0)))

    def _recovered(self, read: _Read, found: LogSlice | None) -> Recovered | None:
        channel = read.channel
        log = channel.log
        assert log is not None
        held = log.take_held()
        freed = sum(event.size for event in held)
        epoch, missed, gap, unsure = ANY_EPOCH, list[LogEvent](), True, True
        if found is not None:
            before = log.position
            anew = before is not None and before.epoch not in (ANY_EPOCH, found.epoch)
            unsure = anew and bool(found.events) and (found.more or log.youngest == NEVER)
            epoch, missed, gap = found.epoch, found.events, not found.recovered or log.position is None
            if anew:  # the whole log, for the offsets of before say nothing; the times of its events do
                missed = [event for event in missed if (event.time, event.tag) > log.youngest]
            log.reached(found.epoch, found.end.offset, _youngest(found))
            held = [event for event in held if below(event, read.position)]
        # More came than may be held: what is logged of it can be read. Or there is more than fits into a page.
        if found is not None and (log.again or (found.more and found.events)):
            log.again = False
            self._ask_missed(channel)
        else:
            log.recovering = log.again = False
            for event in held:
                if event.offset:
                    log.reached(event.epoch, event.offset, event.event)
        return Recovered(channel, epoch, missed, gap, held, freed, unsure)


def _youngest(found: LogSlice) -> LogEvent | None:
    """Not always the last one: where the dialect gives the offsets itself they may come in any order."""
    return max(found.events, key=lambda event: (event.time, event.tag), default=None)


def _log(channel: LocalChannel) -> ChannelLog:
    if channel.log is None:
        channel.log = ChannelLog()
    return channel.log
