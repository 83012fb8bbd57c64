"""Pusher in a worker: its applications, and a session for each connection or the reason why it is refused."""

from __future__ import annotations

import sys
from typing import Final
from urllib.parse import parse_qs, unquote

from farm.dialects import Close, Context, Dialect, Effects, Presence, Session
from farm.dialects.pusher import events
from farm.dialects.pusher.events import SHOWN
from farm.dialects.pusher.session import NOBODY, WATCH, PusherSession
from farm.dialects.pusher.state import LocalApp
from farm.transports.request import Request
from router.dialects.pusher.applications import load
from router.dialects.pusher.protocol import (
    BAD_VERSION,
    DISABLED,
    NO_APP,
    NO_PATH,
    NO_VERSION,
    OTHER_VERSION,
    OVER_QUOTA,
    PusherOptions,
)

PROTOCOLS: Final = range(5, 8)
"""Versions that are the same for a server: since 5, `data` is a string that holds JSON."""
_PREFIX: Final = "/app/"


class PusherDialect(Dialect, Presence):
    """What all sessions of a worker share."""

    def __init__(self, context: Context) -> None:
        self.options = options = context.settings.get(PusherOptions)
        self._apps = {app.key: LocalApp(app, options, context.counters) for app in load(options.apps, options.unsigned)}

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
        local = self._apps.get(key)
        if local is None:
            return RejectedSession(NO_APP, f"{NO_APP.text} {key[:SHOWN]}")
        if not local.app.enabled:
            return RejectedSession(DISABLED, DISABLED.text)
        if local.connections >= local.app.connections_a_worker > 0:
            return RejectedSession(OVER_QUOTA, OVER_QUOTA.text)
        origin, _, number = request.socket_id.partition(".")
        session = PusherSession(local, sys.intern(origin), int(number))
        if request.grant is not None and request.grant.channels is not None:
            session.granted(request.grant.channels)
        return session

    def member_added(self, channel: str, user: str, info: str) -> bytes:
        if channel.startswith(WATCH):
            return events.watchlist_events([user] if user != NOBODY else [], [])
        return events.member_added(channel, user, info)

    def member_removed(self, channel: str, user: str, info: str) -> bytes:
        if channel.startswith(WATCH):
            return events.watchlist_events([], [user] if user != NOBODY else [])
        return events.member_removed(channel, user, info)


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


class RejectedSession(Session):
    """A connection that is refused: it gets the reason, and is closed."""

    __slots__ = ("_code", "_reason")

    def __init__(self, code: int, reason: str) -> None:
        self._code = code
        self._reason = reason

    def begun(self, now: float) -> Effects:
        return (events.error(self._code, self._reason), Close(self._code, self._reason))
