"""Which router of several a message goes to, and which channels and devices are whose. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from zlib import crc32

from router.common import messages as m
from router.common.numbers import router_of
from router.common.partitions import BROADCASTS, PARTITIONS, fixed_owners

_MASK = PARTITIONS - 1


class Routes:
    """The routers of one host, numbered from 0."""

    def __init__(self, routers: int = 1) -> None:
        self.routers = routers
        self._owners = fixed_owners(routers)
        self.broadcasts = self.owner(BROADCASTS)
        """The router that sends broadcasts."""

    def owner(self, key: bytes) -> int:
        """The router that owns this key."""
        return self._owners[crc32(key) & _MASK]

    def apart(self, keys: Iterable[bytes]) -> bool:
        """Whether these keys are not all of one router."""
        return self.routers > 1 and len({self.owner(key) for key in keys}) > 1

    def of(self, message: Any) -> int:
        """The router that this message or request is for; not one that is made for each of them."""
        kind = type(message)
        if kind is m.Call:
            message = message.request
            kind = type(message)
        key = m.KEYS.get(kind)
        return router_of(m.NUMBERS[kind](message)) if key is None else self.owner(key(message))

    def share(self, router: int) -> Callable[[bytes], bool] | None:
        """Whether a key is this router's; None: all are."""
        if self.routers == 1:
            return None
        owner = self.owner
        return lambda key: owner(key) == router
