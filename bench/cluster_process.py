"""A farm of several hosts on this machine: a `farm start` for each, with a data folder and an address of loopback of
its own, and one store for all."""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

from bench.errors import BenchError
from bench.farm_process import Farm, Launched, Status, get, launched, patience_for
from bench.interrupt import Interrupt
from bench.machine.ports import free_block
from bench.server_process import remove_stale_folders, tail
from bench.store_servers.running import StoreServers
from router.common import directory

FIRST_ADDRESS: Final = 2
"""Hosts are 127.0.0.2, 127.0.0.3 and so on."""
MOST_HOSTS: Final = 32
PORTS_A_ROUTER: Final = 2
BALANCED_SECONDS: Final = 120.0
QUIET_SECONDS: Final = 0.5
LOOK_SECONDS: Final = 0.05
HEALTHY: Final = 200
KEY_BYTES: Final = 32


@dataclass(slots=True)
class Cluster(Farm):
    """Several hosts as one farm; `address` and `router` are the first one's. `numbers`: how many routers they share."""

    hosts: list[Launched] = field(default_factory=list)
    numbers: int = 1
    dead: set[int] = field(default_factory=set)

    @property
    def living(self) -> list[int]:
        """The hosts that were not killed."""
        return [number for number in range(len(self.hosts)) if number not in self.dead]

    def status(self) -> Status:
        """That of all hosts that live, as one."""
        found = Status([], {}, {}, None)
        for number in self.living:
            one = self.hosts[number].farm.status()
            assert one is not None
            found.routers.extend(one.routers)
            found.workers.update((f"{number}/{shard}", pid) for shard, pid in one.workers.items())
            found.connections.update((f"{number}/{shard}", count) for shard, count in one.connections.items())
        return found

    def groups(self, status: Status | None) -> dict[str, list[int]]:
        """Its pids by what they are."""
        groups = Farm.groups(self, status)
        groups["supervisor"] = [self.hosts[number].process.pid for number in self.living]
        return groups

    def routers(self, hosts: list[int]) -> tuple[str, ...]:
        """Where app servers reach these hosts."""
        return tuple(self.hosts[number].farm.router for number in hosts)

    def places(self) -> dict[int, int]:
        """The host that each router is on, by what the living hosts know; a router that is nowhere is missing."""
        newest = directory.Placements()
        ids: dict[str, int] = {}
        for number in self.living:
            if (known := directory.read(self.hosts[number].folder)) is not None:
                ids[known.host] = number
                newest.merge(known.placements)
        return {one.number: ids[one.host] for one in newest.by_number.values() if one.host in ids}

    def kill(self, number: int) -> None:
        """SIGKILL to all processes of a host, at once."""
        self.dead.add(number)
        with suppress(ProcessLookupError):
            os.killpg(self.hosts[number].process.pid, signal.SIGKILL)

    def balanced(self) -> bool:
        """Whether each router is on a host and runs there, all hosts serve, and none has two routers more than
        another. A router that is on its way is placed before it runs."""
        places = list(self.places().values())
        counts = [places.count(number) for number in self.living]
        if len(places) != self.numbers or max(counts) - min(counts) > 1:
            return False
        for number, count in zip(self.living, counts, strict=True):
            farm = self.hosts[number].farm
            status = farm.status()
            if status is None or len(status.routers) != count or get(farm.admin, "/health")[0] != HEALTHY:
                return False
        return True


@contextmanager
def started(
    hosts: int, workers: int, routers: int, store: StoreServers, interrupt: Interrupt, extra: tuple[str, ...] = ()
) -> Iterator[Cluster]:
    """So many hosts, which share routers and store; stopped and removed with the block.

    Args:
      workers: of each host
      routers: of all hosts together
      extra: settings of all hosts, each as KEY=VALUE

    Raises:
      BenchError: one did not come up, or the routers are not shared out in time.
    """
    remove_stale_folders()
    addresses = [f"127.0.0.{FIRST_ADDRESS + number}" for number in range(hosts)]
    try:
        port = free_block(addresses, PORTS_A_ROUTER * routers)
    except OSError as error:
        raise BenchError(f"{addresses[0]} to {addresses[-1]}: {error.strerror}") from None
    common = (
        "cluster.enabled=true",
        f"cluster.key={secrets.token_urlsafe(KEY_BYTES)}",
        f"token.keys={secrets.token_urlsafe(KEY_BYTES)}=",
        f"endpoint.url=http://{addresses[0]}:{port}",  # nothing is there: the bench says where it pushes
        f"router.routers={routers}",
        *store.settings,
        *extra,
    )
    with ExitStack() as stack:
        all_of_them = []
        for number, address in enumerate(addresses):
            own = (f"cluster.bind={address}:{port}", f"cluster.name=host-{number + 1}")
            all_of_them.append(stack.enter_context(launched(workers, store.choice.kind, (*common, *own), host=address)))
        for one in all_of_them:
            one.wait(interrupt, patience_for(workers * hosts))
        first = all_of_them[0].farm
        cluster = Cluster(
            first.address,
            first.host,
            first.path,
            first.admin,
            None,
            {"hosts": hosts, "workers": workers, "routers": routers, "store": store.choice.name, "set": list(extra)},
            first.router,
            store,
            others=tuple(one.farm.address for one in all_of_them[1:]),
            hosts=all_of_them,
            numbers=routers,
        )
        _wait_until_balanced(cluster, interrupt)
        yield cluster


def _wait_until_balanced(cluster: Cluster, interrupt: Interrupt) -> None:
    """Until it is so for a while: a host that has just come is given routers only then."""
    deadline = time.monotonic() + BALANCED_SECONDS
    since = time.monotonic()
    while (now := time.monotonic()) - since < QUIET_SECONDS:
        if interrupt.requested:
            raise BenchError("interrupted before the hosts had shared the routers out")
        if now > deadline:
            places = cluster.places()
            log = tail(cluster.hosts[0].log)
            raise BenchError(f"after {BALANCED_SECONDS:g} s the routers are on these hosts: {places}\n{log}")
        time.sleep(LOOK_SECONDS)
        if not cluster.balanced():
            since = time.monotonic()
