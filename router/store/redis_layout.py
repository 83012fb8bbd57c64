"""Whether this release knows the layout of what is in Redis: see `LAYOUT` in `router.store.redis_keys`.

Each partition is looked at as it is acquired, in the same script. Here all are looked at without that, before routers
start.
"""

from __future__ import annotations

from typing import Final

from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.findings import Finding
from router.store.redis_keys import LAYOUT
from router.store.redis_sentinel import place
from router.store.redis_servers import Servers

_INSTEAD: Final = "give this farm a redis.prefix of its own"


async def stored(servers: Servers) -> int:
    """The newest layout that a partition has; 0: none was ever owned. Raises: StoreError."""
    found = await servers.fences("t", "v")
    return max((_version(layout) for token, layout in found if token is not None), default=0)


async def check(servers: Servers, options: RedisOptions) -> None:
    """Raises: StoreError if a newer release wrote it."""
    if (found := await stored(servers)) > LAYOUT:
        raise StoreError(newer(options, found))


async def finding(servers: Servers) -> Finding:
    """What `farm doctor` says of it. Raises: StoreError."""
    name, needed = "Redis data", f"layout {LAYOUT} or older"
    found = await stored(servers)
    if found > LAYOUT:
        return Finding(name, "fail", f"layout {found}, a newer release's", needed, f"start that release, or {_INSTEAD}")
    return Finding(name, "ok", f"layout {found}" if found else "none yet", needed)


def newer(options: RedisOptions, found: int) -> str:
    """Why what is there cannot be used, and what to do."""
    return (
        f"Redis {place(options)}: a newer release wrote what is under the prefix {options.prefix} (layout {found}, "
        f"this release knows {LAYOUT}): start that release, or {_INSTEAD}"
    )


def _version(layout: bytes | None) -> int:
    return int(layout) if layout is not None and layout.isdigit() else 1
