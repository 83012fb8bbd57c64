"""The store that forgets: dictionaries, for tests, benches, and farms whose app servers can repeat."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import attrgetter, itemgetter

import trio

from router.common.item import Item
from router.common.numbers import next_epoch
from router.common.options import Settings
from router.common.position import AfterOffset
from router.common.settings import StoreOptions
from router.store.base import LARGE_BODY, Append, ExpireLog, Gone, Reads, Renewal, Results, Store, Writes, limits
from router.store.changes import KEEP_EXPIRY, Record, RecordName, make
from router.store.findings import Finding
from router.store.memory_log import ENTRY_BYTES, MemoryLog

HEAD_GRACE = 86_400
"""Seconds for which a channel's position outlives its last event; then the channel begins anew."""

_by_slot = attrgetter("slot")
_by_worth = itemgetter(4, 2, 0)  # urgency, seq, slot


def crowd(options: StoreOptions) -> int:
    """How many items an inbox holds at least if it may be full."""
    return min(options.inbox_limit, max(1, options.inbox_bytes // LARGE_BODY))


def _size(item: Item) -> int:
    """Bytes of the body as a database keeps it."""
    return 0 if item.body is None else len(item.body.encode("utf-8", "surrogatepass"))


class MemoryStore:
    """A `Store` in this process's memory. It never fails."""

    promise = "in the router's memory: what is accepted is lost when the router ends"
    forgets = False
    lease = None

    def __init__(self, options: StoreOptions, router: int = 0, unix_time: Callable[[], float] = time.time) -> None:
        self._router = router
        self._inbox_limit = options.inbox_limit
        self._inbox_bytes = options.inbox_bytes
        self._crowd = crowd(options)
        self._options = options
        self._inboxes: dict[bytes, dict[str, Item]] = {}
        self._records: dict[RecordName, Record] = {}
        self._logs: dict[bytes, MemoryLog] = {}
        self._epoch = next_epoch(0, router, unix_time())
        self._items = 0
        self._ceiling = 0
        self._now = 0
        self.used = 0
        self._round: Iterator[bool] | None = None
        self._gone: Gone | None = None

    def check(self) -> None:
        """See `Store.check`."""

    def watch(self, gone: Gone) -> None:
        """See `Store.watch`."""
        self._gone = gone

    async def open(self) -> None:
        """Nothing to make ready."""
        await trio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Nothing to do."""
        await trio.sleep_forever()

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        """See `Store.apply`."""
        await trio.lowlevel.checkpoint()
        results = Results()
        self._ceiling = max(self._ceiling, writes.ceiling)
        for (device, slot), version in writes.removals.items():
            box = self._inboxes.get(device)
            if box is not None and (stored := box.get(slot)) is not None and stored.version <= version:
                self._drop_item(device, box, slot)
        for key, item in writes.puts.items():
            evicted = self._put(key[0], key[1], item, now)
            if evicted is None:
                results.refused.add(key)
            else:
                results.evicted += evicted
        for renewal in writes.renewals:
            self._renew(renewal, now)
        for name, value in writes.records.items():
            before = self._records.get(name)
            if value is not None and value[1] == KEEP_EXPIRY:
                value = None if before is None else (value[0], before[1])
            self._put_record(name, value)
        for name, change in writes.changes:
            results.changes.append(make(name, change, now, self._records.get, self._put_record))
        results.appended = [self._write_log(write, now) for write in writes.logs]
        self._read(reads, now, results)
        return results

    def _renew(self, renewal: Renewal, now: int) -> None:
        for key in renewal.keys:
            record = self._records.get((renewal.space, key))
            if record is not None and now < record[1] < min(renewal.before, renewal.expires):
                self._records[renewal.space, key] = (record[0], renewal.expires)

    def _put_record(self, name: RecordName, record: Record | None) -> None:
        self._drop_record(name)
        if record is not None:
            self._records[name] = record
            self.used += ENTRY_BYTES + len(record[0])

    def _drop_record(self, name: RecordName) -> None:
        record = self._records.pop(name, None)
        if record is not None:
            self.used -= ENTRY_BYTES + len(record[0])

    def _put(self, device: bytes, slot: str, item: Item, now: int) -> int | None:
        """Returns: how many items gave their place to it, or None if it is refused."""
        box = self._inboxes.get(device, {})
        stored = box.get(slot)
        victims: list[Item] | None = []
        if item.urgency > 0:
            victims = self._victims(box, item, now)
        elif (
            (stored is None or stored.expires <= now)
            and len(box) >= self._inbox_limit  # only a box that looks full is worth counting
            and sum(other.expires > now for other in box.values()) >= self._inbox_limit
        ):
            victims = None
        if victims is None:
            return None
        for victim in victims:
            del box[victim.slot]
            self.used -= ENTRY_BYTES + _size(victim)
            if self._gone is not None:
                self._gone("evicted", device, victim.slot, victim.version)
        if stored is not None:
            self.used -= ENTRY_BYTES + _size(stored)
        self.used += ENTRY_BYTES + _size(item)
        box[slot] = item
        self._inboxes[device] = box
        self._items += (stored is None) - len(victims)
        return len(victims)

    def _victims(self, box: dict[str, Item], item: Item, now: int) -> list[Item] | None:
        """What has to go so that there is room for the item; None if there cannot be."""
        size = _size(item)
        if len(box) < self._crowd and size <= LARGE_BODY:
            return []
        alive = [other for other in box.values() if other.expires > now]
        if len(alive) < self._crowd and size <= LARGE_BODY:
            return []
        others = [other for other in alive if other.slot != item.slot]
        count = len(others) + 1
        total = sum(map(_size, others)) + size
        victims = []
        for other in sorted((other for other in others if 1 <= other.urgency <= item.urgency), key=_by_worth):
            if count <= self._inbox_limit and total <= self._inbox_bytes:
                break
            victims.append(other)
            count -= 1
            total -= _size(other)
        return victims if count <= self._inbox_limit and total <= self._inbox_bytes else None

    def _drop_item(self, device: bytes, box: dict[str, Item], slot: str) -> None:
        self.used -= ENTRY_BYTES + _size(box.pop(slot))
        self._items -= 1
        if not box:
            del self._inboxes[device]

    def _write_log(self, write: Append | ExpireLog, now: int) -> AfterOffset | None:
        channel = write.channel
        log = self._logs.get(channel)
        ends = isinstance(write, ExpireLog) and 0 < write.expires <= now
        if log is not None and (ends or log.dead(now)):
            self._forget_log(channel, log, now)
            log = None
        if ends or (log is None and isinstance(write, ExpireLog) and write.expires == 0):
            return None
        if log is None:
            log = MemoryLog(self._epoch)
        if isinstance(write, ExpireLog):
            self._logs[channel] = log
            log.until = write.expires
            return None
        before = log.used
        most, most_bytes = limits(write, self._options)
        offset = log.append(write, most, most_bytes, now)
        self.used += log.used - before
        if offset is None:
            return None
        self._logs[channel] = log
        return AfterOffset(log.epoch, offset)

    def _forget_log(self, channel: bytes, log: MemoryLog, now: int) -> None:
        """A channel that begins anew counts from 1: under another epoch."""
        del self._logs[channel]
        self.used -= log.used
        self._epoch = next_epoch(self._epoch, self._router, now)

    def _read(self, reads: Reads, now: int, results: Results) -> None:
        for device, most in reads.inboxes.items():
            alive = [item for item in self._inboxes.get(device, {}).values() if item.expires > now]
            if alive:
                results.inboxes[device] = sorted(alive, key=_by_slot)[:most]
        for record in reads.records:
            value = self._records.get(record)
            if value is not None and (value[1] == 0 or value[1] > now):
                results.records[record] = value[0]
        for name in reads.logs:
            log = self._logs.get(name.channel)
            if log is None or log.dead(now):
                log = MemoryLog(self._epoch)
            results.logs[name] = log.slice(name.position, now, name.most)
        for channel in reads.log_sizes:
            log = self._logs.get(channel)
            if log is not None and not log.dead(now):
                results.log_sizes[channel] = log.size(now)

    async def sweep(self, now: int, budget: int) -> int:
        """See `Store.sweep`. A sweep ends early where a round through everything ends."""
        await trio.lowlevel.checkpoint()
        self._now = now
        if self._round is None:
            self._round = self._walk()
        looked = deleted = 0
        for gone in islice(self._round, budget):
            looked += 1
            deleted += gone
        if looked < budget:
            self._round = None
        return deleted

    def _walk(self) -> Iterator[bool]:
        """One round. Each step looks at one entry and says whether it was deleted.

        It lives across sweeps, so it goes over copies of the keys; a key may be gone when its turn comes."""
        for device in list(self._inboxes):
            for slot in list(self._inboxes.get(device, ())):
                box = self._inboxes.get(device)
                item = box.get(slot) if box is not None else None
                if box is not None and item is not None and item.expires <= self._now:
                    self._drop_item(device, box, slot)
                    if self._gone is not None:
                        self._gone("expired", device, slot, item.version)
                    yield True
                else:
                    yield False
        for record in list(self._records):
            value = self._records.get(record)
            if value is not None and 0 < value[1] <= self._now:
                self._drop_record(record)
                yield True
            else:
                yield False
        for channel in list(self._logs):
            log = self._logs.get(channel)
            if log is not None:
                yield from self._walk_log(channel, log)

    def _walk_log(self, channel: bytes, log: MemoryLog) -> Iterator[bool]:
        """Events first, each a step; then the position itself, which is no entry and counts for none."""
        for offset in list(log.events):
            if self._logs.get(channel) is not log:
                return
            event = log.events.get(offset)
            if event is not None and (event.expires <= self._now or log.dead(self._now)):
                before = log.used
                log.drop(offset)
                self.used += log.used - before
                yield True
            else:
                yield False
        if self._logs.get(channel) is not log:
            return
        if log.dead(self._now) or (not log.until and log.expires <= self._now - HEAD_GRACE):
            self._forget_log(channel, log, self._now)

    async def highest(self) -> int:
        """See `Store.highest`."""
        await trio.lowlevel.checkpoint()
        return self._ceiling or max((item.seq for box in self._inboxes.values() for item in box.values()), default=0)

    async def close(self) -> None:
        """Nothing to flush."""
        await trio.lowlevel.checkpoint()

    def sizes(self) -> Iterable[tuple[str, int]]:
        """Entries of each shape, expired ones that no sweep has found yet included."""
        return [
            ("inbox", self._items),
            ("log", sum(len(log.events) for log in self._logs.values())),
            ("table", len(self._records)),
        ]


def new_store(settings: Settings, router: int) -> Store:
    """See `router.store.registry.StoreModule`."""
    return MemoryStore(settings.get(StoreOptions), router)


def keeps(settings: Settings) -> tuple[str, str] | None:
    """See `router.store.registry.StoreModule`. It has nothing from before."""
    return None


def look_over(settings: Settings) -> list[Finding]:
    """See `router.store.registry.StoreModule`. It is no server."""
    return []
