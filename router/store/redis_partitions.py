"""The partitions of a router in Redis: acquired at the start, renewed, acquired again on another connection, lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

import trio

from router.common import logs
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.lease import boottime
from router.store.redis_batch import opening
from router.store.redis_holder import HOLDER_FILE
from router.store.redis_layout import newer
from router.store.redis_ownership import Held, Newer, Ownership
from router.store.redis_primary import NotDurable, Primary
from router.store.redis_renewer import RENEWALS, RENEWALS_ALONE, Renewer
from router.store.redis_sentinel import place
from router.store.redis_servers import Servers

_LEASES: Final = 3
"""So many are waited for at the start where another host has left the partitions."""
_PAUSE_S: Final = 0.1
"""Until it is seen again whether a cluster has all of them on some server."""
_LEAST_PAUSE_S: Final = 0.02


class Partitions:
    """Those of one router.

    bases: as in `Ownership`, of all partitions. mine: which of them are this router's. shared: whether other hosts
    take its partitions over. unix_time: for numbers that grow over owners.
    """

    def __init__(
        self,
        redis: RedisOptions,
        bases: Sequence[bytes],
        mine: frozenset[int],
        router: int,
        shared: bool,
        unix_time: Callable[[], float],
    ) -> None:
        self._redis = redis
        self._where = place(redis)
        self._bases = bases
        self.mine = mine
        self._router = router
        self._shared = shared
        self.ownership = Ownership(bases, "", redis.lease, router, shared)
        self.servers = Servers(redis, self.ownership, unix_time)
        self.openings: list[bytes] = []
        """Of each partition, for its part of a batch."""
        self.ceiling = 0
        """The highest of theirs, as it was when they were acquired."""
        self._lost = trio.Event()
        self._why = ""

    # ------------------------------------------------------------------ beginning

    async def acquire(self, holder: str) -> None:
        """All of them, at the start. Where another router has some, its lease is waited for: of another farm once, of
        another host for as long as it may take to end.

        Raises: StoreError.
        """
        self.ownership.holder = holder
        waits_until = boottime() + (_LEASES * self._redis.lease if self._shared else 0.0)
        waited = False
        while True:
            try:
                await self._acquire_all()
                return
            except Newer as error:
                await self.servers.release()
                raise StoreError(newer(self._redis, *error.args)) from None
            except Held as held:
                if waited and boottime() >= waits_until:
                    await self.servers.release()
                    raise StoreError(self._is_held(held)) from None
                logs.warning("redis.held", by=held.holder, seconds=round(held.left, 1))
                await trio.sleep(max(_LEAST_PAUSE_S, min(held.left, self._redis.lease)))
                waited = True

    def _is_held(self, held: Held) -> str:
        if self._shared:
            return (
                f"Redis {self._where}: router {self._router} is still that of {held.holder}, which goes on renewing "
                "its lease, or was placed later"
            )
        return (
            f"Redis {self._where}: another farm ({held.holder}) has the keys with the prefix "
            f"{self._redis.prefix}; stop it, or give this one a redis.prefix of its own"
        )

    async def _acquire_all(self) -> None:
        """Where no replica confirms it, the store is open, as it is when that is lost later: what is stored can be
        read, and each batch that writes fails until one does. Not so where Sentinels may name another primary: it is
        asked for again, for a while."""
        until = boottime() + self._redis.timeout
        while True:
            routes = await self.servers.of(self.mine)
            if self.servers.apart:  # a script takes one: nothing is taken of a router that has others
                for primary, places in routes.items():
                    await primary.ready()
                    await primary.look(places)
            unconfirmed: list[NotDurable] = []
            for primary, places in routes.items():
                try:
                    await self._own(primary, places)
                except NotDurable as error:
                    unconfirmed.append(error)
            missing = self.mine.difference(*(primary.partitions for primary in routes))
            if not missing:
                for one in unconfirmed:
                    logs.warning("redis.not_durable", error=str(one))
                return
            if boottime() >= until:  # who has all of them is their router, and nobody who has some of them
                await self.servers.release()
                if unconfirmed and not self.servers.apart:
                    raise unconfirmed[0]
                raise StoreError(
                    f"Redis {self._where}: the cluster has no server for {len(missing)} partitions; see CLUSTER INFO"
                )
            self.servers.forget()
            await trio.sleep(_PAUSE_S)

    # ------------------------------------------------------------------ while it runs

    async def run(self) -> None:
        """Renew the leases. Raises: StoreError when another router has taken some."""
        renewer = Renewer(self._redis, self.servers, self.ownership, self.mine)
        interval = self._redis.lease / (RENEWALS if self._shared else RENEWALS_ALONE)
        try:
            while not self._lost.is_set():
                began = boottime()
                if refused := await renewer.renew():
                    self.lose(refused)
                rest = interval - (boottime() - began)
                with trio.move_on_after(max(_LEAST_PAUSE_S, rest)):
                    await self._lost.wait()
        finally:
            renewer.close()
        raise StoreError(self._why)

    def lose(self, partitions: Collection[int], why: str = "") -> None:
        """These are this router's no longer. why: "" where another router has them."""
        self.ownership.lost(partitions)
        self.ownership.lease.lose()
        self._open_partitions()
        self._why = why or self._are_taken(partitions)
        self._lost.set()

    def _are_taken(self, partitions: Collection[int]) -> str:
        why = (
            f"Redis {self._where}: another router has taken {len(partitions)} partitions of the prefix "
            f"{self._redis.prefix}, or they were deleted; this one begins anew"
        )
        if not self._shared:
            why += (
                " (if this happens again and again, another farm runs on a copy of this data folder: stop it, or "
                f"delete its {HOLDER_FILE})"
            )
        return why

    async def _own(self, primary: Primary, partitions: Collection[int]) -> None:
        """A connection to a server, on which those of these partitions that are this router's are acquired.

        Raises: StoreError, Held, Newer.
        """
        await primary.ready()
        missing = self.mine.intersection(partitions) - primary.partitions
        if not missing or self._lost.is_set():
            return
        if not self.servers.apart:
            missing = self.mine
        try:
            if not await primary.own(missing):
                self.lose(missing)
                raise StoreError(self._why)
        finally:  # some may be acquired all the same
            self.ceiling = max(self.ceiling, max(self.ownership.ceilings.values(), default=0))
            self._open_partitions()

    def _open_partitions(self) -> None:
        tokens = self.ownership.tokens
        self.openings = [opening(base, tokens.get(at, b"")) for at, base in enumerate(self._bases)]

    async def own_again(self, primary: Primary, partitions: Collection[int]) -> None:
        """Have those of these that are this router's acquired on the connection that there is. Raises: StoreError."""
        try:
            await self._own(primary, partitions)
        except Held:
            self.lose(self.mine)
            raise StoreError(self._why) from None
        except Newer as error:
            self.lose(self.mine, newer(self._redis, *error.args))
            raise StoreError(self._why) from None
