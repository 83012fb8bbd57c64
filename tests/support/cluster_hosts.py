"""A farm on three hosts, each a machine of its own, with Redis or Valkey, Sentinels and a balancer beside them.

For programs that have begun with `namespaces.in_namespaces`. Devices, app servers and the balancer are on the program's
own machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from router.common.curve import new_key
from support.farm_fixture import Farm, Json
from support.haproxy import HAProxy, running_haproxy_of_a_cluster
from support.namespaces import HERE, Machine, Network
from support.redis_sentinels import Sentinels

FRONT: Final = "front"
"""The balancer reaches the hosts by it, and they reach the server of webhooks."""
PEERS: Final = "peers"
"""The hosts reach each other by it."""
STORE: Final = "store"
"""All reach Redis by it."""
HOSTS: Final = ("a", "b", "c")
_STORES: Final = ("x", "y", "z")
_FIRST_STORE: Final = 11
_LINKS_PORT: Final = 7400
_DOWN_AFTER_MS: Final = 1500
_TOKEN_KEY: Final = "a2V5LW9mLXRoZS10ZXN0cy1vZi1hLWNsdXN0ZXItMzI="


class Host(Farm):
    """A farm's processes on one of the machines. It is asked from that machine, so whatever becomes of its cables."""

    def __init__(self, machine: Machine, data: Path, settings: Json, workers: int) -> None:
        super().__init__(data, settings, workers)
        self.machine = machine
        self.name = machine.name
        self.device_port, self.router_port, self.admin_port = 8080, 8081, 8082

    def arguments(self) -> list[str]:
        line = super().arguments()
        line[line.index("127.0.0.1")] = "0.0.0.0"
        return [*self.machine.prefix, *line]

    def admin(self, path: str) -> tuple[int, bytes]:
        return self.machine.call(super().admin, path)


class Cluster:
    """All of it."""

    def __init__(self, folder: Path, product: str, settings: Json, workers: int = 2, one_farm: bool = True) -> None:
        """one_farm: otherwise each host is a farm for itself, with a prefix of its own on the same server."""
        self.network = Network(FRONT, PEERS, STORE)
        machines = [self.network.machine(name, number) for number, name in enumerate(HOSTS, 1)]
        stores = [self.network.machine(name, _FIRST_STORE + number, STORE) for number, name in enumerate(_STORES)]
        (folder / "stores").mkdir()
        self.sentinels = Sentinels(product, folder / "stores", stores, down_after_ms=_DOWN_AFTER_MS)
        options = self.sentinels.options
        shared = {
            "store.kind": "redis",
            "redis.sentinels": ",".join(options["sentinels"]),
            "redis.sentinel_name": options["sentinel_name"],
            "redis.replicas": options["replicas"],
            "token.keys": _TOKEN_KEY,
            "endpoint.url": "http://127.0.0.1:8081",
            **settings,
        }
        key = new_key()
        self.hosts = []
        for machine in machines:
            own: Json = {"redis.prefix": machine.name}
            if one_farm:
                bind = f"{machine.address(PEERS)}:{_LINKS_PORT}"
                own = {"enabled": True, "bind": bind, "key": key, "name": machine.name}
                own = {f"cluster.{name}": value for name, value in own.items()}
            self.hosts.append(Host(machine, folder / machine.name, shared | own, workers))

    @property
    def here(self) -> str:
        """Where hosts reach what this program serves."""
        return self.network.address(FRONT, HERE)

    def start(self) -> None:
        """All hosts, at once."""
        self._all(Host.start)

    def stop(self) -> None:
        """All hosts, at once, as SIGTERM does."""
        self._all(Host.stop)

    def end(self) -> None:
        """Whatever still runs."""
        for host in self.hosts:
            if host.runs:
                host.kill()
        self.sentinels.stop()

    def _all(self, act: Callable[[Host], None]) -> None:
        with ThreadPoolExecutor() as pool:
            list(pool.map(act, self.hosts))


@contextmanager
def running_cluster(
    folder: Path, product: str, settings: Json, workers: int = 2, one_farm: bool = True
) -> Iterator[tuple[Cluster, HAProxy]]:
    """A cluster and its balancer, for the time of the block. The hosts are not started yet."""
    cluster = Cluster(folder, product, settings, workers, one_farm)
    try:
        with running_haproxy_of_a_cluster() as balancer:
            yield cluster, balancer
    finally:
        cluster.end()
