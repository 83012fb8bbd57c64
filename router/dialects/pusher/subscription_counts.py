"""Numbers of subscribers, sent for each channel not too often: the newest count, not each one. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from router.dialects.pusher.protocol import PusherOptions

Name = tuple[str, str]
"""Application and channel."""

_DELAY_S: Final = 0.1
_INTERVAL_S: Final = 1.0


class SubscriptionCounts:
    """Calls `send` with a channel's newest count a moment after the first, then at most once in an interval, which is
    longer where there are many subscribers.

    At most `subscription_count_queue` channels are known at a time. For another one the channel known for longest is
    forgotten: a count of it that waits is sent at once, so none is lost, and its next one may be sent too soon.
    """

    def __init__(self, options: PusherOptions, send: Callable[[Name, int], None]) -> None:
        self._most = options.subscription_count_queue
        self._many = options.subscription_count_many
        self._send = send
        self._waiting: dict[Name, int] = {}  # counts to be sent; each of a channel that is known
        self._new = _Quiet(_DELAY_S)
        self._small = _Quiet(_INTERVAL_S)
        self._large = _Quiet(options.subscription_count_interval)
        self._known = (self._large, self._small, self._new)  # in the order in which they are forgotten

    def __len__(self) -> int:
        """Channels that are known."""
        return sum(map(len, self._known))

    def counted(self, name: Name, subscribers: int, now: float) -> None:
        """So many subscribe to the channel now."""
        if not any(name in quiet for quiet in self._known):
            if len(self) >= self._most:
                self._forget_oldest()
            self._new.begin(name, now)  # not at once: a new subscriber gets the answer to its subscription first
        self._waiting[name] = subscribers

    def vacated(self, name: Name) -> None:
        """There are no subscribers any more, and nothing is sent."""
        self._waiting.pop(name, None)

    def tick(self, now: float) -> None:
        """Send what has waited for long enough. To be called a few times a second."""
        for quiet in self._known:
            while (name := quiet.over(now)) is not None:
                if (subscribers := self._waiting.pop(name, None)) is not None:
                    (self._large if subscribers > self._many else self._small).begin(name, now)
                    self._send(name, subscribers)

    def _forget_oldest(self) -> None:
        name = next(quiet for quiet in self._known if quiet).first()
        if (subscribers := self._waiting.pop(name, None)) is not None:
            self._send(name, subscribers)


class _Quiet(dict[Name, float]):
    """Channels for which nothing is sent, and until when: all for equally long, so that the first is the next."""

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
