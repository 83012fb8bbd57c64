"""Effects: what a session wants to happen. The worker carries them out in order (`farm.worker.effects`).

`Become`, which names another session, stands with `Session`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from router.common import messages as m
from router.common.position import LIVE, LogEvent, LogSlice, Position


class Binary(NamedTuple):
    """Effect: send a binary message."""

    payload: bytes


class Close(NamedTuple):
    """Effect: close the connection with this code and reason (RFC 6455 section 7.4). 1005: without a code. Effects
    behind it are not carried out, and held events are not sent."""

    code: int
    reason: str = ""


class Call(NamedTuple):
    """Effect: send the router this request; `replied` gets the context with the reply, whose payload is of the type
    `REPLY` of the request.

    Until the reply comes the session receives nothing else of its device: commands are handled strictly in order.
    """

    request: m.AnyRequest
    context: Any


class Authorise(NamedTuple):
    """Effect: have the application's main server asked whether this message may be published; as a Call of
    `messages.Authorise`: `replied` gets OK and a `messages.Verdict`, or FAILED, which allows nothing either.

    Only where the request has a grant, and the dialect `asks_of_messages`.
    """

    message: str
    context: Any
    channels: tuple[str, ...] | None = None
    """Those that it is for; None: those that the client asked for when it connected."""


class Attach(NamedTuple):
    """Effect: attach the device to this connection; as a Call of `messages.Attach`, with the time of now."""

    device: bytes
    needs: str
    fetch: int
    context: Any


class Subscription(NamedTuple):
    """A channel, and how a connection wants to be subscribed to it."""

    key: bytes
    label: str = ""
    """`messages.channel_label`, if app servers may list and count the channel."""
    user: str | None = None
    """The ID of its user, for presence."""
    info: str = ""
    """What `member_added` makes of it is what the other members are shown; "" for nothing."""
    most: int = 0
    """Members that the channel may have."""
    hidden: bool = False
    """Events do not reach it; it only belongs to the address, for TERMINATE. Not counted, either."""
    position: Position = LIVE
    """From where on it wants the channel's log."""
    dialect: str = ""
    """Where there is no label: the dialect whose `event_text` makes messages of the log's events."""


class Subscribe(NamedTuple):
    """Effect: subscribe the connection to these channels, each named once. `subscribed` is called when it is in all of
    them, or cannot be, with what the logs hold after the positions, or a page of that. What comes to one of them in the
    meantime is in that too, or sent behind it: nothing is missing, and nothing comes twice.

    As with a Call the session receives nothing else until then, and one of the two at a time may be open. To subscribe
    to a channel again only changes whether it is hidden.
    """

    channels: tuple[Subscription, ...]


class Subscribed(NamedTuple):
    """What became of a Subscription."""

    wanted: Subscription
    status: int = m.OK
    """OK; FULL: the channel has `most` members, or its app-server side admits no first subscriber; FAILED."""
    members: Members | None = None
    """All of them, if the channel has presence."""
    log: LogSlice | None = None
    """What its log holds after the position, up to now; if that is more than a page, the first of it (`log.more`): what
    follows is sent as live events are. None: no position was given, or the log could not be read, and
    of those that were held in the meantime all are sent behind this."""


class Members(dict[str, str]):
    """All members of a presence channel as a worker knows them: {user id: info}."""

    __slots__ = ("made",)

    def __init__(self, members: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(members)
        self.made: Any = None
        """What a dialect has made of them, for as long as they are these."""


class Unsubscribe(NamedTuple):
    """Effect: leave a channel. Of one that it is not in: nothing."""

    key: bytes


class Ping(NamedTuple):
    """Effect: the transport's own ping, which the peer's machine answers; nothing where the transport has none."""

    payload: bytes = b""


class Event(NamedTuple):
    """Effect: send an event of a channel's log as it is sent to all subscribers."""

    text: bytes
    """The text message that the dialect makes of it."""
    logged: LogEvent | None = None


class Respond(NamedTuple):
    """Effect: status and headers of the answer, where the transport leaves them to the session and none was given yet;
    elsewhere nothing."""

    status: int
    headers: tuple[tuple[str, str], ...] = ()


class Tick(NamedTuple):
    """Effect: have `tick` called in so many seconds, and not when it was due before."""

    seconds: float


class Registered:
    """Effect: the device has registered a channel, which counts for `limits.registrations_per_second`."""

    __slots__ = ()


REGISTERED: Final = Registered()
