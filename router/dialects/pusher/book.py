"""The channels and users of Pusher, for the operators of the farm."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final

import msgspec

from router.common import messages as m
from router.core.managing import BAD_REQUEST, NOT_FOUND, Refusal
from router.dialects.app_server import Context
from router.dialects.channel_book import ChannelBook, ChannelMember, ChannelRow, ChannelState, Done, TestEvent
from router.dialects.pusher.app_server import AppSide
from router.dialects.pusher.applications import App
from router.dialects.pusher.protocol import NAME, PusherOptions, channel_address, is_cache, is_presence, shown_member
from router.dialects.pusher.requests import Call, Refused, check_channel
from router.http.message import Response
from router.store.base import LogSize

_MEMBERS: Final = 1000
_EVENT: Final = "farm-test"
_NO_PARAMETERS: Final[Mapping[str, str]] = {}
_encode = msgspec.json.Encoder().encode


class PusherBook(ChannelBook):
    """Those of all applications."""

    __slots__ = ("_app_side", "_core", "_options")
    knows_users: ClassVar[bool] = True

    def __init__(self, context: Context) -> None:
        self._core = context.core
        self._options = context.settings.get(PusherOptions)
        self._app_side = context.shared(AppSide)

    def names(self) -> list[tuple[str, Iterable[str]]]:
        """But for those that stand for users."""
        return [(app, filter(_is_shown, names)) for app, names in self._core.channels.all_names(NAME)]

    def row(self, application: str, channel: str) -> ChannelRow:
        """Presence channels have members."""
        there = self._core.channels.get(channel_address(application, channel))
        members = None
        if is_presence(channel):
            members = 0 if there is None or there.members is None else len(there.members)
        return ChannelRow(NAME, application, channel, 0 if there is None else there.count, members)

    def address(self, application: str, channel: str) -> tuple[bytes, str]:
        """The application is one of the settings."""
        app = self._app(application)
        try:
            check_channel(channel, self._options)
        except Refused as refused:
            raise Refusal(BAD_REQUEST, str(refused)) from None
        return channel_address(app.id, channel), app.id

    def _app(self, application: str) -> App:
        apps = self._app_side.apps
        if not application and len(apps) == 1:
            return next(iter(apps))
        app = apps.by_id.get(application)
        if app is None:
            known = ", ".join(sorted(apps.by_id)[:10]) or "none"
            raise Refusal(NOT_FOUND, f"there is no application {application!r}; those that there are: {known}")
        return app

    def look(self, key: bytes, application: str, channel: str, done: Callable[[ChannelState | None], None]) -> None:
        """A cache channel holds its last event."""
        there = self._core.channels.get(key)
        subscribers = 0 if there is None else there.count
        state = ChannelState(NAME, application, channel, subscribers > 0, subscribers)
        if is_presence(channel):
            members = {} if there is None or there.members is None else there.members
            shown = [shown_member(user, member.info) for user, member in list(members.items())[:_MEMBERS]]
            state.members = [ChannelMember(_text(user), info.decode()) for user, info in shown]
            state.member_count = len(members)
        if not is_cache(channel):
            done(state)
            return

        def sized(status: int, sizes: dict[bytes, LogSize]) -> None:
            if status != m.OK:
                done(None)
                return
            size = sizes.get(key)
            state.stored, state.position = (0, None) if size is None else (size.number, size.offset)
            state.exists = state.exists or state.stored > 0
            done(state)

        self._core.logs.sizes([key], sized)

    def publish(self, application: str, channel: str, event: TestEvent, done: Done) -> None:
        """The data is a text, as from app servers."""
        app = self._app(application)
        body = _encode({"name": event.event or _EVENT, "channel": channel, "data": event.data})
        self._ask(app, body, self._app_side.publishing.events, done)

    def terminate(self, application: str, user: str, done: Done) -> None:
        """The sockets that are signed in as this user."""
        app = self._app(application)
        self._ask(app, b"", lambda call: self._app_side.terminate(call, user), done)

    def _ask(self, app: App, body: bytes, handler: Callable[[Call], None], done: Done) -> None:
        def reply(response: Response) -> None:
            done(response.status, "" if response.status < 400 else _message(response.body))

        try:
            handler(Call(app, _NO_PARAMETERS, body, reply, None, {}))
        except Refused as refused:
            reply(refused.response)


def _is_shown(name: str) -> bool:
    return not name.startswith("#")


def _message(body: bytes) -> str:
    error: dict[str, Any] = msgspec.json.decode(body)["error"]
    return str(error["message"])


def _text(user: bytes) -> str:
    """A user's ID, from JSON."""
    return str(msgspec.json.decode(user))
