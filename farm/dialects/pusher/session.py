"""One connection of a Pusher application: its subscriptions, client events, sign-in, watchlist and liveness.

What a device may not do is answered with an event (`pusher:error`, `pusher:subscription_error`) and costs it nothing
else, as pusher-js expects.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Final

import msgspec

from farm.dialects import Close, Effect, Effects, Session, Subscribe, Subscribed, Subscription, Tick, Unsubscribe
from farm.dialects.pusher import events
from farm.dialects.pusher.commands import (
    UNREADABLE,
    Message,
    SubscribeCommand,
    data_of,
    read_message,
    read_sign_in,
    read_subscribe,
    read_unsubscribe,
    read_user,
    user_name,
)
from farm.dialects.pusher.events import SHOWN
from farm.dialects.pusher.permission import Refused, check_signature, checked_user, is_user_id, presence_member
from farm.dialects.pusher.state import Extra, LocalApp, Watching
from router.common import messages as m
from router.common.answers import Answer
from router.common.position import LIVE, Last, LogSlice
from router.dialects.pusher.protocol import (
    AUTH_ERROR,
    CACHE_MISS,
    DENIED,
    INVALID_CHANNEL,
    LEAVING,
    LIMIT_REACHED,
    NO_PONG,
    NOT_SIGNED_IN,
    NOT_UNDERSTOOD,
    REJECTED,
    SERVER_TO_USER,
    TRUNCATED,
    TRY_AGAIN,
    UNAUTHORIZED,
    PusherOptions,
    channel_address,
    is_cache,
    is_channel_name,
    is_encrypted,
    is_presence,
    is_private,
    label,
    shown_member,
)
from router.dialects.pusher.signatures import user_signature

WATCH: Final = "#watch-"
"""Prefix of an internal presence channel: a signed-in user of an application with watchlists is a member of it. Those
who watch this user are in it too, as the user NOBODY, and so learn when the user comes online and goes offline."""
NOBODY: Final = ""

_NEWEST: Final = Last(1)
_PONG_SLACK: Final = 0.9  # of pong_timeout: a timer may be early, but must not send a second ping
_SHARED: Final = 2048  # channels whose subscribers share one object as the channel's address
_SHARED_CHARS: Final = 512  # length of a name in that cache: no channel has a longer one, so the cache is bounded

_shared_address = lru_cache(_SHARED)(channel_address)


def _address(app: str, name: str) -> bytes:
    """The address of a channel. A device may send any name: one too long for a channel is not put into the cache."""
    return _shared_address(app, name) if len(name) <= _SHARED_CHARS else channel_address(app, name)


@lru_cache(_SHARED)
def _only(key: bytes) -> tuple[bytes, ...]:
    """The channels of a connection that is in this one only: all such connections, the usual ones, share the object."""
    return (key,)


class PusherSession(Session, msgspec.Struct, gc=False, eq=False):
    """One connection of an application."""

    _local: LocalApp
    _origin: str  # the first half of its socket ID; one object for all connections
    _number: int  # the second half
    _extra: Extra | None = None
    _vouched: bool = False  # whether the application's own server has signed anything for this connection
    channels: tuple[bytes, ...] = ()
    farewell: ClassVar[tuple[int, str]] = (LEAVING, LEAVING.text)
    denied: ClassVar[tuple[int, str]] = (DENIED, DENIED.text)

    def __post_init__(self) -> None:
        self._local.connections += 1

    @property
    def socket_id(self) -> str:
        return f"{self._origin}.{self._number}"

    def closed(self) -> None:
        self._local.connections -= 1

    def begun(self, now: float) -> Effects:
        options = self._local.options
        self._local.counters.hellos += 1
        greeting = events.established(self.socket_id, options.activity_timeout)
        if self._local.app.authorized_connections:
            return (greeting, Tick(options.authorization_timeout))
        return (greeting,)

    def granted(self, channels: Sequence[str]) -> None:
        """The main server has named the channels that this connection may have; its user's own is not among them."""
        self._needs_extra().granted = frozenset(channels)

    # ------------------------------------------------------------------ from the device

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if binary:
            return self._error("Only text messages are understood")
        try:
            command = read_message(message)
        except UNREADABLE:
            return self._error("A message is a JSON object with an event")
        handler = _COMMANDS.get(command.event)
        try:
            if handler is not None:
                return handler(self, data_of(command.data), now)
            if command.event.startswith("client-"):
                return self._client_event(command, now)
        except UNREADABLE as error:
            return self._error(f"The data of {command.event[:SHOWN]} cannot be used: {error}")
        return self._error(f"The event {command.event[:SHOWN]} is not understood")

    def _error(self, text: str, kind: Answer = NOT_UNDERSTOOD) -> Effects:
        self._local.counters.commands_refused += 1
        return (events.error(kind.number, text),)

    def _ping(self, data: bytes, now: float) -> Effects:
        self._local.counters.pings += 1
        return (events.PONG,)

    def _pong(self, data: bytes, now: float) -> Effects:
        return ()

    # ------------------------------------------------------------------ channels

    def _subscribe(self, data: bytes, now: float) -> Effects:
        command = read_subscribe(data)
        try:
            return self._subscribe_to(command)
        except Refused as refused:
            return self._refuse(command.channel, refused)

    def _refuse(self, channel: str, refused: Refused) -> Effects:
        self._local.counters.commands_refused += 1
        shown, answer = channel[: self._options.max_channel_name], refused.answer
        return (events.subscription_error(shown, answer.text, refused.text, answer.status),)

    @property
    def _options(self) -> PusherOptions:
        return self._local.options

    def _subscribe_to(self, command: SubscribeCommand) -> Effects:
        name, options, app = command.channel, self._options, self._local.app
        if name.startswith(SERVER_TO_USER):
            if self._extra is None or not self._extra.user or name != SERVER_TO_USER + self._extra.user:
                raise Refused(AUTH_ERROR, "Only a connection that is signed in as this user may subscribe to it")
            return (Subscribe((Subscription(_address(app.id, name)),)),)  # it is in it already, hidden
        if not is_channel_name(name, options.max_channel_name):
            raise Refused(
                INVALID_CHANNEL,
                f"A channel's name has 1 to {options.max_channel_name} characters of A-Z a-z 0-9 _ - = @ , . ;",
            )
        if self._extra is not None and self._extra.granted is not None and name not in self._extra.granted:
            raise Refused(AUTH_ERROR, f"The main server does not grant {name}")
        key = _address(app.id, name)
        if key in self.channels:
            return self._error(f"Existing subscription to channel {name}")
        hidden = 0 if self._extra is None else self._extra.hidden
        if len(self.channels) - hidden >= options.max_channels_a_connection:
            raise Refused(LIMIT_REACHED, f"A connection has at most {options.max_channels_a_connection} channels")
        user, info = None, ""
        if is_presence(name):
            user, info = self._presence(command)
        elif is_private(name):
            self._check(command, command.channel_data, None)
        self.channels = (*self.channels, key) if self.channels else _only(key)
        most = 0
        if user is not None:
            extra = self._needs_extra()
            extra.members = (*extra.members, (key, shown_member(user, info)[0]))
            most = options.max_members
        position = _NEWEST if is_cache(name) else LIVE
        return (Subscribe((Subscription(key, label(app.id, name), user, info, most, position=position),)),)

    def _check(self, command: SubscribeCommand, *channel_data: str | None) -> None:
        """Raises: Refused."""
        check_signature(self._local.app, self.socket_id, command, *channel_data)
        self._vouched = True

    def _presence(self, command: SubscribeCommand) -> tuple[str, str]:
        """The user of a subscription to a presence channel, and what others are shown of it. Raises: Refused."""
        self._check(command, command.channel_data)
        if command.channel_data is not None:
            return presence_member(command.channel_data, self._options)
        if self._extra is None or not self._extra.user:
            raise Refused(AUTH_ERROR, "channel_data is missing, and nobody is signed in")
        return self._extra.user, self._extra.info

    def _unsubscribe(self, data: bytes, now: float) -> Effects:
        name = read_unsubscribe(data).channel
        extra = self._extra
        key = _address(self._local.app.id, name)
        if key not in self.channels:
            return ()
        if extra is not None and extra.user and name == SERVER_TO_USER + extra.user:
            # Hidden, not left: the application may still ask to close this user's connections.
            return (Subscribe((Subscription(key, hidden=True),)),)
        self._leave(key)
        return (Unsubscribe(key),)

    def _leave(self, key: bytes) -> None:
        self.channels = tuple(channel for channel in self.channels if channel != key)
        if self._extra is not None:
            self._extra.members = tuple(member for member in self._extra.members if member[0] != key)

    def _needs_extra(self) -> Extra:
        if self._extra is None:
            self._extra = Extra()
        return self._extra

    # ------------------------------------------------------------------ client events

    def _client_event(self, message: Message, now: float) -> Effects:
        app, options, channel = self._local.app, self._options, message.channel or ""
        if not app.client_events:
            return self._error("Client events are not enabled for this app (client_messages)", REJECTED)
        if len(message.event) > options.max_event_name:
            return self._error(f"An event's name has at most {options.max_event_name} characters", REJECTED)
        if not (is_private(channel) or is_presence(channel)) or is_encrypted(channel):
            return self._error("Client events go to private and presence channels that are not encrypted", REJECTED)
        key = _address(app.id, channel)
        if key not in self.channels:
            return self._error(f"A client event needs a subscription to {channel[:SHOWN]}", REJECTED)
        data = bytes(message.data) or b"null"
        if len(data) > options.max_data_bytes:
            return self._error(f"The data of an event has at most {options.max_data_bytes} bytes", REJECTED)
        extra = self._needs_extra()
        if now - extra.second >= 1:
            extra.second, extra.sent = now, 0
        if extra.sent >= options.client_events_a_second:
            return self._error(f"At most {options.client_events_a_second} client events a second", REJECTED)
        extra.sent += 1
        text = events.client_event(message.event, channel, data, extra.member(key))
        return (m.Publish(key, text, 0, self.socket_id),)

    # ------------------------------------------------------------------ sign-in

    def _sign_in(self, data: bytes, now: float) -> Effects:
        command = read_sign_in(data)
        app = self._local.app
        if not app.signed_by_us(command.auth, user_signature(app.secret, self.socket_id, command.user_data)):
            return self._error("Invalid signature of the sign-in", NOT_SIGNED_IN)
        user_data = read_user(command.user_data.encode())
        try:
            user, info = checked_user(user_data.id, user_data.user_info, self._options)
        except Refused as refused:
            return self._error(refused.text, NOT_SIGNED_IN)
        extra = self._needs_extra()
        if extra.user and extra.user != user:
            return self._error("The connection is signed in as another user", NOT_SIGNED_IN)
        self._vouched = True
        if extra.user:
            extra.info = info
            return (events.signed_in(command.user_data),)
        extra.signing = (user, info, user_data, command.user_data)
        key = _address(app.id, SERVER_TO_USER + user)
        self._add_hidden(extra, key)
        return (Subscribe((Subscription(key, hidden=True),)),)

    def _add_hidden(self, extra: Extra, key: bytes) -> None:
        self.channels = (*self.channels, key)
        extra.hidden += 1

    def _sign_in_replied(self, extra: Extra, wanted: Subscription, status: int) -> Effects:
        assert extra.signing is not None
        (user, info, user_data, text), extra.signing = extra.signing, None
        if status != m.OK:
            return self._close_to_retry(wanted.key)
        extra.user, extra.info = user, info
        effects: list[Effect] = [events.signed_in(text)]
        app = self._local.app
        if app.watchlists:
            most = self._options.max_watchlist
            listed = dict.fromkeys(map(user_name, user_data.watchlist or ()))
            watched = [name for name in listed if name != user and is_user_id(name, self._options)]
            if len(watched) > most:
                effects.append(events.error(TRUNCATED.number, f"The watchlist is cut after {most} users"))
            extra.watching = Watching(watched[:most])
            effects.extend(self._watch(extra, user, user))
        return effects

    # ------------------------------------------------------------------ watchlists

    def _watch(self, extra: Extra, user: str, who: str) -> Effects:
        """Subscribe to the watch channel of a user. who: the user itself, or NOBODY for one who watches it."""
        app_id, name = self._local.app.id, WATCH + user
        key = _address(app_id, name)
        self._add_hidden(extra, key)
        return (Subscribe((Subscription(key, label(app_id, name), who, "", 2),)),)

    def _watch_replied(self, extra: Extra, wanted: Subscription, watched: str, status: int, members: Any) -> Effects:
        watching = extra.watching
        assert watching is not None
        if status != m.OK:
            self._leave(wanted.key)
            extra.hidden -= 1
        elif wanted.user == NOBODY:
            (watching.online if watched in members else watching.offline).append(watched)
        if watching.pending:
            return self._watch(extra, watching.pending.pop(0), NOBODY)
        extra.watching = None
        if not watching.online and not watching.offline:
            return ()
        return (events.watchlist_events(watching.online, watching.offline),)

    # ------------------------------------------------------------------ from the router

    def subscribed(self, results: Sequence[Subscribed], now: float) -> Effects:
        ((wanted, status, members, log),) = results
        extra = self._extra
        if wanted.hidden:
            if extra is not None and extra.signing is not None:
                return self._sign_in_replied(extra, wanted, status)
            return ()
        if wanted.label:
            name = m.label_parts(wanted.label)[2]
            if name.startswith(WATCH):
                assert extra is not None
                return self._watch_replied(extra, wanted, name.removeprefix(WATCH), status, members)
        else:
            assert extra is not None
            name = SERVER_TO_USER + extra.user
        if status == m.FULL:
            self._leave(wanted.key)
            return self._refuse(name, Refused(LIMIT_REACHED, f"The channel has {wanted.most} members"))
        if status != m.OK:
            return self._close_to_retry(wanted.key)
        self._local.counters.registers += 1
        effects: list[Effect] = [events.succeeded(name, members if wanted.user is not None else None)]
        if is_cache(name):
            effects += self._cached(name, log)
        return effects

    def _close_to_retry(self, key: bytes) -> Effects:
        """The router failed. pusher-js repeats no failed subscription, but all of them after a close."""
        self._leave(key)
        return (Close(TRY_AGAIN, TRY_AGAIN.text),)

    def _cached(self, name: str, log: LogSlice | None) -> Effects:
        """The channel's last event; without one, or if the log cannot be read, the client asks its own application."""
        if log is not None and log.events:
            return (log.events[-1].body.encode(),)
        effects: list[Effect] = [events.cache_miss(name)]
        if log is not None and CACHE_MISS in self._local.webhook_events:
            effects.append(m.Happened(label(self._local.app.id, name), CACHE_MISS, ""))
        return effects

    # ------------------------------------------------------------------ time

    def tick(self, silent: float) -> tuple[Effects, float]:
        options = self._options
        if self._local.app.authorized_connections and not self._vouched:
            self._local.counters.timeouts += 1
            return (events.error(UNAUTHORIZED, UNAUTHORIZED.text), Close(UNAUTHORIZED, UNAUTHORIZED.text)), 0
        patience = options.activity_timeout + options.pong_timeout
        if silent < patience:
            return (), patience - silent
        if silent < patience + options.pong_timeout * _PONG_SLACK:
            return (events.PING,), patience + options.pong_timeout - silent
        self._local.counters.timeouts += 1
        return (Close(NO_PONG, NO_PONG.text),), 0


_COMMANDS: Final[dict[str, Callable[[PusherSession, bytes, float], Effects]]] = {
    "pusher:ping": PusherSession._ping,
    "pusher:pong": PusherSession._pong,
    "pusher:subscribe": PusherSession._subscribe,
    "pusher:unsubscribe": PusherSession._unsubscribe,
    "pusher:signin": PusherSession._sign_in,
}
