"""Between two routers: one asks, the other owns what is asked about. A link has one direction, and what is asked is
performed by the router that it was sent to, in the life that it was sent to, or not at all.

The asker sends PEER_READY first, again when the owner sends PEER_REJOIN, and once in each `link.heartbeat`; the owner
answers with PEER_WELCOME. Until then it is asked nothing. An owner that is about to end says so (AWAITED), and waits
until it is told that nothing more is on its way. Numbers grow from one operation to the next, and each
operation is answered once, in any order. What was lost on the way comes to light with the next PEER_WELCOME.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

from router.common.messages.base import Envelope, Part
from router.common.messages.values import Count, Incarnation, Number

PEER_PROTOCOL: Final = 2
"""The version of all this. It goes up with every change that the version before would not understand."""
LOWEST_PEER_PROTOCOL: Final = 1
"""The oldest that is still spoken."""

ORIGINS: Final = 2
"""From this version on an operation may bring its origin."""
MAX_ORIGIN: Final = 400
"""Characters of it."""

AWAITED: Final = 255
"""Outcome of an operation that was not performed because the owner is about to end: its next life is to be asked. With
the number 0, and the owner's incarnation as the reply, it is about no operation."""


class PeerReady(Envelope, tag=101):
    """A router asks. It speaks all versions from the lowest to the highest. sent: the number of the last operation that
    it has sent on this link. silent: it has heard that this life of the owner is about to end, and sends it no more.
    This and PEER_REFUSED must be understood by every version."""

    highest: Count
    lowest: Count
    router: Count
    incarnation: Incarnation
    sent: Number
    silent: bool = False


class Forward(Part):
    """An operation, encoded, with its dialect and its key; b"" for what every router does. origin: the request that it
    is for (`router.core.scope`), where somebody wants to know."""

    number: Number
    dialect: Annotated[str, Meta(max_length=64)]
    key: Annotated[bytes, Meta(max_length=16)]
    operation: bytes
    origin: Annotated[str, Meta(max_length=MAX_ORIGIN)] = ""


class PlainForward(Part):
    """The same without an origin, as every version sends and understands it."""

    number: Number
    dialect: str
    key: bytes
    operation: bytes


class Forwards(Envelope, tag=102):
    """What a turn has gathered, for this incarnation of the owner; not to be performed later than `expires`, unix time
    in ms."""

    to: Incarnation
    expires: Number
    operations: list[Forward]


class PeerWelcome(Envelope, tag=111):
    """The PEER_READY with this `sent` was accepted: this version is spoken. Every operation with a number below
    `settled` has been answered before this; one that has no answer was lost."""

    incarnation: Incarnation
    version: Count
    sent: Number
    settled: Number


class PeerRejoin(Envelope, tag=112):
    """The owner does not know this router, or has another life than the one asked: PEER_READY is to be sent. It has not
    performed the operations with these numbers, and will not."""

    refused: list[Number]


class PeerRefused(Envelope, tag=113):
    """PEER_READY was not accepted: the owner speaks the versions from the lowest to the highest."""

    lowest: Count
    highest: Count


class Outcome(Part):
    """What became of the operation with this number; reply: encoded, empty unless the status is OK."""

    number: Number
    status: Count
    reply: bytes


class Outcomes(Envelope, tag=114):
    """Answers."""

    outcomes: list[Outcome]


OfAsker = PeerReady | Forwards
"""Envelopes that an owner receives."""
OfOwner = PeerWelcome | PeerRejoin | PeerRefused | Outcomes
"""Envelopes that a router receives that asks."""
