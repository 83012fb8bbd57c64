"""The Pusher dialect's file of applications, as the command line meets it: checked early, or MicroNotifier's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from farm.config import ConfigError
from farm.foreign import ForeignConfig, Setting
from router.common.options import Settings

_FLAG: Final = "--micronotifier-config"
DEFAULT_PORT: Final = 8111
"""Where MicroNotifier listens, for devices and app servers, if its file says nothing, or 0."""


def settings_of(file: Path) -> Iterator[Setting]:
    """What MicroNotifier's configuration file says, as settings: where it comes from, key, value.

    Raises: ConfigError with every problem, among them what the farm does not have.
    """
    from router.dialects.pusher.applications import AppsError, read

    try:
        found = read(file)
    except AppsError as error:
        raise ConfigError(*(f"{_FLAG}: {problem}" for problem in error.problems)) from None
    origin = f"{_FLAG} {file}"
    yield origin, "pusher.apps", str(file)
    yield origin, "pusher.one_port", True
    yield origin, "listen.device_port", found.port or DEFAULT_PORT
    if found.host:
        yield origin, "listen.host", found.host


MICRONOTIFIER: Final = ForeignConfig(
    _FLAG,
    "MicroNotifier's configuration: its applications, and its host and port, to which app servers may come like "
    "devices (pusher.one_port). Counts more than the settings file, and less than variables and flags.",
    settings_of,
)


def check(settings: Settings) -> None:
    """That the applications can be read, before any process is started that needs them.

    Raises: ConfigError with every problem.
    """
    from router.dialects import is_on, pusher
    from router.dialects.pusher.applications import AppsError, load

    options = settings.get(pusher.PusherOptions)
    if not is_on(settings, pusher):
        return
    try:
        load(options.apps, options.unsigned)
    except AppsError as error:
        raise ConfigError(*(f"pusher.apps: {problem}" for problem in error.problems)) from None
