"""The nginx push stream module and gogin: their publishers, statistics, subscribers, and pushstream.js."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from router.common.errors import MendableError
from router.common.metrics import Metric
from router.common.options import Settings
from router.common.settings import StoreOptions
from router.common.store_kinds import Shape
from router.dialects import DialectSpec
from router.dialects.pushstream.nats.options import NatsOptions, stream_problems
from router.dialects.pushstream.protocol import NAME, TABLES, PushStreamOptions, Refused

if TYPE_CHECKING:
    from router.dialects.app_server import Context, Service
    from router.dialects.channel_book import ChannelBook
    from router.http.routes import Route


_ONE_PORT_READS: Final = (b"/pub", b"/channels-stats")


def _check(settings: Settings) -> None:
    """That the store may keep what this dialect accepts, that the events channel can be one, and the queue used."""
    from router.dialects.pushstream.channels import check_id

    options, store = settings.get(PushStreamOptions), settings.get(StoreOptions)
    problems = []
    if options.store_messages:
        limits = (
            ("max_messages_stored_per_channel", "log_limit", store.log_limit, "messages"),
            ("max_message_bytes", "log_bytes", store.log_bytes, "bytes"),
        )
        problems = [
            f"pushstream.{ours}: {most} {unit}, and store.{theirs} allows {allowed}; raise that, or lower this"
            for ours, theirs, allowed, unit in limits
            if (most := getattr(options, ours)) > allowed
        ]
    try:
        check_id(options.events_channel_id, options)
    except Refused as refused:
        problems.append(f"pushstream.events_channel_id: {refused.answer.text}")
    problems += stream_problems(settings.get(NatsOptions))
    if problems:
        raise MendableError(*problems)


def _shared(settings: Settings) -> dict[str, str | bytes]:
    options = settings.get(PushStreamOptions)
    return {
        "pushstream.events_channel_id": options.events_channel_id,
        "pushstream.store_messages": str(options.store_messages).lower(),
    }


def _read_on_device_port(settings: Settings) -> tuple[bytes, ...] | None:
    return _ONE_PORT_READS if settings.get(PushStreamOptions).one_port else None


def _routes(context: Context) -> Iterable[Route]:
    from router.dialects.pushstream.app_server import routes

    return routes(context)


def _services(context: Context) -> Iterable[Service]:
    from router.dialects.pushstream.nats.service import Queue
    from router.dialects.pushstream.service import Housekeeping

    return (Housekeeping(context), Queue(context))


def _book(context: Context) -> ChannelBook:
    from router.dialects.pushstream.book import PushStreamBook

    return PushStreamBook(context)


SPEC: Final = DialectSpec(
    name=NAME,
    on=False,
    sections=(PushStreamOptions, NatsOptions),
    check=_check,
    router_metrics=(
        Metric("pushstream_channels", "gauge", "Channels of push stream: published to, stored, or subscribed to."),
        Metric(
            "pushstream_events_dropped",
            "counter",
            "Events that were not sent to the events channel: the store was full, or more than 1000 clients came or "
            "went at once.",
        ),
        Metric("pushstream_queue_connected", "gauge", "1 while the router is connected to the queue (nats.url)."),
        Metric("pushstream_notifications", "counter", "Messages of the queue that were published to their channels."),
        Metric(
            "pushstream_notifications_invalid",
            "counter",
            "Messages of the queue that were thrown away: no notification, or for a channel that there cannot be.",
        ),
        Metric(
            "pushstream_notifications_dropped",
            "counter",
            "Messages of the queue beyond nats.max_waiting or nats.max_waiting_bytes; of a stream they come again.",
        ),
    ),
    log_events={
        "pushstream.names_unread": "The names of channels could not be read at the start; it is tried again.",
        "pushstream.notification_dropped": "More messages of the queue came than may wait; a stream sends them again.",
        "pushstream.notification_failed": "A message of the queue raised an error of ours; the trace follows.",
        "pushstream.notification_invalid": "A message of the queue was no notification, and was thrown away.",
        "pushstream.queue_connected": "The router is connected to the queue, and takes its messages.",
        "pushstream.queue_failed": "The queue, its stream or its consumer cannot be used; it is tried again.",
        "pushstream.queue_lost": "The connection to the queue was lost; it is made again.",
        "pushstream.tick_failed": "Periodic work on channels raised an error; the trace follows.",
    },
    answers=TABLES,
    needs=frozenset((Shape.TABLE, Shape.LOG)),
    routes=_routes,
    services=_services,
    book=_book,
    shared=_shared,
    read_on_device_port=_read_on_device_port,
)
