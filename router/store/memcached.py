"""The store in memcached: inboxes and records by compare-and-swap. It forgets.

A batch is, for each server, one request for all entries that it touches and one with all writes, each of which counts
only if its entry is as it was read; what was written by another meanwhile is read and made again. So nothing of an
older batch, whose connection was given up, is written over something newer.

Each key lies on one server, by its partition, and does not move when a server is away: then it is refused until the
server is back, as a key that moved would come back to what was there before.

memcached loses what it holds when it ends, and before that when its memory is full, unless it is told not to (`-M`).
So a record that is missing says nothing here (`Store.forgets`), and a message is kept as long as its server keeps it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from typing import Final, Literal

import trio

from router.common import logs
from router.common.memcached_settings import MemcachedOptions
from router.common.options import Settings
from router.common.partitions import PARTITIONS, partition
from router.common.settings import StoreOptions
from router.store.base import BadBatchError, Gone, Reads, Results, Store, StoreError, Writes
from router.store.changes import UNCHANGED, Changed
from router.store.findings import Finding
from router.store.memcached_protocol import DIFFERS, DONE, SETTINGS, Entries, Entry, Statistics, delete, get, put
from router.store.memcached_server import NewerError, Server, ask, check_server
from router.store.memcached_work import CEILING, GRACE_S, LAYOUT, Layout, Work, Write, ceiling, check, works

_CHUNK: Final = 200
"""Entries of one request: a turn of the router's loop each."""
_READ_BYTES: Final = 8_388_608
"""About so much is read by one request."""
_ROUNDS: Final = 8
"""Times that work is made whose entries others write."""
_LONGEST_S: Final = 30 * 86_400
"""Beyond, memcached takes an expiry for unix time."""
_NEVER: Final = 2**31 - 1
"""As unix time: memcached keeps it in 32 bits."""


class MemcachedStore:
    """A `Store` on one or several memcached servers. unix_time: the machine's clock, for entries that live long."""

    forgets = True
    lease = None

    def __init__(
        self,
        options: MemcachedOptions,
        store: StoreOptions,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        names = list(dict.fromkeys(options.servers))
        if not names:
            raise StoreError('memcached.servers names no server; write servers = ["127.0.0.1:11211"], say')
        self._options = options
        self._layout = Layout(options.prefix, store.inbox_limit)
        self._unix_time = unix_time
        self._servers = [Server(name, options) for name in names]
        self._of_partition = [
            max(self._servers, key=lambda server: _weight(server.name, number)) for number in range(PARTITIONS)
        ]
        self._chunk = _CHUNK
        self._marked = False
        self.promise = ""
        self.used = 0

    def check(self) -> None:
        """See `Store.check`. As at `open`, one server is enough, but none may be a newer release's."""
        errors: list[str] = []
        for server in self._servers:
            try:
                check_server(server.name, self._options)
            except NewerError:
                raise
            except StoreError as error:
                errors.append(str(error))
        if len(errors) == len(self._servers):
            raise StoreError(*errors)

    def watch(self, gone: Gone) -> None:
        """See `Store.watch`. What goes here goes without a word."""

    async def open(self) -> None:
        """See `Store.open`. One server that can be reached is enough: the part of the others is refused meanwhile. None
        may be a newer release's."""
        async with trio.open_nursery() as nursery:
            for server in self._servers:
                nursery.start_soon(server.open)
        try:
            self._fail_if_all_are_away()
            if newer := next((one.error for one in self._servers if isinstance(one.error, NewerError)), None):
                raise newer
        except StoreError:
            await self.close()
            raise
        self._count()
        self.promise = _promise(any(server.evicts for server in self._servers))

    async def run(self) -> None:
        """See `Store.run`. Servers that are away are looked for."""
        async with trio.open_nursery() as nursery:
            for server in self._servers:
                nursery.start_soon(server.run)

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        """See `Store.apply`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            check(self._layout, writes, now, self._room())
            todo = works(self._layout, writes, reads, not self._marked)
        except (ValueError, TypeError, OverflowError) as error:
            raise BadBatchError(f"memcached: the batch cannot be written: {error}") from error
        results = Results(changes=[Changed(UNCHANGED)] * len(writes.changes))
        parts: dict[Server, list[Work]] = {}
        for work in todo:
            parts.setdefault(self._of_partition[partition(work.owner)], []).append(work)
        if len(parts) > 1:
            async with trio.open_nursery() as nursery:
                for server, part in parts.items():
                    nursery.start_soon(self._apply_part, server, part, now, results)
        else:
            for server, part in parts.items():
                await self._apply_part(server, part, now, results)
        if results.failed:
            self._fail_if_all_are_away()
        self._marked = self._marked or (len(writes) > 0 and CEILING[1] not in results.failed)
        return results

    async def highest(self) -> int:
        """See `Store.highest`: what the last ceiling was, and 0 where that was lost."""
        key = self._layout.record(CEILING)
        try:
            found = await self._of_partition[partition(CEILING[1])].entries([key])
        except StoreError:
            return 0
        return ceiling(found.get(key))

    async def sweep(self, now: int, budget: int) -> int:
        """See `Store.sweep`. memcached drops by itself what has expired; it is asked how much it holds."""
        for server in self._servers:
            if server.error is None:
                with suppress(StoreError):  # that one is away from now on, and the others are not
                    await server.measure()
        self._count()
        return 0

    async def close(self) -> None:
        """See `Store.close`."""
        for server in self._servers:
            server.close()
        await trio.lowlevel.checkpoint()

    def _count(self) -> None:
        self.used = sum(server.used for server in self._servers)

    # ------------------------------------------------------------------ a server's part of a batch

    async def _apply_part(self, server: Server, part: list[Work], now: int, results: Results) -> None:
        at = 0
        try:
            while at < len(part):
                some = part[at : at + self._chunk]
                await self._apply_some(server, some, now, results)
                at += len(some)
        except StoreError:
            results.failed.update(work.owner for work in part[at:])

    async def _apply_some(self, server: Server, some: Sequence[Work], now: int, results: Results) -> None:
        """Raises: StoreError; then nothing is known of any of it."""
        for _ in range(_ROUNDS):
            found = await server.entries([key for work in some for key in work.keys])
            self._weigh(found, len(some))
            writes = [work.make(found, now, server.room) for work in some]
            requests = [self._request(write, found.get(write.key)) for part in writes for write in part]
            outcomes = iter(await server.write(requests) if requests else ())
            again: list[Work] = []
            for work, part in zip(some, writes, strict=True):
                became = [next(outcomes) for _ in part]
                if all(outcome == DONE for outcome in became):
                    work.done(results)
                elif DIFFERS in became:
                    again.append(work)
                else:
                    results.failed.add(work.owner)
                    logs.limited("store.server_full", at="error", per=server.name, server=server.name)
            if not again:
                return
            some = again
        results.failed.update(work.owner for work in some)
        logs.limited(
            "store.entries_changing", at="error", per=server.name, server=server.name, prefix=self._options.prefix
        )

    def _request(self, write: Write, before: Entry | None) -> bytes:
        if write.value is not None:
            return put(write.key, write.value, self._exptime(write.ttl), before)
        assert before is not None
        return delete(write.key, before)

    def _exptime(self, ttl: int) -> int:
        if not ttl:
            return 0
        ttl += GRACE_S
        if ttl <= _LONGEST_S:
            return ttl
        until = int(self._unix_time()) + ttl
        return until if until < _NEVER else 0

    def _weigh(self, found: dict[bytes, Entry], number: int) -> None:
        """Large entries are read few at a time."""
        size = sum(len(entry.value) for entry in found.values()) // number
        self._chunk = max(1, min(_CHUNK, 2 * self._chunk, _READ_BYTES // max(1, size)))

    def _fail_if_all_are_away(self) -> None:
        errors = [server.error for server in self._servers if server.error is not None]
        if len(errors) == len(self._servers):
            raise StoreError(*map(str, errors))

    def _room(self) -> int:
        return min(server.room for server in self._servers if server.room)


def _weight(name: str, number: int) -> bytes:
    """The server with the highest of a partition has it: when one is added or taken away, no other part moves."""
    return blake2b(f"{number}:{name}".encode(), digest_size=8).digest()


def _promise(evicts: bool) -> str:
    drops = ", or drops it to make room (start it with -M, so that it refuses instead)" if evicts else ""
    return f"in memory, by memcached: what is accepted is lost when its memcached server ends{drops}"


def new_store(settings: Settings, router: int) -> Store:
    """See `router.store.registry.StoreModule`."""
    return MemcachedStore(settings.get(MemcachedOptions), settings.get(StoreOptions))


def keeps(settings: Settings) -> tuple[str, str] | None:
    """See `router.store.registry.StoreModule`. Raises: StoreError if a server cannot be asked."""
    options = settings.get(MemcachedOptions)
    key = Layout(options.prefix, 0).record(CEILING)
    for name in options.servers:
        if ask(name, get([key]), Entries(), options.timeout).found:
            return f"memcached {name}", "restart memcached, or choose another memcached.prefix"
    return None


def look_over(settings: Settings) -> list[Finding]:
    """See `router.store.registry.StoreModule`."""
    options = settings.get(MemcachedOptions)
    found: list[Finding] = []
    evicts = False
    for name in options.servers:
        try:
            check_server(name, options)
            statistics = ask(name, SETTINGS, Statistics(), options.timeout)
        except NewerError as error:
            found.append(Finding("memcached", "fail", str(error), f"data of layout {LAYOUT} or older"))
            continue
        except StoreError as error:
            found.append(Finding("memcached", "fail", str(error), "a server that answers (memcached.servers)"))
            continue
        drops = statistics.found.get("evictions") == "on"
        evicts = evicts or drops
        mib = statistics.number("maxbytes") >> 20
        what = "drops entries" if drops else "refuses"
        remedy = "start it with -M" if drops else ""
        status: Literal["ok", "warn"] = "warn" if drops else "ok"
        found.append(Finding("memcached", status, f"{name}: {mib} MiB, then it {what}", "one that refuses", remedy))
    return [*found, Finding("a 2xx means", "ok", _promise(evicts), "")]
