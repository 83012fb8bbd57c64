"""What was seen from outside during a run: connections, pushes, arrivals, faults. Times are seconds since its start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

SIMPLEPUSH: Final = "simplepush"
WEBPUSH: Final = "webpush"
PUSHER: Final = "pusher"
GOPUSH2: Final = "gopush2"
PUSHSTREAM: Final = "pushstream"
FOLLOWED: Final = (GOPUSH2, PUSHSTREAM)
"""Those whose clients come back with a position."""
DIALECTS: Final = (SIMPLEPUSH, WEBPUSH, PUSHER, *FOLLOWED)

ENDED: Final = "ended by the farm"
"""How a connection has ended that its client would have kept."""

LINK: Final = "link"
"""Messages between router and workers may be lost: events of channels, which are not kept."""
STORE: Final = "store"
"""What is written may be refused, and a removal may fail without an error to its sender."""
CLOCK: Final = "clock"
"""The farm's clock is not ours: when a message expires is not known."""
STOPPED: Final = "stopped"
"""A process stands still and goes on later with what it had."""
WIRE: Final = "wire"
"""Between devices and hosts the network is cut: what a host has sent may be lost."""


@dataclass(frozen=True)
class Fault:
    """Something that was done to the farm, until it was well again."""

    kind: str
    begin: float
    end: float
    touches: frozenset[str] = frozenset()
    detail: str = ""
    hosts: frozenset[str] = frozenset()
    """Those that may end the connections of their devices for it."""
    routers: frozenset[int] = frozenset()
    """Those that were lost by it, in a farm over several hosts."""


@dataclass
class Connection:
    """One connection of a client, from its greeting on."""

    number: int
    client: str
    dialled: float
    """Nothing was sent on it before."""
    opened: float
    """The farm has answered the hello."""
    ended: float | None = None
    left: float | None = None
    """From here on the client did not read any more, whatever came."""
    how: str = ""
    port: int = 0
    """The client's."""
    host: str = ""
    """Which host it is connected to, where there are several and it lasted long enough to be known."""

    def listened_until(self) -> float:
        """When what was sent last could still be read."""
        return min(t for t in (self.ended, self.left, float("inf")) if t is not None)


@dataclass
class Arrival:
    """A message that a client has read."""

    connection: int
    client: str
    channel: str
    number: int
    at: float
    acked: float | None = None
    confirmed: float | None = None
    """A later command on the same connection was answered: the ack has been dealt with."""
    data: str | None = None


@dataclass
class Push:
    """A message that an app server has sent. Numbers of one channel grow in the order of sending."""

    dialect: str
    client: str
    """The device; nothing for a channel of many subscribers."""
    channel: str
    number: int
    sent: float
    answered: float | None = None
    status: int = 0
    """0: the connection ended without an answer."""
    ttl: int | None = None
    topic: str = ""
    data: str | None = None
    deleting: float | None = None
    deleted: float | None = None
    error: str = ""

    @property
    def accepted(self) -> bool:
        """Whether it was answered 2xx."""
        return 200 <= self.status < 300


@dataclass(frozen=True)
class Subscribed:
    """A connection is subscribed to a channel. cached: a cache channel's last event that came with it; -1: there was
    none; None: not yet told."""

    connection: int
    channel: str
    asked: float
    at: float
    cached: int | None = None


@dataclass(frozen=True)
class MemberChange:
    """A subscriber received that a user has joined a presence channel, or has left it."""

    connection: int
    channel: str
    user: str
    there: bool
    at: float


@dataclass(frozen=True)
class Told:
    """A webhook."""

    name: str
    channel: str
    at: float


@dataclass(frozen=True)
class Settled:
    """What one observer has of a presence channel when nothing has happened for a while, and what is true."""

    channel: str
    observer: str
    truth: frozenset[str]
    seen: frozenset[str]


@dataclass(frozen=True)
class Occupancy:
    """Whether a channel is in use when nothing has happened for a while; `at` that time every webhook has come."""

    channel: str
    occupied: bool
    at: float


@dataclass(frozen=True)
class Oddity:
    """Something that a client or the runner has seen and that must not be at all."""

    rule: str
    text: str
    at: float


@dataclass
class History:
    """Everything of one run."""

    connections: dict[int, Connection] = field(default_factory=dict)
    arrivals: list[Arrival] = field(default_factory=list)
    pushes: list[Push] = field(default_factory=list)
    subscribed: list[Subscribed] = field(default_factory=list)
    members: list[MemberChange] = field(default_factory=list)
    webhooks: list[Told] = field(default_factory=list)
    settled: list[Settled] = field(default_factory=list)
    occupancy: list[Occupancy] = field(default_factory=list)
    follows: dict[str, list[str]] = field(default_factory=dict)
    """Clients that come back with a position, and their channels."""
    faults: list[Fault] = field(default_factory=list)
    oddities: list[Oddity] = field(default_factory=list)
    complete: bool = True
    """Every client has been back, and has read until nothing came any more."""
