"""Listening sockets: how every process opens its own, and how its port is reached from this machine."""

from __future__ import annotations

import socket
from typing import Final

from router.common.errors import MendableError

_EVERYWHERE: Final = ("0.0.0.0", "::", "")


class ListenError(MendableError):
    """Listening there is not possible; the text says why and what to do, in one line."""


def family_of(host: str) -> socket.AddressFamily:
    """In which a listener of this address is opened."""
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def is_dual(host: str) -> bool:
    """Whether a listener of this address takes connections of IPv4, too."""
    return host == "::" and socket.has_dualstack_ipv6()


def open_listener(host: str, port: int, backlog: int, option: str, reuse_port: bool = False) -> socket.socket:
    """Listen on an address; "::" is every address of IPv6 and of IPv4. `option`: the setting to name in an error.

    Raises: ListenError.
    """
    try:
        return socket.create_server(
            (host, port), family=family_of(host), backlog=backlog, reuse_port=reuse_port, dualstack_ipv6=is_dual(host)
        )
    except OSError as error:
        why = error.strerror or str(error)
        raise ListenError(
            f"{option}: cannot listen on {host} port {port}: {why.lower()}; choose another or free it"
        ) from None


def base_url(host: str, port: int, tls: bool = False) -> str:
    """The URL by which a listener's port is reached from this machine, without a path. tls: whether it speaks that."""
    host = "127.0.0.1" if host in _EVERYWHERE else host
    scheme = "https" if tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
