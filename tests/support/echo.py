"""The echo dialect: what a test of the farm itself connects with, where any dialect would do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from support.dialects import Close
from support.farm_fixture import Farm, Json
from support.mirror import Mirror

SETTINGS: Final[Json] = {"dialects.echo": True}
CLOSES: Final = [Close("echo", "x" * 300_000, 1009), Close("echo", None, 1001, on_reload=True)]


class Echo(Mirror):
    """A connection of this dialect."""

    path = "echo"


@contextmanager
def reached(farm: Farm) -> Iterator[Callable[[], None]]:
    """As `support.dialects` has it; there is no app server."""
    with Echo(farm) as device:
        yield device.check
