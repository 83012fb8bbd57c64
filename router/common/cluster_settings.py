"""The settings of a farm over many hosts, and the addresses that follow from them."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from typing import ClassVar, Final

from router.common import option_texts as texts
from router.common.options import Section, Settings, option
from router.common.redis_settings import RedisOptions

PORTS: Final = 2
"""Of a router: one for workers, one for other routers."""
BEATS_A_LEASE: Final = 4
"""So many times in a lease a host says that it lives."""


def _endpoint(text: str) -> str:
    host, port = split(text)
    texts.host(host)
    if not 1 <= port <= 65_535:
        raise ValueError(text)
    return text


def _endpoint_or_none(text: str) -> str:
    return _endpoint(text) if text else text


def _host_or_none(text: str) -> str:
    return texts.host(text.removeprefix("[").removesuffix("]")) if text else text


def split(text: str) -> tuple[str, int]:
    """host:port as host (IPv6 without brackets) and port.

    Raises: ValueError.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        raise ValueError(text)
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], int(port)
    if not host or ":" in host:
        raise ValueError(text)
    return host, int(port)


def joined(host: str, port: int) -> str:
    """A host and a port as host:port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True)
class ClusterOptions(Section):
    SECTION: ClassVar[str] = "cluster"
    HELP: ClassVar[str] = "One farm on many hosts, which share its routers and a Redis. A change needs a restart."
    AT_START: ClassVar[frozenset[str]] = frozenset(("enabled", "bind", "advertise", "key", "key_file", "name"))

    enabled: bool = option(
        False,
        "the routers (router.routers) are shared by all hosts with the same redis.url and redis.prefix; needs "
        "store.kind = redis, and token.keys and endpoint.url that are the same on all hosts",
    )
    bind: str = option(
        "",
        "where the routers of this host listen for workers and routers of the others, in a network of their own; "
        "router N takes this port + 2N and the next one",
        expects="an address of this host and a port, as 10.0.0.2:7400",
        check=_endpoint_or_none,
    )
    advertise: str = option(
        "",
        "address or name by which other hosts reach this one; empty: that of cluster.bind",
        expects="an IP address or the name of a host",
        check=_host_or_none,
    )
    key: str = option(
        "",
        "the key from `farm cluster-key`, the same on all hosts; during a rotation a second one behind a comma: the "
        "first is served, and hosts with either are let in",
        pattern=r"|[\w-]{43}=?(\s*,\s*[\w-]{43}=?)?",
        expects="one key or two from `farm cluster-key`, comma separated",
        secret=True,
    )
    key_file: str = option(
        "", "a file with that instead", expects="the path of a file, or nothing", check=texts.path_or_none
    )
    name: str = option(
        "",
        "name of this host in status and log lines; empty: the host's own",
        pattern=r"[\w.:-]{0,64}",
        expects="up to 64 letters, digits, dots, colons, dashes and underscores",
    )

    @property
    def shown_name(self) -> str:
        """`name`, or the host's own."""
        return self.name or socket.gethostname()

    def listens(self, number: int) -> tuple[str, str]:
        """Where the router of this number listens, host:port: for workers, and for other routers."""
        host, port = split(self.bind)
        return joined(host, port + PORTS * number), joined(host, port + PORTS * number + 1)

    def advertised(self, number: int) -> tuple[str, str]:
        """The same as other hosts reach it."""
        host, port = split(self.bind)
        host = self.advertise or host
        return joined(host, port + PORTS * number), joined(host, port + PORTS * number + 1)


def lease(settings: Settings) -> float:
    """A host that was not heard of for so many seconds has lost its routers."""
    return settings.get(RedisOptions).lease


def beat_interval(settings: Settings) -> float:
    """Seconds from one beat of a host to the next."""
    return lease(settings) / BEATS_A_LEASE


def any_address(host: str) -> bool:
    """Whether it is all addresses of a host, which no other one can connect to."""
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False
