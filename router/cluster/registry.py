"""The records of a cluster in Redis, for one host: it joins, beats, takes routers, gives them, and leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Protocol

import msgspec
import trio

from router.cluster import records
from router.cluster.membership import (
    FREE,
    MAX_HOSTS,
    Host,
    Member,
    Mine,
    Pulse,
    Snapshot,
    coming,
    disagreements,
    isolated,
)
from router.cluster.records import Action, Command
from router.cluster.server import Answer, Server
from router.common import logs
from router.common.cluster_settings import beat_interval
from router.common.options import Settings
from router.common.redis_settings import RedisOptions
from router.common.settings import RouterOptions
from router.store.base import StoreError
from router.store.lease import boottime

_AFTER_S: Final = 0.02
"""Behind the end of a lease."""


class JoinError(StoreError):
    """This host cannot be one of the cluster."""


class Asked(Protocol):
    """What `Server` is for a registry."""

    async def ask(self, command: Command) -> Answer:
        """Raises: StoreError."""

    def close(self) -> None:
        """End the connection."""


class Registry:
    """One host's end of it. All methods are for one task at a time.

    settings: redis.* and router.routers count. host: its record (`router.cluster.host`). server: what has the records,
    that of the settings if it is left out. monotonic: seconds of a clock that counts while the machine sleeps.
    """

    def __init__(
        self,
        settings: Settings,
        host: Host,
        *,
        server: Asked | None = None,
        monotonic: Callable[[], float] = boottime,
    ) -> None:
        self.interval = beat_interval(settings)
        """Seconds from one beat to the next, at most."""
        self._redis = settings.get(RedisOptions)
        self._routers = settings.get(RouterOptions).routers
        self._server = server or Server(self._redis)
        self._monotonic = monotonic
        self._run = ""
        self._pulse = Pulse(self._redis.lease)
        self._host = host
        self._mine: dict[int, Mine] = {}
        self._snapshot: Snapshot | None = None
        self._soon = False
        self._kept = True
        self.clock_offset = 0.0
        """Seconds by which Redis' clock was ahead of this host's at the last call."""

    @property
    def pause(self) -> float:
        """Seconds until the next beat: fewer while a router is on its way to this host, or Redis has not answered, or
        when the lease of a host that has not beaten for long ends before."""
        if self._soon or self._snapshot is None:
            return self.interval / 4
        oldest = max((one.age for one in self._snapshot.members.values()), default=0.0)
        return min(self.interval, max(self.interval / 4, self._redis.lease - oldest + _AFTER_S))

    # ------------------------------------------------------------------ what a host does

    async def join(self) -> Snapshot:
        """Become a host of the cluster. Where a host that does not agree with this one has not beaten since, its lease
        is waited for: it may be the one that this one follows.

        Raises: JoinError, with a line for each thing that has to be the same and is not; StoreError.
        """
        first_seen: dict[str, int] = {}
        while True:
            members = (await self.look()).members.values()
            differing = [one for one in members if disagreements(self._host, one.host)]
            if not differing:
                break
            if living := [one for one in differing if one.last > first_seen.setdefault(one.host.id, one.last)]:
                raise self._refusal(living)
            await trio.sleep(self.interval)
        joined = await self.beat(self._host, {})
        own = joined.members.get(self._host.id)
        if own is None:
            raise JoinError(f"redis.prefix {self._redis.prefix}: others cannot read this host's record; see the log")
        since = own.since
        earlier = [one for one in joined.members.values() if one.since < since and disagreements(self._host, one.host)]
        if earlier:  # it joined at the same moment
            await self.leave()
            raise self._refusal(earlier)
        return joined

    async def beat(self, host: Host, mine: Mapping[int, Mine]) -> Snapshot:
        """Say that this host lives. host: its record, by now; mine: all its routers that run, by number.

        Repeating it does no harm, nor does it that an answer was lost: what counts is the snapshot. Raises: StoreError
        if there is no answer; JoinError if there are too many hosts.
        """
        self._host, self._mine = host, dict(mine)
        return await self._beat()

    async def take(self, *numbers: int) -> Snapshot:
        """Take those that are still free. Those that are this host's now are in the snapshot. Raises: as `beat`."""
        return await self._beat(*(Action("take", number) for number in numbers))

    async def give(self, number: int, to: str = FREE) -> Snapshot:
        """Begin to give one to this host, or to whoever takes it. If the snapshot has it in that state, its process is
        to end, and then `gave` follows; otherwise others move now. Raises: as `beat`."""
        return await self._beat(Action("give", number, self._epoch(number), to))

    async def gave(self, number: int) -> Snapshot:
        """Its process has ended: it is the next host's now, if that lives, and free otherwise. Raises: as `beat`."""
        epoch = self._epoch(number)
        placement = self._snapshot.placements.get(number) if self._snapshot is not None else None
        self._mine.pop(number, None)
        return await self._beat(Action("gave", number, epoch, FREE if placement is None else placement.to))

    async def leave(self) -> None:
        """Be no host any more; what it had is free. The connection ends. Raises: StoreError; then the lease ends by
        itself."""
        try:
            await self._asked(records.leave(self._redis.prefix, self._redis.lease, self._host.id))
        finally:
            self.close()

    async def look(self) -> Snapshot:
        """What is there, for one that is no host (yet). Raises: StoreError."""
        reply = await self._asked(records.look(self._redis.prefix, self._redis.lease))
        return records.snapshot(reply, self._routers, steady=False)

    def close(self) -> None:
        """End the connection."""
        self._server.close()

    # ------------------------------------------------------------------ calls

    async def _beat(self, *actions: Action) -> Snapshot:
        steady = self._kept and self._pulse.steady(self._monotonic())
        host = msgspec.structs.replace(self._host, clock_offset=round(self.clock_offset, 1), steady=steady)
        reply = await self._asked(records.beat(self._redis.prefix, self._redis.lease, host, self._mine, actions))
        if reply == b"full":
            raise JoinError(f"redis.prefix {self._redis.prefix} has {MAX_HOSTS} hosts already: no more may be")
        now = self._monotonic()
        found = records.snapshot(reply, self._routers, steady=False)
        if self._joined_again(found):
            self._pulse.disturbed(now)
        steady = self._pulse.beaten(now, self._kept)
        cut_off = self._pulse.cut_off(now, self._host.id in isolated(found))
        self._compare(self._snapshot, found)
        self._snapshot = msgspec.structs.replace(found, steady=steady, cut_off=cut_off)
        self._soon = coming(found, self._host.id)
        return self._snapshot

    def _joined_again(self, found: Snapshot) -> bool:
        """Whether the server has lost this host's record: then perhaps those of others too."""
        before = None if self._snapshot is None else self._snapshot.members.get(self._host.id)
        own = found.members.get(self._host.id)
        return before is not None and own is not None and own.since != before.since

    def _compare(self, before: Snapshot | None, found: Snapshot) -> None:
        """What should not be so, and cannot be refused any more."""
        for name, one in found.members.items():
            if names := disagreements(self._host, one.host):  # after a reload of one of them, or they joined at once
                logs.limited("cluster.differs", at="warning", per=name, host=one.host.name, what=", ".join(names))
            if one.host.address == self._host.address and name != self._host.id and before is not None:
                earlier = before.members.get(name)  # what was here before this one does not beat any more
                if earlier is not None and one.last > earlier.last:
                    logs.limited("cluster.same_address", at="error", host=one.host.name, address=one.host.address)

    def _epoch(self, number: int) -> int:
        placement = self._snapshot.placements.get(number) if self._snapshot is not None else None
        return placement.epoch if placement is not None and placement.host == self._host.id else 0

    async def _asked(self, command: Command) -> Any:
        self._soon = True
        reply, run, at, self._kept = await self._server.ask(command)
        if self._run not in ("", run):
            self._pulse.disturbed(self._monotonic())
        self._run = run
        if isinstance(reply, list) and reply and isinstance(reply[0], bytes) and reply[0].isdigit():
            self.clock_offset = int(reply[0]) / 1000 - at
        return reply

    # ------------------------------------------------------------------ what differs

    def _refusal(self, others: Sequence[Member]) -> JoinError:
        return JoinError(
            *(
                f"{name} is {_shown(self._host, name)} here, and {_shown(one.host, name)} on host {one.host.name} "
                f"({one.host.address}): give all hosts of the cluster the same"
                for one in others
                for name in disagreements(self._host, one.host)
            )
        )


def _shown(host: Host, name: str) -> str:
    return " or ".join(host.checks[name].offers) or "empty"
