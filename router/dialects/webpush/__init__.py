"""WebPush: Firefox and all that speaks autopush's protocol, and app servers that send by RFC 8030."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from router.common.metrics import Metric
from router.common.options import Settings
from router.common.store_kinds import Shape
from router.dialects import AdminContext, DialectSpec, Kept
from router.dialects.webpush.protocol import DEVICES, NAME, TABLES, WebPushOptions, broadcast_fault

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from router.dialects.app_server import Context
    from router.dialects.device_book import DeviceBook
    from router.http.routes import Route


def _kept(settings: Settings) -> Iterable[Kept]:
    return ((DEVICES, settings.get(WebPushOptions).timeout_uaid),)


def _routes(context: Context) -> Iterable[Route]:
    from router.dialects.webpush.app_server import routes

    return routes(context)


def _admin_routes(context: AdminContext) -> Iterable[BaseRoute]:
    from router.dialects.webpush.admin import routes

    return routes(context)


def _devices(context: Context) -> DeviceBook:
    from router.dialects.webpush.book import WebPushDevices

    return WebPushDevices(context)


SPEC: Final = DialectSpec(
    name=NAME,
    sections=(WebPushOptions,),
    worker_metrics=(
        Metric("nacks_301", "counter", "nack commands of WebPush: the page's handler threw an exception."),
        Metric("nacks_302", "counter", "nack commands of WebPush: the page's handler rejected its promise."),
        Metric("nacks_303", "counter", "nack commands of WebPush: an error inside the browser."),
        Metric("nacks_other", "counter", "nack commands of WebPush with another code, or none."),
    ),
    answers=TABLES,
    needs=frozenset((Shape.INBOX, Shape.COLLAPSE, Shape.TABLE, Shape.SETS)),
    kept=_kept,
    routes=_routes,
    devices=_devices,
    broadcast_fault=broadcast_fault,
    admin_routes=_admin_routes,
)
