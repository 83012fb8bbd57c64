"""SimplePush: PushGo's devices and app servers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from router.common.options import Settings
from router.common.store_kinds import Shape
from router.dialects import DialectSpec, Kept
from router.dialects.simplepush.protocol import DEVICES, NAME, TABLES, SimplePushOptions

if TYPE_CHECKING:
    from router.dialects.app_server import Context
    from router.dialects.device_book import DeviceBook
    from router.http.routes import Route


def _kept(settings: Settings) -> Iterable[Kept]:
    return ((DEVICES, settings.get(SimplePushOptions).timeout_uaid),)


def _routes(context: Context) -> Iterable[Route]:
    from router.dialects.simplepush.app_server import routes

    return routes(context)


def _devices(context: Context) -> DeviceBook:
    from router.dialects.simplepush.book import SimplePushDevices

    return SimplePushDevices(context)


SPEC: Final = DialectSpec(
    name=NAME,
    sections=(SimplePushOptions,),
    needs=frozenset((Shape.INBOX, Shape.TABLE)),
    answers=TABLES,
    kept=_kept,
    routes=_routes,
    devices=_devices,
)
