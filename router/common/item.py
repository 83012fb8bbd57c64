"""A message in the inbox of a device, as it is stored and as it goes to the worker."""

from __future__ import annotations

from typing import NamedTuple


class Item(NamedTuple):
    """One message in a device's inbox."""

    slot: str
    version: int
    seq: int  # order of arrival: larger is later
    expires: int  # unix seconds; an expired item is never returned
    urgency: int  # 0: takes nobody's place and gives its own to nobody; 1 lowest .. 4 highest
    body: str | None
