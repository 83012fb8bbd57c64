"""Where the connections of a worker come from.

The kernel knows the peer of each for as long as it is open, so nothing is kept of most. Where a proxy passes
connections or requests on, what it says of the client is kept by descriptor, in 4 or 16 bytes.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any

from router.common.client_address import Networks, address_text, client_address
from router.common.forwarded import forwarded_address


class Addresses:
    """The addresses of clients, by descriptor.

    accepted: of the peers whose request has not come yet, as accept(2) gives them; or what stands for one.
    others: the connections of whose clients an address is kept.
    """

    def __init__(self, forwarding: Networks) -> None:
        """forwarding: proxies whose headers say where a request comes from."""
        self.accepted: dict[int, Any] = {}
        self.others: set[int] = set()
        self._forwarding = forwarding
        self._forwarded_to_us = bool(forwarding)
        self._proxied: dict[int, bytes] = {}  # clients, by the PROXY protocol
        self._forwarded: dict[int, bytes] = {}  # clients, by the headers of the last request

    def __len__(self) -> int:
        """The number of addresses that are kept."""
        return len(self.accepted) + len(self._proxied) + len(self._forwarded)

    def of(self, fd: int) -> str:
        """Of the client of an open connection, as `client_address` gives it; "" if it is not known."""
        found = self._forwarded.get(fd)
        return self.of_connection(fd) if found is None else address_text(ipaddress.ip_address(found))

    def of_connection(self, fd: int) -> str:
        """The same, whatever the headers of its last request say: the next may be another client's."""
        found = self._proxied.get(fd)
        return client_address(_peer(fd)) if found is None else address_text(ipaddress.ip_address(found))

    def proxied(self, fd: int, address: str) -> None:
        """The PROXY protocol says that this is the client."""
        self._proxied[fd] = ipaddress.ip_address(address).packed
        self.others.add(fd)

    def differs(self, fd: int) -> bool:
        """Whether the client is another than the peer."""
        return fd in self.others

    def requested(self, fd: int, headers: Mapping[bytes, bytes]) -> str:
        """A request has come with these headers. Returns: the client's address. Raises: ForwardedError."""
        peer = self.accepted.pop(fd, None)
        if isinstance(peer, tuple) and not (self._proxied or self._forwarded_to_us):  # the usual
            return client_address(peer)
        if not self._forwarded_to_us:
            return self.of(fd)
        self._forwarded.pop(fd, None)
        before = self.of_connection(fd)
        address = forwarded_address(before, headers, self._forwarding)
        if address != before:
            self._forwarded[fd] = ipaddress.ip_address(address).packed
            self.others.add(fd)
        return address

    def left(self, fd: int) -> None:
        """A connection is closed; it need not be among `others`."""
        self.others.discard(fd)
        self._proxied.pop(fd, None)
        self._forwarded.pop(fd, None)


def _peer(fd: int) -> Any:
    shell = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        return shell.getpeername()
    except OSError:
        return None
    finally:
        shell.detach()
