"""The servers of the store: one, or the primaries of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial

import trio

from router.common.partitions import PARTITIONS
from router.common.redis_address import Address
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.redis_cluster import Topology
from router.store.redis_connection import Command, Connection, checked, connect
from router.store.redis_keys import bases, fence
from router.store.redis_ownership import Ownership
from router.store.redis_primary import Primary
from router.store.redis_sentinel import connect_to_primary
from router.store.redis_server import Server, look


class Servers:
    """Those that are known. unix_time: as in `Primary`."""

    def __init__(self, options: RedisOptions, ownership: Ownership, unix_time: Callable[[], float]) -> None:
        self._options = options
        self._bases = bases(options.prefix)
        self._ownership = ownership
        self._unix_time = unix_time
        self._topology = Topology(options) if options.cluster else None
        self._stale = True
        self._primaries: dict[Address | None, Primary] = {}
        if self._topology is None:
            self._primaries[None] = self._primary(partial(connect_to_primary, options))

    @property
    def apart(self) -> bool:
        """Whether each partition has a script for itself."""
        return self._topology is not None

    @property
    def used(self) -> int:
        """Bytes of all data."""
        return sum(primary.used for primary in self._primaries.values())

    @property
    def promise(self) -> str:
        """What an accepted message survives."""
        return next((primary.promise for primary in self._primaries.values() if primary.promise), "")

    def _primary(self, connect_to_it: Callable[[], Awaitable[Connection]]) -> Primary:
        return Primary(connect_to_it, self._options, self._ownership, self._unix_time, self.apart)

    async def of(self, partitions: Collection[int]) -> dict[Primary, list[int]]:
        """The partitions by their server. Raises: StoreError."""
        if self._topology is None:
            return {self._primaries[None]: list(partitions)}
        if self._stale:
            await self._topology.refresh()
            self._stale = False
            self._forget_others(set(self._topology.primaries))
        found: dict[Primary, list[int]] = {}
        for place in partitions:
            address = self._topology.primaries[place]
            primary = self._primaries.get(address)
            if primary is None:
                options = self._options
                connector = partial(connect, address, options.connect_timeout, options.ca_file)
                primary = self._primaries[address] = self._primary(connector)
            found.setdefault(primary, []).append(place)
        return found

    def _forget_others(self, addresses: Collection[Address]) -> None:
        for address in [one for one in self._primaries if one not in addresses]:
            self._primaries.pop(address).drop()

    def forget(self) -> None:
        """Ask again where the partitions are, before the next batch."""
        self._stale = True

    async def release(self) -> None:
        """Give up what is owned, and end all connections."""
        for primary in self._primaries.values():
            await primary.release()

    async def check(self) -> None:
        """See whether all may be the store. Raises: StoreError."""
        for primary in await self.of(range(PARTITIONS)):
            connection, _ = await primary.connected()
            connection.abandon()

    async def fences(self, *fields: str) -> list[list[bytes | None]]:
        """These fields of the fence of each partition, without owning it. Raises: StoreError."""
        found: list[list[bytes | None]] = []
        for primary, places in (await self.of(range(PARTITIONS))).items():
            connection = await primary.connect()
            try:
                with trio.fail_after(self._options.timeout):
                    commands: list[Command] = [("HMGET", fence(self._bases[place]), *fields) for place in places]
                    replies = await connection.call(*commands)
            except trio.TooSlowError:
                raise StoreError(f"Redis {connection.name} does not answer within redis.timeout") from None
            finally:
                connection.abandon()
            found += [checked(reply, connection.name) for reply in replies]
        return found

    async def look(self) -> list[Server]:
        """What they say of themselves. Raises: StoreError."""
        found = []
        for primary in await self.of(range(PARTITIONS)):
            connection = await primary.connect()
            try:
                with trio.fail_after(self._options.timeout):
                    found.append(await look(connection, self._options))
            except trio.TooSlowError:
                raise StoreError(f"Redis {connection.name} does not answer within redis.timeout") from None
            finally:
                connection.abandon()
        return found
