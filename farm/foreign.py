"""What dialects bring to the command line: configuration files of the servers that they stand in for, and checks of the
settings before any process is started that needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from router.common.options import Settings

Setting = tuple[str, str, object]
"""Where it comes from, as a message names it; the option's key; its value."""


class ForeignConfig(NamedTuple):
    """A flag that takes another server's configuration file. Its settings count more than the settings file, and less
    than variables and flags."""

    flag: str
    help: str
    read: Callable[[Path], Iterable[Setting]]
    """The file as settings. Raises: ConfigError with every problem, among them what the farm does not have."""


def foreign_configs() -> tuple[ForeignConfig, ...]:
    """Those of all dialects."""
    from farm.applications import MICRONOTIFIER

    return (MICRONOTIFIER,)


def check(settings: Settings) -> None:
    """That what the settings refer to can be used, by the dialects that are on.

    Raises: ConfigError with every problem.
    """
    from farm import applications

    applications.check(settings)
