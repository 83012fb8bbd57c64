"""What is seen of a server that is the store, without changing anything."""

from __future__ import annotations

from typing import Literal, NamedTuple


class Finding(NamedTuple):
    """One thing that was looked at where a store is."""

    name: str
    status: Literal["ok", "warn", "fail"]
    found: str
    needed: str
    remedy: str = ""
    """What would change it."""
