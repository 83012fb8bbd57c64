"""A cluster of Redis or Valkey: three primaries with a replica each, real ones, on one machine."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Final

from bench.machine.ports import free_ports
from support.farm_fixture import until
from support.redis_servers import RedisServer

PRIMARIES: Final = 3
SLOTS: Final = 16_384


class Cluster:
    """All six of them. Primaries come first; what they are later says `primaries`."""

    def __init__(self, product: str, folder: Path) -> None:
        buses = free_ports(2 * PRIMARIES)
        self.servers: list[RedisServer] = []
        for number, bus in enumerate(buses):
            own = folder / f"{number}"
            own.mkdir()
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1500", "--cluster-port", str(bus))
            more = ("--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0")
            self.servers.append(RedisServer(product, own, *options, *more))
        first = self.servers[0]
        for number, server in enumerate(self.servers):
            server.ask("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < PRIMARIES:
                begin, end = (SLOTS * at // PRIMARIES for at in (number, number + 1))
                server.ask("CLUSTER", "ADDSLOTSRANGE", begin, end - 1)
            if server is not first:
                server.ask("CLUSTER", "MEET", "127.0.0.1", first.port, buses[0])
        until(self._know_each_other, "they know each other")
        for number, server in enumerate(self.servers[PRIMARIES:]):
            server.ask("CLUSTER", "REPLICATE", self.id_of(self.servers[number]))
        until(self.is_well, "the cluster is well")

    def _know_each_other(self) -> bool:
        return all(b"cluster_known_nodes:6" in server.ask("CLUSTER", "INFO") for server in self.servers)

    def id_of(self, server: RedisServer) -> bytes:
        """Its name in the cluster."""
        found: bytes = server.ask("CLUSTER", "MYID")
        return found

    @property
    def running(self) -> list[RedisServer]:
        """Those that have not been ended."""
        return [server for server in self.servers if server.runs]

    @property
    def primaries(self) -> list[RedisServer]:
        """Those that are it now."""
        return [server for server in self.running if server.ask("ROLE")[0] == b"master"]

    def is_well(self) -> bool:
        """Whether every slot is served, by a primary that a replica follows."""
        seen = all(b"cluster_state:ok" in server.ask("CLUSTER", "INFO") for server in self.running)
        return (
            seen
            and len(self.primaries) == PRIMARIES
            and all(server.ask("WAIT", 1, 200) >= 1 for server in self.primaries)
        )

    def clear(self) -> None:
        """Delete all that is in it, which has to be well."""
        assert self.is_well()
        for server in self.primaries:
            assert server.ask("FLUSHALL") == b"OK"

    def fail_over(self, primary: RedisServer) -> None:
        """Kill a primary, and wait until its replica has taken its slots."""
        primary.stop(signal.SIGKILL)
        until(lambda: len(self.primaries) == PRIMARIES, "the replica is promoted", 60)
        until(lambda: all(b"cluster_state:ok" in one.ask("CLUSTER", "INFO") for one in self.running), "all agree", 60)

    def begin_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """A slot is between two servers from now on."""
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))

    def move_keys(self, slot: int, source: RedisServer, target: RedisServer, most: int = 1000) -> None:
        """So many of its keys go to the other server."""
        if keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, most):
            assert source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys) == b"OK"

    def end_move(self, slot: int, source: RedisServer, target: RedisServer) -> None:
        """All of it is there."""
        self.move_keys(slot, source, target)
        for server in (target, source):
            server.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def stop(self) -> None:
        """End all of them."""
        for server in self.servers:
            server.stop(signal.SIGKILL)
