"""Pusher Channels (protocol 7), app-server side: the HTTP API under `/apps/{id}/`.

An event is said to the shards and then answered; it is not stored. Only a cache channel's last event is: there the
answer waits until it is durable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import md5
from typing import Any, Final, TypeVar

import msgspec

from router.common import messages as m
from router.common.answers import Answer
from router.common.position import AfterOffset, Last, LogEvent, LogSlice
from router.core.channels import Channel
from router.dialects.app_server import Context
from router.dialects.pusher.applications import App, load
from router.dialects.pusher.protocol import (
    APP_DISABLED,
    APP_UNKNOWN,
    BAD_METHOD,
    BAD_REQUEST,
    FAILED,
    NAME,
    NO_ROOM,
    NO_ROUTE,
    NOT_KEPT,
    NOT_READ,
    SERVER_TO_USER,
    TERMINATED,
    TOO_LONG,
    UNSIGNED,
    PusherOptions,
    channel_address,
    event_end,
    event_start,
    is_cache,
    is_channel_name,
    is_encrypted,
    is_presence,
    is_socket_id,
    shown_member,
)
from router.dialects.pusher.signatures import request_signature, same
from router.http.message import PendingResponse, Request, Response
from router.http.parts import Parts, one_a_turn
from router.http.percent import unquote
from router.http.routes import Handler, Reply, Route
from router.store.base import Append

_encode = msgspec.json.Encoder().encode

# ---------------------------------------------------------------------- answers

T = TypeVar("T")
_Attributes = dict[str, Any]


def _error(answer: Answer, message: str = "", *headers: tuple[str, str]) -> Response:
    """message: more particular than the table's."""
    body = {"error": {"code": answer.status, "message": message or answer.text}}
    return Response(answer.status, _encode(body), headers=headers)


class _Refused(Exception):
    """A request that is answered with an error."""

    def __init__(self, answer: Answer, message: str, *headers: tuple[str, str]) -> None:
        super().__init__(message)
        self.answer = answer
        self.response = _error(answer, message, *headers)


_WAIT: Final = ("Retry-After", "5")
_EMPTY: Final = Response(200, b"{}")
_ACCEPTED: Final = Response(202, b"{}")
_NO_ROUTE: Final = _error(NO_ROUTE)
_NO_APP: Final = _error(APP_UNKNOWN)
_DISABLED: Final = _error(APP_DISABLED)
_NOT_KEPT: Final = _error(NOT_KEPT, "", _WAIT)
_FAILED: Final = _error(FAILED)
_NOT_READ: Final = _error(NOT_READ, "", _WAIT)
_ONLY: Final = {
    method: _error(BAD_METHOD, f"This path takes {method.decode()}", ("Allow", method.decode()))
    for method in (b"GET", b"POST")
}
_NOTHING: Final[frozenset[str]] = frozenset()
_INFORMED: Final = frozenset({"user_count", "subscription_count"})
_INFORMED_OF_ONE: Final = _INFORMED | {"cache"}
# ---------------------------------------------------------------------- requests


class _Event(msgspec.Struct, gc=False):
    """The body of an event. Of `channels` and `channel` one is there. Null is as good as nothing."""

    name: str
    data: str
    channels: list[str] | None = None
    channel: str | None = None
    socket_id: str | None = None
    info: str | None = None


class _Batch(msgspec.Struct):
    """The body of many events."""

    batch: list[_Event]


_event_in: Final = msgspec.json.Decoder(_Event)
_batch_in: Final = msgspec.json.Decoder(_Batch)
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


@dataclass(slots=True)
class _Call:
    """A request that was found to come from its application."""

    app: App
    parameters: Mapping[str, str]
    body: bytes
    reply: Reply
    pending: PendingResponse | None


def routes(context: Context) -> Iterable[Route]:
    """The dialect's routes on the router port."""
    app_side = _AppSide(context)
    found = [
        Route(b"/apps", app_side.names),
        Route(b"/apps/", app_side.application, exact=False),
        Route(b"/users/", app_side.user, exact=False),
    ]
    if context.settings.get(PusherOptions).one_port:
        found.append(Route(b"/metrics", _metrics(context)))
    return found


def _metrics(context: Context) -> Handler:
    """`GET /metrics`, which MicroNotifier has on its one port. On the admin port it is there in any case."""
    from router.common.exposition import CONTENT_TYPE  # which costs megabytes

    pages = Parts(context.turns, 1, 1)

    def metrics(request: Request, reply: Reply) -> None:
        def page() -> None:
            reply(Response(200, context.metrics_page(), CONTENT_TYPE))

        if request.method not in (b"GET", b"HEAD"):
            reply(_ONLY[b"GET"])
        else:
            one_a_turn(pages, request.pending, page, lambda: reply(_FAILED))

    return metrics


class _Logged:
    """What a request has for the logs of channels."""

    __slots__ = ("_then", "open", "status")

    def __init__(self) -> None:
        self.open = 0
        self.status = m.OK
        self._then: Callable[[int], None] | None = None

    def done(self, status: int) -> None:
        """One of its events is in its log, or could not be kept."""
        self.open -= 1
        if status != m.OK:
            self.status = status
        if not self.open and self._then is not None:
            self._then(self.status)

    def when_done(self, then: Callable[[int], None]) -> None:
        """Call it with OK once all are, or with what has gone wrong."""
        self._then = then
        if not self.open:
            then(self.status)


class _AppSide:
    def __init__(self, context: Context) -> None:
        options = context.settings.get(PusherOptions)
        self._options = options
        self._core = context.core
        self._messages = context.core.messages
        self._records = context.core.records
        self._unix_time = context.unix_time
        self._listings = Parts(context.turns, 1, 1)
        self._apps = load(options.apps, options.unsigned)
        # Libraries' own tests look for these words, and for those of a batch.
        self._too_long = f"The data content of this event exceeds the allowed maximum ({options.max_data_bytes} bytes)"
        self._routes: dict[bytes, tuple[bytes, Callable[[_Call], None]]] = {
            b"events": (b"POST", self._events),
            b"batch_events": (b"POST", self._batch_events),
            b"channels": (b"GET", self._channels),
        }
        self._routes_of_one: dict[tuple[bytes, bytes], tuple[bytes, Callable[[_Call, str], None]]] = {
            (b"channels", b""): (b"GET", self._channel),
            (b"channels", b"users"): (b"GET", self._users),
            (b"channels", b"events"): (b"POST", self._old_events),
            (b"users", b"terminate_connections"): (b"POST", self._terminate),
        }

    # ------------------------------------------------------------------ who asks for what

    def names(self, request: Request, reply: Reply) -> None:
        """`GET /apps`: what MicroNotifier tells everybody. Without one port only of those that take the unsigned."""
        names = [app.name for app in self._apps if app.unsigned or self._options.one_port]
        if not names:
            reply(_NO_ROUTE)
        elif request.method not in (b"GET", b"HEAD"):
            reply(_ONLY[b"GET"])
        else:
            reply(Response(200, _encode({"applications": names})))

    def application(self, request: Request, reply: Reply) -> None:
        """Everything under `/apps/{id}/`."""
        parts = request.path.split(b"/")
        if len(parts) == 4:
            found = self._routes.get(parts[3])
            if found is None:
                reply(_NO_ROUTE)
                return
            method, handler = found
            self._serve(request, reply, method, self._apps.by_id.get(unquote(parts[2])), handler)
        elif len(parts) in (5, 6) and parts[4]:
            self._serve_one(request, reply, parts[3], parts[4], b"/".join(parts[5:]), unquote(parts[2]))
        else:
            reply(_NO_ROUTE)

    def user(self, request: Request, reply: Reply) -> None:
        """`POST /users/{id}/terminate_connections`: as a library of Pusher's has it; the key says which application."""
        parts = request.path.split(b"/")
        if len(parts) == 4 and parts[2]:
            self._serve_one(request, reply, parts[1], parts[2], parts[3], None)
        else:
            reply(_NO_ROUTE)

    def _serve_one(
        self, request: Request, reply: Reply, kind: bytes, name: bytes, action: bytes, app: str | None
    ) -> None:
        """A request about one channel or user. app: its ID; None: whose key it is signed with."""
        found = self._routes_of_one.get((kind, action))
        if found is None:
            reply(_NO_ROUTE)
            return
        method, handler = found
        if app is None:
            asked = self._apps.by_key.get(_parameters(request.query).get("auth_key", ""))
            if asked is None:
                reply(_error(UNSIGNED, "There is no application with this auth_key"))
                return
        else:
            asked = self._apps.by_id.get(app)
        self._serve(request, reply, method, asked, lambda call: handler(call, unquote(name)))

    def _serve(
        self, request: Request, reply: Reply, method: bytes, app: App | None, handler: Callable[[_Call], None]
    ) -> None:
        if request.method != method:
            reply(_ONLY[method])
            return
        if app is None:
            reply(_NO_APP)
            return
        parameters = _parameters(request.query)
        try:
            if not app.unsigned:
                self._check_signature(app, request, parameters)
            if not app.enabled:
                reply(_DISABLED)
                return
            handler(_Call(app, parameters, request.body, reply, request.pending))
        except _Refused as refused:
            self._core.counters.count(refused.answer.metric)
            reply(refused.response)

    def _check_signature(self, app: App, request: Request, parameters: Mapping[str, str]) -> None:
        """Raises: _Refused unless the application's own server made the request, just now."""
        if not same(parameters.get("auth_key", ""), app.key):
            raise _Refused(UNSIGNED, "auth_key is not the key of this application")
        if parameters.get("auth_version") != "1.0":
            raise _Refused(UNSIGNED, "auth_version must be 1.0")
        stamp = parameters.get("auth_timestamp", "")
        if _TIMESTAMP.fullmatch(stamp) is None:
            raise _Refused(UNSIGNED, "auth_timestamp must be a whole number of seconds")
        off = int(stamp) - int(self._unix_time())
        if abs(off) > self._options.timestamp_window:
            raise _Refused(
                UNSIGNED, f"auth_timestamp is {abs(off)} s {'ahead' if off > 0 else 'behind'}: look at the clocks"
            )
        given = parameters.get("auth_signature", "")
        method = request.method.decode()
        path = request.path.decode("utf-8", "replace")
        if not same(given, request_signature(app.secret, method, path, parameters.items())):
            # Some libraries sign the path before it is escaped. What would still read as escaped could stand for two.
            plain = unquote(request.path)
            if (
                plain == path
                or "%" in plain
                or not same(given, request_signature(app.secret, method, plain, parameters.items()))
            ):
                raise _Refused(UNSIGNED, "auth_signature is wrong")
        expected = parameters.get("body_md5")
        if expected is None:
            if request.body:
                raise _Refused(UNSIGNED, "body_md5 is missing")
        elif not same(expected, md5(request.body, usedforsecurity=False).hexdigest()):
            raise _Refused(UNSIGNED, "body_md5 is not that of the body")

    # ------------------------------------------------------------------ events

    def _events(self, call: _Call) -> None:
        """`POST .../events`: one event for up to `max_channels_an_event` channels."""
        event = _decode(_event_in, call.body)
        channels = self._check_event(event)
        wanted = _wanted(event.info, _INFORMED)
        self._check_room(any(map(is_cache, channels)))
        logged = _Logged()
        self._publish(call, event, channels, logged)
        if not wanted:
            self._answer(call, _EMPTY, logged)
            return

        def counted() -> None:
            found = {name: _attributes(name, self._there(call.app, name), wanted) for name in channels}
            self._answer(call, Response(200, _encode({"channels": found})), logged)

        self._when_counted(call, wanted, channels, counted)

    def _batch_events(self, call: _Call) -> None:
        """`POST .../batch_events`: all of them are found valid before any is said."""
        events = _decode(_batch_in, call.body).batch
        most = self._options.max_batch
        if len(events) > most:
            raise _Refused(BAD_REQUEST, f"Batch too large ({len(events)} > {most})")
        checked = [(event, self._check_event(event), _wanted(event.info, _INFORMED)) for event in events]
        for _, channels, _ in checked:
            if len(channels) != 1:
                raise _Refused(BAD_REQUEST, "An event of a batch goes to one channel")
        self._check_room(any(is_cache(channels[0]) for _, channels, _ in checked))
        logged = _Logged()
        for event, channels, _ in checked:
            self._publish(call, event, channels, logged)
        every = _NOTHING.union(*(wanted for _, _, wanted in checked))
        if not every:
            self._answer(call, _EMPTY, logged)
            return

        def counted() -> None:
            found = [
                _attributes(channels[0], self._there(call.app, channels[0]), wanted) for _, channels, wanted in checked
            ]
            self._answer(call, Response(200, _encode({"batch": found})), logged)

        self._when_counted(call, every, [channels[0] for _, channels, _ in checked], counted)

    def _old_events(self, call: _Call, channel: str) -> None:
        """`POST .../channels/{name}/events?name=`: the body is the data. Deprecated, and answered with 202."""
        try:
            data = call.body.decode()
        except UnicodeDecodeError:
            raise _Refused(BAD_REQUEST, "The data of an event is not UTF-8") from None
        parameters = call.parameters
        event = _Event(parameters.get("name", ""), data, [channel], None, parameters.get("socket_id"))
        channels = self._check_event(event)
        self._check_room(is_cache(channel))
        logged = _Logged()
        self._publish(call, event, channels, logged)
        self._answer(call, _ACCEPTED, logged)

    def _check_event(self, event: _Event) -> list[str]:
        """The channels that it goes to, each once. Raises: _Refused."""
        options = self._options
        if not 0 < len(event.name) <= options.max_event_name:
            raise _Refused(BAD_REQUEST, f"The name of an event has 1 to {options.max_event_name} characters")
        data = event.data
        # A character has at most 4 bytes: nearly all data need not be encoded to be measured.
        if len(data) * 4 > options.max_data_bytes and len(data.encode()) > options.max_data_bytes:
            raise _Refused(TOO_LONG, self._too_long)
        if event.socket_id and not is_socket_id(event.socket_id):
            raise _Refused(BAD_REQUEST, "socket_id must be two whole numbers with a dot between them")
        channels = event.channels or []
        if event.channel is not None:
            channels = [*channels, event.channel]
        if not channels:
            raise _Refused(BAD_REQUEST, "An event needs channels, or a channel")
        if len(channels) > 1:
            if len(channels) > options.max_channels_an_event:
                raise _Refused(BAD_REQUEST, f"{len(channels)} channels, {options.max_channels_an_event} are allowed")
            channels = list(dict.fromkeys(channels))
            if len(channels) > 1 and any(map(is_encrypted, channels)):
                raise _Refused(BAD_REQUEST, "An event for an encrypted channel goes to that channel alone")
        for channel in channels:
            self._check_channel(channel)
        return channels

    def _check_channel(self, name: str) -> None:
        options = self._options
        if is_channel_name(name, options.max_channel_name):
            return
        if name.startswith(SERVER_TO_USER) and 0 < len(name) - len(SERVER_TO_USER) <= options.max_user_id:
            return
        raise _Refused(
            BAD_REQUEST,
            f"The name of a channel has 1 to {options.max_channel_name} characters of A-Z a-z 0-9 _ - = @ , . ;",
        )

    def _check_room(self, kept: bool) -> None:
        if kept and self._messages.full:
            why = "The store is full (store.max_bytes)" if self._messages.over else "Too much waits for the store"
            raise _Refused(NO_ROOM, why, _WAIT)

    def _publish(self, call: _Call, event: _Event, channels: list[str], logged: _Logged) -> None:
        """To the workers; to those of cache channels when the store has it, or could not. What channels have in common
        is encoded once."""
        app = call.app.id
        exclude = event.socket_id or ""
        start, end = event_start(event.name), event_end(event.data)
        for channel in channels:
            key = channel_address(app, channel)
            frame = f"{start}{_encode(channel).decode()}{end}"
            if is_cache(channel):
                self._publish_logged(key, frame, exclude, logged)
            else:
                self._messages.publish(key, frame, exclude)

    def _publish_logged(self, key: bytes, frame: str, exclude: str, logged: _Logged) -> None:
        messages = self._messages

        def done(status: int, end: AfterOffset | None) -> None:
            if status != m.OK:
                messages.publish(key, frame, exclude)
            logged.done(status)

        logged.open += 1
        expires = int(self._unix_time()) + self._options.cache_ttl
        messages.publish_logged(Append(key, messages.sequence(), expires, frame, most=1), done, exclude)

    def _answer(self, call: _Call, answer: Response, logged: _Logged) -> None:
        reply = call.reply
        logged.when_done(lambda status: reply(answer if status == m.OK else _NOT_KEPT))

    # ------------------------------------------------------------------ what is there

    def _channels(self, call: _Call) -> None:
        """`GET .../channels`: those with subscribers. With user_count only presence channels may be asked for."""
        parameters = call.parameters
        prefix = parameters.get("filter_by_prefix", "")
        wanted = _wanted(parameters.get("info"), _INFORMED)
        if "user_count" in wanted and not is_presence(prefix):
            raise _Refused(BAD_REQUEST, "user_count needs a filter_by_prefix that begins with presence-")

        def listing() -> None:
            found = {
                name: _attributes(name, self._there(call.app, name), wanted) if wanted else {}
                for name in self._core.channels.names(NAME, call.app.id, prefix)
                if not name.startswith("#")
            }
            call.reply(Response(200, _encode({"channels": found})))

        self._when_counted(call, wanted, None, lambda: self._in_turn(call, listing))

    def _channel(self, call: _Call, channel: str) -> None:
        """`GET .../channels/{name}`: whether it has subscribers, and what else is asked for."""
        self._check_channel(channel)
        wanted = _wanted(call.parameters.get("info"), _INFORMED_OF_ONE)
        self._when_counted(call, wanted, [channel], lambda: self._channel_counted(call, channel, wanted))

    def _channel_counted(self, call: _Call, channel: str, wanted: frozenset[str]) -> None:
        there = self._there(call.app, channel)
        found: _Attributes = {"occupied": there is not None and there.count > 0} | _attributes(channel, there, wanted)
        if "cache" not in wanted or not is_cache(channel):
            call.reply(Response(200, _encode(found)))
            return

        def read(status: int, log: LogSlice | None) -> None:
            if status != m.OK or log is None:
                call.reply(_NOT_READ)
                return
            found["cache"] = self._cached(log.events[-1]) if log.events else None
            call.reply(Response(200, _encode(found)))

        self._core.logs.read(channel_address(call.app.id, channel), Last(1), read)

    def _cached(self, event: LogEvent) -> _Attributes:
        data = msgspec.json.decode(event.body)["data"]
        return {"data": data, "ttl": max(0, event.expires - int(self._unix_time()))}

    def _users(self, call: _Call, channel: str) -> None:
        """`GET .../channels/{name}/users`: the members of a presence channel; with_user_info=1 tells more of them."""
        self._check_channel(channel)
        if not is_presence(channel):
            raise _Refused(BAD_REQUEST, "Only a presence channel has users")
        there = self._there(call.app, channel)
        members = {} if there is None or there.members is None else there.members
        with_info = call.parameters.get("with_user_info") == "1"
        users: list[_Attributes] = []
        for user, member in members.items():
            user_id, user_info = shown_member(user, member.info)
            users.append({"id": msgspec.Raw(user_id)})
            if with_info and user_info:
                users[-1]["user_info"] = msgspec.Raw(user_info)
        call.reply(Response(200, _encode({"users": users})))

    def _terminate(self, call: _Call, user: str) -> None:
        """`POST .../users/{id}/terminate_connections`: closes the sockets that are signed in as this user."""
        if not 0 < len(user) <= self._options.max_user_id:
            raise _Refused(BAD_REQUEST, f"The id of a user has 1 to {self._options.max_user_id} characters")
        self._messages.terminate(channel_address(call.app.id, SERVER_TO_USER + user), int(TERMINATED), TERMINATED.text)
        call.reply(_EMPTY)

    def _in_turn(self, call: _Call, then: Callable[[], None]) -> None:
        """Do it when this connection has its turn: it takes long, and no two are done before others are heard."""
        one_a_turn(self._listings, call.pending, then, lambda: call.reply(_FAILED))

    def _when_counted(
        self, call: _Call, wanted: frozenset[str], channels: Iterable[str] | None, then: Callable[[], None]
    ) -> None:
        """Do it when the numbers of subscribers, if they are wanted, are right. channels: None for all there are."""
        if "subscription_count" not in wanted:
            then()
        else:
            keys = None if channels is None else [channel_address(call.app.id, name) for name in channels]
            self._core.channels.when_counted(keys, then)

    def _there(self, app: App, channel: str) -> Channel | None:
        return self._core.channels.get(channel_address(app.id, channel))


def _attributes(name: str, channel: Channel | None, wanted: frozenset[str]) -> _Attributes:
    """What is asked for of a channel, as far as such a channel has it."""
    found: _Attributes = {}
    if "user_count" in wanted and is_presence(name):
        found["user_count"] = 0 if channel is None or channel.members is None else len(channel.members)
    if "subscription_count" in wanted:
        found["subscription_count"] = 0 if channel is None else channel.count
    return found


def _decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """Raises: _Refused if the body is not what it has to be."""
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise _Refused(BAD_REQUEST, str(error)) from None
    except UnicodeDecodeError:
        raise _Refused(BAD_REQUEST, "JSON is not UTF-8") from None
    except RecursionError:
        raise _Refused(BAD_REQUEST, "JSON is nested too deeply") from None


def _wanted(info: str | None, available: frozenset[str]) -> frozenset[str]:
    """The attributes that a comma separated list names, as far as they can be had here. Raises: _Refused."""
    if not info:
        return _NOTHING
    wanted = frozenset(part.strip() for part in info.split(","))
    if not wanted <= _INFORMED_OF_ONE:
        raise _Refused(BAD_REQUEST, f"info may name {', '.join(sorted(_INFORMED_OF_ONE))}")
    return wanted & available


def _parameters(query: bytes) -> dict[str, str]:
    """Parameters by name in lower case. One that cannot be told from two in a signed text is left out."""
    parameters: dict[str, str] = {}
    if query:
        for pair in query.split(b"&"):
            name, _, value = pair.partition(b"=")
            text = unquote(value)
            if "&" not in text:
                parameters[name.decode("utf-8", "replace").lower()] = text
    return parameters
