"""Where a client comes from. Pure."""

from __future__ import annotations

from typing import Any, Final

_MAPPED: Final = "::ffff:"
"""An IPv4 address on an IPv6 socket (RFC 4291 section 2.5.5.2)."""


def client_address(peer: Any) -> str:
    """The client's address as text, without a port; "" if there is none. peer: from accept(2) or getpeername(2)."""
    if not isinstance(peer, tuple):
        return ""
    address = str(peer[0])
    return address[len(_MAPPED) :] if address.startswith(_MAPPED) and "." in address else address
