"""What `--store` may be. Pure."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class StoreChoice:
    """One value of `--store`. `kind`: the farm's `store.kind`; `promise`: what a 2xx means; `program`: the server that
    is started, empty: none. Of Redis and Valkey: `replica`: whether a second one follows the first; `settings`: of the
    farm, beside where the server is; `fsync`: their `appendfsync`."""

    name: str
    title: str
    kind: str
    promise: str
    program: str = ""
    replica: bool = False
    settings: tuple[str, ...] = ()
    fsync: str = "always"

    @property
    def servers(self) -> int:
        """How many are started."""
        return (1 + self.replica) if self.program else 0


_ONE: Final = ("redis.replicas=1",)
CHOICES: Final = {
    choice.name: choice
    for choice in (
        StoreChoice("sqlite", "SQLite", "sqlite", "on disk (synchronous=FULL)"),
        StoreChoice("memory", "memory", "memory", "in the router's memory"),
        StoreChoice("redis", "Redis", "redis", "on the server's disk", "redis"),
        StoreChoice(
            "redis-replica",
            "Redis with a replica",
            "redis",
            "on the server's disk, and in the memory of a replica (WAIT 1)",
            "redis",
            replica=True,
            settings=_ONE,
        ),
        StoreChoice("valkey", "Valkey", "redis", "on the server's disk", "valkey"),
        StoreChoice(
            "valkey-replica",
            "Valkey with a replica",
            "redis",
            "on the disks of the server and of a replica (WAITAOF 1 1)",
            "valkey",
            replica=True,
            settings=_ONE,
        ),
        StoreChoice(
            "valkey-memory",
            "Valkey with a replica, in memory",
            "redis",
            "in the memory of the server and of a replica (WAIT 1, redis.durability = replica)",
            "valkey",
            replica=True,
            settings=(*_ONE, "redis.durability=replica"),
            fsync="everysec",
        ),
        StoreChoice("memcached", "memcached", "memcached", "in memcached's memory", "memcached"),
    )
}
DEFAULT: Final = next(iter(CHOICES))


def listed() -> str:
    """All of them, each with what a 2xx means, for a help text."""
    return "; ".join(f"{choice.name}: {choice.promise}" for choice in CHOICES.values())
