"""Pusher Channels (protocol 7), app-server side: the HTTP API under `/apps/{id}/`.

An event is sent to the shards and then answered; it is not stored. Only the last event of a cache channel is: there
the answer waits until it is durable.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from hashlib import md5
from typing import Final

import msgspec

from router.common import messages as m
from router.core.operations import Done
from router.dialects.app_server import Context
from router.dialects.pusher.applications import App, load
from router.dialects.pusher.directory import Directory
from router.dialects.pusher.operations import Terminate
from router.dialects.pusher.protocol import (
    APP_DISABLED,
    APP_UNKNOWN,
    BAD_METHOD,
    BAD_REQUEST,
    NAME,
    NO_ROUTE,
    NOT_KEPT,
    SERVER_TO_USER,
    TERMINATED,
    UNSIGNED,
    PusherOptions,
    channel_address,
)
from router.dialects.pusher.publishing import Publishing
from router.dialects.pusher.requests import EMPTY, FAILED_RESPONSE, WAIT, Call, Refused, error_response, parameters_of
from router.dialects.pusher.signatures import request_signature, same
from router.http.message import Request, Response
from router.http.parts import Parts, one_a_turn
from router.http.percent import unquote
from router.http.routes import Handler, Reply, Route

_encode = msgspec.json.Encoder().encode
_NO_ROUTE: Final = error_response(NO_ROUTE)
_NO_APP: Final = error_response(APP_UNKNOWN)
_DISABLED: Final = error_response(APP_DISABLED)
_NOT_TERMINATED: Final = error_response(NOT_KEPT, "The user's router did not answer; it may have been done", WAIT)
_ONLY: Final = {
    method: error_response(BAD_METHOD, f"This path takes {method.decode()}", ("Allow", method.decode()))
    for method in (b"GET", b"POST")
}
_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


def routes(context: Context) -> Iterable[Route]:
    """The dialect's routes on the router port."""
    app_side = context.shared(AppSide)
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
            one_a_turn(pages, request.pending, page, lambda: reply(FAILED_RESPONSE))

    return metrics


class AppSide:
    """The requests of app servers. `publishing`, `apps` and `terminate` are there for operators, too."""

    def __init__(self, context: Context) -> None:
        options = context.settings.get(PusherOptions)
        self._options = options
        self._messages = context.core.messages
        self._operations = context.core.operations
        self._operations.register(NAME, {Terminate: self._perform_terminate})
        self._counters = context.core.counters
        self._unix_time = context.unix_time
        directory = Directory(context)
        self.publishing = publishing = Publishing(context, directory)
        self.apps = load(options.apps, options.unsigned)
        self._routes: dict[bytes, tuple[bytes, Callable[[Call], None]]] = {
            b"events": (b"POST", publishing.events),
            b"batch_events": (b"POST", publishing.batch_events),
            b"channels": (b"GET", directory.channels),
        }
        self._routes_of_one: dict[tuple[bytes, bytes], tuple[bytes, Callable[[Call, str], None]]] = {
            (b"channels", b""): (b"GET", directory.channel),
            (b"channels", b"users"): (b"GET", directory.users),
            (b"channels", b"events"): (b"POST", publishing.old_events),
            (b"users", b"terminate_connections"): (b"POST", self.terminate),
        }

    # ------------------------------------------------------------------ paths

    def names(self, request: Request, reply: Reply) -> None:
        """`GET /apps`: the names, which MicroNotifier gives to everyone; without one_port only those of unsigned
        apps."""
        names = [app.name for app in self.apps if app.unsigned or self._options.one_port]
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
            self._serve(request, reply, method, self.apps.by_id.get(unquote(parts[2])), handler)
        elif len(parts) in (5, 6) and parts[4]:
            self._serve_one(request, reply, parts[3], parts[4], b"/".join(parts[5:]), unquote(parts[2]))
        else:
            reply(_NO_ROUTE)

    def user(self, request: Request, reply: Reply) -> None:
        """`POST /users/{id}/terminate_connections`: as a library of Pusher's has it; the key names the application."""
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
            asked = self.apps.by_key.get(parameters_of(request.query).get("auth_key", ""))
            if asked is None:
                reply(error_response(UNSIGNED, "There is no application with this auth_key"))
                return
        else:
            asked = self.apps.by_id.get(app)
        self._serve(request, reply, method, asked, lambda call: handler(call, unquote(name)))

    def _serve(
        self, request: Request, reply: Reply, method: bytes, app: App | None, handler: Callable[[Call], None]
    ) -> None:
        if request.method != method:
            reply(_ONLY[method])
            return
        if app is None:
            reply(_NO_APP)
            return
        parameters = parameters_of(request.query)
        try:
            if not app.unsigned:
                self._check_signature(app, request, parameters)
            if not app.enabled:
                reply(_DISABLED)
                return
            handler(Call(app, parameters, request.body, reply, request.pending, request.headers))
        except Refused as refused:
            self._counters.count(refused.answer.metric)
            reply(refused.response)

    def _check_signature(self, app: App, request: Request, parameters: Mapping[str, str]) -> None:
        """Raises: Refused unless the application's own server made the request, just now."""
        if not same(parameters.get("auth_key", ""), app.key):
            raise Refused(UNSIGNED, "auth_key is not the key of this application")
        if parameters.get("auth_version") != "1.0":
            raise Refused(UNSIGNED, "auth_version must be 1.0")
        stamp = parameters.get("auth_timestamp", "")
        if _TIMESTAMP.fullmatch(stamp) is None:
            raise Refused(UNSIGNED, "auth_timestamp must be a whole number of seconds")
        off = int(stamp) - int(self._unix_time())
        if abs(off) > self._options.timestamp_window:
            raise Refused(
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
                raise Refused(UNSIGNED, "auth_signature is wrong")
        expected = parameters.get("body_md5")
        if expected is None:
            if request.body:
                raise Refused(UNSIGNED, "body_md5 is missing")
        elif not same(expected, md5(request.body, usedforsecurity=False).hexdigest()):
            raise Refused(UNSIGNED, "body_md5 is not that of the body")

    def terminate(self, call: Call, user: str) -> None:
        """`POST .../users/{id}/terminate_connections`: closes the sockets that are signed in as this user.

        Raises: Refused.
        """
        if not 0 < len(user) <= self._options.max_user_id:
            raise Refused(BAD_REQUEST, f"The id of a user has 1 to {self._options.max_user_id} characters")

        def terminated(status: int, _: None = None) -> None:
            call.reply(EMPTY if status == m.OK else _NOT_TERMINATED)

        self._operations.at(channel_address(call.app.id, SERVER_TO_USER + user), Terminate(), terminated)

    def _perform_terminate(self, key: bytes, asked: Terminate, done: Done) -> None:
        self._messages.terminate(key, int(TERMINATED), TERMINATED.text)
        done(m.OK)
