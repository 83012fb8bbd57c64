"""The store in Redis or Valkey: one write a batch, of one script for all of it and of the wait for its replicas.

Theory of operation
-------------------
The committer's batch is one EVALSHA of `redis_lua/apply.lua` on a connection that is this store's alone. The server
makes what the script changed one transaction of its append-only file, and with `appendfsync always` it answers when
that is on the disk; WAIT or WAITAOF behind it, on the same connection, answers when a replica has it too.

What can go wrong
-----------------
- The connection breaks, or the answer takes longer than `redis.timeout`: what the batch did is unknown, so all of it
  failed. The connection ends; on the next one the partitions are acquired anew before anything is written, which shuts
  out what may still be on its way (`router.store.redis_ownership`).
- The server has no memory left: what enlarges fails, key by key; removals and reads do not.
- The script is unknown (the server was replaced, or SCRIPT FLUSH): it is loaded, and the batch, which changed
  nothing, sent again.
- Another router has taken partitions: their keys fail, and `run` ends this router with a line that says so.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeVar

import trio

from router.common import logs
from router.common.cluster_settings import ClusterOptions
from router.common.options import Settings
from router.common.partitions import PARTITIONS, fixed_owners
from router.common.redis_settings import RedisOptions
from router.common.settings import Data, RouterOptions, StoreOptions
from router.store import redis_layout
from router.store.base import LARGE_BODY, BadBatchError, Gone, Reads, Results, Store, StoreError, Writes
from router.store.findings import Finding
from router.store.memory import crowd
from router.store.redis_batch import RedisBatch
from router.store.redis_holder import of_farm, of_placement
from router.store.redis_keys import bases, fence
from router.store.redis_ownership import Ownership
from router.store.redis_partitions import Partitions
from router.store.redis_primary import Primary
from router.store.redis_rows import GRACE_S
from router.store.redis_scripts import apply_script
from router.store.redis_sentinel import place
from router.store.redis_server import findings, promise
from router.store.redis_servers import Servers
from router.store.redis_sweep import Sweeper

_UNWRITABLE: Final = (TypeError, ValueError, OverflowError, RecursionError, struct.error)
"""What is wrong is what was to be written."""
_PAUSES_S: Final = (0.0, 0.02, 0.1)
"""Before a batch is tried again where partitions of a cluster have moved; after that it has failed for these."""
_MEASURE_EVERY: Final = 256  # commits
_ITEM_BYTES: Final = 300
"""Of an entry besides its texts, on the high side, until what is used is measured again."""

T = TypeVar("T")


class RedisStore:
    """A `Store` on one server, or on the primaries of a cluster.

    holder: name of this router there; partitions: those that it is to own. unix_time: for numbers that grow over
    owners. shared: whether routers of other hosts take over what it has left.
    """

    promise = ""
    forgets = False

    def __init__(
        self,
        options: StoreOptions,
        redis: RedisOptions,
        holder: Callable[[], str],
        partitions: frozenset[int] = frozenset(range(PARTITIONS)),
        router: int = 0,
        unix_time: Callable[[], float] = time.time,
        shared: bool = False,
    ) -> None:
        self._options = options
        self._redis = redis
        self._where = place(redis)
        self._bases = bases(redis.prefix)
        self._holder = holder
        self._router = router
        self._crowd = crowd(options)
        self._partitions = Partitions(redis, self._bases, partitions, router, shared, unix_time)
        self._ownership = self._partitions.ownership
        self._servers = self._partitions.servers
        self.lease = self._ownership.lease
        self._batches = 0
        self._gone: Gone | None = None
        self._ceiling = 0
        self._unmeasured = 0
        self._guessed = 0
        self._sweepers: dict[Primary, Sweeper] = {}
        self._swept = 0
        self.used = 0

    # ------------------------------------------------------------------ beginning and end

    def check(self) -> None:
        """See `Store.check`."""

        async def main() -> None:
            await self._servers.check()
            await redis_layout.check(self._servers, self._redis)

        run_apart(main)

    def watch(self, gone: Gone) -> None:
        """See `Store.watch`. What expires here goes by itself."""
        self._gone = gone

    async def open(self) -> None:
        """See `Store.open`."""
        await self._partitions.acquire(self._holder())
        self._ceiling = self._partitions.ceiling
        self.promise = self._servers.promise
        self._count_used()

    async def close(self) -> None:
        """See `Store.close`. May be called at any time, and again."""
        await self._servers.release()

    async def run(self) -> None:
        """See `Store.run`. Renews the leases, on connections of its own."""
        await self._partitions.run()

    # ------------------------------------------------------------------ batches

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        """See `Store.apply`."""
        try:
            batch = RedisBatch(writes, reads, now, self._options, self._gone)
        except _UNWRITABLE as error:
            raise BadBatchError(f"Redis {self._where}: the batch cannot be written: {error}") from error
        self._raise_ceiling(writes)
        if not batch.partitions:
            if not batch.writing:
                await trio.lowlevel.checkpoint()
                return batch.results
            batch.touch(
                min(self._partitions.mine)
            )  # a new ceiling alone: that it is written shows that the server can write
        self._batches += 1
        left = batch.partitions
        for pause in _PAUSES_S:
            left = await self._sent(batch, left, now)
            if not left:
                break
            await trio.sleep(pause)
        batch.failed(left)
        if batch.full:
            logs.limited("redis.full", at="error", server=self._where)
        self._guess(writes)
        return batch.results

    def _raise_ceiling(self, writes: Writes) -> None:
        self._ceiling = max(self._ceiling, self._partitions.ceiling, writes.ceiling)
        if not self._ceiling and writes.puts:
            self._ceiling = max(item.seq for item in writes.puts.values())

    async def _sent(self, batch: RedisBatch, partitions: Sequence[int], now: int) -> Sequence[int]:
        """Have it done for these partitions. Returns: those for which nothing was done, because they have moved."""
        routes = await self._servers.of(partitions)
        if not self._servers.apart:
            ((primary, places),) = routes.items()
            return await self._sent_to(primary, places, batch, now)
        moved: list[int] = []
        errors: list[StoreError] = []

        async def send(primary: Primary, places: list[int]) -> None:
            try:
                moved.extend(await self._sent_to(primary, places, batch, now))
            except StoreError as error:
                errors.append(error)
                batch.failed(places)
                logs.limited("redis.failed", at="error", per=str(error), error=str(error))

        async with trio.open_nursery() as nursery:
            for primary, places in routes.items():
                nursery.start_soon(send, primary, places)
        if errors:
            self._servers.forget()
        if len(errors) == len(routes) and len(partitions) == len(batch.partitions):
            raise errors[0]  # nothing of the batch was done
        return moved

    async def _sent_to(self, primary: Primary, places: Sequence[int], batch: RedisBatch, now: int) -> list[int]:
        await self._partitions.own_again(primary, places)
        ownership = self._ownership
        number = self._batches if batch.writing else b""
        limits = (self._options.inbox_limit, self._options.inbox_bytes, self._crowd, LARGE_BODY)

        def command(some: Sequence[int]) -> bytes:
            key = fence(self._bases[some[0]])
            head = (b"EVALSHA", apply_script().name, 1, key, now, GRACE_S, number, self._router, *limits)
            return batch.command(some, head, self._partitions.openings, ownership.ceilings, self._ceiling)

        measure = self._unmeasured >= _MEASURE_EVERY or 0 < self._options.max_bytes <= self.used
        here = [one for one in places if one in primary.partitions or one not in ownership.tokens]
        elsewhere = [one for one in places if one not in here]
        if not here:
            self._servers.forget()
            return elsewhere
        sent = await primary.send(here, command, batch.writing, measure)
        if measure:
            self._unmeasured = self._guessed = 0
        lost: list[int] = []
        for some, reply in sent.done:
            refused, full = batch.answered(some, reply)
            lost += refused
            if batch.writing and not full:
                for one in some:
                    if one in ownership.ceilings:
                        ownership.ceilings[one] = max(self._ceiling, ownership.ceilings[one])
        batch.failed(sent.failed)
        if mine := self._partitions.mine.intersection(lost):
            self._partitions.lose(sorted(mine))
        elsewhere += sent.elsewhere
        if elsewhere:
            self._servers.forget()
        return elsewhere

    # ------------------------------------------------------------------ what is used

    def _count_used(self) -> None:
        """What the servers said when they were asked last, and what was guessed since."""
        self.used = self._servers.used + self._guessed

    def _guess(self, writes: Writes) -> None:
        entries = len(writes.puts) + len(writes.records) + len(writes.changes) + len(writes.logs)
        if entries:
            chars = sum(len(item.body) for item in writes.puts.values() if item.body is not None)
            chars += sum(len(value[0]) for value in writes.records.values() if value is not None)
            chars += sum(len(getattr(write, "body", "")) for write in writes.logs)
            self._guessed += _ITEM_BYTES * entries + chars
        self._unmeasured += 1
        self._count_used()

    async def highest(self) -> int:
        """See `Store.highest`. Each partition has its ceiling from its first item on."""
        await trio.lowlevel.checkpoint()
        return self._ceiling

    async def sweep(self, now: int, budget: int) -> int:
        """See `Store.sweep`. One server after the other."""
        routes = list((await self._servers.of(self._partitions.mine)).items())
        primary, places = routes[self._swept % len(routes)]
        self._swept += 1
        await self._partitions.own_again(primary, places)
        sweeper = self._sweepers.get(primary)
        if sweeper is None:
            sweeper = self._sweepers[primary] = Sweeper(self._redis.prefix, self._bases, self._router)
        tokens = {one: token for one, token in self._ownership.tokens.items() if one in primary.partitions}
        deleted = await primary.sweep(lambda connection: sweeper.sweep(connection, tokens, now, budget))
        self._guessed = 0
        self._count_used()
        return deleted


def run_apart(function: Callable[[], Awaitable[T]]) -> T:
    """Run it to its end in a thread, so that a caller may be within trio or without."""
    import threading

    import outcome

    found: list[outcome.Outcome[T]] = []
    thread = threading.Thread(target=lambda: found.append(outcome.capture(trio.run, function)), name="redis")
    thread.start()
    thread.join()
    return found[0].unwrap()


def new_store(settings: Settings, router: int) -> Store:
    """See `router.store.registry.StoreModule`."""
    owners = fixed_owners(settings.get(RouterOptions).routers)
    partitions = frozenset(place for place, owner in enumerate(owners) if owner == router)
    folder = Path(settings.get(Data).dir)
    shared = settings.get(ClusterOptions).enabled

    def holder() -> str:
        return of_placement(folder, router) if shared else of_farm(folder)

    options = settings.get(StoreOptions)
    return RedisStore(options, settings.get(RedisOptions), holder, partitions, router, shared=shared)


def keeps(settings: Settings) -> tuple[str, str] | None:
    """See `router.store.registry.StoreModule`: whether anything was ever written under the prefix."""
    options = settings.get(RedisOptions)
    with suppress(StoreError):
        if all(batch is None for (batch,) in run_apart(lambda: _servers(options).fences("b"))):
            return None
    where = f"Redis {place(options)}, under the prefix {options.prefix},"
    return where, "choose another redis.prefix"


def look_over(settings: Settings) -> list[Finding]:
    """See `router.store.registry.StoreModule`."""
    options = settings.get(RedisOptions)
    try:
        found = run_apart(_servers(options).look)
    except StoreError as error:
        return [Finding("Redis", "fail", str(error), "a server that answers (redis.url)")]
    rows = [finding for server in found for finding in findings(server, options)]
    if not any(row.status == "fail" for row in rows):
        try:
            rows.append(run_apart(lambda: redis_layout.finding(_servers(options))))
        except StoreError as error:
            rows.append(Finding("Redis data", "fail", str(error), "what can be read"))
    return [*rows, Finding("a 2xx means", "ok", promise(found[0], options), "")]


def _servers(options: RedisOptions) -> Servers:
    return Servers(options, Ownership(bases(options.prefix), "", options.lease, 0), time.time)
