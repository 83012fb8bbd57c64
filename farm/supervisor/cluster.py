"""This host's part of a farm over many hosts: it beats, and has those routers run here that are placed here.

Which host has which router is in Redis (`router.cluster`). Every beat renews this host's record and its placements, and
brings back those of all. From that follows what to do here: take what is free, start what is here, end what is not here
any more, give one to another host. Before a router starts, its placement stands in the directory, the file from which
the routers and workers of this host know where all of them are.

The beats never wait for a process: a router that is to end does so in a task of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec
import trio

from farm.dialects import specs
from farm.settings import FarmOptions, WorkerOptions
from farm.supervisor import cluster_status
from farm.supervisor.draining import announce
from farm.supervisor.placed_routers import PlacedRouters
from farm.supervisor.reach import Reach
from farm.supervisor.running_farm import RunningFarm
from farm.supervisor.slot import POLL_S
from router.cluster import host as records
from router.cluster.membership import (
    FREE,
    Give,
    Host,
    Snapshot,
    Take,
    decide,
    duties,
    isolated,
    new_id,
    one_for_each,
    serving,
)
from router.cluster.registry import Registry
from router.common import directory, logs
from router.common.cluster_settings import ClusterOptions, lease, split
from router.common.curve import ClusterKey, by_id, load
from router.common.files import FileError
from router.common.link_address import address
from router.common.listener import open_listener
from router.common.options import Settings
from router.common.settings import Data, DrainOptions
from router.store.base import StoreError
from router.store.lease import MAX_OFFSET_S, boottime

_SOON_S: Final = 0.1
"""Between two looks at a router that has just been started."""
_GIVE_S: Final = 10.0
"""For each router that is given to another host at the end of this one."""
_UNFIT_S: Final = 60.0
"""For so long a host gets no router on which those that it had did not run."""
_OFF: Final = 3
"""So many beats in a row with a clock that is off, before it counts: an answer that was late shows a wrong one."""


class Cluster:
    """One host of it. `run` has to run from `join` to `leave`."""

    def __init__(self, farm: RunningFarm, settings: Settings) -> None:
        """Raises: ClusterKeyError, FileError."""
        keys = load(settings)
        self.id = new_id()
        self.snapshot: Snapshot | None = None
        """What was in Redis at the last beat that was answered."""
        self.directory = directory.Directory(self.id, [], [])
        """Where all routers are."""
        self._written: directory.Directory | None = None  # what is in its file; None: it could not be written
        self._farm = farm
        self._keys = keys
        self._settings = settings
        self._folder = Path(settings.get(Data).dir)
        self._lease = lease(settings)
        record = records.own_record(settings, specs(), keys, self.id, 0)
        self._host = msgspec.structs.replace(record, fit=False)
        self._registry = Registry(settings, self._host)
        self._reach = Reach(self._lease)
        self._beaten = float("-inf")
        self._can_start = False  # a router that is placed here before would wait for the fork server
        self._off = 0  # beats in a row
        self._unfit_until = 0.0
        self._routers = PlacedRouters(farm, self._beat_soon)
        self._devices = 0
        self._cut: frozenset[str] = frozenset()
        self._gives_all = False
        self._lets_go = False  # or has, since this host was cut off
        self._wake = trio.Event()
        self._beating: trio.CancelScope | None = None

    # ------------------------------------------------------------------ what others ask

    @property
    def in_touch(self) -> bool:
        """Whether a beat was answered within the lease. If not, nothing is started here."""
        return boottime() - self._beaten <= self._lease

    @property
    def isolated(self) -> bool:
        """Whether this host is cut off from the others."""
        return self.snapshot is not None and self.id in isolated(self.snapshot)

    @property
    def reasons(self) -> list[str]:
        """What is wrong with this host as one of the cluster, for the status."""
        if self.snapshot is None:
            return ["cluster: this host has not joined yet"]
        found = []
        if not self.in_touch:
            found.append(f"cluster: Redis has not answered for {boottime() - self._beaten:.0f} s")
        if self.isolated:
            found.append("cluster: this host is cut off from the others")
        if self._written is None:
            found.append(f"cluster: {self._folder / directory.FILE} cannot be written")
        if self._off >= _OFF:
            found.append(f"cluster: the clock is {abs(self._registry.clock_offset):.1f} s off that of Redis")
        return found

    @property
    def lacks_router(self) -> bool:
        """Whether no router is on this host, though one is to come: until then its router port is closed."""
        return not self._farm.placed and self.snapshot is not None and one_for_each(self.snapshot, self.id)

    def elsewhere(self) -> int | None:
        """The number of a router on another host that can be asked; None: there is none."""
        there = [one.number for one in self.directory.placements if one.host != self.id]
        return min(there, default=None)

    def _where(self, number: int) -> tuple[str, ClusterKey | None] | None:
        """Address of a router, and the key for it where it is on another host."""
        for one in self.directory.placements:
            if one.number == number:
                if one.host == self.id:
                    return address(self._folder, number), None
                key = by_id(self._keys).get(one.key)
                return (f"tcp://{one.address}", key) if key is not None else None
        return None

    def fields(self) -> dict[str, Any] | None:
        """For the status."""
        if self.snapshot is None:
            return None
        return cluster_status.fields(self.snapshot, self.id, max(0.0, boottime() - self._beaten))

    # ------------------------------------------------------------------ beginning and end

    async def join(self) -> None:
        """Become a host of the cluster.

        Raises: MendableError, with what differs from the other hosts, or what is wrong here.
        """
        self._check_ports()
        self._heard(await self._registry.join())
        if self._written is None:  # processes would go by what is there from before
            raise FileError(f"{self._folder / directory.FILE} cannot be written: is the disk full?")
        if not self._farm.placed:
            self._farm.listeners.shut_routers()
        logs.event("cluster.joined", host=self._host.name, id=self.id, hosts=len(self.directory.hosts))

    def _check_ports(self) -> None:
        """So that a port that is taken ends the start, and not each router that is to run here."""
        options = self._farm.settings.get(ClusterOptions)
        for number in range(len(self._farm.routers)):
            for place in options.listens(number):
                open_listener(*split(place), 1, "cluster.bind").close()

    async def run(self) -> None:
        """Beat, and look at what there is here."""
        with trio.CancelScope() as self._beating:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._look)
                while True:
                    await self._beat()
                    with trio.move_on_after(self._registry.pause):
                        await self._wake.wait()
                    self._wake = trio.Event()

    async def _look(self) -> None:
        """Ask the routers of this host, which may take longer than a beat may be late."""
        while True:
            answers = await self._farm.link.ask()
            self._routers.look(answers)
            self._devices = sum(row.get("connections", 0) for row in answers.workers.values())
            if self.snapshot is not None:
                self._cut = self._reach.look(self.snapshot, self.id, answers.of.values(), boottime(), self._beaten)
            await trio.sleep(2 * self._registry.interval if self._routers.serve else _SOON_S)

    async def give_all(self) -> None:
        """Have other hosts take over what is here, one router after another; at most for a while, and only where there
        is another host that can. The farm is stopping: so nothing is given to this host any more."""
        self._gives_all = True
        self._beat_soon()
        with trio.move_on_after(_GIVE_S * max(1, len(self._routers.epochs))):
            while self._routers.epochs and self._has_heirs():
                await trio.sleep(POLL_S)
            return
        logs.warning(
            "cluster.not_given", routers=sorted(self._routers.epochs), hint="others take them when this host has left"
        )

    async def leave(self) -> None:
        """All processes have ended: be no host any more."""
        if self._beating is not None:
            self._beating.cancel()
        if self.snapshot is None:  # it never was one
            self._registry.close()
            return
        with trio.move_on_after(self._lease):
            try:
                await self._registry.leave()
            except StoreError as error:
                logs.warning("cluster.not_left", why=str(error))
        self._registry.close()

    def _has_heirs(self) -> bool:
        return self.in_touch and self.snapshot is not None and bool(serving(self.snapshot) - {self.id})

    # ------------------------------------------------------------------ beats

    def _beat_soon(self) -> None:
        self._wake.set()

    async def _beat(self) -> None:
        try:
            for number in sorted(self._routers.given):
                self._heard(await self._registry.gave(number))
                self._routers.given.discard(number)
            self._heard(await self._registry.beat(self._record(), self._routers.mine))
            await self._decide()
        except (StoreError, OSError) as error:
            logs.limited("cluster.beat_failed", at="error", why=str(error))

    def _record(self) -> Host:
        """What this host says of itself."""
        off = self._beaten != float("-inf") and abs(self._registry.clock_offset) > MAX_OFFSET_S
        self._off = self._off + 1 if off else 0
        self._can_start = self._can_start or self._farm.processes.fork_server is not None
        if self._routers.fail:
            self._unfit_until = boottime() + _UNFIT_S
            logs.limited("cluster.unfit", at="error", seconds=_UNFIT_S)
        if self._settings is not self._farm.settings:  # there was a reload
            self._settings = self._farm.settings
            checks = records.checks(self._settings, specs(), self._keys)
            self._host = msgspec.structs.replace(self._host, checks=checks)
        self._host = msgspec.structs.replace(
            self._host,
            workers=sum(slot.alive for slot in self._farm.workers),  # which routers that begin wait for
            devices=self._devices,
            cut=self._cut,
            leaving=self._farm.stopping.is_set(),
            fit=self._can_start and self._off < _OFF and self._written is not None and boottime() >= self._unfit_until,
        )
        return self._host

    async def _decide(self) -> None:
        assert self.snapshot is not None
        wishes = decide(self.snapshot, self.id)
        # Not one whose old process is still about to end: workers would join that.
        taken = [wish.number for wish in wishes if isinstance(wish, Take) and wish.number not in self._routers.epochs]
        if taken and not self._farm.stopping.is_set():
            self._heard(await self._registry.take(*taken))
        for wish in wishes:
            if isinstance(wish, Give) and (wish.to == FREE or self._may_give()):
                self._heard(await self._registry.give(wish.number, wish.to))

    def _may_give(self) -> bool:
        return self._gives_all if self._farm.stopping.is_set() else not self._farm.reloading

    # ------------------------------------------------------------------ routers

    def _heard(self, snapshot: Snapshot) -> None:
        """Have run here what is here."""
        found = records.directory(snapshot, self.id)
        if found != self.directory or self.snapshot is None:
            self.directory = found
            self._farm.link.place(self._where, {one.number for one in found.placements if one.host == self.id})
        self.snapshot, self._beaten = snapshot, boottime()
        self._write()
        todo = duties(snapshot, self.id, self._routers.epochs)
        self._routers.do(todo if self._written is not None else todo._replace(start=[]))
        if snapshot.cut_off and not self._lets_go and not self._farm.stopping.is_set():
            self._lets_go = True
            self._farm.processes.nursery.start_soon(self._let_devices_go)
        self._lets_go = self._lets_go and snapshot.cut_off

    def _write(self) -> None:
        """Tell the processes of this host, unless it stands in their file."""
        file = self._folder / directory.FILE
        try:
            if self._written != self.directory or not file.exists():
                self._written = None
                directory.write(self._folder, self.directory)
                self._written = self.directory
        except OSError as error:
            self._written = None
            logs.limited("cluster.directory_unwritten", at="error", file=str(file), why=str(error))

    async def _let_devices_go(self) -> None:
        """Nothing reaches the devices of this host any more: so they are to come back to another one. Workers that
        begin anew hold none."""
        farm = self._farm
        workers = [slot.child for slot in farm.workers if slot.child is not None]
        logs.warning("cluster.cut_off", workers=len(workers))
        seconds = await announce(farm.link, workers, farm.settings.get(DrainOptions))
        seconds += farm.settings.get(WorkerOptions).close_timeout + farm.settings.get(FarmOptions).drain_grace
        await farm.end(workers, seconds)
