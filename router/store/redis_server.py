"""What a Redis or Valkey server is, whether it can be the store, and what an answer is worth with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import hiredis

from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.findings import Finding
from router.store.redis_connection import Command, Connection, checked, info, pairs

MIN_VERSION: Final = (7, 0)
_WAITAOF: Final = (7, 2)
_WANTED: Final = ("appendonly", "appendfsync", "no-appendfsync-on-rewrite", "maxmemory", "maxmemory-policy")
_UNKNOWN: Final = "?"


@dataclass(frozen=True, slots=True)
class Server:
    """What a server says of itself. Settings that it does not show are "?"."""

    name: str  # where it is
    product: str
    version: tuple[int, ...]
    run: str
    role: str
    replicas: int
    appendonly: str = _UNKNOWN
    appendfsync: str = _UNKNOWN
    maxmemory: str = _UNKNOWN
    policy: str = _UNKNOWN
    cluster: bool = False
    unsynced_rewrites: str = _UNKNOWN

    @property
    def title(self) -> str:
        """Product and version."""
        return f"{self.product} {'.'.join(map(str, self.version))}"

    @property
    def knows_waitaof(self) -> bool:
        """Whether it can wait for a replica's disk."""
        return self.product == "Valkey" or self.version >= _WAITAOF


async def look(connection: Connection, options: RedisOptions) -> Server:
    """Ask a server what it is.

    Raises: StoreError.
    """
    replies = await connection.call(("INFO",), *(("CONFIG", "GET", name) for name in _WANTED))
    told = info(checked(replies[0], connection.name))
    config: dict[str, str] = {}
    for reply in replies[1:]:
        if not isinstance(reply, hiredis.ReplyError):
            config |= pairs(reply)
        elif options.durability != "managed":
            raise StoreError(
                f"Redis {connection.name}: {reply}: the farm cannot see whether what it stores is durable; let the "
                f"user of redis.url call CONFIG GET, or trust the service with redis.durability = managed"
            )
    valkey = told.get("valkey_version", "")
    return Server(
        connection.name,
        "Valkey" if valkey else "Redis",
        _version(valkey or told.get("redis_version", "")),
        told.get("run_id", ""),
        told.get("role", ""),
        int(told.get("connected_slaves", "0")),
        config.get("appendonly", _UNKNOWN),
        config.get("appendfsync", _UNKNOWN),
        config.get("maxmemory", _UNKNOWN),
        config.get("maxmemory-policy", _UNKNOWN),
        told.get("cluster_enabled") == "1",
        config.get("no-appendfsync-on-rewrite", _UNKNOWN),
    )


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())


def findings(server: Server, options: RedisOptions) -> list[Finding]:
    """All that is to be seen of a server."""
    managed = options.durability == "managed"
    found = [
        _version_finding(server),
        _role(server),
        *((_append_only(server), _fsync(server, options)) if not managed else ()),
        _policy(server),
        _replicas(server, options),
    ]
    if options.cluster and options.sentinels:
        remedy = "redis.cluster = false, or no redis.sentinels"
        found.append(Finding("Redis cluster", "fail", "redis.cluster and redis.sentinels", "one of them", remedy))
    if server.cluster != options.cluster:
        there = "in a cluster" if server.cluster else "in no cluster"
        wanted = str(options.cluster).lower()
        remedy = f"redis.cluster = {str(server.cluster).lower()}"
        found.append(Finding("Redis cluster", "fail", there, f"redis.cluster = {wanted}", remedy))
    return found


def _version_finding(server: Server) -> Finding:
    old = server.version < MIN_VERSION and server.product == "Redis"
    return Finding(
        "Redis version",
        "fail" if old else "ok",
        server.title,
        "7.0 or later, or Valkey",
        "a newer server" if old else "",
    )


def _role(server: Server) -> Finding:
    if server.role == "master":
        return Finding("Redis role", "ok", "primary", "primary")
    return Finding("Redis role", "fail", server.role or "unknown", "primary", "the address of the primary in redis.url")


def _append_only(server: Server) -> Finding:
    on = server.appendonly == "yes"
    remedy = "" if on else "redis-cli CONFIG SET appendonly yes, and in redis.conf"
    return Finding("Redis appendonly", "ok" if on else "fail", server.appendonly, "yes", remedy)


def _fsync(server: Server, options: RedisOptions) -> Finding:
    name, found = "Redis appendfsync", server.appendfsync
    if server.unsynced_rewrites == "yes" and options.durability == "aof":
        needed = "no: with yes nothing is synced while the file is rewritten"
        remedy = "redis-cli CONFIG SET no-appendfsync-on-rewrite no, and in redis.conf"
        return Finding("Redis no-appendfsync-on-rewrite", "fail", "yes", needed, remedy)
    if found == "always" or options.durability == "replica":
        return Finding(name, "ok", found, "always" if options.durability == "aof" else "any")
    change = "redis-cli CONFIG SET appendfsync always, and in redis.conf"
    if found == "everysec" and options.allow_everysec:
        return Finding(name, "warn", found, "always: the last second may be lost", change)
    return Finding(name, "fail", found, "always", f"{change}; or redis.allow_everysec, for everysec")


def _policy(server: Server) -> Finding:
    name, found = "Redis maxmemory-policy", server.policy
    if found in ("noeviction", _UNKNOWN):
        return Finding(name, "ok", found, "noeviction")
    remedy = "redis-cli CONFIG SET maxmemory-policy noeviction, and in redis.conf"
    return Finding(name, "fail", found, "noeviction: others delete accepted messages", remedy)


def _replicas(server: Server, options: RedisOptions) -> Finding:
    name, found = "Redis replicas", f"{server.replicas} connected"
    needed = f"{options.replicas} (redis.replicas)"
    if (options.sentinels or options.cluster) and options.replicas == 0:
        why = "1 (redis.replicas): a replica may be promoted that has not all that was accepted"
        return Finding(name, "fail", "redis.replicas = 0", why, "redis.replicas = 1")
    if options.durability == "replica" and options.replicas == 0:
        return Finding(name, "fail", found, "redis.durability = replica needs redis.replicas = 1", "redis.replicas = 1")
    if server.replicas < options.replicas:
        # Not now, perhaps, but in a moment: until then every batch fails.
        return Finding(name, "warn", found, needed, "a replica; until there is one every push is answered with 503")
    return Finding(name, "ok", found, needed)


def problems(server: Server, options: RedisOptions) -> list[str]:
    """Why it cannot be the store, a line each."""
    return [
        f"Redis {server.name}: {one.name.removeprefix('Redis ')} is {one.found}, needed is {one.needed}: {one.remedy}"
        for one in findings(server, options)
        if one.status == "fail"
    ]


def waits(server: Server, options: RedisOptions, milliseconds: int) -> tuple[Command, ...]:
    """What is to be waited for behind each batch, so long at most. The last number in each reply is of replicas, one
    before it of the server's own disk.

    A replica asked by WAITAOF at once answers before it has synced, and then not for a second. By the time it has
    answered to WAIT it has synced, so both together take as long as WAIT alone."""
    memory: tuple[Command, ...] = (("WAIT", options.replicas, milliseconds),) if options.replicas else ()
    if options.durability == "aof" and server.knows_waitaof and (options.replicas or server.appendfsync != "always"):
        return *(("WAIT", 1, milliseconds // 2) for _ in memory), ("WAITAOF", 1, options.replicas, milliseconds // 2)
    return memory


def promise(server: Server, options: RedisOptions) -> str:
    """What an accepted message survives."""
    where = f"in {server.title} at {server.name}: what is accepted "
    wait = waits(server, options, 0)
    if options.durability == "managed":
        return where + f"survives what the service promises{' and is on a replica' if wait else ''}; it is not checked"
    if options.durability == "replica":
        return where + "is in the memory of the server and of a replica, and survives either of them"
    if server.appendfsync != "always" and not server.knows_waitaof:
        own = "survives a crash of the server but for its last second (appendfsync everysec)"
    else:
        own = "is on the disk of the server, and survives every process and a power cut"
    if options.replicas:
        disk = "on the disk" if len(wait) > 1 else "in the memory"
        return f"{where}{own}; it is also {disk} of a replica, and survives either of the two"
    return where + own
