"""Pusher Channels, protocol 7: pusher-js, laravel-echo, Pusher's server libraries, MicroNotifier's configuration."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from router.common.errors import MendableError
from router.common.metrics import Metric
from router.common.options import Settings
from router.common.store_kinds import Shape
from router.common.tls_settings import TlsOptions
from router.dialects import DialectSpec, ForeignConfig, ForeignSettings
from router.dialects.pusher.protocol import NAME, TABLES, PusherOptions

if TYPE_CHECKING:
    from router.dialects.app_server import Context, Service
    from router.dialects.channel_book import ChannelBook
    from router.http.routes import Route

_FLAG: Final = "--micronotifier-config"
_ONE_PORT_READS: Final = (b"/apps", b"/metrics")


def _check(settings: Settings) -> None:
    from router.dialects.pusher.applications import AppsError, read

    options = settings.get(PusherOptions)
    if not options.apps:
        return
    try:
        found = read(Path(options.apps), options.unsigned)
    except AppsError as error:
        raise MendableError(*(f"pusher.apps: {problem}" for problem in error.problems)) from None
    if found.certificate and not settings.get(TlsOptions).for_devices:
        raise MendableError(
            f"pusher.apps: {options.apps} names a certificate, and devices would connect without TLS: set "
            "tls.certificate and tls.key to its files, or take it out"
        )


def _shared(settings: Settings) -> dict[str, str | bytes]:
    from router.dialects.pusher.applications import load

    options = settings.get(PusherOptions)
    apps = sorted(load(options.apps, options.unsigned), key=lambda app: app.id)
    return {"pusher.apps": msgspec.json.encode(apps, order="deterministic")}


def _micronotifier(file: Path) -> ForeignSettings:
    from router.dialects.pusher.micronotifier import settings_of

    return settings_of(_FLAG, file)


def _routes(context: Context) -> Iterable[Route]:
    from router.dialects.pusher.app_server import routes

    return routes(context)


def _services(context: Context) -> Iterable[Service]:
    from router.dialects.pusher.webhooks.sender import start

    return (start(context.settings, context.core, context.may_send),)


def _book(context: Context) -> ChannelBook:
    from router.dialects.pusher.book import PusherBook

    return PusherBook(context)


def _read_on_device_port(settings: Settings) -> tuple[bytes, ...] | None:
    return _ONE_PORT_READS if settings.get(PusherOptions).one_port else None


SPEC: Final = DialectSpec(
    name=NAME,
    sections=(PusherOptions,),
    check=_check,
    foreign_configs=(
        ForeignConfig(
            _FLAG,
            "MicroNotifier's configuration: its applications, and its host and port, to which app servers may come "
            "like devices (pusher.one_port). Counts more than the settings file, and less than variables and flags.",
            _micronotifier,
        ),
    ),
    router_metrics=(
        Metric("webhooks_sent", "counter", "Events that webhooks' servers have taken."),
        Metric("webhooks_dropped", "counter", "Events given up: their server failed for too long, or too many waited."),
        Metric("webhooks_waiting", "gauge", "Events that wait for webhooks' servers."),
    ),
    log_events={
        "webhook.dropped": "Events for a webhook were given up.",
        "webhook.failed": "A webhook's server did not take an event; it is tried again in `again_s` s.",
        "webhook.told_unreadable": "What webhooks had been told of a part of the channels is damaged in the store: "
        "what ended while the router was away is not told of these, and what is there is told again.",
        "webhook.tick_failed": "Periodic work of the webhooks raised an error; the trace follows.",
    },
    answers=TABLES,
    needs=frozenset((Shape.TABLE, Shape.LOG)),
    routes=_routes,
    services=_services,
    book=_book,
    shared=_shared,
    read_on_device_port=_read_on_device_port,
)
