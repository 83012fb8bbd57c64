"""A router of a cluster with a worker, as a host runs them, without the supervisor that places it: the test does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from bench.machine.ports import free_ports
from router.common import curve, token
from router.common.cluster_settings import joined
from router.common.directory import Directory, HostRow, Placement, write
from support.farm_fixture import ROOT, Json, environ, until
from support.installed import ends_with_us

ENDPOINTS: Final = "http://push.example.org"
"""What every endpoint begins with: the hosts have one address in common."""


class PlacedRouter:
    """Router 0 of a cluster of hosts, on a host whose ID is its folder's name. It looks like a farm to devices."""

    def __init__(self, folder: Path, epoch: int, settings: Json) -> None:
        """epoch: of its placement here; the host with the highest has it."""
        self.folder = folder
        folder.mkdir(mode=0o700)
        self.device_port, self.router_port, *ports = free_ports(4)
        self._settings = settings | {
            "cluster.enabled": "true",
            "cluster.bind": f"127.0.0.1:{ports[0]}",
            "listen.host": "127.0.0.1",
            "listen.router_port": self.router_port,
            "listen.device_port": self.device_port,
            "data.dir": str(folder),
            "log.format": "json",
        }
        here = joined("127.0.0.1", ports[0])
        place = Placement(0, epoch, folder.name, here, here, "")
        write(folder, Directory(folder.name, [place], [HostRow(folder.name, folder.name, 1)]))
        self.router = self._start("router")
        self.worker = self._start("worker", "--shard", "0")

    def _start(self, name: str, *more: str) -> subprocess.Popen[bytes]:
        sets = (word for option, value in self._settings.items() for word in ("--set", f"{option}={value}"))
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(
                [*ends_with_us(), sys.executable, "-m", "farm", name, *more, *sets],
                cwd=ROOT,
                env=environ() | {"PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def is_ready(self) -> None:
        """Wait until it serves, with its worker."""
        until(lambda: self.events("worker.joined"), f"a worker has joined the router of {self.folder.name}")

    def events(self, name: str) -> list[Json]:
        """What its router and its worker have logged under this name."""
        found = []
        for file in self.folder.glob("*.log"):
            for line in file.read_text(errors="replace").splitlines():
                if line.startswith("{") and (event := json.loads(line)).get("event") == name:
                    found.append(event)
        return found

    @property
    def device_url(self) -> str:
        """Where its devices connect."""
        return f"ws://127.0.0.1:{self.device_port}/"

    def url(self, path: str) -> str:
        """Of its app servers' port."""
        return f"http://127.0.0.1:{self.router_port}{path}"

    def at(self, endpoint: str) -> str:
        """An endpoint as this host serves it."""
        return self.url(endpoint.removeprefix(ENDPOINTS))

    def end(self) -> None:
        """Kill what still runs."""
        for process in (self.router, self.worker):
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()


@contextmanager
def placed(folder: Path, epoch: int, settings: Json) -> Iterator[PlacedRouter]:
    """One that ends with the test."""
    made = PlacedRouter(folder, epoch, settings)
    try:
        yield made
    finally:
        made.end()


def cluster_settings(url: str, **redis: object) -> Json:
    """What all hosts have in common."""
    return {
        "store.kind": "redis",
        "redis.url": url,
        "cluster.key": curve.new_key(),
        "token.keys": token.new_key(),
        "endpoint.url": ENDPOINTS,
    } | {f"redis.{name}": value for name, value in redis.items()}
