"""Hosts of one farm on one machine: each a `farm start` with the settings of a cluster, and ports of its own."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.machine.ports import free_ports
from router.common import curve, token
from support.farm_fixture import Farm, Json, running_farm

ENDPOINTS: Final = "http://push.example.org"
"""What every endpoint begins with: the hosts have one address in common."""


def cluster_settings(url: str, routers: int = 1, **redis: object) -> Json:
    """What all hosts have in common."""
    return {
        "cluster.enabled": True,
        "cluster.key": curve.new_key(),
        "router.routers": routers,
        "store.kind": "redis",
        "redis.url": url,
        "token.keys": token.new_key(),
        "endpoint.url": ENDPOINTS,
    } | {f"redis.{name}": value for name, value in redis.items()}


@contextmanager
def running_host(folder: Path, settings: Json, routers: int = 1) -> Iterator[Farm]:
    """One with one worker, whose name is its folder's. It is killed at the end: others need not take what it has."""
    ports = free_ports(2 * routers + 1)
    here = {"cluster.bind": f"127.0.0.1:{ports[0]}", "cluster.name": folder.name}
    with running_farm(folder, settings | here, 1) as farm:
        yield farm
        if farm.runs:
            wake(farm)
            farm.kill()


def at(farm: Farm, endpoint: str) -> str:
    """An endpoint as this host serves it."""
    return farm.url(endpoint.removeprefix(ENDPOINTS))


def stop(farm: Farm) -> None:
    """All processes of a host stand still, but for its workers, which go on serving their devices."""
    for pid, title in farm.processes().items():
        if not title.startswith("farm: worker"):
            os.kill(pid, signal.SIGSTOP)


def wake(farm: Farm) -> None:
    """They go on."""
    for pid in farm.processes():
        os.kill(pid, signal.SIGCONT)
