"""Whom a limit for addresses counts together: an IPv4 address, or the /64 of an IPv6 one, which is one subscriber's
(RFC 6177). Pure."""

from __future__ import annotations

import ipaddress
from typing import Final

from router.common.client_address import Networks

NOBODY: Final = 0
"""Key of those that are not counted."""
_KNOWN: Final = 4096
"""Addresses whose keys are remembered: to parse one takes longer than to count it."""


class ClientKeys:
    """Makes keys of addresses: numbers of 64 bits."""

    __slots__ = ("_exempt", "_known")

    def __init__(self, exempt: Networks) -> None:
        """exempt: proxies. What comes from one is of many clients, and counts for those that it names."""
        self._exempt = exempt
        self._known: dict[str, int] = {}

    def __call__(self, address: str) -> int:
        """The key of an address as `client_address` gives it, or NOBODY."""
        key = self._known.get(address)
        if key is None:
            key = self._make(address)
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[address] = key
        return key

    def _make(self, address: str) -> int:
        if not address:
            return NOBODY
        if ":" not in address:
            number = int.from_bytes(map(int, address.split(".")), "big")
            return NOBODY if self._exempt.has(4, number) else number
        number = int(ipaddress.IPv6Address(address))
        # No /64 that is in use is below 2**32: what begins with 32 zeros is reserved (RFC 4291).
        return NOBODY if self._exempt.has(6, number) else number >> 64
