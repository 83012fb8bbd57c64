"""The settings of the store in Redis or Valkey."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from router.common.options import Section, option
from router.common.redis_address import sentinel, url


@dataclass(frozen=True)
class RedisOptions(Section):
    SECTION: ClassVar[str] = "redis"
    HELP: ClassVar[str] = "The store in Redis or Valkey (store.kind = redis). Another server needs a restart."
    AT_START: ClassVar[frozenset[str]] = frozenset(
        (
            "url",
            "sentinels",
            "sentinel_name",
            "cluster",
            "prefix",
            "replicas",
            "durability",
            "allow_everysec",
            "lease",
        )
    )

    url: str = option(
        "redis://127.0.0.1:6379/0",
        "the server, with user, password and number of the database where it has them; rediss:// is TLS",
        expects="redis://[user[:password]@]host[:port][/database], or the same with rediss://",
        secret=True,
        check=url,
    )
    sentinels: tuple[str, ...] = option(
        (),
        "Sentinels that know where the primary is; the host and port of redis.url are not used then, the rest of it is",
        expects="a list of host[:port], or of redis:// and rediss:// URLs where they want a password or TLS",
        secret=True,
        check=sentinel,
    )
    sentinel_name: str = option("mymaster", "name of the primary in the Sentinels' configuration")
    cluster: bool = option(
        False, "the server of redis.url is one of a cluster; a replica of each primary is waited for (redis.replicas)"
    )
    ca_file: str = option("", "certificates that are trusted with rediss://, a PEM file; empty: the system's")
    prefix: str = option(
        "farm",
        "what the names of all keys begin with: farms with different ones may share a server",
        pattern=r"[A-Za-z0-9._-]{1,64}",
        expects="up to 64 letters, digits, dots, dashes and underscores",
    )
    replicas: int = option(
        0,
        "a message is accepted when so many replicas have it too",
        unit="replicas",
        ge=0,
        le=1,
    )
    durability: str = option(
        "aof",
        "aof: the server has synced it to its disk, and so has a replica that knows WAITAOF; replica: it is in the "
        "memory of the server and of a replica; managed: whatever the service promises, and nothing is checked",
        choices=("aof", "replica", "managed"),
    )
    allow_everysec: bool = option(
        False, "accept a server with appendfsync everysec, which may lose what it accepted in its last second"
    )
    connect_timeout: float = option(2.0, "until the server has taken a connection", unit="s", ge=0.1, le=60)
    timeout: float = option(
        5.0,
        "until a batch is durable, replicas included; beyond, what is in it is answered as failed, though some of it "
        "may be kept",
        unit="s",
        ge=0.1,
        le=60,
    )
    lease: float = option(
        3.0,
        "a router that was not heard of for so long may lose its part of the store to another one",
        unit="s",
        ge=0.5,
        le=3,
    )
