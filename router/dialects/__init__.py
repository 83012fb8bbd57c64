"""The dialects, found by being here, and what one is: a frozen `DialectSpec`. See docs/write-a-dialect.md.

A dialect is a package in this folder, or a module in `farm.dialects`, or both under one name:

    router/dialects/X/__init__.py    SPEC, made of what follows
    router/dialects/X/protocol.py    what both sides share: settings, limits, addresses, formats, error tables
    router/dialects/X/app_server.py  its routes on the router port; what it alone needs stands beside it
    farm/dialects/X.py, or X/        the device side

The spec itself is light: whatever a part of it needs beyond `protocol` is imported when that part is asked for, so a
worker loads no hub and no HTTP port. Nothing outside of a dialect's own files names it.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from router.common.answers import Table
from router.common.metrics import ROUTER_METRICS, WORKER_METRICS, Metric
from router.common.options import Section, Settings, option
from router.common.settings import StoreOptions
from router.common.store_kinds import Shape, refusal

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from router.dialects.app_server import Context, Service
    from router.dialects.channel_book import ChannelBook
    from router.dialects.device_book import DeviceBook
    from router.http.routes import Route

Kept = tuple[str, int]
"""A space of records by device key, and the seconds that one lives after its device was seen; 0: no end."""


class ForeignSettings(NamedTuple):
    """The content of another server's configuration file."""

    settings: list[tuple[str, str, object]]
    """The place in the file, the key of an option, and its value."""
    warnings: tuple[str, ...] = ()
    """A line for each entry that has no meaning here."""


@dataclass(frozen=True, slots=True)
class ForeignConfig:
    """A flag that takes another server's configuration file. Its options override the settings file; variables and
    flags override them."""

    flag: str
    help: str
    read: Callable[[Path], ForeignSettings]
    """Raises: MendableError with every problem, among them what the farm does not have."""


@dataclass(frozen=True, slots=True)
class AdminContext:
    """What routes on the admin port may use."""

    status: Callable[[], Awaitable[dict[str, Any]]]
    """The whole farm's, as `GET /status` has it."""
    set_broadcast: Callable[[str, str | None], Awaitable[dict[str, Any] | None]]
    """Set the dialect's broadcast of this key, remove it (None), or only read (an empty key). Returns:
    `outcome` and all `broadcasts`; None if the router does not answer."""


def _no_fault(settings: Settings) -> None:
    return


def _nothing(about: object) -> tuple[()]:
    return ()


def _no_book(context: Context) -> None:
    return None


def _nothing_shared(settings: Settings) -> dict[str, str | bytes]:
    return {}


def _not_here(settings: Settings) -> tuple[bytes, ...] | None:
    return None


@dataclass(frozen=True, kw_only=True)
class DialectSpec:
    """Everything about a dialect that other code has to know."""

    name: str
    """The key in the `[dialects]` section that turns it on, the first part of its addresses, the name of its files."""
    on: bool = True
    """Whether it is on by default."""
    sections: tuple[type[Section], ...] = ()
    """Its sections of the settings."""
    check: Callable[[Settings], None] = _no_fault
    """Sees whether what its settings refer to can be used, before any process is started. Raises: MendableError."""
    foreign_configs: tuple[ForeignConfig, ...] = ()
    router_metrics: tuple[Metric, ...] = ()
    """What its services count."""
    worker_metrics: tuple[Metric, ...] = ()
    """What its device side counts."""
    log_events: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Events that only it logs, each with its meaning in a line."""
    answers: tuple[Table, ...] = ()
    """Its close codes and error answers."""
    needs: frozenset[Shape] = frozenset()
    """What the store has to be able to keep and to do."""
    kept: Callable[[Settings], Iterable[Kept]] = _nothing
    """Spaces of records that are renewed while the device of their key is connected (`router.core.keeping`)."""
    routes: Callable[[Context], Iterable[Route]] = _nothing
    """On the router port. A handler calls its `reply` exactly once, at once or later, and does no I/O."""
    services: Callable[[Context], Iterable[Service]] = _nothing
    """Background tasks of the router."""
    book: Callable[[Context], ChannelBook | None] = _no_book
    """Its channels and users, for operators; None: it has none that they could name."""
    devices: Callable[[Context], DeviceBook | None] = _no_book
    """Its devices, for operators; None: it has none."""
    broadcast_fault: Callable[[str, str | None], str] | None = None
    """What is wrong with the ID and the version (None: it is removed) of a broadcast, "" if nothing is. None: it has no
    broadcasts."""
    admin_routes: Callable[[AdminContext], Iterable[BaseRoute]] = _nothing
    """On the admin port."""
    shared: Callable[[Settings], Mapping[str, str | bytes]] = _nothing_shared
    """What has to be the same on all hosts of a cluster, by the name of its option. A text is shown to other hosts; of
    bytes they are shown a fingerprint. `check` has passed."""
    read_on_device_port: Callable[[Settings], tuple[bytes, ...] | None] = _not_here
    """Where its app servers may come to the device port too: the paths that they ask for with GET and HEAD there. What
    comes with another method but a WebSocket's GET is passed to the router in any case. None: they may not come."""


@cache
def specs() -> tuple[DialectSpec, ...]:
    """Those of all dialects that have a package here, in the order of their names. Looked for once: what is here may be
    replaced by another release while this process, and those that it forks, go on."""
    names = sorted(found.name for found in pkgutil.iter_modules(__path__) if found.ispkg)
    return tuple(importlib.import_module(f"{__name__}.{name}").SPEC for name in names)


def spoken(settings: Settings, known: Iterable[DialectSpec]) -> list[DialectSpec]:
    """Those of the known dialects that the settings turn on."""
    return [spec for spec in known if is_on(settings, spec)]


def load(settings: Settings) -> None:
    """Import all that a router needs of the dialects that are on, so that processes that are forked later find nothing
    to import. A module `admin` is the supervisor's."""
    for spec in spoken(settings, specs()):
        package = importlib.import_module(f"{__name__}.{spec.name}")
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not found.name.endswith(".admin"):
                importlib.import_module(found.name)


def is_on(settings: Settings, spec: DialectSpec) -> bool:
    """Whether the settings turn this dialect on."""
    for section in settings:
        if section.SECTION == "dialects":
            return bool(getattr(section, spec.name))
    return spec.on


def store_refusals(settings: Settings, known: Iterable[DialectSpec]) -> list[str]:
    """A line for each dialect that is on and needs more than the store of `store.kind` can do."""
    kind = settings.get(StoreOptions).kind
    lines = (refusal(spec.name, spec.needs, kind) for spec in spoken(settings, known))
    return [line for line in lines if line]


def app_server_reads(settings: Settings, known: Iterable[DialectSpec]) -> tuple[bytes, ...] | None:
    """`read_on_device_port` of all dialects that are on, together; None if app servers come to the router port only."""
    found = [paths for spec in spoken(settings, known) if (paths := spec.read_on_device_port(settings)) is not None]
    return tuple(dict.fromkeys(path for paths in found for path in paths)) if found else None


def all_metrics(known: Iterable[DialectSpec]) -> tuple[list[Metric], list[Metric]]:
    """What the router counts, and what a worker counts: the house's own numbers and those of the dialects."""
    dialects = list(known)
    of_router = [metric for spec in dialects for metric in spec.router_metrics]
    of_worker = [metric for spec in dialects for metric in spec.worker_metrics]
    return [*ROUTER_METRICS, *of_router], [*WORKER_METRICS, *of_worker]


def switches(known: Iterable[DialectSpec]) -> type[Section]:
    """The `[dialects]` section: one switch for each dialect."""
    on = sorted((spec.name, spec.on) for spec in known)
    fields = [(name, bool, option(default, f"speak {name}")) for name, default in on]
    namespace = {"SECTION": "dialects", "HELP": "Which dialects the farm speaks."}
    made = dataclasses.make_dataclass("DialectOptions", fields, bases=(Section,), frozen=True, namespace=namespace)
    assert issubclass(made, Section)
    return made
