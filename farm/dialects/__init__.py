"""Device side of the dialects: one module or package each, found by being here. See docs/write-a-dialect.md.

Each has a SIDE, a frozen `DeviceSide`, which refers to the dialect's spec (`router.dialects`). Of its package there it
imports the spec, `protocol` and pure helpers beside it: so a worker loads no hub and no HTTP port.

A `Dialect` makes one `Session` for each connection. A session is a pure machine: it is called with what happened and
answers with effects. It holds no reference to its connection, so an idle one is a small object and nothing else. These
classes stand in `farm.interface`; dialects and workers import them from here.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from farm.interface.dialect import (
    Accept,
    Admission,
    BroadcastTracker,
    Context,
    DeviceSide,
    Dialect,
    FurtherListener,
    Opened,
    Presence,
)
from farm.interface.effects import (
    REGISTERED,
    Attach,
    Authorise,
    Binary,
    Call,
    Close,
    Event,
    Members,
    Ping,
    Registered,
    Respond,
    Subscribe,
    Subscribed,
    Subscription,
    Tick,
    Unsubscribe,
)
from farm.interface.session import Become, DeviceSession, Effect, Effects, Session
from router.common.options import Settings
from router.dialects import DialectSpec, is_on
from router.dialects import specs as app_server_specs

__all__ = [
    "REGISTERED",
    "Accept",
    "Admission",
    "Attach",
    "Authorise",
    "Become",
    "Binary",
    "BroadcastTracker",
    "Call",
    "Close",
    "Context",
    "DeviceSession",
    "DeviceSide",
    "Dialect",
    "Effect",
    "Effects",
    "Event",
    "FurtherListener",
    "Members",
    "Opened",
    "Ping",
    "Presence",
    "Registered",
    "Respond",
    "Session",
    "Subscribe",
    "Subscribed",
    "Subscription",
    "Tick",
    "Unsubscribe",
    "further_listeners",
    "further_ports",
    "sides",
    "specs",
]


@cache
def sides() -> tuple[DeviceSide, ...]:
    """Those of all dialects that have a module here, in the order of their names. Looked for once, as `router.dialects`
    does."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}").SIDE for name in names)


def further_listeners(settings: Settings) -> list[FurtherListener]:
    """Those that the settings want, of the dialects that are on."""
    found = [listener for side in sides() if is_on(settings, side.spec) for listener in side.listeners]
    return [listener for listener in found if listener.port(settings)]


def further_ports(settings: Settings) -> list[tuple[str, int]]:
    """Their settings and ports."""
    return [(listener.setting, listener.port(settings)) for listener in further_listeners(settings)]


def specs() -> list[DialectSpec]:
    """Those of all dialects, whichever sides they have."""
    known = {spec.name: spec for spec in (*app_server_specs(), *(side.spec for side in sides()))}
    return list(known.values())
