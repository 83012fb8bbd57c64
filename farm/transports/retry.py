"""When clients come back that are sent away together: each at another time. Pure but for chance."""

from __future__ import annotations

import random
from typing import Final

_RECONNECT_MS: Final = (1000, 5000)
"""About what browsers wait anyway, 3 s or 5 s, but not all of them the same."""


def spread(seconds: int) -> str:
    """The value of Retry-After: at random from half of `seconds` to half as much again, in whole seconds."""
    return str(random.randint((seconds + 1) // 2, seconds + seconds // 2))


def reconnect_ms() -> int:
    """The value of the field `retry` of an event stream that ends, at random."""
    return random.randint(*_RECONNECT_MS)
