"""`make test-cluster`: a farm on three hosts behind a balancer, with its clients, and everything that can be lost.

All of it stands in network namespaces of this run, and ends with it: see support/namespaces.py.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from support.cluster_hosts import HOSTS, running_cluster
from support.dialects import names
from support.farm_fixture import ROOT
from support.namespaces import HERE, in_namespaces, refused
from support.redis_servers import PRODUCTS
from support.releases import of_commit

from router.common.partitions import fixed_owners, partition
from router.common.uuids import device_key
from torture.clients import APP_ID, Device, Subscriber
from torture.cluster_faults import LEASE_S, NAMES, ClusterFaults
from torture.cluster_rules import devices_stay, times
from torture.history import DIALECTS, PUSHER, SIMPLEPUSH, WEBPUSH, Push
from torture.official import PUSHER_JS, PusherJs, PusherLibrarySender, WebPushLibraryDevice, WebPushLibrarySender
from torture.report import Log
from torture.run import Run, checked, common_options, told
from torture.upgrades import NO_OLDER, Code

_SETTINGS: Final = {
    "redis.lease": LEASE_S,
    "redis.timeout": 2,
    "drain.notice": 3,  # the balancer notices within 2 s
    "drain.rate": 50,
    "drain.deadline": 30,
}
_INSIDE: Final = "FARM_TEST_INSIDE"
_SEEN_S: Final = 0.25
_OFFICIAL: Final = 2
_OFFICIAL_RATE: Final = 4.0
_OFFICIAL_CHANNELS: Final = ("private-official", "presence-official", "private-cache-official")


class ClusterRun(Run):
    """A farm on three hosts."""

    faults: ClusterFaults
    rules = (devices_stay,)

    def __init__(self, options: argparse.Namespace, folder: Path, stack: contextlib.ExitStack) -> None:
        super().__init__(options, folder)
        self._stack = stack
        if not options.older:
            self.missing["other-release-host"] = NO_OLDER
        self._looking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        folder, options = self.folder / "hosts", self.options
        folder.mkdir()
        running = running_cluster(folder, options.store, self.settings(), options.workers, not options.apart)
        self.cluster, self.balancer = await asyncio.to_thread(self._stack.enter_context, running)
        self.log = Log(self.world, {f"{host.name} ": host for host in self.cluster.hosts})
        code = {}
        if options.older:
            older = of_commit(options.older, folder / "older")
            code = {host.name: Code(host, folder / f"code-{host.name}", older) for host in self.cluster.hosts}
        self.faults = ClusterFaults(self.world, self.cluster, self.balancer, self.clients, code)
        await asyncio.to_thread(self.cluster.start)
        self.world.device_port, self.world.router_port = self.balancer.device_port, self.balancer.router_port
        await self.faults.wait_well()
        self._looking = asyncio.create_task(self._look())

    def settings(self) -> dict[str, Any]:
        return super().settings() | _SETTINGS

    def populate(self) -> None:
        """Besides, clients and app servers by libraries that others use."""
        super().populate()
        world, spoken = self.world, self.options.dialects
        if WEBPUSH in spoken:
            from support.webpush_vapid import Sender as VapidKey  # which goes with the dialect

            key = VapidKey()
            devices = [WebPushLibraryDevice(world, f"wp-library{n}", key.public) for n in range(_OFFICIAL)]
            self.clients += devices
            self.senders.append(WebPushLibrarySender(world, "pywebpush", _OFFICIAL_RATE, devices, key))
        if PUSHER in spoken:
            self.clients += [Subscriber(world, f"library{n}", list(_OFFICIAL_CHANNELS)) for n in range(_OFFICIAL)]
            self.senders.append(PusherLibrarySender(world, "pusher-http", _OFFICIAL_RATE, _OFFICIAL_CHANNELS))
            if PUSHER_JS.is_file():
                self.clients += [PusherJs(world, f"js{n}", list(_OFFICIAL_CHANNELS)) for n in range(_OFFICIAL)]
            else:
                print("without pusher-js: tests/npm/node_modules is missing", flush=True)

    async def _look(self) -> None:
        """Which host each connection goes to."""
        while True:
            await asyncio.sleep(_SEEN_S)
            hosts = await asyncio.to_thread(self.balancer.hosts_of_devices)
            for client in self.clients:
                if client.connection is not None and not client.connection.host:
                    client.connection.host = hosts.get(client.connection.port, "")

    async def watch(self) -> None:
        """A host that has ended by itself is a violation; it is started again."""
        for host in self.cluster.hosts:
            if host.name not in self.faults.ended and (code := host.exit_code()) is not None:
                self.faults.ended.add(host.name)
                around = self.log.around(self.world.now())[-8:]
                self.world.odd("host ended", f"{host.name}: exit code {code} after {around}")
                await asyncio.to_thread(host.kill)
                await asyncio.to_thread(host.start)
                self.faults.ended.discard(host.name)

    async def stop(self) -> None:
        self.faults.ended.update(HOSTS)
        if self._looking is not None:
            self._looking.cancel()
            (ended,) = await asyncio.gather(self._looking, return_exceptions=True)
            if isinstance(ended, Exception):
                self.world.odd("hosts of devices", f"the balancer was not asked any more: {ended!r}")
        if not any(one.host for one in self.world.history.connections.values()):
            self.world.odd("hosts of devices", "of no connection it is known which host it went to")
        await asyncio.to_thread(self.cluster.stop)

    def owner(self, push: Push) -> int | None:
        """The number of the router that owns the partition of a push."""
        if push.dialect == PUSHER:
            from router.dialects.pusher.protocol import channel_address  # which goes with the dialect

            key = channel_address(APP_ID, push.channel)
        elif push.dialect in (SIMPLEPUSH, WEBPUSH):
            (uaid,) = (one.uaid for one in self.clients if isinstance(one, Device) and one.name == push.client)
            key = device_key(uaid)
            if push.dialect == WEBPUSH:
                from router.dialects.webpush.protocol import device_address  # which goes with the dialect

                key = device_address(uaid)
        else:
            return None
        return fixed_owners(self.options.routers[0])[partition(key)]


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, frozenset) else vars(value)


def options(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="torture.cluster", description=__doc__)
    common_options(parser, NAMES, [dialect for dialect in DIALECTS if dialect in names()])
    parser.add_argument("--workers", type=int, default=2, help="worker processes of each host")
    parser.add_argument("--routers", type=lambda text: [int(text)], default=[3], help="shared by the hosts")
    parser.add_argument("--store", choices=PRODUCTS, default="redis", help="with a replica and three Sentinels")
    parser.add_argument("--apart", action="store_true", help="each host is a farm for itself: the harness alone")
    return checked(parser, parser.parse_args(arguments), NAMES)


def main(arguments: list[str]) -> int:
    """Run. Returns: exit code; 3: this machine does not permit it."""
    if _INSIDE not in os.environ:
        if why := refused():
            print(why, file=sys.stderr)
            return 3
        os.environ[_INSIDE] = "1"
        line = in_namespaces([sys.executable, "-m", "torture.cluster", *arguments])
        os.execvp(line[0], line)
    for folder in ("sbin", "bin"):  # what tests/install-servers has fetched
        os.environ["PATH"] += os.pathsep + str(ROOT / ".venv" / "servers" / "usr" / folder)
    chosen = options(arguments)
    with (
        tempfile.TemporaryDirectory(prefix="cluster-", ignore_cleanup_errors=True) as name,
        contextlib.ExitStack() as stack,
    ):
        run = ClusterRun(chosen, Path(name), stack)
        run.site.host = f"10.0.0.{HERE}"
        print(f"seed {chosen.seed}, {chosen.seconds:g} s, {', '.join(chosen.dialects)}", flush=True)
        try:
            code = told(run, asyncio.run(run.go()))
            print(times(run.world.history, run.owner))
            return code
        finally:
            if chosen.keep is not None:
                chosen.keep.mkdir(parents=True, exist_ok=True)
                for log in (Path(name) / "hosts").glob("*.log"):
                    shutil.copy(log, chosen.keep)
                kept = {"began": run.world.wall, **vars(run.world.history)}
                (chosen.keep / "history.json").write_text(json.dumps(kept, default=_plain))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
