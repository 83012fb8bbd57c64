"""Where a client comes from. Pure.

That is the peer of its connection; or, where a proxy passes connections on, what the proxy says of them: by the PROXY
protocol (`router.common.proxy_protocol`) or in the headers of a request (`router.common.forwarded`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Final

_MOST_ASKED: Final = 1024
"""Answers that are remembered."""
_MAPPED: Final = "::ffff:"
"""An IPv4 address on an IPv6 socket (RFC 4291 section 2.5.5.2)."""


def client_address(peer: Any) -> str:
    """The client's address as text, without a port; "" if there is none. peer: from accept(2) or getpeername(2)."""
    if not isinstance(peer, tuple):
        return ""
    address = str(peer[0])
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) and "." in address else address


def address_text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """An address in the form that `client_address` gives."""
    return str((address.version == 6 and address.ipv4_mapped) or address)


class Networks:
    """Networks whose addresses are to be known among others."""

    def __init__(self, networks: Iterable[str]) -> None:
        """networks: each as the settings have it, with or without a length of its prefix."""
        self._known: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for text in networks:
            network = ipaddress.ip_network(text)
            bits = network.max_prefixlen - network.prefixlen
            self._known[network.version].setdefault(bits, set()).add(int(network.network_address) >> bits)
        self._any = any(self._known.values())
        self._asked: dict[str, bool] = {}  # to read an address as text takes several microseconds

    def __bool__(self) -> bool:
        """Whether there is any."""
        return self._any

    def __contains__(self, address: str) -> bool:
        """Whether an address, as `client_address` gives it, is of one of these; "" is of none."""
        if not self._any or not address:
            return False
        known = self._asked.get(address)
        if known is None:
            if len(self._asked) >= _MOST_ASKED:
                self._asked.clear()
            found = ipaddress.ip_address(address)
            known = self._asked[address] = self.has(found.version, int(found))
        return known

    def has(self, version: int, number: int) -> bool:
        """The same for an address of IP version 4 or 6 as a number."""
        return any(number >> bits in known for bits, known in self._known[version].items())
