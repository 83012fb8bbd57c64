"""A primary of Redis or Valkey with a replica, and three Sentinels that watch them: real ones."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

from support.farm_fixture import until
from support.redis_servers import RedisServer


class Sentinels:
    """All five of them."""

    NAME = "farm"

    def __init__(self, product: str, folder: Path) -> None:
        self.servers: list[RedisServer] = []
        self._sentinels: list[RedisServer] = []
        folders = [folder / name for name in ("1", "2", "s1", "s2", "s3")]
        for one in folders:
            one.mkdir()
        primary = RedisServer(product, folders[0], "--repl-diskless-sync-delay", "0")
        self.servers.append(primary)
        replica = ("--replicaof", "127.0.0.1", str(primary.port), "--repl-diskless-sync-delay", "0")
        self.servers.append(RedisServer(product, folders[1], *replica))
        primary.until_followed()
        for one in folders[2:]:
            self._sentinels.append(RedisServer(product, one, watch=f"{self.NAME} 127.0.0.1 {primary.port} 2"))
        until(self._agree, "the Sentinels know each other and the replica")

    def _agree(self) -> bool:
        known = [sentinel.ask("SENTINEL", "MASTER", self.NAME) for sentinel in self._sentinels]
        facts = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in known]
        return all(one[b"num-other-sentinels"] == b"2" and one[b"num-slaves"] == b"1" for one in facts)

    @property
    def options(self) -> dict[str, Any]:
        """As the section `redis` has it."""
        sentinels = tuple(f"127.0.0.1:{sentinel.port}" for sentinel in self._sentinels)
        return {"sentinels": sentinels, "sentinel_name": self.NAME, "replicas": 1}

    @property
    def primary(self) -> RedisServer:
        """The one that is it now, by the word of the first Sentinel."""
        _, port = self._sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
        return next(server for server in self.servers if server.port == int(port))

    def fail_over(self) -> RedisServer:
        """Kill the primary, and wait until the other one is it. Returns: the one that was killed."""
        before = self.primary
        before.stop(signal.SIGKILL)
        until(lambda: self.primary is not before, "the replica is promoted", 60)
        until(lambda: self.primary.ask("ROLE")[0] == b"master", "it knows")
        return before

    def bring_back(self, server: RedisServer) -> None:
        """Start one that was killed, as a replica: what the Sentinels would do within some ten seconds."""
        server.start()
        primary = self.primary
        assert server.ask("REPLICAOF", "127.0.0.1", primary.port) == b"OK"
        primary.until_followed()

    def stop(self) -> None:
        """End all of them."""
        for server in (*self._sentinels, *self.servers):
            server.stop(signal.SIGKILL)
