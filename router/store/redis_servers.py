"""The servers of the store: one, or the primaries of a cluster."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from functools import partial

import hiredis
import trio

from router.common.partitions import PARTITIONS
from router.common.redis_address import Address
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.redis_cluster import Topology
from router.store.redis_connection import Connection, checked, connect
from router.store.redis_ownership import Ownership
from router.store.redis_primary import Primary
from router.store.redis_scripts import ownership_script
from router.store.redis_sentinel import connect_to_primary
from router.store.redis_server import Server, look


class Servers:
    """Those that are known. unix_time: as in `Primary`."""

    def __init__(self, options: RedisOptions, ownership: Ownership, unix_time: Callable[[], float]) -> None:
        self._options = options
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

    def connected(self) -> list[Primary]:
        """Those on which partitions are owned."""
        return [primary for primary in self._primaries.values() if primary.partitions]

    async def release(self) -> None:
        """Give up what is owned, and end all connections."""
        for primary in self._primaries.values():
            await primary.release()

    async def check(self) -> None:
        """See whether all may be the store. Raises: StoreError."""
        for primary in await self.of(range(PARTITIONS)):
            connection, _ = await primary.connected()
            connection.abandon()

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


class Renewer:
    """Renews the leases on connections of its own, so that a slow batch is no reason to lose them, and looks whether
    the servers are still such as may be the store."""

    def __init__(self, options: RedisOptions, servers: Servers, ownership: Ownership) -> None:
        self._options = options
        self._servers = servers
        self._ownership = ownership
        self._connections: dict[Primary, Connection] = {}

    async def renew(self) -> list[int]:
        """Returns: partitions that have another owner. That a server is away is seen by who writes."""
        lost: list[int] = []
        servers = self._servers.connected()
        for primary in [one for one in self._connections if one not in servers]:
            self._connections.pop(primary).abandon()
        async with trio.open_nursery() as nursery:
            for primary in servers:
                nursery.start_soon(self._renew, primary, lost)
        return lost

    async def _renew(self, primary: Primary, lost: list[int]) -> None:
        tokens = self._ownership.tokens.copy()
        renewals = primary.renewals()
        try:
            with trio.fail_after(self._options.timeout):
                connection = self._connections.get(primary)
                if connection is None:
                    connection = self._connections[primary] = await primary.connect()
                replies = await connection.call(*(command for _, command in renewals)) if renewals else []
                primary.seen(await look(connection, self._options))
        except (StoreError, trio.TooSlowError):
            self._end(primary)
            return
        if any(isinstance(reply, hiredis.ReplyError) for reply in replies):
            if any(str(reply).startswith("NOSCRIPT") for reply in replies):
                await self._load(primary, connection)
            return  # it has moved, or there will be another time
        for (places, _), reply in zip(renewals, replies, strict=True):
            # A new connection of the batches may have changed the tokens meanwhile.
            refused = [places[at] for at in checked(reply, connection.name)]
            lost += [place for place in refused if self._ownership.tokens.get(place) == tokens[place]]

    async def _load(self, primary: Primary, connection: Connection) -> None:
        try:
            with trio.fail_after(self._options.timeout):
                await connection.ask("SCRIPT", "LOAD", ownership_script().text)
        except (StoreError, trio.TooSlowError):
            self._end(primary)

    def _end(self, primary: Primary) -> None:
        if (connection := self._connections.pop(primary, None)) is not None:
            connection.abandon()

    def close(self) -> None:
        """End the connections."""
        for primary in list(self._connections):
            self._end(primary)
