"""How many subscribe to a channel, told of each channel not too often: the newest count, not each. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.dialects.pusher.protocol import PusherOptions

Name = tuple[str, str]
"""Application and channel."""

_DELAY_S: Final = 0.1
_INTERVAL_S: Final = 1.0


class SubscriptionCounts:
    """Calls `tell` with a channel's newest count a moment after the first, then at most once in an interval, which is
    longer where there are many subscribers.

    At most `subscription_count_queue` channels are known at a time. For another the one known for longest has to go: a
    count of it that waits is told at once, so none is lost, and its next one may be told too soon.
    """

    def __init__(self, options: PusherOptions, tell: Callable[[Name, int], None]) -> None:
        self._most = options.subscription_count_queue
        self._many = options.subscription_count_many
        self._tell = tell
        self._waiting: dict[Name, int] = {}  # counts that are to be told; each of a channel that is known
        self._new = _Quiet(_DELAY_S)
        self._small = _Quiet(_INTERVAL_S)
        self._large = _Quiet(options.subscription_count_interval)
        self._known = (self._large, self._small, self._new)  # in the order in which they have to go

    def __len__(self) -> int:
        """Channels that are known."""
        return sum(map(len, self._known))

    def counted(self, name: Name, subscribers: int, now: float) -> None:
        """So many subscribe to the channel now."""
        if not any(name in quiet for quiet in self._known):
            if len(self) >= self._most:
                self._forget_oldest()
            self._new.begin(name, now)  # not at once: who has just subscribed hears of that first
        self._waiting[name] = subscribers

    def vacated(self, name: Name) -> None:
        """Nobody subscribes any more, and nobody is to be told."""
        self._waiting.pop(name, None)

    def tick(self, now: float) -> None:
        """Tell what has waited for long enough. To be called a few times a second."""
        for quiet in self._known:
            while (name := quiet.over(now)) is not None:
                if (subscribers := self._waiting.pop(name, None)) is not None:
                    (self._large if subscribers > self._many else self._small).begin(name, now)
                    self._tell(name, subscribers)

    def _forget_oldest(self) -> None:
        name = next(quiet for quiet in self._known if quiet).first()
        if (subscribers := self._waiting.pop(name, None)) is not None:
            self._tell(name, subscribers)


class _Quiet(dict[Name, float]):
    """Channels of which nothing is told, with until when: all for equally long, so that the first is the next."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def begin(self, name: Name, now: float) -> None:
        self[name] = now + self._seconds

    def over(self, now: float) -> Name | None:
        """Take out one whose time is over, if there is any."""
        name = next(iter(self), None)
        if name is None or self[name] > now:
            return None
        del self[name]
        return name

    def first(self) -> Name:
        """Take out the one that is in it for longest."""
        name = next(iter(self))
        del self[name]
        return name
