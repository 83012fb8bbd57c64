"""What waits for a commit: writes and reads with their callbacks, in batches. Pure.

A caller asks for a write or a read without waiting and gives a callback; requests about the same slot are merged.
Order is kept: a read sees every write asked for before it. A message that is acknowledged before its batch is committed
never reaches the disk: it is not needed any more.

App servers are refused by how much of theirs waits, and only by that. What waits for workers is bounded by the
workers: they stop reading from their devices when too much of what they sent is not confirmed. And a device that
acknowledges without end has a share of each commit: the rest goes with the next ones, which others are not held up by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final

from router.common.item import Item
from router.common.messages import EVERYTHING, OK
from router.common.numbers import SECOND
from router.common.position import Position
from router.common.settings import StoreOptions
from router.core.batch import (
    AppendDone,
    Batch,
    ChangeDone,
    InboxDone,
    InboxesDone,
    LogDone,
    PutDone,
    RecordDone,
    SizesDone,
    SlotName,
)
from router.core.record_cache import RecordCache
from router.store.base import ANY_VERSION, Append, ExpireLog, LogName, Renewal, Store, check_event
from router.store.changes import KEEP_EXPIRY, Change, Put, RecordName

AHEAD_S: Final = 1
"""So far above the last sequence their ceiling is put, so that it is written once in a second."""
_SHARE: Final = 8
"""Of a commit's writes one device may have this part for its acknowledgements."""
_NO_RECORD: Final = (b"", -2)
"""In the place of a record of a batch: it has none of this name."""
_FIRST_READS: Final = 32


class CommitQueue:
    """The batches that wait. Callbacks get OK, FULL (the inbox has no room) or FAILED (the store could not)."""

    def __init__(self, store: Store, options: StoreOptions, monotonic: Callable[[], float]) -> None:
        self._store = store
        self._cache = RecordCache(options.record_cache, monotonic)
        self._batch_limit = options.batch_limit
        self._queue_limit = options.queue_limit
        self._queue_bytes = options.queue_bytes
        self._max_bytes = options.max_bytes
        self._share = max(1, options.batch_limit // _SHARE)
        self._batches: deque[Batch] = deque()
        self._filling: Batch | None = None  # the first that is not full, when it was looked for last
        self._made = 0
        self._late: dict[bytes, Batch] = {}
        """Devices that have had their share of some batches, and the last batch with something of theirs."""
        self._waiting = 0
        self._pushes = 0
        self._pushes_done = 0
        self._chars = 0
        self._unremoved: dict[SlotName, int] = {}  # removals that failed
        self._ceiling = 0  # of the sequences that may be stored
        # The read of an inbox or of a log counts as so many writes: as large as the last ones were, and large at first.
        self._inbox_weight = self._log_weight = max(1, options.batch_limit // _FIRST_READS)

    def _batch_added(self) -> None:
        """There is a batch to commit."""

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
        self._ceiling = self._batches[0].writes.ceiling = min(sequence + AHEAD_S * SECOND, 2**63 - 1)

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
        """Read one record for a push, which may be up to ten minutes old: what is remembered is given at once."""
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

    def read_log(self, channel: bytes, position: Position, done: LogDone, most: int = 0) -> None:
        """Read a channel's log from a position: so many bytes of it (`router.store.base.LogName`), 0: all."""
        batch = self._next(self._log_weight)
        name = LogName(channel, position, most)
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
        self._batch_added()
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
