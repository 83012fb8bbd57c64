"""A dialect in a worker: what it makes of requests, and what it may add to sessions and events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple
from urllib.parse import parse_qs

from farm.interface.effects import Call
from farm.interface.session import Effects, Session
from farm.transports import Transport
from farm.transports.request import READING, Request, Response
from farm.transports.websocket import WEBSOCKET
from router.common import messages as m
from router.common.metrics import WorkerCounters
from router.common.options import Settings
from router.common.position import LogEvent
from router.common.token import Tokens
from router.dialects import DialectSpec


class Accept(NamedTuple):
    """What `Dialect.opened` may give: the session, and headers of the answer that begins the connection."""

    session: Session
    headers: tuple[tuple[str, str], ...] = ()
    transport: Transport | None = None
    """Another one than the dialect's `transport` gave; None: that one."""


class Admission(NamedTuple):
    """What `Dialect.opened` may give: first this call is made to the router, then `Dialect.admitted` gets the reply.

    The connection waits meanwhile, unanswered and unread, for at most `worker.admission_timeout`, over all that is
    asked. The call is neither an ATTACH nor a Subscribe: there is nothing to attach yet.
    """

    call: Call


Opened = Session | Accept | Response | Admission
"""What becomes of a request. Response: it is answered by this, and that is all."""


class Dialect:
    """What a dialect has for a whole worker."""

    __slots__ = ()

    methods: ClassVar[tuple[bytes, ...]] = READING
    """HTTP methods of the requests that it sees; others are answered with 405."""
    ignored_arguments: ClassVar[frozenset[str]] = frozenset()
    """Arguments of the query that do not say which client asks for what, such as one that keeps answers out of caches:
    the main server does not see them, so that what it has answered serves the next request too."""

    @property
    def max_body(self) -> int:
        """Bytes that the body of a request may have."""
        return 0

    def transport(self, request: Request) -> Transport:
        """How the connection that this request begins will speak. WebSocket answers what is no upgrade with 426.

        Raises: Refusal.
        """
        return WEBSOCKET

    def wanted(self, request: Request) -> Sequence[str]:
        """The channels that a request asks for, as the main server knows them. Raises: Refusal."""
        return ()

    def redirected(self, target: str) -> Sequence[str]:
        """The channels that the main server grants by `X-Accel-Redirect`: the argument `channels` of its target, names
        with a slash between them."""
        query = parse_qs(target.partition("?")[2], keep_blank_values=True)
        return [name for value in query.get("channels", ()) for name in value.split("/") if name]

    def granted(self, verdict: m.Verdict) -> tuple[str, ...] | None:
        """The channels that an answer of the main server names; None: it names none."""
        if verdict.redirect:
            return tuple(self.redirected(verdict.redirect))
        return None if verdict.channels is None else tuple(verdict.channels)

    @property
    def asks_of_messages(self) -> bool:
        """Whether its sessions may give `Authorise`. For that a worker keeps what was asked when a client connected."""
        return False

    @property
    def first_tick(self) -> float:
        """Seconds from accept until a new session's first tick; 0: none."""
        return 0.0

    def subprotocol(self, offered: list[str]) -> str | None:
        """Which of the offered subprotocols is taken; None answers without the header."""
        return None

    def claims(self, first: bytes) -> bool:
        """Whether a connection whose first message is this speaks the dialect. Asked only where a path is shared."""
        return True

    def opened(self, request: Request) -> Opened:
        """A session for a request that its transport accepts, or what else becomes of it. Raises: Refusal to answer
        with an HTTP error.

        Where the path is shared this comes with the first message, too late for anything but a session, and the
        request has no headers.
        """
        raise NotImplementedError

    def admitted(self, request: Request, context: Any, status: int, payload: Any) -> Opened:
        """The same once the router has replied to an Admission's call. Raises: Refusal."""
        raise NotImplementedError

    def counts(self) -> Mapping[str, float]:
        """Its own numbers, named as in the spec's `worker_metrics`."""
        return {}

    def event_text(self, channel: str, event: LogEvent) -> bytes:
        """The text message that is an event of a channel's log; made once for all subscribers of a worker. channel: its
        name, if it has a label; else ""."""
        return event.body.encode()

    resumes: ClassVar[bool] = False
    """Whether subscribers come back with the position of what they had last. Where it is not sure what they have missed
    they are let go for that."""

    def missed_text(self, channel: str) -> bytes | None:
        """The text message that is sent to the subscribers of a channel when events are missing: the link was away, and
        the log does not reach back to then. None: nothing is sent."""
        return None

    @property
    def presence(self) -> Presence | None:
        """Makes the messages about members that come and go, if its channels have them."""
        return None

    @property
    def broadcasts(self) -> BroadcastTracker | None:
        """What the router's broadcasts in the space of its name are for, if they are for it."""
        return None


class Presence:
    """For a dialect whose channels have members. Each method gives the text message about a change."""

    __slots__ = ()

    def member_added(self, channel: str, user: str, info: str) -> bytes:
        """The user's first connection has joined the channel of this name."""
        raise NotImplementedError

    def member_removed(self, channel: str, user: str, info: str) -> bytes:
        """The user's last connection has gone. info: as in `member_added`."""
        raise NotImplementedError


class BroadcastTracker:
    """For a dialect whose sessions get broadcasts: small texts by key of which every worker keeps a copy."""

    __slots__ = ()

    @property
    def session_type(self) -> type[Session]:
        """The class of its sessions."""
        raise NotImplementedError

    def changed(self, key: str, value: str | None) -> bool:
        """A broadcast has this value now; None: it was removed. Returns: whether sessions are to be notified."""
        raise NotImplementedError

    def renewed(self) -> None:
        """The link is new: every broadcast that exists will come again."""

    def complete(self) -> None:
        """All of them have come: one that has not was removed."""

    def notify(self, session: Any) -> Effects:
        """What this session sends about the broadcasts now. Called for each session, some time after a change.

        It must hold no Call: another one may be open.
        """
        return ()


@dataclass(frozen=True, slots=True)
class Context:
    """What a dialect may use."""

    settings: Settings
    tokens: Tokens
    counters: WorkerCounters
    unix_time: Callable[[], float]


@dataclass(frozen=True, slots=True)
class FurtherListener:
    """A port for devices besides the device port: there a transport of the dialect's reads the first bytes."""

    setting: str
    """Which setting has its port, as `section.key`. It belongs into AT_START: a change needs a restart."""
    port: Callable[[Settings], int]
    """What the setting is; 0: there is no such port."""
    transport: Transport


@dataclass(frozen=True, kw_only=True)
class DeviceSide:
    """The device side of a dialect."""

    spec: DialectSpec
    make: Callable[[Context], Dialect]
    """Called once in each worker. Raises: MendableError."""
    paths: tuple[str, ...] = ()
    """Of the device port that it serves: `/*` at the end stands for every last part, `/**` for all that follows;
    `/path?name` is the path where its query has this argument, whatever other dialect has the path."""
    rank: int = 0
    """Where dialects share a path, the lower is asked first whether it claims a connection."""
    listeners: tuple[FurtherListener, ...] = ()
