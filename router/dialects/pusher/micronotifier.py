"""MicroNotifier's configuration file, as settings of a farm."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

from router.common.errors import MendableError
from router.dialects import ForeignSettings
from router.dialects.pusher.applications import AppsError, Redis, read

DEFAULT_PORT: Final = 8111
"""Where MicroNotifier listens, for devices and app servers, if its file has none, or 0."""


def settings_of(flag: str, file: Path) -> ForeignSettings:
    """The content of the file. `flag` begins every problem.

    Raises: MendableError with every problem, among them what the farm does not have.
    """
    try:
        found = read(file)
    except AppsError as error:
        raise MendableError(*(f"{flag}: {problem}" for problem in error.problems)) from None
    origin = f"{flag} {file}"
    settings: list[tuple[str, str, object]] = [
        (origin, "pusher.apps", str(file)),
        (origin, "pusher.one_port", True),
        (origin, "listen.device_port", found.port or DEFAULT_PORT),
    ]
    if found.host:
        settings.append((origin, "listen.host", found.host))
    if found.certificate:
        settings += [(origin, "tls.certificate", [found.certificate]), (origin, "tls.key", [found.private_key])]
    if found.redis is not None:
        settings += [(origin, key, value) for key, value in _redis(found.redis)]
    return ForeignSettings(settings)


def _redis(redis: Redis) -> Iterator[tuple[str, object]]:
    """Its Redis is the farm's store. The name of a Sentinel's primary was always mymaster."""
    login = f":{quote(redis.password, safe='')}@" if redis.password else ""
    yield "store.kind", "redis"
    if redis.sentinel:
        yield "redis.sentinels", [redis.address]
        yield "redis.sentinel_name", "mymaster"
        yield "redis.replicas", 1  # without which nothing accepted would survive a failover
        yield "redis.url", f"redis://{login}localhost/{redis.database}"
    else:
        host = redis.address if not redis.address.startswith(":") else f"localhost{redis.address}"
        yield "redis.url", f"{'rediss' if redis.secure else 'redis'}://{login}{host}/{redis.database}"
