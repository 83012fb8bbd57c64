"""Whether the machine did something else while a result was measured: the figures are worse for it then. Pure."""

from collections.abc import Iterator
from typing import Any, Final

FIELD: Final = "cores_with_others"
"""Of a usage: how many cores were busy with what neither the server nor the load is."""
MOST: Final = 0.1
"""Of all cores; below it a machine counts as quiet."""


def busy(body: dict[str, Any]) -> str:
    """A warning about what else the machine did; empty if it was quiet, or if that was not recorded."""
    cores = body["machine"]["cores"]
    most = max(_found(body), default=0.0)
    if most <= MOST * cores:
        return ""
    return f"Busy machine: other processes had up to {most:.1f} of its {cores} cores meanwhile, so it can do better"


def _found(part: Any) -> Iterator[float]:
    if isinstance(part, dict):
        if isinstance(part.get(FIELD), int | float):
            yield part[FIELD]
        part = list(part.values())
    if isinstance(part, list):
        for one in part:
            yield from _found(one)
