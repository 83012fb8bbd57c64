"""The settings of the store in memcached."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

from router.common import option_texts as texts
from router.common.options import Section, option

PORT: Final = 11211
"""memcached's own."""
_MAX_PREFIX: Final = 100
_HOST_PORT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+(?:%[\w.-]+)?)\]|([^\[\]:/]+))(?::([0-9]{1,5}))?")


def address(server: str) -> str | tuple[str, int]:
    """The path of a unix socket, or host and port.

    Raises: ValueError.
    """
    if server.startswith("/"):
        return texts.path(server)
    found = _HOST_PORT.fullmatch(server)
    if found is None:
        raise ValueError(server)
    port = int(found[3] or PORT)
    if not 0 < port < 65_536:
        raise ValueError(server)
    return texts.host(found[1] or found[2]), port


def _server(text: str) -> str:
    where = address(text)
    if isinstance(where, str):
        return where
    host, port = where
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _prefix(text: str) -> str:
    if len(text) > _MAX_PREFIX:
        raise ValueError(text)
    return texts.key(text)


@dataclass(frozen=True)
class MemcachedOptions(Section):
    SECTION: ClassVar[str] = "memcached"
    HELP: ClassVar[str] = 'The store in memcached (store.kind = "memcached"). Other servers need a restart.'
    AT_START: ClassVar[frozenset[str]] = frozenset(("servers", "prefix"))

    servers: tuple[str, ...] = option(
        ("127.0.0.1:11211",),
        "memcached servers; what is stored is shared out among them, each entry on one",
        expects="a list of host:port, [IPv6]:port or paths of unix sockets",
        check=_server,
    )
    prefix: str = option(
        "farm:",
        "what the key of each entry begins with; each farm on the same server needs its own",
        expects=f"up to {_MAX_PREFIX} visible characters of ASCII",
        check=_prefix,
    )
    timeout: float = option(
        1.0,
        "from a request to memcached until its whole answer; beyond, what was asked for is refused with 503",
        unit="s",
        ge=0.01,
    )
    retry: float = option(
        0.5,
        "a server that did not answer is asked again after this time; until then its part is refused",
        unit="s",
        ge=0,
    )
