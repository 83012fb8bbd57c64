"""Pusher Channels (protocol 7), device side: subscriptions, presence, client events, signing in, liveness.

What a device may not do is answered with an event (`pusher:error`, `pusher:subscription_error`) and costs it nothing
else, as pusher-js expects. It is closed with a code of the protocol: 40xx, do not come back; 4100, come back after a
second; 4201, come back at once. There is no 43xx among them, since pusher-js takes those for "do not come back".
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, unquote

import msgspec

from farm.dialects import (
    Close,
    Context,
    DeviceSide,
    Dialect,
    Effect,
    Effects,
    Members,
    Presence,
    Session,
    Subscribe,
    Subscribed,
    Subscription,
    Tick,
    Unsubscribe,
)
from farm.transports.request import Request
from router.common import messages as m
from router.common.answers import Answer
from router.common.position import LIVE, Last, LogSlice
from router.dialects.pusher import SPEC
from router.dialects.pusher.applications import App, load
from router.dialects.pusher.protocol import (
    AUTH_ERROR,
    BAD_VERSION,
    CACHE_MISS,
    DISABLED,
    GO_AND_RETURN,
    INFO_TOO_LONG,
    INVALID_CHANNEL,
    INVALID_DATA,
    LEAVING,
    LIMIT_REACHED,
    NO_APP,
    NO_PATH,
    NO_PONG,
    NO_VERSION,
    NOT_SIGNED_IN,
    NOT_UNDERSTOOD,
    OTHER_VERSION,
    OVER_QUOTA,
    REJECTED,
    SERVER_TO_USER,
    TRUNCATED,
    UNAUTHORIZED,
    PusherOptions,
    channel_address,
    is_cache,
    is_channel_name,
    is_encrypted,
    is_presence,
    is_private,
    label,
    member_info,
    shown_member,
)
from router.dialects.pusher.signatures import socket_signature, user_signature

PROTOCOLS: Final = range(5, 8)
"""Versions that differ in nothing a server sees: since 5, data is a text that holds JSON."""


WATCH: Final = "#watch-"
"""How the name of the channel begins in which a user of an application with watchlists is present while he is signed
in. Who watches him is present there too, as the user NOBODY; so to each of them his coming and going is told."""
NOBODY: Final = ""

_NEWEST: Final = Last(1)
_PREFIX: Final = "/app/"
_PONG_SLACK: Final = 0.9  # of pong_timeout: a timer may be early, but must not send a second ping
_PONG: Final = b'{"event":"pusher:pong","data":"{}"}'
_PING: Final = b'{"event":"pusher:ping","data":"{}"}'
_NEVER: Final = float("-inf")
_SHARED: Final = 2048  # channels whose subscribers share the object that is their address
_SHARED_CHARS: Final = 512  # of a name that is remembered for it: no channel's is longer, so this bounds the bytes

_encode = msgspec.json.Encoder().encode
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_shared_address = lru_cache(_SHARED)(channel_address)


def _address(app: str, name: str) -> bytes:
    """The address of a channel. A device may name anything: what is too long to be a channel is not remembered."""
    return _shared_address(app, name) if len(name) <= _SHARED_CHARS else channel_address(app, name)


@lru_cache(_SHARED)
def _alone(key: bytes) -> tuple[bytes, ...]:
    """The channels of who is in this one only, which is the usual: one object for all of them."""
    return (key,)


class _Message(msgspec.Struct, frozen=True, gc=False):
    """What a device says. Here as in all that follows null is as good as nothing."""

    event: str
    channel: str | None = None
    data: msgspec.Raw = msgspec.Raw(b"")


class _Subscribe(msgspec.Struct, frozen=True, gc=False):
    channel: str
    auth: str | None = None
    channel_data: str | None = None


class _Unsubscribe(msgspec.Struct, frozen=True, gc=False):
    channel: str


class _SignIn(msgspec.Struct, frozen=True, gc=False):
    auth: str
    user_data: str


class _Member(msgspec.Struct, frozen=True, gc=False):
    """`channel_data` of a presence channel."""

    user_id: str | int
    user_info: msgspec.Raw = msgspec.Raw(b"")


class _User(msgspec.Struct, frozen=True, gc=False):
    """`user_data` of who signs in."""

    id: str | int
    user_info: msgspec.Raw = msgspec.Raw(b"")
    watchlist: list[str | int] | None = None


_message_in = msgspec.json.Decoder(_Message).decode
_text_in = msgspec.json.Decoder(str).decode
_subscribe_in = msgspec.json.Decoder(_Subscribe).decode
_unsubscribe_in = msgspec.json.Decoder(_Unsubscribe).decode
_sign_in_in = msgspec.json.Decoder(_SignIn).decode
_member_in = msgspec.json.Decoder(_Member).decode
_user_in = msgspec.json.Decoder(_User).decode


class _Refused(Exception):
    """A subscription that is not to be: as pusher-js hands it to the page."""

    def __init__(self, answer: Answer, text: str) -> None:
        super().__init__(text)
        self.answer = answer
        self.text = text


class Home:
    """An application on this worker: what its sessions share."""

    __slots__ = ("app", "connections", "dialect", "hears")

    def __init__(self, dialect: PusherDialect, app: App) -> None:
        self.dialect = dialect
        self.app = app
        self.connections = 0
        self.hears = frozenset(event for hook in app.webhooks for event in hook.events)


class PusherDialect(Dialect, Presence):
    """What all sessions of a worker share."""

    def __init__(self, context: Context) -> None:
        self.options = options = context.settings.get(PusherOptions)
        self.counters = context.counters
        self._homes = {app.key: Home(self, app) for app in load(options.apps, options.unsigned)}

    @property
    def first_tick(self) -> float:
        return float(self.options.activity_timeout + self.options.pong_timeout)

    @property
    def presence(self) -> Presence:
        return self

    def opened(self, request: Request) -> Session:
        fault = _version_fault(request.query)
        key = unquote(request.path.removeprefix(_PREFIX))
        if not key or "/" in key:
            return RejectedSession(NO_PATH, NO_PATH.text)
        if fault is not None:
            return RejectedSession(*fault)
        home = self._homes.get(key)
        if home is None:
            return RejectedSession(NO_APP, f"{NO_APP.text} {key[:_SHOWN]}")
        if not home.app.enabled:
            return RejectedSession(DISABLED, DISABLED.text)
        if home.connections >= home.app.connections_a_worker > 0:
            return RejectedSession(OVER_QUOTA, OVER_QUOTA.text)
        origin, _, number = request.socket_id.partition(".")
        return PusherSession(home, sys.intern(origin), int(number))

    def member_added(self, channel: str, user: str, info: str) -> bytes:
        if channel.startswith(WATCH):
            return _watched([user] if user != NOBODY else [], [])
        user_id, user_info = shown_member(user, info)
        member = b'{"user_id":%s%s}' % (user_id, b',"user_info":' + user_info if user_info else b"")
        return _event("pusher_internal:member_added", member, channel)

    def member_removed(self, channel: str, user: str, info: str) -> bytes:
        if channel.startswith(WATCH):
            return _watched([], [user] if user != NOBODY else [])
        return _event("pusher_internal:member_removed", b'{"user_id":%s}' % shown_member(user, info)[0], channel)


_SHOWN: Final = 64  # characters of something unknown in a message


def _version_fault(query: str) -> tuple[int, str] | None:
    """What is wrong with the protocol's version in the query, as a close code and a reason."""
    given = parse_qs(query, keep_blank_values=True).get("protocol", [""])[0]
    if not given:
        return NO_VERSION, NO_VERSION.text
    if not (given.isascii() and given.isdigit() and len(given) < 4):
        return BAD_VERSION, BAD_VERSION.text
    if int(given) not in PROTOCOLS:
        return OTHER_VERSION, f"{OTHER_VERSION.text} {int(given)}"
    return None


def _event(name: str, data: bytes, channel: str | None = None) -> bytes:
    """A frame's text; `data` is JSON, and goes as a text that holds it."""
    where = b"" if channel is None else b',"channel":%s' % _encode(channel)
    return b'{"event":"%s"%s,"data":%s}' % (name.encode(), where, _encode(data.decode()))


def _error(code: int | None, text: str) -> bytes:
    # An object, not a text that holds one: so the protocol has it for this event alone.
    told = {"code": None if code is None else int(code), "message": text}
    return b'{"event":"pusher:error","data":%s}' % _encode(told)


class RejectedSession(Session):
    """A connection that is told why it cannot be, and closed."""

    __slots__ = ("_code", "_reason")

    def __init__(self, code: int, reason: str) -> None:
        self._code = code
        self._reason = reason

    def begun(self, now: float) -> Effects:
        return (_error(self._code, self._reason), Close(self._code, self._reason))


class _Watching:
    """A watchlist while it is gone through."""

    __slots__ = ("offline", "online", "unasked")

    def __init__(self, users: list[str]) -> None:
        self.unasked = users
        self.online: list[str] = []
        self.offline: list[str] = []


class _More:
    """What most connections do without."""

    __slots__ = ("hidden", "info", "members", "second", "sent", "signing", "user", "watching")

    def __init__(self) -> None:
        self.user = ""  # who is signed in
        self.info = ""
        self.signing: tuple[str, str, _User, str] | None = None  # who is about to be, info, and what was said
        self.watching: _Watching | None = None
        self.hidden = 0  # channels that it has not asked for
        self.members: tuple[tuple[bytes, bytes], ...] = ()  # who this connection is in presence channels, as JSON
        self.second = _NEVER  # when the first client event of the current second came
        self.sent = 0  # client events since

    def member(self, key: bytes) -> bytes | None:
        """Who this connection is in a presence channel, as JSON."""
        return next((user for room, user in self.members if room == key), None)


class PusherSession(Session, msgspec.Struct, gc=False, eq=False):
    """One connection of an application."""

    _home: Home
    _origin: str  # of its socket ID; one object for all
    _number: int  # the rest of it
    _more: _More | None = None
    _vouched: bool = False  # the application's own server has vouched for it
    channels: tuple[bytes, ...] = ()
    farewell: ClassVar[tuple[int, str]] = (LEAVING, LEAVING.text)

    def __post_init__(self) -> None:
        self._home.connections += 1

    @property
    def socket_id(self) -> str:
        return f"{self._origin}.{self._number}"

    def closed(self) -> None:
        self._home.connections -= 1

    def begun(self, now: float) -> Effects:
        options = self._home.dialect.options
        data = b'{"socket_id":"%s","activity_timeout":%d}' % (self.socket_id.encode(), options.activity_timeout)
        self._home.dialect.counters.hellos += 1
        greeting = _event("pusher:connection_established", data)
        if self._home.app.authorized_connections:
            return (greeting, Tick(options.authorization_timeout))
        return (greeting,)

    # ------------------------------------------------------------------ from the device

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if binary:
            return self._fault("Only text messages are understood")
        try:
            said = _message_in(message)
        except _UNREADABLE:
            return self._fault("A message is a JSON object with an event")
        handler = _COMMANDS.get(said.event)
        try:
            if handler is not None:
                return handler(self, _data(said.data), now)
            if said.event.startswith("client-"):
                return self._client_event(said, now)
        except _UNREADABLE as error:
            return self._fault(f"The data of {said.event[:_SHOWN]} cannot be used: {error}")
        return self._fault(f"The event {said.event[:_SHOWN]} is not understood")

    def _fault(self, text: str, kind: Answer = NOT_UNDERSTOOD) -> Effects:
        self._home.dialect.counters.commands_refused += 1
        return (_error(kind.number, text),)

    def _ping(self, data: bytes, now: float) -> Effects:
        self._home.dialect.counters.pings += 1
        return (_PONG,)

    def _pong(self, data: bytes, now: float) -> Effects:
        return ()

    # ------------------------------------------------------------------ channels

    def _subscribe(self, data: bytes, now: float) -> Effects:
        asked = _subscribe_in(data)
        try:
            return self._join(asked)
        except _Refused as refused:
            return self._refuse(asked.channel, refused)

    def _refuse(self, channel: str, refused: _Refused) -> Effects:
        self._home.dialect.counters.commands_refused += 1
        told = {"type": refused.answer.text, "error": refused.text, "status": refused.answer.status}
        return (_event("pusher:subscription_error", _encode(told), channel[: self._options.max_channel_name]),)

    @property
    def _options(self) -> PusherOptions:
        return self._home.dialect.options

    def _join(self, asked: _Subscribe) -> Effects:
        name, options, app = asked.channel, self._options, self._home.app
        if name.startswith(SERVER_TO_USER):
            if self._more is None or not self._more.user or name != SERVER_TO_USER + self._more.user:
                raise _Refused(AUTH_ERROR, "Only who is signed in as this user may subscribe to it")
            return (Subscribe((Subscription(_address(app.id, name)),)),)  # which it is in already, hidden
        if not is_channel_name(name, options.max_channel_name):
            raise _Refused(
                INVALID_CHANNEL,
                f"A channel's name has 1 to {options.max_channel_name} characters of A-Z a-z 0-9 _ - = @ , . ;",
            )
        key = _address(app.id, name)
        if key in self.channels:
            return self._fault(f"Existing subscription to channel {name}")
        hidden = 0 if self._more is None else self._more.hidden
        if len(self.channels) - hidden >= options.max_channels_a_connection:
            raise _Refused(LIMIT_REACHED, f"A connection has at most {options.max_channels_a_connection} channels")
        user, info = None, ""
        if is_presence(name):
            user, info = self._presence(asked)
        elif is_private(name):
            self._check(asked, asked.channel_data, None)
        self.channels = (*self.channels, key) if self.channels else _alone(key)
        most = 0
        if user is not None:
            more = self._needs_more()
            more.members = (*more.members, (key, shown_member(user, info)[0]))
            most = options.max_members
        position = _NEWEST if is_cache(name) else LIVE
        return (Subscribe((Subscription(key, label(app.id, name), user, info, most, position=position),)),)

    def _check(self, asked: _Subscribe, *channel_data: str | None) -> None:
        """Raises: _Refused unless the application's own server has vouched for this, with one of these as data."""
        app = self._home.app
        if not asked.auth:
            raise _Refused(AUTH_ERROR, f"auth is missing: {asked.channel} needs it")
        for data in dict.fromkeys(channel_data):
            if app.signed_by_us(asked.auth, socket_signature(app.secret, self.socket_id, asked.channel, data)):
                break
        else:
            raise _Refused(AUTH_ERROR, f"Invalid signature of the subscription to {asked.channel}")
        self._vouched = True

    def _presence(self, asked: _Subscribe) -> tuple[str, str]:
        """Who subscribes to a presence channel, and what the others are shown of him. Raises: _Refused."""
        self._check(asked, asked.channel_data)
        if asked.channel_data is None:
            if self._more is None or not self._more.user:
                raise _Refused(AUTH_ERROR, "channel_data is missing, and nobody is signed in")
            return self._more.user, self._more.info
        try:
            member = _member_in(asked.channel_data.encode())
        except _UNREADABLE as error:
            raise _Refused(INVALID_DATA, f"channel_data cannot be used: {error}") from None
        return self._checked_user(member.user_id, member.user_info)

    def _checked_user(self, user: str | int, user_info: msgspec.Raw) -> tuple[str, str]:
        """Who somebody is and what the others are shown of him, as presence has it. Raises: _Refused."""
        options = self._options
        name = _name(user)
        if not self._could_be(name):
            raise _Refused(INVALID_DATA, f"The ID of a user has 1 to {options.max_user_id} characters")
        text = _given(user_info)
        if len(text) > options.max_user_info_bytes:
            raise _Refused(INFO_TOO_LONG, f"user_info has at most {options.max_user_info_bytes} bytes")
        return name, member_info(text.decode(), type(user) is int)

    def _unsubscribe(self, data: bytes, now: float) -> Effects:
        name = _unsubscribe_in(data).channel
        more = self._more
        key = _address(self._home.app.id, name)
        if key not in self.channels:
            return ()
        if more is not None and more.user and name == SERVER_TO_USER + more.user:
            return (
                Subscribe((Subscription(key, hidden=True),)),
            )  # the application may still want to close his connections
        self._leave(key)
        return (Unsubscribe(key),)

    def _leave(self, key: bytes) -> None:
        self.channels = tuple(room for room in self.channels if room != key)
        if self._more is not None:
            self._more.members = tuple(member for member in self._more.members if member[0] != key)

    def _needs_more(self) -> _More:
        if self._more is None:
            self._more = _More()
        return self._more

    # ------------------------------------------------------------------ client events

    def _client_event(self, said: _Message, now: float) -> Effects:
        app, options, channel = self._home.app, self._options, said.channel or ""
        if not app.client_events:
            return self._fault("Client events are not enabled for this app (client_messages)", REJECTED)
        if len(said.event) > options.max_event_name:
            return self._fault(f"An event's name has at most {options.max_event_name} characters", REJECTED)
        if not (is_private(channel) or is_presence(channel)) or is_encrypted(channel):
            return self._fault("Client events go to private and presence channels that are not encrypted", REJECTED)
        key = _address(app.id, channel)
        if key not in self.channels:
            return self._fault(f"A client event needs a subscription to {channel[:_SHOWN]}", REJECTED)
        data = bytes(said.data) or b"null"
        if len(data) > options.max_data_bytes:
            return self._fault(f"The data of an event has at most {options.max_data_bytes} bytes", REJECTED)
        more = self._needs_more()
        if now - more.second >= 1:
            more.second, more.sent = now, 0
        if more.sent >= options.client_events_a_second:
            return self._fault(f"At most {options.client_events_a_second} client events a second", REJECTED)
        more.sent += 1
        user = more.member(key)
        of_whom = b"" if user is None else b',"user_id":%s' % user
        start = b'{"event":%s,"channel":%s,"data":' % (_encode(said.event), _encode(channel))
        frame = b"".join((start, data, of_whom, b"}")).decode()
        return (m.Publish(key, frame, 0, self.socket_id),)

    # ------------------------------------------------------------------ signing in

    def _sign_in(self, data: bytes, now: float) -> Effects:
        asked = _sign_in_in(data)
        app = self._home.app
        if not app.signed_by_us(asked.auth, user_signature(app.secret, self.socket_id, asked.user_data)):
            return self._fault("Invalid signature of the sign-in", NOT_SIGNED_IN)
        read = _user_in(asked.user_data.encode())
        try:
            user, info = self._checked_user(read.id, read.user_info)
        except _Refused as refused:
            return self._fault(refused.text, NOT_SIGNED_IN)
        more = self._needs_more()
        if more.user and more.user != user:
            return self._fault("The connection is signed in as another user", NOT_SIGNED_IN)
        self._vouched = True
        if more.user:
            more.info = info
            return (_signed_in(asked.user_data),)
        more.signing = (user, info, read, asked.user_data)
        key = _address(app.id, SERVER_TO_USER + user)
        self._enters_hidden(more, key)
        return (Subscribe((Subscription(key, hidden=True),)),)

    def _enters_hidden(self, more: _More, key: bytes) -> None:
        self.channels = (*self.channels, key)
        more.hidden += 1

    def _sign_in_answered(self, more: _More, join: Subscription, status: int) -> Effects:
        assert more.signing is not None
        (user, info, read, data), more.signing = more.signing, None
        if status != m.OK:
            return self._come_back(join.key)
        more.user, more.info = user, info
        effects: list[Effect] = [_signed_in(data)]
        app = self._home.app
        if app.watchlists:
            most = self._options.max_watchlist
            listed = dict.fromkeys(map(_name, read.watchlist or ()))
            watched = [name for name in listed if name != user and self._could_be(name)]
            if len(watched) > most:
                effects.append(_error(TRUNCATED.number, f"The watchlist is cut after {most} users"))
            more.watching = _Watching(watched[:most])
            effects.extend(self._watch(more, user, user))
        return effects

    # ------------------------------------------------------------------ watchlists

    def _could_be(self, user: str) -> bool:
        return 0 < len(user) <= self._options.max_user_id

    def _watch(self, more: _More, user: str, who: str) -> Effects:
        """Be present where this user's coming and going is told, as himself or as NOBODY."""
        app_id, name = self._home.app.id, WATCH + user
        key = _address(app_id, name)
        self._enters_hidden(more, key)
        return (Subscribe((Subscription(key, label(app_id, name), who, "", 2),)),)

    def _watch_answered(self, more: _More, join: Subscription, watched: str, status: int, members: Any) -> Effects:
        watching = more.watching
        assert watching is not None
        if status != m.OK:
            self._leave(join.key)
            more.hidden -= 1
        elif join.user == NOBODY:
            (watching.online if watched in members else watching.offline).append(watched)
        if watching.unasked:
            return self._watch(more, watching.unasked.pop(0), NOBODY)
        more.watching = None
        return (_watched(watching.online, watching.offline),) if watching.online or watching.offline else ()

    # ------------------------------------------------------------------ from the router

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        ((wanted, status, members, log),) = results
        more = self._more
        if wanted.hidden:
            if more is not None and more.signing is not None:
                return self._sign_in_answered(more, wanted, status)
            return ()
        if wanted.label:
            name = m.label_parts(wanted.label)[2]
            if name.startswith(WATCH):
                assert more is not None
                return self._watch_answered(more, wanted, name.removeprefix(WATCH), status, members)
        else:
            assert more is not None
            name = SERVER_TO_USER + more.user
        if status == m.FULL:
            self._leave(wanted.key)
            return self._refuse(name, _Refused(LIMIT_REACHED, f"The channel has {wanted.most} members"))
        if status != m.OK:
            return self._come_back(wanted.key)
        self._home.dialect.counters.registers += 1
        effects: list[Effect] = [_succeeded(name, members if wanted.user is not None else None)]
        if is_cache(name):
            effects += self._cached(name, log)
        return effects

    def _come_back(self, key: bytes) -> Effects:
        """The router could not do it. pusher-js does not try a subscription again, but everything after a close."""
        self._leave(key)
        return (Close(GO_AND_RETURN, GO_AND_RETURN.text),)

    def _cached(self, name: str, log: LogSlice | None) -> Effects:
        """The last event. Without one the client is to ask its application, even if the log cannot be read."""
        if log is not None and log.events:
            return (log.events[-1].body.encode(),)
        effects: list[Effect] = [b'{"event":"pusher:cache_miss","channel":%s,"data":"{}"}' % _encode(name)]
        if log is not None and CACHE_MISS in self._home.hears:
            effects.append(m.Happened(label(self._home.app.id, name), CACHE_MISS, ""))
        return effects

    # ------------------------------------------------------------------ time

    def tick(self, silent: float) -> tuple[Effects, float]:
        options = self._options
        if self._home.app.authorized_connections and not self._vouched:
            self._home.dialect.counters.timeouts += 1
            return (_error(UNAUTHORIZED, UNAUTHORIZED.text), Close(UNAUTHORIZED, UNAUTHORIZED.text)), 0
        patience = options.activity_timeout + options.pong_timeout
        if silent < patience:
            return (), patience - silent
        if silent < patience + options.pong_timeout * _PONG_SLACK:
            return (_PING,), patience + options.pong_timeout - silent
        self._home.dialect.counters.timeouts += 1
        return (Close(NO_PONG, NO_PONG.text),), 0


def _given(raw: msgspec.Raw) -> bytes:
    """A member's JSON; b"" if it is absent or null."""
    data = bytes(raw)
    return b"" if data == b"null" else data


def _data(raw: msgspec.Raw) -> bytes:
    """The data of a command: an object, or a text that holds one, as some libraries send it."""
    data = _given(raw)
    return _text_in(data).encode() if data.startswith(b'"') else data or b"{}"


def _name(user: str | int) -> str:
    """A user's ID as a text: 7 and "7" are the same user."""
    return user if isinstance(user, str) else str(user)


def _succeeded(channel: str, members: Members | None) -> bytes:
    """members: all of a presence channel, with what is shown of them as JSON. Many may come before they change."""
    if members is None:
        return _event("pusher_internal:subscription_succeeded", b"{}", channel)
    if members.made is None:
        ids, shown = [], {}
        for user, info in members.items():
            user_id, user_info = shown_member(user, info)
            ids.append(msgspec.Raw(user_id))
            shown[user] = msgspec.Raw(user_info or b"null")
        data = _encode({"presence": {"ids": ids, "hash": shown, "count": len(members)}})
        members.made = _event("pusher_internal:subscription_succeeded", data, channel)
    made: bytes = members.made
    return made


def _watched(online: list[str], offline: list[str]) -> bytes:
    """Who of a watchlist has come and who has gone."""
    told = [{"name": name, "user_ids": users} for name, users in (("online", online), ("offline", offline)) if users]
    return _event("pusher_internal:watchlist_events", _encode({"events": told}))


def _signed_in(user_data: str) -> bytes:
    return _event("pusher:signin_success", _encode({"user_data": user_data}))


_COMMANDS: Final[dict[str, Callable[[PusherSession, bytes, float], Effects]]] = {
    "pusher:ping": PusherSession._ping,
    "pusher:pong": PusherSession._pong,
    "pusher:subscribe": PusherSession._subscribe,
    "pusher:unsubscribe": PusherSession._unsubscribe,
    "pusher:signin": PusherSession._sign_in,
}


SIDE: Final = DeviceSide(
    spec=SPEC,
    make=PusherDialect,
    paths=("/app/*",),
    rank=10,
)
