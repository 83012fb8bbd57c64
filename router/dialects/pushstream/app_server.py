"""nginx push stream, app-server side: publishers (`/pub`), and statistics (`/channels-stats`).

A publisher is answered when its message is durable and on its way to the subscribers; without `store_messages` when it
is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from router.common import messages as m
from router.common.answers import Answer
from router.core.operations import Done
from router.dialects.app_server import Context
from router.dialects.pushstream.channels import check_id, is_wildcard, publisher_path
from router.dialects.pushstream.formats import ChannelInfo
from router.dialects.pushstream.listings import Listings
from router.dialects.pushstream.protocol import (
    CANNOT_CREATE,
    EXPLAIN,
    NAME,
    NO_SUCH_CHANNEL,
    NOT_KEPT,
    NOT_READ,
    NOT_UTF8,
    ONLY_INTERNAL,
    TOO_LONG,
    TOO_MANY_CHANNELS,
    Admit,
    Publish,
    PushStreamOptions,
    Refused,
    channel_address,
    refusal_text,
)
from router.dialects.pushstream.publishing import publisher
from router.dialects.pushstream.requests import Call, Methods, channel_path
from router.dialects.pushstream.state import state
from router.dialects.pushstream.statistics import statistics
from router.http.admin_key import AdminKey
from router.http.message import Request
from router.http.routes import NOT_FOUND, Handler, Reply, Route
from router.store.base import LogSize

PUBLISH_PATH: Final = b"/pub"
STATISTICS_PATH: Final = b"/channels-stats"
_SUBSCRIBERS: Final = (b"/ws/", b"/subscribe/", b"/ev/", b"/lp/", b"/sub/")
_EVENT_ID: Final = b"event-id"
_EVENT_TYPE: Final = b"event-type"
_DELETED: Final = "Channel deleted."


def routes(context: Context) -> Iterable[Route]:
    """The dialect's routes on the router port."""
    options = context.settings.get(PushStreamOptions)
    key = AdminKey(options.admin_key, f"{PushStreamOptions.SECTION}.admin_key")
    publishers = _Publishers(context)
    of_devices = _OfDevices(context)
    context.core.operations.register(NAME, {Admit: of_devices.admit, Publish: of_devices.publish})
    pub = Methods(
        options,
        (
            (b"GET", publishers.get),
            (b"POST", publishers.publish),
            (b"PUT", publishers.publish),
            (b"DELETE", publishers.delete),
        ),
    )
    stats = Methods(options, ((b"GET", Listings(context).get),))

    def serve_publisher(request: Request, reply: Reply) -> None:
        pub(request, reply, key.refusal)

    def serve_statistics(request: Request, reply: Reply) -> None:
        stats(request, reply, key.refusal)

    # Another dialect may publish on the same path, and claims what names its `key`.
    found = [Route(PUBLISH_PATH, serve_publisher), Route(STATISTICS_PATH, serve_statistics)]
    if options.one_port:  # what begins with OPTIONS is passed on with whatever is asked for
        found += [Route(path, _preflight(options), exact=False) for path in _SUBSCRIBERS]
    return found


def _preflight(options: PushStreamOptions) -> Handler:
    """A browser that asks whether a page may subscribe, where publishers may come to the device port."""
    subscribe = Methods(options, ((b"GET", lambda call: call.reply(NOT_FOUND)),))
    return lambda request, reply: subscribe(request, reply, lambda request: None)


class _Publishers:
    """`/pub?id=`."""

    def __init__(self, context: Context) -> None:
        self._state = context.shared(state)
        self._options = self._state.options
        self._publisher = context.shared(publisher)
        self._statistics = context.shared(statistics)

    def get(self, call: Call) -> None:
        """The numbers of the channels."""
        self._statistics.named(call, channel_path(call.request))

    def publish(self, call: Call) -> None:
        """A message, in the body."""
        request = call.request
        try:
            names = publisher_path(channel_path(request), self._options)
            text = request.body.decode()
        except Refused as refused:
            call.refuse(refused.answer)
            return
        except UnicodeDecodeError:
            self._refuse(call, NOT_UTF8)
            return

        headers = request.headers
        outcome: list[Answer | None] = []
        self._publisher.publish(
            names,
            text,
            outcome.append if self._options.channel_info_on_publish else lambda refusal: self._done(call, refusal),
            event_id=headers.get(_EVENT_ID, b"").decode("utf-8", "replace"),
            event_type=headers.get(_EVENT_TYPE, b"").decode("utf-8", "replace"),
        )
        if self._options.channel_info_on_publish:
            if outcome and outcome[0] is not None:
                self._refuse(call, outcome[0])
            else:  # with the same commit, behind the message
                self._statistics.behind(names, lambda found: self._answer(call, names, outcome, found))

    def _answer(
        self, call: Call, names: list[str], outcome: list[Answer | None], found: list[ChannelInfo] | None
    ) -> None:
        refusal = outcome[0] if outcome else NOT_KEPT
        if refusal is not None or not found:
            self._done(call, refusal)
        else:
            self._statistics.answer(call, names, found)

    def _done(self, call: Call, refusal: Answer | None) -> None:
        if refusal is None:
            call.answer(b"")
        else:
            self._refuse(call, refusal)

    def _refuse(self, call: Call, refusal: Answer) -> None:
        if refusal.metric:
            self._state.core.counters.count(refusal.metric)
        call.refuse(refusal)

    def delete(self, call: Call) -> None:
        """The channels go; the body, if there is one, is what their subscribers are sent."""
        request = call.request
        try:
            names = publisher_path(channel_path(request), self._options)
            text = request.body.decode()
            if self._publisher.is_too_long(text):
                raise Refused(TOO_LONG)
        except Refused as refused:
            self._refuse(call, refused.answer)
            return
        except UnicodeDecodeError:
            self._refuse(call, NOT_UTF8)
            return
        if self._options.events_channel_id in names:
            self._refuse(call, ONLY_INTERNAL)
            return

        def looked(found: list[ChannelInfo] | None) -> None:
            if found is None:
                call.refuse(NOT_READ)
            elif not found:
                call.refuse(NO_SUCH_CHANNEL)
            else:
                self._publisher.delete([info.channel for info in found], text, deleted)

        def deleted(status: int) -> None:
            if status == m.OK:
                call.answer(b"", "text/plain", (EXPLAIN, _DELETED))
            else:
                call.refuse(NOT_KEPT)

        self._statistics.info(names, looked)


class _OfDevices:
    """What the device side asks."""

    def __init__(self, context: Context) -> None:
        self._state = context.shared(state)
        self._options = self._state.options
        self._publisher = context.shared(publisher)

    def publish(self, key: bytes, asked: Publish, done: Done) -> None:
        """What a subscriber has sent."""
        self._check(asked.names)
        names = [name for name in asked.names if name != self._options.events_channel_id]
        self._publisher.publish(names or asked.names, asked.text, lambda refusal: done(m.OK, refusal_text(refusal)))

    def _check(self, names: list[str]) -> None:
        try:
            for name in names:
                check_id(name, self._options)
        except Refused as error:
            raise m.MessageError(str(error)) from None

    def admit(self, key: bytes, asked: Admit, done: Done) -> None:
        """May a subscriber have these channels?"""
        names = asked.names
        self._check(names)
        new = sum(map(self._state.unknown, names))
        if new and not self._state.registry.room_for(new):
            done(m.OK, refusal_text(TOO_MANY_CHANNELS))
            return
        keys = [channel_address(name) for name in names if not is_wildcard(name, self._options)]
        if not keys or not self._options.authorized_channels_only:
            done(m.OK, refusal_text(None))
            return

        def read(status: int, sizes: dict[bytes, LogSize]) -> None:
            if status != m.OK:
                done(m.FAILED)
                return
            filled = all(key in sizes and sizes[key].number for key in keys)
            done(m.OK, refusal_text(None if filled else CANNOT_CREATE))

        self._state.core.logs.sizes(keys, read)
