"""Reading requests: the channels of an application, one of them, and the members of a presence channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from router.common import messages as m
from router.common.position import Last, LogEvent, LogSlice
from router.core.channel import Channel
from router.dialects.app_server import Context
from router.dialects.pusher.applications import App
from router.dialects.pusher.protocol import (
    BAD_REQUEST,
    NAME,
    NOT_READ,
    PusherOptions,
    channel_address,
    is_cache,
    is_presence,
    shown_member,
)
from router.dialects.pusher.requests import (
    FAILED_RESPONSE,
    INFORMED,
    INFORMED_OF_ONE,
    WAIT,
    Attributes,
    Call,
    Refused,
    check_channel,
    error_response,
    wanted_of,
)
from router.http.message import Response
from router.http.parts import Parts, one_a_turn

_encode = msgspec.json.Encoder().encode
_NOT_READ: Final = error_response(NOT_READ, "", WAIT)


class Directory:
    """The reading requests. A number of subscribers is given when it is right."""

    def __init__(self, context: Context) -> None:
        self._options = context.settings.get(PusherOptions)
        self._core = context.core
        self._unix_time = context.unix_time
        self._listings = Parts(context.turns, 1, 1)

    def channels(self, call: Call) -> None:
        """`GET .../channels`: those with subscribers. With user_count only presence channels may be asked for."""
        parameters = call.parameters
        prefix = parameters.get("filter_by_prefix", "")
        wanted = wanted_of(parameters.get("info"), INFORMED)
        if "user_count" in wanted and not is_presence(prefix):
            raise Refused(BAD_REQUEST, "user_count needs a filter_by_prefix that begins with presence-")

        def listing() -> None:
            found = {
                name: attributes(name, self.there(call.app, name), wanted) if wanted else {}
                for name in self._core.channels.names(NAME, call.app.id, prefix)
                if not name.startswith("#")
            }
            call.reply(Response(200, _encode({"channels": found})))

        self.when_counted(call, wanted, None, lambda: self._in_turn(call, listing))

    def channel(self, call: Call, channel: str) -> None:
        """`GET .../channels/{name}`: whether it has subscribers, and what else is asked for."""
        check_channel(channel, self._options)
        wanted = wanted_of(call.parameters.get("info"), INFORMED_OF_ONE)
        self.when_counted(call, wanted, [channel], lambda: self._channel_counted(call, channel, wanted))

    def _channel_counted(self, call: Call, channel: str, wanted: frozenset[str]) -> None:
        there = self.there(call.app, channel)
        found: Attributes = {"occupied": there is not None and there.count > 0} | attributes(channel, there, wanted)
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

    def _cached(self, event: LogEvent) -> Attributes:
        data = msgspec.json.decode(event.body)["data"]
        return {"data": data, "ttl": max(0, event.expires - int(self._unix_time()))}

    def users(self, call: Call, channel: str) -> None:
        """`GET .../channels/{name}/users`: the members of a presence channel; with_user_info=1 adds their user_info."""
        check_channel(channel, self._options)
        if not is_presence(channel):
            raise Refused(BAD_REQUEST, "Only a presence channel has users")
        there = self.there(call.app, channel)
        members = {} if there is None or there.members is None else there.members
        with_info = call.parameters.get("with_user_info") == "1"
        users: list[Attributes] = []
        for user, member in members.items():
            user_id, user_info = shown_member(user, member.info)
            users.append({"id": msgspec.Raw(user_id)})
            if with_info and user_info:
                users[-1]["user_info"] = msgspec.Raw(user_info)
        call.reply(Response(200, _encode({"users": users})))

    def _in_turn(self, call: Call, then: Callable[[], None]) -> None:
        """Do it when this connection has its turn: it takes long, and other connections are served between two of
        them."""
        one_a_turn(self._listings, call.pending, then, lambda: call.reply(FAILED_RESPONSE))

    def when_counted(
        self, call: Call, wanted: frozenset[str], channels: Iterable[str] | None, then: Callable[[], None]
    ) -> None:
        """Do it when the numbers of subscribers, if they are wanted, are right. channels: None for all there are."""
        if "subscription_count" not in wanted:
            then()
        else:
            keys = None if channels is None else [channel_address(call.app.id, name) for name in channels]
            self._core.channels.when_counted(keys, then)

    def there(self, app: App, channel: str) -> Channel | None:
        return self._core.channels.get(channel_address(app.id, channel))


def attributes(name: str, channel: Channel | None, wanted: frozenset[str]) -> Attributes:
    """What is asked for of a channel, as far as such a channel has it."""
    found: Attributes = {}
    if "user_count" in wanted and is_presence(name):
        found["user_count"] = 0 if channel is None or channel.members is None else len(channel.members)
    if "subscription_count" in wanted:
        found["subscription_count"] = 0 if channel is None else channel.count
    return found
