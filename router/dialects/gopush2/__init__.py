"""gopush2: messages by key, which wait for devices that are away, over WebSocket and over its TCP protocol."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from router.common.errors import MendableError
from router.common.metrics import Metric
from router.common.options import Settings
from router.common.settings import StoreOptions
from router.common.store_kinds import Shape
from router.dialects import DialectSpec, ForeignConfig, ForeignSettings
from router.dialects.gopush2.protocol import NAME, TABLES, Gopush2Options

if TYPE_CHECKING:
    from router.dialects.app_server import Context
    from router.dialects.channel_book import ChannelBook
    from router.http.routes import Route

_FLAG: Final = "--gopush2-config"
_ONE_PORT_READS: Final = (b"/ch", b"/stat")


def _check(settings: Settings) -> None:
    """That the store may keep what this dialect accepts."""
    options, store = settings.get(Gopush2Options), settings.get(StoreOptions)
    limits = (
        ("max_stored_message", options.max_stored_message, "log_limit", store.log_limit, "messages"),
        ("max_message_bytes", options.max_message_bytes, "log_bytes", store.log_bytes, "bytes"),
    )
    problems = [
        f"gopush2.{ours}: {most} {unit}, and store.{theirs} allows {allowed}; raise that, or lower this"
        for ours, most, theirs, allowed, unit in limits
        if most > allowed
    ]
    if problems:
        raise MendableError(*problems)


def _shared(settings: Settings) -> dict[str, str | bytes]:
    return {"gopush2.auth": str(settings.get(Gopush2Options).auth).lower()}


def _config_file(file: Path) -> ForeignSettings:
    from router.dialects.gopush2.config_file import settings_of

    return settings_of(_FLAG, file)


def _routes(context: Context) -> Iterable[Route]:
    from router.dialects.gopush2.app_server import routes

    return routes(context)


def _book(context: Context) -> ChannelBook:
    from router.dialects.gopush2.book import Gopush2Book

    return Gopush2Book(context)


def _read_on_device_port(settings: Settings) -> tuple[bytes, ...] | None:
    return _ONE_PORT_READS if settings.get(Gopush2Options).one_port else None


SPEC: Final = DialectSpec(
    name=NAME,
    on=False,
    sections=(Gopush2Options,),
    check=_check,
    foreign_configs=(
        ForeignConfig(
            _FLAG,
            "gopush2's configuration, of any version: where it listens, its limits and times; turns gopush2 on. Counts "
            "more than the settings file, and less than variables and flags.",
            _config_file,
        ),
    ),
    worker_metrics=(
        Metric("gopush2_devices", "gauge", "Devices that are subscribed to a key of gopush2."),
        Metric("gopush2_subscribed", "counter", "Devices that have come, and were subscribed."),
    ),
    answers=TABLES,
    needs=frozenset((Shape.LOG, Shape.TABLE, Shape.TAKE_ONCE)),
    routes=_routes,
    book=_book,
    shared=_shared,
    read_on_device_port=_read_on_device_port,
)
