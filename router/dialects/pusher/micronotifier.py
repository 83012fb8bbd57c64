"""MicroNotifier's configuration file, as settings of a farm."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from router.common.errors import MendableError
from router.dialects import ForeignSettings
from router.dialects.pusher.applications import AppsError, read

DEFAULT_PORT: Final = 8111
"""Where MicroNotifier listens, for devices and app servers, if its file has none, or 0."""


def settings_of(flag: str, file: Path) -> ForeignSettings:
    """The content of the file. `flag` begins every problem.

    Raises: MendableError with every problem, among them what the farm does not have.
    """
    try:
        found = read(file)
    except AppsError as error:
        raise MendableError(*(f"{flag}: {problem}" for problem in error.problems)) from None
    origin = f"{flag} {file}"
    settings: list[tuple[str, str, object]] = [
        (origin, "pusher.apps", str(file)),
        (origin, "pusher.one_port", True),
        (origin, "listen.device_port", found.port or DEFAULT_PORT),
    ]
    if found.host:
        settings.append((origin, "listen.host", found.host))
    return ForeignSettings(settings)
