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
from router.dialects.pushstream.protocol import NAME, TABLES, PushStreamOptions, Refused

if TYPE_CHECKING:
    from router.dialects.app_server import Context, Service
    from router.http.routes import Route


_ONE_PORT_READS: Final = (b"/pub", b"/channels-stats")


def _check(settings: Settings) -> None:
    """That the store may keep what this dialect accepts, and that the events channel can be one."""
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
    if problems:
        raise MendableError(*problems)


def _read_on_device_port(settings: Settings) -> tuple[bytes, ...] | None:
    return _ONE_PORT_READS if settings.get(PushStreamOptions).one_port else None


def _routes(context: Context) -> Iterable[Route]:
    from router.dialects.pushstream.app_server import routes

    return routes(context)


def _services(context: Context) -> Iterable[Service]:
    from router.dialects.pushstream.service import Housekeeping

    return (Housekeeping(context),)


SPEC: Final = DialectSpec(
    name=NAME,
    on=False,
    sections=(PushStreamOptions,),
    check=_check,
    router_metrics=(
        Metric("pushstream_channels", "gauge", "Channels of push stream: published to, stored, or subscribed to."),
        Metric(
            "pushstream_events_dropped",
            "counter",
            "Events that the events channel was not told: the store was full, or more than 1000 clients came or went "
            "at once.",
        ),
    ),
    log_events={"pushstream.names_unread": "The names of channels could not be read at the start; it is tried again."},
    answers=TABLES,
    needs=frozenset((Shape.TABLE, Shape.LOG)),
    routes=_routes,
    services=_services,
    read_on_device_port=_read_on_device_port,
)
