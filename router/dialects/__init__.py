"""App-server side of the dialects: one module each, found by being here.

A dialect module has

    NAME       the dialect's name, the key in the `[dialects]` section that turns it on
    ON         whether it is on by default
    SECTIONS   its sections of the settings
    routes(context) -> Iterable[Route]
    kept(settings) -> Iterable[Kept]    records that are renewed while the device of their key is connected

`router.core.keeping` says what `kept` means. A route turns a request into calls of the core (`router.core.facades`) and
their outcome into a status and a body. It must call its `reply` exactly once, at once or later. Nothing here does I/O.
"""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from router.common.options import Section, Settings, option
from router.common.token import Tokens
from router.core.facades import Core
from router.http.http1 import Request, Response
from router.http.turns import Turns

Reply = Callable[[Response], None]
Handler = Callable[[Request, Reply], None]


@dataclass(frozen=True, slots=True)
class Context:
    """What a dialect's routes may use."""

    core: Core
    tokens: Tokens
    settings: Settings
    unix_time: Callable[[], float]
    status: Callable[[], dict[str, Any]]
    turns: Turns = field(default_factory=Turns)
    """For work of which one turn should see only a piece."""


@dataclass(frozen=True, slots=True)
class Route:
    """Requests whose path is `path`, or begins with it where it ends in a slash and `exact` is False."""

    path: bytes
    handler: Handler
    exact: bool = True


class Router:
    """Finds the handler of a path: exact ones by one look-up, prefixes by the path's first part."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._exact: dict[bytes, Handler] = {}
        self._prefixes: dict[bytes, Handler] = {}
        self._longest = 0
        """Of the prefixes: no more of a path is looked at."""
        for route in routes:
            table = self._exact if route.exact else self._prefixes
            if route.path in table:
                raise ValueError(f"two dialects claim {route.path.decode()}")
            table[route.path] = route.handler
            if not route.exact:
                self._longest = max(self._longest, len(route.path))

    def find(self, path: bytes) -> Handler | None:
        """The handler of this path; of several prefixes the longest."""
        handler = self._exact.get(path)
        end = min(len(path), self._longest)
        while handler is None and (end := path.rfind(b"/", 0, end)) >= 0:
            handler = self._prefixes.get(path[: end + 1])
        return handler


def modules(package: ModuleType) -> list[ModuleType]:
    """The dialect modules in a package, by name."""
    names = sorted(found.name for found in pkgutil.iter_modules(package.__path__) if not found.name.startswith("_"))
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def switches(found: Iterable[ModuleType]) -> type[Section]:
    """The `[dialects]` section: one switch for each dialect that has a module on either side."""
    on: dict[str, bool] = {}
    for module in found:
        on[module.NAME] = module.ON
    fields = [(name, bool, option(default, f"speak {name}")) for name, default in sorted(on.items())]
    namespace = {"SECTION": "dialects", "HELP": "Which dialects the farm speaks."}
    made = dataclasses.make_dataclass("DialectOptions", fields, bases=(Section,), frozen=True, namespace=namespace)
    assert issubclass(made, Section)
    return made


def is_on(settings: Settings, module: ModuleType) -> bool:
    """Whether the settings turn this dialect on."""
    for section in settings:
        if section.SECTION == "dialects":
            return bool(getattr(section, module.NAME))
    return bool(module.ON)
