"""One channel that app servers may list and count: the leases that hold it, its subscribers and members. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

from router.core.address_map import Lease

ANNOUNCED: Final = 1
"""A worker has announced the channel, so others that have not announced yet may hold it, too."""
FOUND: Final = 2
"""The same, and it had no subscriber whose SUBSCRIBE this router has received: it was there before."""


class Observer(Protocol):
    """Is called for what happens in a dialect's channels; for webhooks, for example. `label` is the channel's."""

    def admits(self, label: str) -> bool:
        """Whether it may have its first subscriber; if not, the subscription is refused with FULL."""

    def occupied(self, label: str) -> None:
        """It has its first subscriber."""

    def vacated(self, label: str) -> None:
        """Its last one has gone."""

    def counted(self, label: str, subscribers: int) -> None:
        """It has so many, more or fewer than before; called about once a second a shard while many come and go."""

    def joined(self, label: str, user: str) -> None:
        """The user is a member now."""

    def left(self, label: str, user: str) -> None:
        """The user is no member any more."""

    def published(self, label: str, body: str, exclude: str) -> None:
        """A device has published this."""

    def happened(self, label: str, what: str, detail: str) -> None:
        """A session sent it as HAPPENED."""

    def settled(self) -> None:
        """All workers have announced what they hold, and who was to be back is: called once. Until then it may be that
        what was called `occupied` or `joined` has been there before, and what was called `vacated` is there yet."""


class Member:
    """A user in a channel."""

    __slots__ = ("info", "leases")

    def __init__(self, info: str, lease: Lease) -> None:
        self.info = info
        self.leases: tuple[Lease, ...] = (lease,)


class Channel:
    """A channel with subscribers. There may be very many, nearly all of them on one shard."""

    __slots__ = ("_counts", "announced", "application", "informed", "key", "leases", "members", "name", "unsent_left")

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.application = ""  # "dialect\0application"; "": there is no label yet
        self.name = ""
        self.leases: tuple[Lease, ...] = ()
        self._counts: tuple[int, ...] = ()  # subscribers on each
        self.members: dict[str, Member] | None = None  # for presence
        self.informed: tuple[Lease, ...] = ()  # those that were sent all members, and are sent every change since
        self.announced = 0  # as the router begins, ANNOUNCED or FOUND
        self.unsent_left: set[str] | None = None  # users that have left in that time, which is not sent yet

    @property
    def label(self) -> str:
        """Its name as workers give it."""
        return f"{self.application}\0{self.name}" if self.application else ""

    @property
    def count(self) -> int:
        """Subscribers on living leases."""
        return sum(count for lease, count in zip(self.leases, self._counts, strict=True) if lease.alive)

    def counts(self) -> Iterator[tuple[Lease, int]]:
        """Subscribers on each living lease."""
        return ((lease, count) for lease, count in zip(self.leases, self._counts, strict=True) if lease.alive)

    def hold(self, lease: Lease, subscribers: int) -> bool:
        """The lease has so many subscribers. Returns: whether that is a change."""
        if lease not in self.leases:
            self.leases = (*self.leases, lease)
            self._counts = (*self._counts, subscribers)
            return True
        at = self.leases.index(lease)
        if self._counts[at] == subscribers:
            return False
        self._counts = (*self._counts[:at], subscribers, *self._counts[at + 1 :])
        return True

    def release(self, lease: Lease) -> None:
        """The lease has no subscribers any more."""
        at = self.leases.index(lease)
        self.leases = self.leases[:at] + self.leases[at + 1 :]
        self._counts = self._counts[:at] + self._counts[at + 1 :]
        if self.informed:
            self.informed = tuple(other for other in self.informed if other is not lease)
