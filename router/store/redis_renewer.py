"""Renews the leases of a router, on connections of its own, so that a slow batch is no reason to lose them."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Final

import hiredis
import trio

from router.common import logs
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.lease import apart, boottime
from router.store.redis_connection import Command, Connection, Reply, checked
from router.store.redis_ownership import Ownership
from router.store.redis_primary import ELSEWHERE, Primary
from router.store.redis_scripts import ownership_script
from router.store.redis_server import look
from router.store.redis_servers import Servers

RENEWALS: Final = 4
"""In a lease."""
RENEWALS_ALONE: Final = 2
"""In a lease, where nothing ends with it but the wait of another farm. So often what a server says of itself is looked
at everywhere."""
PATIENCE: Final = 3
"""Part of a lease after which one that is not answered is given up, so that there is time for another one. It
may be that the connection was broken and nothing says so."""
_LEAST_PATIENCE_S: Final = 0.5
_WAIT_MS: Final = 700
"""For replicas, of each second of patience."""


class Renewer:
    """Besides, it looks whether the servers are still such as may be the store, and what their clocks show.

    partitions: the router's; those of them that it owns are renewed wherever they are, whether or not batches have a
    connection there. unix_time: this machine's clock, in seconds.
    """

    def __init__(
        self,
        options: RedisOptions,
        servers: Servers,
        ownership: Ownership,
        partitions: Collection[int],
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        self._options = options
        self._servers = servers
        self._ownership = ownership
        self._partitions = partitions
        self._unix_time = unix_time
        self._patience = min(options.timeout, max(_LEAST_PATIENCE_S, options.lease / PATIENCE))
        milliseconds = int(self._patience * _WAIT_MS)
        self._waits: tuple[Command, ...] = (("WAIT", options.replicas, milliseconds),) if options.replicas else ()
        self._turns = 0
        self._looks = RENEWALS // RENEWALS_ALONE if ownership.lease.shared else 1
        self._routes: dict[Primary, list[int]] = {}
        self._connections: dict[Primary, Connection] = {}
        self._offsets: dict[str, float] = {}

    async def renew(self) -> list[int]:
        """Returns: partitions that have another owner. That a server is away is seen by who writes."""
        lost: list[int] = []
        self._turns += 1
        with suppress(StoreError), trio.move_on_after(self._patience):
            self._routes = await self._servers.of(self._partitions)
        for primary in [one for one in self._connections if one not in self._routes]:
            self._end(primary)
        self._offsets = {}
        async with trio.open_nursery() as nursery:
            for primary, places in self._routes.items():
                nursery.start_soon(self._renew, primary, places, lost)
        if self._offsets:
            for name, offset in self._ownership.lease.compared(self._offsets).items():
                logs.limited("redis.clock_off", per=name, server=name, seconds=round(offset, 1))
        return lost

    async def _renew(self, primary: Primary, places: list[int], lost: list[int]) -> None:
        """A connection that does not answer, or leads to a server that is no primary any more, is replaced at once,
        but only once."""
        while True:
            new = primary not in self._connections
            try:
                with trio.fail_after(self._patience):
                    if new:
                        self._connections[primary] = await primary.connect()
                    looks = new or not self._turns % self._looks
                    await self._renew_on(self._connections[primary], primary, places, lost, looks)
                return
            except (StoreError, trio.TooSlowError):
                self._end(primary)
                if new:
                    return

    async def _renew_on(
        self, connection: Connection, primary: Primary, places: list[int], lost: list[int], looks: bool
    ) -> None:
        """Raises: StoreError."""
        if renewals := primary.renewals(places):
            replies = await self._asked(connection, renewals, lost)
            if any(isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT") for reply in replies):
                await connection.ask("SCRIPT", "LOAD", ownership_script().text)
                replies = await self._asked(connection, renewals, lost)
            for error in (reply for reply in replies if isinstance(reply, hiredis.ReplyError)):
                if str(error).startswith(ELSEWHERE):
                    self._servers.forget()
                else:
                    raise StoreError(f"Redis {connection.name}: {error}")
        if looks:
            primary.seen(await look(connection, self._options))

    async def _asked(
        self, connection: Connection, renewals: list[tuple[list[int], Command]], lost: list[int]
    ) -> list[Reply]:
        """Ask for all renewals once. Returns: the replies to them."""
        epochs = self._ownership.epochs.copy()
        sent_at, before = boottime(), self._unix_time()
        found = await connection.call(*(command for _, command in renewals), *self._waits)
        after = self._unix_time()
        self._ownership.lease.lag = boottime() - sent_at
        replies, waits = found[: len(renewals)], found[len(renewals) :]
        renewed = False
        for (places, _), reply in zip(renewals, replies, strict=True):
            if not isinstance(reply, hiredis.ReplyError):
                clock, others = self._ownership.renewed(places, epochs, reply)
                self._offsets[connection.name] = apart(clock, before, after)
                lost += others
                renewed = True
        # A lease that is on too few servers may be unknown to the next primary.
        if renewed and not lost and all(checked(reply, connection.name) >= self._options.replicas for reply in waits):
            self._ownership.lease.confirmed(sent_at)
        return replies

    def _end(self, primary: Primary) -> None:
        if (connection := self._connections.pop(primary, None)) is not None:
            connection.abandon()

    def close(self) -> None:
        """End the connections."""
        for primary in list(self._connections):
            self._end(primary)
