"""Which channels there are. Pure.

A channel that has subscribers is known to the router's core, with its name, and is not kept here just for that. Here is
what else makes one: that it was published to, or had subscribers a moment ago. It is forgotten when it has no
subscribers, holds no stored message and was not used for `channel_inactivity_time`.

When a channel is to be forgotten is found by seconds: each has one place there, for the earliest that this can be, and
is looked at then. So to use a channel costs nothing but a number, and nothing is gone through.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

from router.dialects.pushstream.protocol import PushStreamOptions, channel_address


class Known:
    """A channel."""

    __slots__ = ("_due", "ends", "key", "name", "occupied", "published", "stored")

    def __init__(self, name: str) -> None:
        self.name = name
        self.key = channel_address(name)
        self.ends = 0.0
        """Not forgotten before; unix seconds."""
        self.published = 0
        """The highest `~id~` of a message, as far as that is known."""
        self.stored = False
        """Whether the store may hold messages of it."""
        self.occupied = False
        """Whether it has subscribers."""
        self._due = 0  # the second at which it is looked at; 0: not at all


class Registry:
    """All of them. number_occupied: how many the core knows, those with subscribers."""

    def __init__(self, options: PushStreamOptions, number_occupied: Callable[[], int]) -> None:
        self._most = options.max_number_of_channels
        self._inactivity = options.channel_inactivity_time
        self._number_occupied = number_occupied
        self._channels: dict[str, Known] = {}
        self._occupied = 0
        self._seconds: dict[int, dict[Known, None]] = {}
        self._order: list[int] = []  # a heap of those
        self.get = self._channels.get
        self.elsewhere = 0
        """Channels that other routers know, as they said a moment ago."""

    def __len__(self) -> int:
        """Channels in all."""
        return len(self._channels) - self._occupied + self._number_occupied()

    def __iter__(self) -> Iterator[Known]:
        """Those that are known here."""
        return iter(self._channels.values())

    def room_for(self, new: int) -> bool:
        """Whether there may be so many channels more, over all routers."""
        return len(self) + self.elsewhere + new <= self._most

    def add(self, known: Known, now: float, occupied: bool) -> None:
        """Know a channel that was not known."""
        self._channels[known.name] = known
        known.ends = now + self._inactivity
        if occupied:
            self.occupy(known)
        else:
            self._place(known)

    def used(self, known: Known, now: float, stored_until: float = 0) -> None:
        """It is published to. stored_until: when the message is over, if it is stored."""
        known.ends = max(known.ends, now + self._inactivity, stored_until)

    def occupy(self, known: Known) -> None:
        """It has subscribers."""
        if not known.occupied:
            known.occupied = True
            self._occupied += 1

    def vacate(self, known: Known, now: float) -> None:
        """It has none any more."""
        if known.occupied:
            known.occupied = False
            self._occupied -= 1
            self.used(known, now)
            if not known._due:
                self._place(known)

    def forget(self, known: Known) -> None:
        """There is no such channel any more."""
        if self._channels.get(known.name) is known:
            del self._channels[known.name]
            self._occupied -= known.occupied
            if known._due:
                self._seconds[known._due].pop(known, None)
                known._due = 0

    def due(self, now: float, most: int) -> list[Known]:
        """Channels that have come to their end, no more than so many: those of which the store may hold something are
        to be looked at there. Each is given to `forget` or `again`."""
        found: list[Known] = []
        while self._order and self._order[0] <= now and len(found) < most:
            there = self._seconds[self._order[0]]
            while there and len(found) < most:
                known, _ = there.popitem()
                known._due = 0
                if known.occupied:
                    continue
                if known.ends > now:
                    self._place(known)
                else:
                    found.append(known)
            if not there:
                del self._seconds[heapq.heappop(self._order)]
        return found

    def again(self, known: Known) -> None:
        """Look at it later, when it has come to its end."""
        if not known.occupied and not known._due and self._channels.get(known.name) is known:
            self._place(known)

    def _place(self, known: Known) -> None:
        second = known._due = int(known.ends) + 1
        there = self._seconds.get(second)
        if there is None:
            there = self._seconds[second] = {}
            heapq.heappush(self._order, second)
        there[known] = None
