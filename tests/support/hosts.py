"""A farm over several hosts on one machine: each has an address of loopback, a data folder and ports of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from pathlib import Path
from typing import Final

from bench.machine.ports import free_ports
from router.common.curve import new_key
from router.common.token import new_key as new_token_key
from support.farm_fixture import SOON_S, Farm, Json, until
from support.redis_servers import RedisServer

FAST: Final[Json] = {
    "redis.lease": 2,
    "link.lease": 2,
    "link.heartbeat": 0.1,
    "farm.hang_timeout": 10,
    "drain.notice": 0,
}
"""Settings with which what a host waits for comes soon."""


class Hosts:
    """Those of one farm, which are not started yet."""

    def __init__(
        self, folder: Path, server: RedisServer, number: int, routers: int, settings: Json, workers: int = 1
    ) -> None:
        """server: the store that they share."""
        bind, *ports = free_ports(1 + number)
        shared: Json = {
            "store.kind": "redis",
            "redis.url": server.url,
            "router.routers": routers,
            "token.keys": new_token_key(),
            "endpoint.url": f"http://127.0.0.1:{ports[0]}",
            "cluster.enabled": True,
            "cluster.key": new_key(),
            **FAST,
            **settings,
        }
        self.each = [
            Farm(folder / name, shared | {"cluster.bind": f"127.0.0.{at}:{bind}", "cluster.name": name}, workers)
            for at, name in enumerate("abcdefgh"[:number], 2)
        ]
        for farm, port in zip(self.each, ports, strict=True):
            farm.router_port = port  # which is closed and opened again, so it is none of the kernel's choice
        self.routers = routers
        self.server = server

    def start(self) -> None:
        """All of them, one after the other, and wait until they have divided the routers."""
        for farm in self.each:
            farm.start()
        self.wait_divided()

    def wait_divided(self, *among: Farm) -> dict[str, list[int]]:
        """Wait until all routers run on these hosts (none: all), about as many on each, and all know. Returns: their
        numbers, by name of host."""
        farms = among or tuple(self.each)

        def divided() -> dict[str, list[int]] | None:
            found = {name_of(farm): placed(farm) for farm in farms}
            numbers = sorted(number for each in found.values() for number in each)
            sizes = [len(each) for each in found.values()]
            if numbers != list(range(self.routers)) or max(sizes) - min(sizes) > 1:
                return None
            return found if all(farm.healthy() and known(farm) == found for farm in farms) else None

        found = until(divided, "the routers are divided", SOON_S)
        assert found is not None
        return found

    def end(self) -> None:
        """Whatever runs."""
        for farm in self.each:
            if farm.runs:
                farm.kill()


def across(devices: Farm, app_servers: Farm) -> Farm:
    """What is one host to devices, and another one to app servers."""
    both = copy(devices)
    both.router_port = app_servers.router_port
    return both


def name_of(farm: Farm) -> str:
    """Of a host."""
    return str(farm.settings["cluster.name"])


def known(farm: Farm) -> dict[str, list[int]]:
    """The routers that are ready, by host, as this host knows it."""
    cluster = farm.status()["cluster"]
    ready = {row["number"] for row in cluster["placements"] if row["state"] == "ready"}
    return {host["name"]: [number for number in host["routers"] if number in ready] for host in cluster["hosts"]}


def placed(farm: Farm) -> list[int]:
    """The numbers of the routers that serve on this host."""
    return [row["number"] for row in farm.status()["routers"] if row["state"] == "up"]


@contextmanager
def running_hosts(
    folder: Path, number: int, routers: int, settings: Json | None = None, workers: int = 1, product: str = "valkey"
) -> Iterator[Hosts]:
    """Hosts on one server of Redis for the time of the block; what runs at its end is stopped as by SIGTERM.

    The first one has the port that endpoints name."""
    (folder / "server").mkdir()
    server = RedisServer(product, folder / "server")
    with ExitStack() as stack:
        stack.callback(server.stop)
        hosts = Hosts(folder, server, number, routers, settings or {}, workers)
        stack.callback(hosts.end)
        hosts.start()
        yield hosts
        for farm in hosts.each:
            if farm.runs:
                farm.stop()
