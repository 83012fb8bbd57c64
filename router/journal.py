"""The journal: many small writes and reads become one group commit after another.

Whoever wants something kept says so without waiting and gives a callback; the journal merges what concerns the same
slot, hands the whole batch to the store, and calls back when it is durable. While one commit is under way the next
batch fills. Order is kept: a read sees every write asked for before it.

A message that is acknowledged before its batch is committed never reaches the disk: nobody needs it any more.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter

import trio

from router import logs
from router.record_cache import RecordCache
from router.store.base import ANY_VERSION, KEEP_EXPIRY, Item, LogSlice, Reads, Results, Store, StoreError, Writes
from router.vocabulary import EVERYTHING, FAILED, FULL, OK

PutDone = Callable[[int], None]
InboxDone = Callable[[int, list[Item]], None]
InboxesDone = Callable[[int, dict[bytes, list[Item]]], None]
RecordDone = Callable[[int, bytes | None], None]
LogDone = Callable[[int, LogSlice | None], None]
OffsetDone = Callable[[int, int], None]

_by_seq = attrgetter("seq")


@dataclass(slots=True)
class _Batch:
    writes: Writes = field(default_factory=Writes)
    reads: Reads = field(default_factory=Reads)
    size: int = 0
    puts: list[tuple[tuple[bytes, str], PutDone]] = field(default_factory=list)
    commits: list[PutDone] = field(default_factory=list)
    inboxes: list[tuple[bytes, int, InboxDone]] = field(default_factory=list)
    many: list[tuple[list[bytes], InboxesDone]] = field(default_factory=list)
    records: list[tuple[tuple[str, bytes], RecordDone]] = field(default_factory=list)
    logs: list[tuple[bytes, int, LogDone]] = field(default_factory=list)
    offsets: list[OffsetDone] = field(default_factory=list)


_PROBE = "probe"
"""Space of a record that is written to see whether the store can write."""


class Journal:
    """Owner of the store. Callbacks get OK, FULL (the inbox has no room) or FAILED (the store could not)."""

    def __init__(
        self,
        store: Store,
        batch_limit: int,
        queue_limit: int,
        unix_time: Callable[[], float],
        record_cache: int = 0,
    ) -> None:
        self._store = store
        self._cache = RecordCache(record_cache, unix_time)
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._unix_time = unix_time
        self._batches: deque[_Batch] = deque()
        self._waiting = 0
        self._idle: trio.Event | None = None
        self._busy = False
        self._sweep_budget = 0
        self.healthy = True
        self.commits = 0
        self.written = 0
        self.expired = 0
        self.failures = 0
        self.evicted = 0

    @property
    def full(self) -> bool:
        """Whether as much waits as may wait; new pushes must be refused until it is less."""
        return self._waiting >= self._queue_limit

    @property
    def waiting(self) -> int:
        """Writes and reads that wait for a commit."""
        return self._waiting

    def put(self, device: bytes, item: Item, done: PutDone) -> None:
        """Keep an item in its slot of the device's inbox, in place of what was there."""
        batch = self._next()
        key = (device, item.slot)
        batch.writes.removals.pop(key, None)
        batch.writes.puts[key] = item
        batch.puts.append((key, done))

    def remove(self, device: bytes, slot: str, version: int = ANY_VERSION) -> None:
        """Forget the item of a slot if its version is at most `version`."""
        batch = self._next()
        key = (device, slot)
        coming = batch.writes.puts.get(key)
        if coming is not None:
            if coming.version > version:
                return
            del batch.writes.puts[key]
            version = ANY_VERSION  # the put would have replaced what is stored, whatever its version
        batch.writes.removals[key] = max(version, batch.writes.removals.get(key, -1))

    def record(self, space: str, key: bytes, value: bytes | None, expires: int) -> None:
        """Keep a record (expiry in unix seconds, 0: never, KEEP_EXPIRY: as it is), or delete it."""
        records = self._next().writes.records
        name = (space, key)
        if expires == KEEP_EXPIRY and value is not None and name in records:
            coming = records[name]
            if coming is None:
                return  # it is being deleted, so there is no expiry to keep
            expires = coming[1]
        records[name] = None if value is None else (value, expires)
        self._cache.written(name, value)

    def event(self, channel: bytes, expires: int, body: str, done: OffsetDone) -> None:
        """Append to a channel's log; the callback gets the event's offset."""
        batch = self._next()
        batch.writes.events.append((channel, expires, body))
        batch.offsets.append(done)

    def read_inbox(self, device: bytes, done: InboxDone, most: int = EVERYTHING) -> None:
        """Read what waits for a device: everything in order of arrival, or the first `most` items by slot."""
        batch = self._next()
        inboxes = batch.reads.inboxes
        inboxes[device] = max(most, inboxes.get(device, 0))
        batch.inboxes.append((device, most, done))

    def read_inboxes(self, devices: list[bytes], done: InboxesDone) -> None:
        """Read what waits for many devices; the callback gets those for which something does."""
        batch = self._next()
        batch.reads.inboxes.update(dict.fromkeys(devices, EVERYTHING))
        batch.many.append((devices, done))

    def read_record(self, space: str, key: bytes, done: RecordDone) -> None:
        """Read one record; None if there is none."""
        batch = self._next()
        batch.reads.records.add((space, key))
        batch.records.append(((space, key), done))

    def look_up(self, space: str, key: bytes, done: RecordDone) -> None:
        """Read one record, which may be up to a minute old: what is remembered is given at once."""
        name = (space, key)
        known = self._cache.get(name)
        if known is not None:
            done(OK, known)
            return

        def read(status: int, value: bytes | None) -> None:
            # A write that came after the read would find it too late to be seen.
            if value is not None and not any(name in batch.writes.records for batch in self._batches):
                self._cache.put(name, value)
            done(status, value)

        self.read_record(space, key, read)

    def read_log(self, channel: bytes, since: int, done: LogDone) -> None:
        """Read a channel's events after an offset."""
        batch = self._next()
        batch.reads.logs[channel] = min(since, batch.reads.logs.get(channel, since))
        batch.logs.append((channel, since, done))

    def when_durable(self, done: PutDone) -> None:
        """Call back once everything asked for so far has been committed (or has failed)."""
        self._next(0).commits.append(done)

    def _next(self, weight: int = 1) -> _Batch:
        if not self._batches or self._batches[-1].size >= self._batch_limit:
            self._batches.append(_Batch())
            if self._idle is not None:
                self._idle.set()
        batch = self._batches[-1]
        batch.size += weight
        self._waiting += weight
        return batch

    def overtaken(self, device: bytes, item: Item) -> bool:
        """Whether a write that waits replaces or removes this item: a read that has just given it is behind."""
        key = (device, item.slot)
        return any(
            key in batch.writes.puts or batch.writes.removals.get(key, -1) >= item.version for batch in self._batches
        )

    async def run(self, flush: Callable[[], None]) -> None:
        """Commit batches for ever. `flush` is called after each batch's callbacks, to send what they produced."""
        while True:
            if self._sweep_budget:
                await self._sweep()
            if not self._batches:
                self._idle = trio.Event()
                await self._idle.wait()
                self._idle = None
                continue
            batch = self._batches.popleft()
            self._busy = True
            status, results = await self._apply(batch)
            self._busy = False
            self._waiting -= batch.size
            _call_back(batch, status, results)
            flush()

    async def _apply(self, batch: _Batch) -> tuple[int, Results]:
        try:
            results = await self._store.apply(batch.writes, batch.reads, int(self._unix_time()))
        except StoreError as error:
            self._failed("store.failed", error)
            for name in batch.writes.records:
                self._cache.drop(name)
            return FAILED, Results()
        if len(batch.writes) and not self.healthy:  # reading alone works on a full disk too
            self.healthy = True
            logs.limited("store.recovered", failures=self.failures)
        self.evicted += results.evicted
        self.commits += 1
        self.written += len(batch.writes)
        return OK, results

    def sweep_soon(self, budget: int) -> None:
        """Between two commits, delete what has expired among the next `budget` entries of the store. If it has failed,
        it is also tried whether it can write again, for perhaps nobody asks it to as long as it cannot."""
        self._sweep_budget = budget
        if not self.healthy:
            self.record(_PROBE, b"", b"", int(self._unix_time()) + 1)
        if self._idle is not None:
            self._idle.set()

    async def _sweep(self) -> None:
        budget, self._sweep_budget = self._sweep_budget, 0
        try:
            self.expired += await self._store.sweep(int(self._unix_time()), budget)
        except StoreError as error:
            self._failed("store.sweep_failed", error)

    def _failed(self, event: str, error: StoreError) -> None:
        self.healthy = False
        self.failures += 1
        logs.limited(event, at="error", per=str(error), error=str(error))

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._batches and not self._busy


def _call_back(batch: _Batch, status: int, results: Results) -> None:
    refused = results.refused
    for key, done in batch.puts:
        done(FULL if key in refused else status)
    for device, most, inbox_done in batch.inboxes:
        inbox_done(status, _part(results.inboxes.get(device, []), most))
    for devices, many_done in batch.many:
        found = {device: results.inboxes[device] for device in devices if device in results.inboxes}
        many_done(status, {device: _part(items, EVERYTHING) for device, items in found.items()})
    for record_key, record_done in batch.records:
        record_done(status, results.records.get(record_key))
    for channel, since, log_done in batch.logs:
        part = results.logs.get(channel)
        if part is not None:  # it was read from where the reader that is furthest behind stands
            part = part._replace(events=[event for event in part.events if event.offset > since])
        log_done(status, part)
    offsets = results.offsets or [0] * len(batch.offsets)
    for offset, offset_done in zip(offsets, batch.offsets, strict=True):
        offset_done(status, offset)
    for commit_done in batch.commits:
        commit_done(status)


def _part(items: list[Item], most: int) -> list[Item]:
    """What one reader asked for, of what was read for all who asked for this inbox."""
    return sorted(items, key=_by_seq) if most >= EVERYTHING else items[:most]
