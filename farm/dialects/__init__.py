"""Device side of the dialects: one module or package each, found by being here. See docs/write-a-dialect.md.

Each has a SIDE, a frozen `DeviceSide`, which refers to the dialect's spec (`router.dialects`). Of its package
there it imports the spec, `protocol` and pure helpers beside it: so a worker loads no hub and no HTTP port.

A `Dialect` makes one `Session` for each connection. A session is a pure machine: it is called with what
happened and answers with effects. It holds no reference to its connection, so an idle one is a small object and nothing
else.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, NamedTuple
from urllib.parse import parse_qs

from farm.transports import Transport
from farm.transports.request import READING, Request, Response
from farm.transports.websocket import WEBSOCKET
from router.common import messages as m
from router.common.close_codes import GOING_AWAY, POLICY
from router.common.item import Item
from router.common.metrics import WorkerCounters
from router.common.options import Settings
from router.common.position import LIVE, LogEvent, LogSlice, Position
from router.common.token import Tokens
from router.dialects import DialectSpec, is_on
from router.dialects import specs as app_server_specs


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
    """OK; FULL: the channel has `most` members, or its app-server side lets nobody into it; FAILED."""
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


class Become(NamedTuple):
    """Effect: another session takes this connection over, from the next effect on."""

    session: Session
    message: bytes | None = None
    """The first message that it receives, if any."""
    binary: bool = False


class Registered:
    """Effect: the device has registered a channel, which counts for `limits.registrations_per_second`."""

    __slots__ = ()


REGISTERED: Final = Registered()

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

    def tick(self, silent: float) -> tuple[Effects, float]:
        """The deadline that was asked for is over; nothing was read for `silent` seconds.

        Returns: effects, and seconds until the next tick (0: none).
        """
        return (), 0

    def unanswered(self) -> Effects:
        """The server goes away: what this client is told that waits for an answer of its session. Nothing: what the
        transport makes of `farewell`."""
        return ()

    def closed(self) -> None:
        """Called once, when the connection has ended. Not called for a session that became another."""


class DeviceSession(Session):
    """The session of a device that is attached: the connection has become it when the reply to ATTACH came."""

    __slots__ = ()

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
    """Arguments of the query that say nothing of who asks for what, as what keeps an answer out of caches: the main
    server does not see them, so that what it has answered serves the next request too."""

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
    """Of the device port that it serves: `/*` at the end stands for every last part, `/**` for all that follows."""
    rank: int = 0
    """Where dialects share a path, the lower is asked first whether it claims a connection."""
    listeners: tuple[FurtherListener, ...] = ()


def sides() -> list[DeviceSide]:
    """Those of all dialects that have a module here, in the order of their names."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return [importlib.import_module(f"{__name__}.{name}").SIDE for name in names]


def further_listeners(settings: Settings) -> list[FurtherListener]:
    """Those that the settings want, of the dialects that are on."""
    found = [listener for side in sides() if is_on(settings, side.spec) for listener in side.listeners]
    return [listener for listener in found if listener.port(settings)]


def further_ports(settings: Settings) -> list[tuple[str, int]]:
    """Their settings and ports."""
    return [(listener.setting, listener.port(settings)) for listener in further_listeners(settings)]


def specs() -> list[DialectSpec]:
    """Those of all dialects, whichever sides they have."""
    known = {spec.name: spec for spec in (*app_server_specs(), *(side.spec for side in sides()))}
    return list(known.values())
