"""The committer: many small writes and reads become one group commit after another.

Whoever wants something kept asks for it without waiting and gives a callback; the committer merges what concerns the
same slot, hands the whole batch to the store, and calls back when it is durable. While one commit is under way the next
batch fills. Order is kept: a read sees every write asked for before it.

A message that is acknowledged before its batch is committed never reaches the disk: nobody needs it any more.

What can go wrong
-----------------
- The store fails: everything in the batch is answered with FAILED. Its removals are the exception, for those who
  asked for them do not ask again: they are kept, nobody is given what they name, and they are made when the store is
  well again.
- Something in a batch can never be written: the batch is taken apart, so that only this is answered with FAILED.
- A callback raises: that is logged, and the others are called.

App servers are refused by how much of theirs waits, and only by that. What waits for workers is bounded by the
workers: they stop reading from their devices when too much of what they sent is not confirmed. And a device that
acknowledges without end has a share of each commit: what is beyond goes with the next ones, which others pass by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container, Iterable
from itertools import islice
from typing import Final

import trio

from router.common import logs
from router.common.item import Item
from router.common.messages import EVERYTHING, FAILED, OK
from router.common.numbers import SECOND
from router.common.position import Position
from router.common.settings import StoreOptions
from router.core.bad_batch import apply_apart
from router.core.batch import (
    AppendDone,
    Batch,
    ChangeDone,
    InboxDone,
    InboxesDone,
    LogDone,
    Outcome,
    PutDone,
    RecordDone,
    SizesDone,
    SlotName,
    call_back,
    note_failed,
)
from router.core.record_cache import RecordCache
from router.store.base import ANY_VERSION, Append, BadBatchError, ExpireLog, Renewal, Results, Store, check_event
from router.store.changes import KEEP_EXPIRY, Change, Put, RecordName

_PROBE: Final = "probe"
"""Space of a record that is written to see whether the store can write."""
_AHEAD: Final = SECOND
"""So far above the last sequence their ceiling is put, so that it is written once in a second."""
_SHARE: Final = 8
"""Of a commit's writes one device may have this part for its acknowledgements."""
_NO_RECORD: Final = (b"", -2)
"""In the place of a record of a batch: it has none of this name."""
_FIRST_READS: Final = 32
_READ_BYTES: Final = 33_554_432
"""About so many bytes of inboxes are read in one batch: what is read waits in memory until it has been sent on."""
_SLOW_COMMIT_S: Final = 10.0
"""A commit that takes so long is as bad as one that fails: no more is promised meanwhile."""
_STEP_S: Final = 60.0
"""The clock has been set if it differs by so much from the one that only counts."""
_STEP_PAUSE_S: Final = 3600.0
"""So long after it was set forward nothing is deleted for its age: perhaps it is set back."""


class GroupCommitter:
    """Owner of the store. Callbacks get OK, FULL (the inbox has no room) or FAILED (the store could not).

    unix_time: the clock by which entries expire. monotonic: the one that measures. Both in seconds.
    """

    def __init__(
        self,
        store: Store,
        options: StoreOptions,
        unix_time: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._cache = RecordCache(options.record_cache, monotonic)
        self._batch_limit = options.batch_limit
        self._queue_limit = options.queue_limit
        self._queue_bytes = options.queue_bytes
        self._max_bytes = options.max_bytes
        self._unix_time = unix_time
        self._monotonic = monotonic
        self._share = max(1, options.batch_limit // _SHARE)
        self._batches: deque[Batch] = deque()
        self._filling: Batch | None = None  # the first that is not full, when it was looked for last
        self._made = 0
        self._late: dict[bytes, Batch] = {}
        """Devices that have had their share of some, and the last that holds something of theirs."""
        self._waiting = 0
        self._pushes = 0
        self._pushes_done = 0
        self._chars = 0
        self._unremoved: dict[SlotName, int] = {}  # removals that failed
        self._ceiling = 0  # of the sequences that may be stored
        # As how many writes the read of an inbox counts: as the last ones were large. At first they are thought to be.
        self._inbox_weight = max(1, options.batch_limit // _FIRST_READS)
        self._idle: trio.Event | None = None
        self._busy_since: float | None = None
        self._sweep_budget = 0
        self._offset = unix_time() - monotonic()
        self._sweep_from = monotonic()
        self.newest = 0
        """No item that was stored before the start has a higher place in the order of arrival."""
        self.healthy = True
        self.why = ""
        """Why the last commit or sweep failed."""
        self.commits = 0
        self.written = 0
        self.expired = 0
        self.failures = 0
        self.evicted = 0
        self.unwritable = 0

    async def open(self) -> None:
        """Open the store. Raises: StoreError."""
        await self._store.open()
        self.newest = await self._store.highest()

    # ------------------------------------------------------------------ how it stands

    @property
    def full(self) -> bool:
        """Whether new pushes must be refused: as much waits as may wait, or as much is stored as may be."""
        return self._pushes >= self._queue_limit or self._chars >= self._queue_bytes or self.over

    @property
    def crowded(self) -> bool:
        """Whether as much waits as may wait: then even what needs no room in the store is refused."""
        return self._pushes >= self._queue_limit or self._chars >= self._queue_bytes

    @property
    def over(self) -> bool:
        """Whether as much is stored as may be. What removes is welcome."""
        return 0 < self._max_bytes <= self._store.used

    @property
    def refusing(self) -> str:
        """Why pushes are refused now; empty if they are not."""
        if not self.healthy:
            return self.why
        if self.over:
            return f"the store holds {self._store.used} bytes, store.max_bytes allows {self._max_bytes}"
        if self.full:
            return "too much waits for the store (store.queue_limit, store.queue_bytes)"
        if self._busy_since is not None and self._monotonic() - self._busy_since > _SLOW_COMMIT_S:
            return f"the store has been at one commit for more than {_SLOW_COMMIT_S:g} s"
        return ""

    @property
    def waiting(self) -> int:
        """Writes and reads that wait for a commit."""
        return self._waiting

    @property
    def pushes_waiting(self) -> int:
        """Of those, what app servers sent."""
        return self._pushes

    @property
    def pushes_taken(self) -> int:
        """What app servers have sent for the store since the start."""
        return self._pushes_done + self._pushes

    @property
    def unremoved(self) -> int:
        """Removals that have failed and are made when the store is well again."""
        return len(self._unremoved)

    @property
    def used(self) -> int:
        """Bytes that what is stored takes."""
        return self._store.used

    # ------------------------------------------------------------------ writes

    def put(self, device: bytes, item: Item, done: PutDone) -> None:
        """Keep an item in its slot of the device's inbox, in place of what was there."""
        batch = self._next_of(device) if self._late else self._next()
        key = (device, item.slot)
        writes = batch.writes
        if key in writes.removals or self._unremoved:
            self._displace(batch, key)
        writes.puts[key] = item
        batch.puts.append((key, done))
        batch.pushes += 1  # as in _pushed, but there are very many of these
        self._pushes += 1
        if item.body is not None:
            batch.chars += len(item.body)
            self._chars += len(item.body)
        if item.seq > self._ceiling:
            self._raise_ceiling(item.seq)

    def _displace(self, batch: Batch, key: SlotName) -> None:
        """A put replaces what was to be removed."""
        for removals in (batch.writes.removals, self._unremoved):
            version = removals.pop(key, None)
            if version is not None:
                batch.displaced[key] = max(version, batch.displaced.get(key, version))

    def _pushed(self, batch: Batch, body: str | bytes | None) -> None:
        batch.pushes += 1
        self._pushes += 1
        if body is not None:
            batch.chars += len(body)
            self._chars += len(body)

    def _raise_ceiling(self, sequence: int) -> None:
        self._ceiling = self._batches[0].writes.ceiling = min(sequence + _AHEAD, 2**63 - 1)

    def remove(self, device: bytes, slot: str, version: int = ANY_VERSION, push: bool = False) -> None:
        """Forget the item of a slot if its version is at most `version`. push: an app server wants it."""
        batch = self._next_of(device, 0)
        self._remove(batch, device, slot, version)
        if push:
            self._pushed(batch, None)

    def acknowledged(self, device: bytes, updates: Iterable[tuple[str, int]]) -> bool:
        """Forget the items of these slots up to these versions. Returns: whether that takes more commits than one, so
        that `when_durable` has to be asked for the device."""
        batch = self._next_of(device, 0) if self._late else self._next(0)
        room = self._share - batch.acks.get(device, 0)
        for slot, version in updates:
            if room <= 0:
                batch.acks[device] = self._share
                batch = self._late[device] = self._after(batch)
                room = self._share - batch.acks.get(device, 0)
            self._remove(batch, device, slot, version)
            room -= 1
        batch.acks[device] = self._share - room
        return device in self._late

    def _remove(self, batch: Batch, device: bytes, slot: str, version: int) -> None:
        key = (device, slot)
        writes = batch.writes
        coming = writes.puts.get(key)
        if coming is not None:
            if coming.version > version:
                return
            del writes.puts[key]
            version = ANY_VERSION  # the put would have replaced what is stored, whatever its version
        known = writes.removals.get(key)
        if known is None:
            batch.size += 1
            self._waiting += 1
            writes.removals[key] = version
        elif known < version:
            writes.removals[key] = version

    def record(self, space: str, key: bytes, value: bytes | None, expires: int, push: bool = False) -> None:
        """Keep a record (expiry in unix seconds, 0: never, KEEP_EXPIRY: as it is), or delete it. push: an app server
        wants it."""
        batch = self._next()
        records = batch.writes.records
        name = (space, key)
        if push:
            self._pushed(batch, value)
        if name in batch.changing:
            self._change(batch, name, Put(value, expires), None)
            return
        if expires == KEEP_EXPIRY and value is not None and name in records:
            coming = records[name]
            if coming is None:
                return  # it is being deleted, so there is no expiry to keep
            expires = coming[1]
        records[name] = None if value is None else (value, expires)
        self._cache.written(name, value)

    def change(self, space: str, key: bytes, change: Change, done: ChangeDone, push: bool = False) -> None:
        """Change a record by what it holds, after all that was asked for before; the callback gets what became of it.
        push: an app server wants it."""
        batch = self._next()
        name = (space, key)
        if push:
            self._pushed(batch, None)
        before = batch.writes.records.pop(name, _NO_RECORD)
        if before is not _NO_RECORD:
            self._change(batch, name, Put(*(before or (None, 0))), None)
        self._change(batch, name, change, done)

    def _change(self, batch: Batch, name: RecordName, change: Change, done: ChangeDone | None) -> None:
        batch.writes.changes.append((name, change))
        batch.changes.append(done)
        batch.changing.add(name)
        self._cache.drop(name)

    def renew(self, space: str, keys: list[bytes], expires: int, before: int) -> None:
        """Raise the expiry of those of these records that are there and would expire before `before`."""
        self._next(len(keys)).writes.renewals.append(Renewal(space, keys, expires, before))

    def append(self, event: Append, done: AppendDone | None) -> None:
        """Append to a channel's log; the callback gets the position after the event, None where it was refused: the log
        holds one of its offset.

        Raises: ValueError for an event that no log can hold.
        """
        check_event(event)
        batch = self._next()
        batch.writes.logs.append(event)
        batch.appends.append(done)
        self._pushed(batch, event.body)
        if event.sequence > self._ceiling:
            self._raise_ceiling(event.sequence)

    def expire_log(self, channel: bytes, expires: int) -> None:
        """End a channel's log at this time (unix seconds; 0: only as its events do), or at once if that has passed."""
        batch = self._next()
        batch.writes.logs.append(ExpireLog(channel, expires))
        batch.appends.append(None)

    # ------------------------------------------------------------------ reads

    def read_inbox(self, device: bytes, done: InboxDone, most: int = EVERYTHING) -> None:
        """Read what waits for a device: everything in order of arrival, or the first `most` items by slot."""
        batch = self._next_of(device, self._inbox_weight)
        inboxes = batch.reads.inboxes
        # What is still to be removed is left out afterwards, so there have to be others in its place.
        inboxes[device] = EVERYTHING if self._unremoved else max(most, inboxes.get(device, 0))
        batch.inboxes.append((device, most, done))

    def read_inboxes(self, devices: list[bytes], done: InboxesDone) -> None:
        """Read what waits for many devices; the callback gets those for which something does."""
        weight = len(devices) * self._inbox_weight
        batch = self._next(weight) if not self._late else self._weighed(self._batches[-1], weight)
        batch.reads.inboxes.update(dict.fromkeys(devices, EVERYTHING))
        batch.many.append((devices, done))

    def read_record(self, space: str, key: bytes, done: RecordDone) -> None:
        """Read one record; None if there is none."""
        self._read_record(self._next(), space, key, done)

    def _read_record(self, batch: Batch, space: str, key: bytes, done: RecordDone) -> None:
        batch.reads.records.add((space, key))
        batch.records.append(((space, key), done))

    def look_up(self, space: str, key: bytes, done: RecordDone) -> None:
        """Read one record for a push, which may be up to a minute old: what is remembered is given at once."""
        name = (space, key)
        known = self._cache.get(name)
        if known is not None:
            done(OK, known)
            return

        def read(status: int, value: bytes | None) -> None:
            # A write that came after the read would find it too late to be seen.
            later = any(name in batch.writes.records or name in batch.changing for batch in self._batches)
            if value is not None and not later:
                self._cache.put(name, value)
            done(status, value)

        batch = self._next()
        self._pushed(batch, None)
        self._read_record(batch, space, key, read)

    def read_log(self, channel: bytes, position: Position, done: LogDone) -> None:
        """Read a channel's log from a position."""
        batch = self._next()
        name = (channel, position)
        batch.reads.logs.add(name)
        batch.logs.append((name, done))

    def read_log_sizes(self, channels: list[bytes], done: SizesDone) -> None:
        """Read how much the logs of these channels hold; the callback gets those that there are."""
        batch = self._next(len(channels))
        batch.reads.log_sizes.update(channels)
        batch.sizes.append((channels, done))

    def when_durable(self, done: PutDone, device: bytes = b"") -> None:
        """Call back once everything asked for so far has been committed (or has failed), of this device and of all
        that have not had their share."""
        self._next_of(device, 0).commits.append(done)

    def _next(self, weight: int = 1) -> Batch:
        """The batch for what comes now: the first that is not full, so that nothing passes by what came before."""
        batch = self._filling
        if batch is None or batch.size >= self._batch_limit:
            batch = self._filling = self._after(batch)
        batch.size += weight
        self._waiting += weight
        return batch

    def _next_of(self, device: bytes, weight: int = 1) -> Batch:
        """The same, but not before what the device has sent already."""
        batch = self._next(0)
        late = self._late.get(device)
        return self._weighed(late if late is not None and late.number > batch.number else batch, weight)

    def _after(self, batch: Batch | None) -> Batch:
        """The next one that is not full; the first one for None."""
        place = 0 if batch is None else batch.number - self._batches[0].number + 1
        for later in islice(self._batches, place, None):
            if later.size < self._batch_limit:
                return later
        self._made += 1
        batch = Batch(self._made)
        self._batches.append(batch)
        if self._idle is not None:
            self._idle.set()
        return batch

    def _weighed(self, batch: Batch, weight: int) -> Batch:
        batch.size += weight
        self._waiting += weight
        return batch

    def overtaken(self, device: bytes, item: Item) -> bool:
        """Whether a write that waits replaces or removes this item: a read that has just given it is behind."""
        key = (device, item.slot)
        return any(
            key in batch.writes.puts or batch.writes.removals.get(key, -1) >= item.version for batch in self._batches
        )

    # ------------------------------------------------------------------ the store

    async def run(self, flush: Callable[[], None]) -> None:
        """Commit batches for ever. `flush` is called after each batch's callbacks, to send what they produced."""
        while True:
            try:
                await self._turn(flush)
            except Exception as error:  # whatever it was, the others want their commits
                logs.limited("committer.failed", at="error", per=type(error).__name__, exc=error)
                await trio.lowlevel.checkpoint()

    async def _turn(self, flush: Callable[[], None]) -> None:
        if self._sweep_budget:
            await self._sweep()
        if not self._batches:
            self._idle = trio.Event()
            await self._idle.wait()
            self._idle = None
            return
        batch = self._batches.popleft()
        if batch is self._filling:
            self._filling = None
        if self._late:
            self._late = {device: last for device, last in self._late.items() if last is not batch}
        self._busy_since = self._monotonic()
        try:
            outcome = await self._apply(batch)
        finally:
            self._busy_since = None
            self._waiting -= batch.size
            self._pushes -= batch.pushes
            self._pushes_done += batch.pushes
            self._chars -= batch.chars
        if batch.reads.inboxes:
            self._weigh_inboxes(len(batch.reads.inboxes), outcome.results.inboxes)
        call_back(batch, outcome, self._unremoved)
        if self._unremoved and outcome.status == OK and len(batch.writes) and not outcome.results.failed:
            self._remove_again()
        flush()

    def _weigh_inboxes(self, asked: int, found: dict[bytes, list[Item]]) -> None:
        """Large ones count at once for those that come; small ones make them light again by and by."""
        size = sum(len(item.slot) + len(item.body or "") for items in found.values() for item in items)
        weight = min(self._batch_limit, size // asked * self._batch_limit // _READ_BYTES)
        self._inbox_weight = max(1, weight, self._inbox_weight // 2)

    async def _apply(self, batch: Batch) -> Outcome:
        now = int(self._unix_time())
        try:
            try:
                outcome = Outcome(OK, await self._store.apply(batch.writes, batch.reads, now))
            except BadBatchError:
                outcome = await self._apply_apart(batch, now)
        except Exception as error:
            self._failed("store.failed", error)
            for name in batch.writes.records:
                self._cache.drop(name)
            self._keep_removals(batch)
            if batch.writes.ceiling and self._batches:
                self._batches[0].writes.ceiling = self._ceiling
            elif batch.writes.ceiling:
                self._ceiling = 0
            return Outcome(FAILED, Results())
        if outcome.results.failed:
            self._failed_keys(batch, outcome)
        if not self.healthy and len(batch.writes):  # reading alone works on a full disk too
            self.healthy = True
            logs.limited("store.recovered", failures=self.failures)
        self.evicted += outcome.results.evicted
        self.commits += 1
        self.written += len(batch.writes)
        return outcome

    async def _apply_apart(self, batch: Batch, now: int) -> Outcome:
        outcome, unwritable = await apply_apart(self._store, batch, now)
        for error, part in unwritable:
            self.unwritable += 1
            logs.limited("store.unwritable", at="error", per=str(error), error=str(error))
            for record in part.records:
                self._cache.drop(record)
        return outcome

    def _failed_keys(self, batch: Batch, outcome: Outcome) -> None:
        """The store could do a part of the batch only."""
        failed = outcome.results.failed
        note_failed(batch, outcome)
        self.failures += 1
        logs.limited("store.failed", at="error", keys=len(failed))
        for name in batch.writes.records:
            if name[1] in failed:
                self._cache.drop(name)
        self._keep_removals(batch, failed)

    def _keep_removals(self, batch: Batch, of: Container[bytes] | None = None) -> None:
        """Those of a batch that failed, or of these devices: but where a put has come since, which replaces what they
        name."""
        for key, version in (batch.displaced | batch.writes.removals).items():
            if of is not None and key[0] not in of:
                continue
            later = next((waiting for waiting in self._batches if key in waiting.writes.puts), None)
            if later is not None:
                later.displaced[key] = max(version, later.displaced.get(key, version))
            elif key in self._unremoved or len(self._unremoved) < self._queue_limit:
                self._unremoved[key] = max(version, self._unremoved.get(key, version))
            else:
                logs.limited("store.removals_lost", at="error", limit=self._queue_limit)

    def _remove_again(self) -> None:
        """In the next batch, for what is read from now on must not give what they name. No put waits in their slots."""
        batch = self._batches[0] if self._batches else self._next(0)
        removals = batch.writes.removals
        for key in list(islice(self._unremoved, self._batch_limit)):
            removals[key] = max(self._unremoved.pop(key), removals.get(key, -1))
            batch.size += 1
            self._waiting += 1

    def sweep_soon(self, budget: int) -> None:
        """Between two commits, delete what has expired among the next `budget` entries of the store. If it has failed,
        it is also tried whether it can write again, for perhaps nobody asks it to as long as it cannot."""
        if not self.healthy:
            self.record(_PROBE, b"", b"", int(self._unix_time()) + 1)
        now = self._monotonic()
        offset = self._unix_time() - now
        if offset - self._offset > _STEP_S:
            self._sweep_from = now + _STEP_PAUSE_S
            logs.warning("clock.stepped", seconds=round(offset - self._offset), nothing_is_deleted_for_s=_STEP_PAUSE_S)
        elif offset - self._offset < -_STEP_S:
            self._sweep_from = now
        self._offset = offset
        if now < self._sweep_from:
            return
        self._sweep_budget = budget
        if self._idle is not None:
            self._idle.set()

    async def _sweep(self) -> None:
        budget, self._sweep_budget = self._sweep_budget, 0
        try:
            self.expired += await self._store.sweep(int(self._unix_time()), budget)
        except Exception as error:
            self._failed("store.sweep_failed", error)

    def _failed(self, event: str, error: Exception) -> None:
        self.healthy = False
        self.why = str(error) or type(error).__name__
        self.failures += 1
        logs.limited(event, at="error", per=self.why, error=self.why)

    @property
    def settled(self) -> bool:
        """Whether nothing waits and nothing is under way."""
        return not self._batches and self._busy_since is None
