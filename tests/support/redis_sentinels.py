"""A primary of Redis or Valkey with a replica, and three Sentinels that watch them: real ones."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from support.farm_fixture import until
from support.namespaces import Machine
from support.redis_servers import RedisServer


class Sentinels:
    """All five of them."""

    NAME = "farm"

    def __init__(
        self, product: str, folder: Path, machines: Sequence[Machine] = (), *options: str, down_after_ms: int = 500
    ) -> None:
        """machines: three; the first has the primary, the second the replica, and each a Sentinel. options: of the
        servers."""
        places = tuple(machines) or (None, None, None)
        folders = [folder / name for name in ("1", "2", "s1", "s2", "s3")]
        for one in folders:
            one.mkdir()
        options = ("--repl-diskless-sync-delay", "0", *options)
        primary = RedisServer(product, folders[0], *options, machine=places[0])
        replica = ("--replicaof", primary.host, str(primary.port), *options)
        self.servers = [primary, RedisServer(product, folders[1], *replica, machine=places[1])]
        primary.until_followed()
        watch = f"{self.NAME} {primary.host} {primary.port} 2"
        self._sentinels = [
            RedisServer(product, one, watch=watch, machine=place, down_after_ms=down_after_ms)
            for one, place in zip(folders[2:], places, strict=True)
        ]
        until(self._agree, "the Sentinels know each other and the replica")

    def _agree(self) -> bool:
        known = [sentinel.ask("SENTINEL", "MASTER", self.NAME) for sentinel in self._sentinels]
        facts = [dict(zip(flat[::2], flat[1::2], strict=True)) for flat in known]
        return all(one[b"num-other-sentinels"] == b"2" and one[b"num-slaves"] == b"1" for one in facts)

    @property
    def options(self) -> dict[str, Any]:
        """As the section `redis` has it."""
        sentinels = tuple(f"{sentinel.host}:{sentinel.port}" for sentinel in self._sentinels)
        return {"sentinels": sentinels, "sentinel_name": self.NAME, "replicas": 1}

    @property
    def primary(self) -> RedisServer:
        """The one that is it now, by the word of most Sentinels."""
        where = self._said().most_common(1)[0][0]
        return next(server for server in self.servers if (server.host, server.port) == where)

    def _said(self) -> Counter[tuple[str, int]]:
        said: Counter[tuple[str, int]] = Counter()
        for sentinel in self._sentinels:
            with suppress(OSError):
                host, port = sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.NAME)
                said[host.decode(), int(port)] += 1
        return said

    @property
    def replica(self) -> RedisServer:
        """The other one."""
        primary = self.primary
        return next(server for server in self.servers if server is not primary)

    def fail_over(self) -> RedisServer:
        """Kill the primary, and wait until the other one is it. Returns: the one that was killed."""
        before = self.primary
        before.stop(signal.SIGKILL)
        self.wait_promoted(before)
        return before

    def wait_promoted(self, before: RedisServer) -> None:
        """Wait until this one is the primary no more, and the other one knows that it is."""
        until(lambda: self.primary is not before, "the replica is promoted", 60)
        until(lambda: self.primary.ask("ROLE")[0] == b"master", "it knows")

    def switch_over(self) -> None:
        """Have the other one promoted while both run, and wait until the one that was the primary follows it."""
        before = self.primary
        assert self._sentinels[0].ask("SENTINEL", "FAILOVER", self.NAME) == b"OK"
        until(lambda: self.primary is not before, "the replica is promoted", 60)
        until(lambda: before.ask("ROLE")[0] == b"slave", "the other one follows it", 60)
        # Until then one of them may undo it.
        until(lambda: list(self._said().values()) == [len(self._sentinels)], "the Sentinels agree", 60)
        self.primary.until_followed()

    def bring_back(self, server: RedisServer) -> None:
        """Start one that was killed, as a replica: what the Sentinels would do within some ten seconds."""
        server.start()
        self.follow(server)

    def follow(self, server: RedisServer) -> None:
        """It is a replica from now on, and has all that the primary has."""
        primary = self.primary
        assert server.ask("REPLICAOF", primary.host, primary.port).startswith(b"OK")
        primary.until_followed()

    def stop(self) -> None:
        """End all of them."""
        for server in (*self._sentinels, *self.servers):
            server.stop(signal.SIGKILL)
