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
from farm.dialects.pusher.state import Home, More, Watching
from router.common import messages as m
from router.common.answers import Answer
from router.common.position import LIVE, Last, LogSlice
from router.dialects.pusher.protocol import (
    AUTH_ERROR,
    CACHE_MISS,
    GO_AND_RETURN,
    INVALID_CHANNEL,
    LEAVING,
    LIMIT_REACHED,
    NO_PONG,
    NOT_SIGNED_IN,
    NOT_UNDERSTOOD,
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
    shown_member,
)
from router.dialects.pusher.signatures import user_signature

WATCH: Final = "#watch-"
"""How the name of the channel begins in which a user of an application with watchlists is present while he is signed
in. Who watches him is present there too, as the user NOBODY; so to each of them his coming and going is told."""
NOBODY: Final = ""

_NEWEST: Final = Last(1)
_PONG_SLACK: Final = 0.9  # of pong_timeout: a timer may be early, but must not send a second ping
_SHARED: Final = 2048  # channels whose subscribers share the object that is their address
_SHARED_CHARS: Final = 512  # of a name that is remembered for it: no channel's is longer, so this bounds the bytes

_shared_address = lru_cache(_SHARED)(channel_address)


def _address(app: str, name: str) -> bytes:
    """The address of a channel. A device may name anything: what is too long to be a channel is not remembered."""
    return _shared_address(app, name) if len(name) <= _SHARED_CHARS else channel_address(app, name)


@lru_cache(_SHARED)
def _alone(key: bytes) -> tuple[bytes, ...]:
    """The channels of who is in this one only, which is the usual: one object for all of them."""
    return (key,)


class PusherSession(Session, msgspec.Struct, gc=False, eq=False):
    """One connection of an application."""

    _home: Home
    _origin: str  # of its socket ID; one object for all
    _number: int  # the rest of it
    _more: More | None = None
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
        options = self._home.options
        self._home.counters.hellos += 1
        greeting = events.established(self.socket_id, options.activity_timeout)
        if self._home.app.authorized_connections:
            return (greeting, Tick(options.authorization_timeout))
        return (greeting,)

    # ------------------------------------------------------------------ from the device

    def received(self, message: bytes, binary: bool, now: float) -> Effects:
        if binary:
            return self._fault("Only text messages are understood")
        try:
            said = read_message(message)
        except UNREADABLE:
            return self._fault("A message is a JSON object with an event")
        handler = _COMMANDS.get(said.event)
        try:
            if handler is not None:
                return handler(self, data_of(said.data), now)
            if said.event.startswith("client-"):
                return self._client_event(said, now)
        except UNREADABLE as error:
            return self._fault(f"The data of {said.event[:SHOWN]} cannot be used: {error}")
        return self._fault(f"The event {said.event[:SHOWN]} is not understood")

    def _fault(self, text: str, kind: Answer = NOT_UNDERSTOOD) -> Effects:
        self._home.counters.commands_refused += 1
        return (events.error(kind.number, text),)

    def _ping(self, data: bytes, now: float) -> Effects:
        self._home.counters.pings += 1
        return (events.PONG,)

    def _pong(self, data: bytes, now: float) -> Effects:
        return ()

    # ------------------------------------------------------------------ channels

    def _subscribe(self, data: bytes, now: float) -> Effects:
        asked = read_subscribe(data)
        try:
            return self._join(asked)
        except Refused as refused:
            return self._refuse(asked.channel, refused)

    def _refuse(self, channel: str, refused: Refused) -> Effects:
        self._home.counters.commands_refused += 1
        shown, answer = channel[: self._options.max_channel_name], refused.answer
        return (events.subscription_error(shown, answer.text, refused.text, answer.status),)

    @property
    def _options(self) -> PusherOptions:
        return self._home.options

    def _join(self, asked: SubscribeCommand) -> Effects:
        name, options, app = asked.channel, self._options, self._home.app
        if name.startswith(SERVER_TO_USER):
            if self._more is None or not self._more.user or name != SERVER_TO_USER + self._more.user:
                raise Refused(AUTH_ERROR, "Only who is signed in as this user may subscribe to it")
            return (Subscribe((Subscription(_address(app.id, name)),)),)  # which it is in already, hidden
        if not is_channel_name(name, options.max_channel_name):
            raise Refused(
                INVALID_CHANNEL,
                f"A channel's name has 1 to {options.max_channel_name} characters of A-Z a-z 0-9 _ - = @ , . ;",
            )
        key = _address(app.id, name)
        if key in self.channels:
            return self._fault(f"Existing subscription to channel {name}")
        hidden = 0 if self._more is None else self._more.hidden
        if len(self.channels) - hidden >= options.max_channels_a_connection:
            raise Refused(LIMIT_REACHED, f"A connection has at most {options.max_channels_a_connection} channels")
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

    def _check(self, asked: SubscribeCommand, *channel_data: str | None) -> None:
        """Raises: Refused."""
        check_signature(self._home.app, self.socket_id, asked, *channel_data)
        self._vouched = True

    def _presence(self, asked: SubscribeCommand) -> tuple[str, str]:
        """Who subscribes to a presence channel, and what the others are shown of him. Raises: Refused."""
        self._check(asked, asked.channel_data)
        if asked.channel_data is not None:
            return presence_member(asked.channel_data, self._options)
        if self._more is None or not self._more.user:
            raise Refused(AUTH_ERROR, "channel_data is missing, and nobody is signed in")
        return self._more.user, self._more.info

    def _unsubscribe(self, data: bytes, now: float) -> Effects:
        name = read_unsubscribe(data).channel
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

    def _needs_more(self) -> More:
        if self._more is None:
            self._more = More()
        return self._more

    # ------------------------------------------------------------------ client events

    def _client_event(self, said: Message, now: float) -> Effects:
        app, options, channel = self._home.app, self._options, said.channel or ""
        if not app.client_events:
            return self._fault("Client events are not enabled for this app (client_messages)", REJECTED)
        if len(said.event) > options.max_event_name:
            return self._fault(f"An event's name has at most {options.max_event_name} characters", REJECTED)
        if not (is_private(channel) or is_presence(channel)) or is_encrypted(channel):
            return self._fault("Client events go to private and presence channels that are not encrypted", REJECTED)
        key = _address(app.id, channel)
        if key not in self.channels:
            return self._fault(f"A client event needs a subscription to {channel[:SHOWN]}", REJECTED)
        data = bytes(said.data) or b"null"
        if len(data) > options.max_data_bytes:
            return self._fault(f"The data of an event has at most {options.max_data_bytes} bytes", REJECTED)
        more = self._needs_more()
        if now - more.second >= 1:
            more.second, more.sent = now, 0
        if more.sent >= options.client_events_a_second:
            return self._fault(f"At most {options.client_events_a_second} client events a second", REJECTED)
        more.sent += 1
        text = events.client_event(said.event, channel, data, more.member(key))
        return (m.Publish(key, text, 0, self.socket_id),)

    # ------------------------------------------------------------------ signing in

    def _sign_in(self, data: bytes, now: float) -> Effects:
        asked = read_sign_in(data)
        app = self._home.app
        if not app.signed_by_us(asked.auth, user_signature(app.secret, self.socket_id, asked.user_data)):
            return self._fault("Invalid signature of the sign-in", NOT_SIGNED_IN)
        read = read_user(asked.user_data.encode())
        try:
            user, info = checked_user(read.id, read.user_info, self._options)
        except Refused as refused:
            return self._fault(refused.text, NOT_SIGNED_IN)
        more = self._needs_more()
        if more.user and more.user != user:
            return self._fault("The connection is signed in as another user", NOT_SIGNED_IN)
        self._vouched = True
        if more.user:
            more.info = info
            return (events.signed_in(asked.user_data),)
        more.signing = (user, info, read, asked.user_data)
        key = _address(app.id, SERVER_TO_USER + user)
        self._enters_hidden(more, key)
        return (Subscribe((Subscription(key, hidden=True),)),)

    def _enters_hidden(self, more: More, key: bytes) -> None:
        self.channels = (*self.channels, key)
        more.hidden += 1

    def _sign_in_answered(self, more: More, join: Subscription, status: int) -> Effects:
        assert more.signing is not None
        (user, info, read, data), more.signing = more.signing, None
        if status != m.OK:
            return self._come_back(join.key)
        more.user, more.info = user, info
        effects: list[Effect] = [events.signed_in(data)]
        app = self._home.app
        if app.watchlists:
            most = self._options.max_watchlist
            listed = dict.fromkeys(map(user_name, read.watchlist or ()))
            watched = [name for name in listed if name != user and is_user_id(name, self._options)]
            if len(watched) > most:
                effects.append(events.error(TRUNCATED.number, f"The watchlist is cut after {most} users"))
            more.watching = Watching(watched[:most])
            effects.extend(self._watch(more, user, user))
        return effects

    # ------------------------------------------------------------------ watchlists

    def _watch(self, more: More, user: str, who: str) -> Effects:
        """Be present where this user's coming and going is told, as himself or as NOBODY."""
        app_id, name = self._home.app.id, WATCH + user
        key = _address(app_id, name)
        self._enters_hidden(more, key)
        return (Subscribe((Subscription(key, label(app_id, name), who, "", 2),)),)

    def _watch_answered(self, more: More, join: Subscription, watched: str, status: int, members: Any) -> Effects:
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
        return (
            (events.watchlist_events(watching.online, watching.offline),) if watching.online or watching.offline else ()
        )

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
            return self._refuse(name, Refused(LIMIT_REACHED, f"The channel has {wanted.most} members"))
        if status != m.OK:
            return self._come_back(wanted.key)
        self._home.counters.registers += 1
        effects: list[Effect] = [events.succeeded(name, members if wanted.user is not None else None)]
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
        effects: list[Effect] = [events.cache_miss(name)]
        if log is not None and CACHE_MISS in self._home.hears:
            effects.append(m.Happened(label(self._home.app.id, name), CACHE_MISS, ""))
        return effects

    # ------------------------------------------------------------------ time

    def tick(self, silent: float) -> tuple[Effects, float]:
        options = self._options
        if self._home.app.authorized_connections and not self._vouched:
            self._home.counters.timeouts += 1
            return (events.error(UNAUTHORIZED, UNAUTHORIZED.text), Close(UNAUTHORIZED, UNAUTHORIZED.text)), 0
        patience = options.activity_timeout + options.pong_timeout
        if silent < patience:
            return (), patience - silent
        if silent < patience + options.pong_timeout * _PONG_SLACK:
            return (events.PING,), patience + options.pong_timeout - silent
        self._home.counters.timeouts += 1
        return (Close(NO_PONG, NO_PONG.text),), 0


_COMMANDS: Final[dict[str, Callable[[PusherSession, bytes, float], Effects]]] = {
    "pusher:ping": PusherSession._ping,
    "pusher:pong": PusherSession._pong,
    "pusher:subscribe": PusherSession._subscribe,
    "pusher:unsubscribe": PusherSession._unsubscribe,
    "pusher:signin": PusherSession._sign_in,
}
