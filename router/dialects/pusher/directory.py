"""Reading requests: the channels of an application, one of them, and the members of a presence channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from router.common import messages as m
from router.common.position import Last, LogSlice
from router.core.operations import Done
from router.dialects.app_server import Context
from router.dialects.pusher.operations import Cached, Counts, List, Look, Members, State
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
        self._requests = Parts(context.turns, 1, 1)
        self._listings = Parts(context.turns, 1, 1)
        context.core.operations.register(NAME, {List: self._list, Look: self._look, Members: self._members})

    # ------------------------------------------------------------------ requests

    def channels(self, call: Call) -> None:
        """`GET .../channels`: those with subscribers. With user_count only presence channels may be asked for."""
        parameters = call.parameters
        prefix = parameters.get("filter_by_prefix", "")
        wanted = sorted(wanted_of(parameters.get("info"), INFORMED))
        if "user_count" in wanted and not is_presence(prefix):
            raise Refused(BAD_REQUEST, "user_count needs a filter_by_prefix that begins with presence-")

        def listed(status: int, found: list[dict[str, Counts]]) -> None:
            if status != m.OK:
                call.reply(_NOT_READ)
                return
            channels = found[0] if len(found) == 1 else {name: of for part in found for name, of in part.items()}
            call.reply(Response(200, _encode({"channels": channels})))

        def ask() -> None:
            self._core.operations.at_all(List(call.app.id, prefix, wanted), listed)

        one_a_turn(self._requests, call.pending, ask, lambda: call.reply(FAILED_RESPONSE))

    def channel(self, call: Call, channel: str) -> None:
        """`GET .../channels/{name}`: whether it has subscribers, and what else is asked for."""
        check_channel(channel, self._options)
        wanted = wanted_of(call.parameters.get("info"), INFORMED_OF_ONE)
        cached = "cache" in wanted and is_cache(channel)

        def looked(status: int, state: State | None = None) -> None:
            if status != m.OK or state is None:
                call.reply(_NOT_READ)
                return
            found: Attributes = {"occupied": state.occupied, **state.counts}
            if cached:
                found["cache"] = None if state.cached is None else self._shown(state.cached)
            call.reply(Response(200, _encode(found)))

        look = Look(channel, sorted(wanted & INFORMED), cached)
        self._core.operations.at(channel_address(call.app.id, channel), look, looked)

    def _shown(self, cached: Cached) -> Attributes:
        data = msgspec.json.decode(cached.frame)["data"]
        return {"data": data, "ttl": max(0, cached.expires - int(self._unix_time()))}

    def users(self, call: Call, channel: str) -> None:
        """`GET .../channels/{name}/users`: the members of a presence channel; with_user_info=1 adds their user_info."""
        check_channel(channel, self._options)
        if not is_presence(channel):
            raise Refused(BAD_REQUEST, "Only a presence channel has users")
        with_info = call.parameters.get("with_user_info") == "1"

        def known(status: int, members: list[tuple[str, str]] | None = None) -> None:
            if status != m.OK or members is None:
                call.reply(_NOT_READ)
                return
            users: list[Attributes] = []
            for user, info in members:
                user_id, user_info = shown_member(user, info)
                users.append({"id": msgspec.Raw(user_id)})
                if with_info and user_info:
                    users[-1]["user_info"] = msgspec.Raw(user_info)
            call.reply(Response(200, _encode({"users": users})))

        self._core.operations.at(channel_address(call.app.id, channel), Members(), known)

    # ------------------------------------------------------------------ at the owner

    def _list(self, key: bytes, asked: List, done: Done) -> None:
        """Takes long where there are many, so other work has its turn in between."""

        def listing() -> None:
            app, wanted = asked.app, asked.wanted
            found = {
                name: self.counts(channel_address(app, name), name, wanted) if wanted else {}
                for name in self._core.channels.names(NAME, app, asked.prefix)
                if not name.startswith("#")
            }
            done(m.OK, found)

        def counted() -> None:
            one_a_turn(self._listings, None, listing, lambda: done(m.FAILED))

        self.when_counted(asked.wanted, None, counted)

    def _look(self, key: bytes, asked: Look, done: Done) -> None:
        def counted() -> None:
            there = self._core.channels.get(key)
            state = State(there is not None and there.count > 0, self.counts(key, asked.channel, asked.wanted))
            if asked.cached:
                self._core.logs.read(key, Last(1), lambda status, log: read(state, status, log))
            else:
                done(m.OK, state)

        def read(state: State, status: int, log: LogSlice | None) -> None:
            if status != m.OK or log is None:
                done(m.FAILED)
                return
            if log.events:
                state.cached = Cached(log.events[-1].body, log.events[-1].expires)
            done(m.OK, state)

        self.when_counted(asked.wanted, [key], counted)

    def _members(self, key: bytes, asked: Members, done: Done) -> None:
        there = self._core.channels.get(key)
        members = {} if there is None or there.members is None else there.members
        done(m.OK, [(user, member.info) for user, member in members.items()])

    def when_counted(self, wanted: Iterable[str], keys: Iterable[bytes] | None, then: Callable[[], None]) -> None:
        """Do it when the numbers of subscribers, if they are wanted, are right. keys: None for all channels."""
        if "subscription_count" not in wanted:
            then()
        else:
            self._core.channels.when_counted(keys, then)

    def counts(self, key: bytes, channel: str, wanted: Iterable[str]) -> Counts:
        """What is asked for of a channel, as far as such a channel has it."""
        there = self._core.channels.get(key)
        found: Counts = {}
        if "user_count" in wanted and is_presence(channel):
            found["user_count"] = 0 if there is None or there.members is None else len(there.members)
        if "subscription_count" in wanted:
            found["subscription_count"] = 0 if there is None else there.count
        return found
