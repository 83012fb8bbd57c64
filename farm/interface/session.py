"""A session: one connection, as its dialect sees it, and what it may answer with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, ClassVar, NamedTuple

from farm.interface.effects import (
    Attach,
    Authorise,
    Binary,
    Call,
    Close,
    Event,
    Ping,
    Registered,
    Respond,
    Subscribe,
    Subscribed,
    Tick,
    Unsubscribe,
)
from router.common import messages as m
from router.common.close_codes import GOING_AWAY, POLICY
from router.common.item import Item
from router.common.position import AfterTime


class Become(NamedTuple):
    """Effect: another session takes this connection over, from the next effect on."""

    session: Session
    message: bytes | None = None
    """The first message that it receives, if any."""
    binary: bool = False


Effect = (
    bytes
    | Binary
    | Close
    | Attach
    | Call
    | Authorise
    | Become
    | Subscribe
    | Unsubscribe
    | Registered
    | Tick
    | Ping
    | Event
    | Respond
    | m.Message
)
"""bytes: send a text message. A message: for the router, without a reply."""
Effects = Iterable[Effect]


class Session:
    """One connection, as its dialect sees it. Times are seconds of a monotonic clock.

    There is one for each connection that is held, so a subclass is best a `msgspec.Struct` with `gc=False, eq=False`,
    named behind this class: without a dict and a collector's header. Then nothing that it refers to may refer back to
    it: it would never be freed. Everything here has a default, which costs no memory.
    """

    __slots__ = ()

    farewell: ClassVar[tuple[int, str]] = (GOING_AWAY, "the server goes away: connect again")
    """Close code and reason when the server goes away."""
    denied: ClassVar[tuple[int, str]] = (POLICY, "the main server does not allow this any more")
    """The same when the main server is asked again, and refuses."""

    @property
    def channels(self) -> Collection[bytes]:
        """Keys of the channels that it is subscribed to, from giving the Subscribe until Unsubscribe or a refusal: they
        are left when the connection goes."""
        return ()

    @property
    def socket_id(self) -> str:
        """`request.socket_id`, if events may leave this connection out by it (`exclude`)."""
        return ""

    @property
    def position(self) -> AfterTime | None:
        """Where the client of one that waits to be answered once stands in all of its channels. None: it has no
        position, or one for each channel."""
        return None

    def begun(self, now: float) -> Effects:
        """Called once, when the upgrade has been answered."""
        return ()

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        """A whole message of the peer. Text is valid UTF-8."""
        return ()

    def replied(self, context: Any, status: int, payload: Any, now: float) -> Effects:
        """The router's reply to a Call."""
        return ()

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        """What became of a Subscribe, channel by channel in its order."""
        return ()

    def terminated(self, key: bytes) -> Effects:
        """The router ends this channel (TERMINATE). Nothing: the connection is closed, with the code that the router
        says; else it stays, and leaves the channel by Unsubscribe."""
        return ()

    def tick(self, silent: float) -> tuple[Effects, float]:
        """The deadline that was asked for is over; nothing was read for `silent` seconds.

        Returns: effects, and seconds until the next tick (0: none).
        """
        return (), 0

    def unanswered(self) -> Effects:
        """The server goes away: what is sent to this client, which waits for an answer of its session. Nothing: what
        the transport makes of `farewell`."""
        return ()

    def closed(self) -> None:
        """Called once, when the connection has ended. Not called for a session that became another."""


class DeviceSession(Session):
    """The session of a device that is attached: the connection has become it when the reply to ATTACH came."""

    __slots__ = ()

    speaks: ClassVar[str] = ""
    """The name of its dialect, for users of the admin port."""

    @property
    def key(self) -> bytes:
        """The address of the device: the object that was in the message ATTACH, not one like it."""
        raise NotImplementedError

    def delivered(self, slot: str, version: int, body: str | None) -> bytes | None:
        """A live message for this device. Returns: the text message to send; None: not now, it stays in the store."""
        raise NotImplementedError

    def stored(self, items: list[Item], now: float) -> Effects:
        """What waits in the store, read again because router or link were away; some may have been sent already."""
        raise NotImplementedError
