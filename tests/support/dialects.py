"""The dialects that are there, so that a test of the farm itself runs over all of them and needs none.

A dialect takes part by a module of its name in this folder, which has what it needs of

    settings(folder) -> Json    settings of a farm besides; files that they name are written into the folder
    reached(farm)               a context manager: a device that stays connected; its value checks that a message of an
                                app server reaches the device
    CLOSES                      how connections end: a `Close` each
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from farm.sections import all_sections


class Close(NamedTuple):
    """One connection, and how the farm closes it."""

    path: str
    """On the device port, without the slash before it."""
    first: str | None
    """What the client sends first."""
    code: int | None
    """None: whichever."""
    on_reload: bool = False
    """Whether it lasts until its worker is replaced."""


def names() -> list[str]:
    """Of all dialects."""
    (switches,) = (section for section in all_sections() if section.SECTION == "dialects")
    return sorted(switches.__annotations__)


def known(settings: dict[str, Any]) -> dict[str, Any]:
    """These settings of a farm, without those of dialects that are not there."""
    there = {section.SECTION for section in all_sections()}
    return {key: value for key, value in settings.items() if key.partition(".")[0] in there}


def alone(name: str) -> dict[str, bool]:
    """Settings of a farm with only this dialect."""
    return {f"dialects.{one}": one == name for one in names()}


def settings(folder: Path) -> dict[str, Any]:
    """Settings of a farm with which every dialect has what it needs."""
    found = {f"dialects.{name}": True for name in names()}
    for module in _modules():
        found |= module.settings(folder) if hasattr(module, "settings") else {}
    return found


@contextmanager
def reached(farm: Any) -> Iterator[Callable[[], None]]:
    """Devices of all dialects that stay connected. Yields: what checks that a message reaches each."""
    with ExitStack() as stack:
        checks = [stack.enter_context(module.reached(farm)) for module in _modules() if hasattr(module, "reached")]
        assert checks

        def check() -> None:
            for one in checks:
                one()

        yield check


def closes() -> list[Close]:
    """Those of all dialects."""
    return [close for module in _modules() for close in getattr(module, "CLOSES", ())]


def _modules() -> list[ModuleType]:
    there = [f"support.{name}" for name in names()]
    return [importlib.import_module(name) for name in there if importlib.util.find_spec(name) is not None]
