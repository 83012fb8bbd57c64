"""nginx push stream, app-server side: publishers (`/pub`), and statistics (`/channels-stats`).

A publisher is answered when its message is durable and on its way to the subscribers; without `store_messages` when it
is on its way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from router.common import messages as m
from router.common.answers import Answer
from router.common.refusals import TOO_MANY_PUSHES
from router.core.operations import Done
from router.core.push_limits import retry_after
from router.dialects.app_server import Context
from router.dialects.pushstream.channels import check_id, publisher_path
from router.dialects.pushstream.formats import ChannelInfo
from router.dialects.pushstream.listings import Listings
from router.dialects.pushstream.operations import UNREAD, Delete, Enter
from router.dialects.pushstream.owner import owner
from router.dialects.pushstream.protocol import (
    EXPLAIN,
    NAME,
    NO_SUCH_CHANNEL,
    NOT_KEPT,
    NOT_READ,
    NOT_UTF8,
    ONLY_INTERNAL,
    TOO_LONG,
    TOO_OFTEN,
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
    listings = Listings(context)
    performers = context.shared(owner).performers() | listings.performers()
    context.core.operations.register(NAME, performers | {Admit: of_devices.admit, Publish: of_devices.publish})
    pub = Methods(
        options,
        (
            (b"GET", publishers.get),
            (b"POST", publishers.publish),
            (b"PUT", publishers.publish),
            (b"DELETE", publishers.delete),
        ),
    )
    stats = Methods(options, ((b"GET", listings.get),))

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
        self._options = context.shared(state).options
        self._counters = context.core.counters
        self._operations = context.core.operations
        self._publisher = context.shared(publisher)
        self._statistics = context.shared(statistics)
        self._of_address, endpoint = context.limits.address, context.limits.endpoint
        self._next = () if endpoint is None else (retry_after(endpoint.longest),)

    def get(self, call: Call) -> None:
        """The numbers of the channels."""
        self._statistics.named(call, channel_path(call.request))

    def publish(self, call: Call) -> None:
        """A message, in the body."""
        request = call.request
        if self._of_address is not None and (wait := self._of_address(request.address)):
            call.refuse(TOO_MANY_PUSHES, retry_after(wait))
            return
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
        info = self._options.channel_info_on_publish

        def published(refusal: Answer | None, found: list[ChannelInfo]) -> None:
            if refusal is TOO_OFTEN:
                call.refuse(refusal, *self._next)  # counted by its owner
            elif refusal is not None:
                self._refuse(call, refusal)
            elif found:
                self._statistics.answer(call, names, found)
            else:
                call.answer(b"")

        self._publisher.publish(
            names,
            text,
            published,
            event_id=headers.get(_EVENT_ID, b"").decode("utf-8", "replace"),
            event_type=headers.get(_EVENT_TYPE, b"").decode("utf-8", "replace"),
            info=info,
        )

    def _refuse(self, call: Call, refusal: Answer) -> None:
        if refusal.metric:
            self._counters.count(refusal.metric)
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

        def deleted(answers: list[tuple[int, Any]]) -> None:
            failed = {status for status, _ in answers if status != m.OK}
            if failed:
                call.refuse(NOT_READ if failed == {UNREAD} else NOT_KEPT)
            elif not any(number for _, number in answers):
                call.refuse(NO_SUCH_CHANNEL)
            else:
                call.answer(b"", "text/plain", (EXPLAIN, _DELETED))

        shares = self._operations.by_owner(names, channel_address)
        self._operations.at_each([(key, Delete(share, text)) for key, share in shares], deleted)


class _OfDevices:
    """What the device side asks, of channels of any owners."""

    def __init__(self, context: Context) -> None:
        self._options = context.shared(state).options
        self._publisher = context.shared(publisher)
        self._operations = context.core.operations

    def publish(self, key: bytes, asked: Publish, done: Done) -> None:
        """What a subscriber has sent."""
        self._check(asked.names)
        names = [name for name in asked.names if name != self._options.events_channel_id]
        self._publisher.publish(names or asked.names, asked.text, lambda refusal, _: done(m.OK, refusal_text(refusal)))

    def _check(self, names: list[str]) -> None:
        try:
            for name in names:
                check_id(name, self._options)
        except Refused as error:
            raise m.MessageError(str(error)) from None

    def admit(self, key: bytes, asked: Admit, done: Done) -> None:
        """May a subscriber have these channels?"""
        self._check(asked.names)

        def known(answers: list[tuple[int, Any]]) -> None:
            if any(status != m.OK for status, _ in answers):
                done(m.FAILED)
            else:
                done(m.OK, next((refusal for _, refusal in answers if refusal), ""))

        shares = self._operations.by_owner(asked.names, channel_address)
        self._operations.at_each([(key, Enter(share)) for key, share in shares], known)
