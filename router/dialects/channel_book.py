"""What a dialect's channels are to the operators of a farm: a dialect that has any makes a `ChannelBook` of them.

Where a dialect has no applications, `application` is "".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta

from router.core.managing import REFUSED, Refusal

Done = Callable[[int, str], None]
"""Called once: what an app server would be answered, as a status of HTTP, and why, where it is not 2xx."""


class ChannelRow(msgspec.Struct, frozen=True):
    """A channel in a list of them."""

    dialect: str
    application: str
    channel: str
    subscribers: int | None
    """None: they are not counted."""
    members: int | None = None
    """None: it is no presence channel."""


class ChannelMember(msgspec.Struct, frozen=True):
    """A member of a presence channel."""

    user: str
    info: str
    """What other members are shown, as JSON; "" if nothing."""


class ChannelState(msgspec.Struct):
    """One channel."""

    dialect: str
    application: str
    channel: str
    exists: bool
    """Whether it has subscribers, or the store holds something of it."""
    subscribers: int | None
    """None: they are not counted."""
    members: list[ChannelMember] | None = None
    """None: it is no presence channel. The first thousand; `member_count` is how many there are."""
    member_count: int | None = None
    stored: int | None = None
    """Events that the store holds; None: it keeps none of such a channel."""
    position: int | None = None
    """The number of its newest stored event; None as above."""
    published: int | None = None
    """Events since it was made, where the dialect counts them."""
    expires_in: int | None = None
    """Seconds until it goes, if nothing extends it; None: that is not how its dialect ends channels."""


class TestEvent(msgspec.Struct):
    """An event that an operator publishes."""

    data: Annotated[str, Meta(max_length=1_048_576)] = "This is a test."
    event: Annotated[str, Meta(max_length=200)] = ""
    """Its name or type, where the dialect has such a thing; "": the dialect's own choice."""


class ChannelBook:
    """The channels of one dialect in one router. What is not this router's own is found by the caller."""

    __slots__ = ()
    knows_users: ClassVar[bool] = False
    """Whether `terminate` does anything."""

    def names(self) -> list[tuple[str, Iterable[str]]]:
        """The names of all channels that this router owns, by application, as they are now: there may be very many, and
        they are gone through a part a turn, while channels come and go."""
        raise NotImplementedError

    def row(self, application: str, channel: str) -> ChannelRow:
        """The numbers of a channel that this router owns; it may just have gone."""
        raise NotImplementedError

    def address(self, application: str, channel: str) -> tuple[bytes, str]:
        """The key of a channel, whoever owns it, and its application; "" may stand for the only one. Raises: Refusal if
        there is no such application, or no channel can be called so."""
        raise NotImplementedError

    def look(self, key: bytes, application: str, channel: str, done: Callable[[ChannelState | None], None]) -> None:
        """The state of a channel that this router owns; None: the store does not answer."""
        raise NotImplementedError

    def publish(self, application: str, channel: str, event: TestEvent, done: Done) -> None:
        """Publish an event, as for an app server. Raises: Refusal, as `address`."""
        raise NotImplementedError

    def terminate(self, application: str, user: str, done: Done) -> None:
        """Close the connections of a user, as for an app server. Raises: Refusal, where there are no users."""
        raise Refusal(REFUSED, "this dialect knows no users")
