"""The journal: many small writes and reads become one group commit after another.

Whoever wants something kept says so without waiting and gives a callback; the journal merges what concerns the same
slot, hands the whole batch to the store, and calls back when it is durable. While one commit is under way the next
batch fills. Order is kept: a read sees every write asked for before it.

Who drives the store takes batches and brings them back finished: `run` in the same trio loop, or a thread of the
store's own (`store_thread`). That thread takes a batch the moment the last one is durable; what is being filled at
that moment is not offered yet, so a batch is never touched from two sides. `offer` ends a turn of the main loop.

A message that is acknowledged before its batch is committed never reaches the disk: nobody needs it any more.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from router import logs
from router.store.base import ANY_VERSION, Item, LogSlice, Reads, Results, Store, StoreError, Writes
from router.vocabulary import FAILED, FULL, OK

PutDone = Callable[[int], None]
InboxDone = Callable[[int, list[Item]], None]
InboxesDone = Callable[[int, dict[bytes, list[Item]]], None]
RecordDone = Callable[[int, bytes | None], None]
LogDone = Callable[[int, LogSlice | None], None]
OffsetDone = Callable[[int, int], None]


@dataclass(slots=True)
class _Batch:
    writes: Writes = field(default_factory=Writes)
    reads: Reads = field(default_factory=Reads)
    size: int = 0
    puts: list[tuple[tuple[bytes, str], PutDone]] = field(default_factory=list)
    commits: list[PutDone] = field(default_factory=list)
    inboxes: list[tuple[bytes, InboxDone]] = field(default_factory=list)
    many: list[tuple[list[bytes], InboxesDone]] = field(default_factory=list)
    records: list[tuple[tuple[str, bytes], RecordDone]] = field(default_factory=list)
    logs: list[tuple[bytes, int, LogDone]] = field(default_factory=list)
    offsets: list[OffsetDone] = field(default_factory=list)


class Journal:
    """Owner of the store. Callbacks get OK, FULL (the inbox has no room) or FAILED (the store could not)."""

    def __init__(self, store: Store, batch_limit: int, queue_limit: int, unix_time: Callable[[], float]) -> None:
        self._store = store
        self._batch_limit = batch_limit
        self._queue_limit = queue_limit
        self._unix_time = unix_time
        self._batches: deque[_Batch] = deque()  # all that are not finished, the first `_taken` of them with the store
        self._taken = 0
        self._filling: _Batch | None = None  # the last of them, while the main loop adds to it
        self._set_aside: _Batch | None = None  # taken, for a driver that is being woken
        self._lock = threading.Lock()  # guards the four above against the store's thread
        self._starving = False  # the store's driver found nothing to take
        self._same_loop = False  # nothing runs beside us: the driver may be woken before the turn ends
        self._waiting = 0
        self._sweep_budget = 0
        self.wake: Callable[[], None] = lambda: None  # set by the driver: there is something to take again
        self.healthy = True
        self.commits = 0
        self.written = 0
        self.expired = 0

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
        """Keep a record (expiry in unix seconds, 0: never), or delete it."""
        self._next().writes.records[(space, key)] = None if value is None else (value, expires)

    def event(self, channel: bytes, expires: int, body: str, done: OffsetDone) -> None:
        """Append to a channel's log; the callback gets the event's offset."""
        batch = self._next()
        batch.writes.events.append((channel, expires, body))
        batch.offsets.append(done)

    def read_inbox(self, device: bytes, done: InboxDone) -> None:
        """Read what waits for a device."""
        batch = self._next()
        batch.reads.inboxes.add(device)
        batch.inboxes.append((device, done))

    def read_inboxes(self, devices: list[bytes], done: InboxesDone) -> None:
        """Read what waits for many devices; the callback gets those for which something does."""
        batch = self._next()
        batch.reads.inboxes.update(devices)
        batch.many.append((devices, done))

    def read_record(self, space: str, key: bytes, done: RecordDone) -> None:
        """Read one record; None if there is none."""
        batch = self._next()
        batch.reads.records.add((space, key))
        batch.records.append(((space, key), done))

    def read_log(self, channel: bytes, since: int, done: LogDone) -> None:
        """Read a channel's events after an offset."""
        batch = self._next()
        batch.reads.logs[channel] = min(since, batch.reads.logs.get(channel, since))
        batch.logs.append((channel, since, done))

    def when_durable(self, done: PutDone) -> None:
        """Call back once everything asked for so far has been committed (or has failed)."""
        self._next(0).commits.append(done)

    def _next(self, weight: int = 1) -> _Batch:
        batch = self._filling
        if batch is None or batch.size >= self._batch_limit:
            batch = self._fill()
        batch.size += weight
        self._waiting += weight
        return batch

    def _fill(self) -> _Batch:
        """Go on with the last batch that was offered, if the store has not taken it, or begin another."""
        with self._lock:
            batch = self._batches[-1] if len(self._batches) > self._taken else None
            if batch is None or batch.size >= self._batch_limit:
                batch = _Batch()
                self._batches.append(batch)
            self._filling = batch
            starving = self._starving and self._same_loop
            self._starving = self._starving and not starving
        if starving:
            self.wake()
        return batch

    def offer(self) -> None:
        """End of a turn of the main loop: the store may take what has been asked for."""
        if self._filling is None and not self._sweep_budget:
            return
        with self._lock:
            self._filling = None
            starving = self._starving
            if starving:
                self._starving = False
                # Set aside now: by the time the driver is awake, another turn may be filling this batch.
                self._set_aside = self._take_next()
        if starving:
            self.wake()

    def overtaken(self, device: bytes, item: Item) -> bool:
        """Whether a write that waits replaces or removes this item: a read that has just given it is behind."""
        key = (device, item.slot)
        return any(
            key in batch.writes.puts or batch.writes.removals.get(key, -1) >= item.version for batch in self._batches
        )

    # ------------------------------------------------------------------ for the driver of the store

    def take(self) -> _Batch | None:
        """The next batch for the store; None if nothing is offered, then `wake` is called once something is."""
        with self._lock:
            batch, self._set_aside = self._set_aside, None
            if batch is None:
                batch = self._take_next()
            self._starving = batch is None
            return batch

    def _take_next(self) -> _Batch | None:
        if self._taken == len(self._batches) or self._batches[self._taken] is self._filling:
            return None
        self._taken += 1
        return self._batches[self._taken - 1]

    def take_sweep(self) -> int:
        """Entries that a sweep now shall look at; 0: none is due."""
        budget, self._sweep_budget = self._sweep_budget, 0
        return budget

    async def commit(self, batch: _Batch) -> tuple[int, Results]:
        """Have the store apply a batch. Returns: status and results for `finish`."""
        try:
            return OK, await self._store.apply(batch.writes, batch.reads, int(self._unix_time()))
        except StoreError as error:
            logs.error("store.failed", error=str(error), writes=len(batch.writes))
            return FAILED, Results()

    async def sweep(self, budget: int) -> int:
        """Have the store delete what has expired among its next entries. Returns: how many it deleted."""
        try:
            return await self._store.sweep(int(self._unix_time()), budget)
        except StoreError as error:
            logs.error("store.sweep_failed", error=str(error))
            return 0

    def finish(self, batch: _Batch, status: int, results: Results) -> None:
        """The batch that was taken first is decided: call back."""
        with self._lock:
            assert self._batches[0] is batch
            self._batches.popleft()
            self._taken -= 1
        self._waiting -= batch.size
        self.healthy = status == OK
        if status == OK:
            self.commits += 1
            self.written += len(batch.writes)
        _call_back(batch, status, results)

    async def run(self, flush: Callable[[], None]) -> None:
        """Drive the store from this trio loop, for ever. `flush` is called after each batch's callbacks."""
        wanted = trio.Event()

        def wake() -> None:
            wanted.set()

        self.wake = wake
        self._same_loop = True
        while True:
            if budget := self.take_sweep():
                self.expired += await self.sweep(budget)
            self.offer()
            batch = self.take()
            if batch is None:
                await wanted.wait()
                wanted = trio.Event()
                continue
            status, results = await self.commit(batch)
            self.finish(batch, status, results)
            flush()

    def sweep_soon(self, budget: int) -> None:
        """Between two commits, delete what has expired among the next `budget` entries of the store."""
        self._sweep_budget = budget
        self.offer()

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._batches


def _call_back(batch: _Batch, status: int, results: Results) -> None:
    refused = results.refused
    for key, done in batch.puts:
        done(FULL if key in refused else status)
    for inbox_key, inbox_done in batch.inboxes:
        inbox_done(status, results.inboxes.get(inbox_key, []))
    for devices, many_done in batch.many:
        many_done(status, {device: results.inboxes[device] for device in devices if device in results.inboxes})
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
