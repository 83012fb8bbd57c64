"""A batch as the arguments of the script `apply`, and its reply as results. Pure.

Operations are put in order of their partition; within one they keep the order that `Store.apply` has. What they are is
said in `redis_lua/apply.lua`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final
from zlib import crc32

from router.common.id_set import HEAD_BYTES, ID_BYTES
from router.common.messages import EVERYTHING
from router.common.partitions import PARTITIONS, partition
from router.common.position import (
    NO_TIME,
    OWN_OFFSETS,
    AfterId,
    AfterOffset,
    AfterTime,
    Last,
    Position,
)
from router.common.settings import StoreOptions
from router.store.base import ANY_VERSION, Append, Gone, LogName, LogSize, Reads, Results, Writes, limits
from router.store.changes import (
    KEEP_EXPIRY,
    STAMP_BYTES,
    TAKER_BYTES,
    Change,
    Changed,
    Put,
    PutIfAbsent,
    PutIfNewer,
    RecordName,
    SetAdd,
    SetRemove,
    Take,
    names,
)
from router.store.log_rows import LogRow, bound
from router.store.redis_rows import (
    event_value,
    events_of,
    item_head,
    items_of,
    live_value,
    number,
    record_value,
    time_to_live,
)

Argument = bytes | int
_OWN: Final = -1
"""As an epoch: see `OWN_OFFSETS`."""
_MASK: Final = PARTITIONS - 1
# A put and a removal as they are sent (RESP's bulk strings): hiredis.pack_command takes twice as long for them.
_PUT: Final = b"$1\r\np\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$%d\r\n%b%b\r\n%b"
_REMOVE: Final = b"$1\r\nd\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n$8\r\n%b\r\n"
_REMOVE_ANY: Final = b"$1\r\nD\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n"


def bulk(*arguments: Argument) -> bytes:
    """Arguments of a command as they are sent."""
    parts = [part if isinstance(part, bytes) else b"%d" % part for part in arguments]
    return b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


def opening(base: bytes, token: bytes) -> bytes:
    """What begins the operations of a partition whose keys begin with `base`; another token than its owner's: none of
    them is done."""
    return bulk(b"@", base, token)


_NOTHING: Final = bulk(b"")
_COUNTS: Final = tuple(map(bulk, range(32)))


class _Group:
    """What is for one partition."""

    __slots__ = ("count", "parts", "puts", "questions")

    def __init__(self) -> None:
        self.parts: list[bytes] = []
        """Arguments as they are sent."""
        self.count = 0
        """How many they are."""
        self.puts: list[tuple[bytes, str]] = []
        self.questions: list[tuple[Callable[..., None], Any]] = []
        """What takes the answer, and what was asked, in order."""

    def add(self, *arguments: Argument) -> None:
        """An operation."""
        self.parts.append(bulk(*arguments))
        self.count += len(arguments)


class RedisBatch:
    """One `apply`. now: unix seconds. gone: told of what is evicted.

    Raises: ValueError, struct.error, UnicodeEncodeError and the like for what can never be written.
    """

    def __init__(self, writes: Writes, reads: Reads, now: int, options: StoreOptions, gone: Gone | None = None) -> None:
        self._writes = writes
        self._gone = gone
        self._reads = reads
        self._now = now
        self._options = options
        self._groups: dict[int, _Group] = {}
        self.results = Results()
        self.full = False
        """Whether the server had no memory left."""
        self.writing = len(writes) > 0
        self.results.changes = [_NO_CHANGE] * len(writes.changes)
        self.results.appended = [None] * len(writes.logs)
        self._removals()
        self._puts()
        self._write()
        self._read()

    @property
    def partitions(self) -> Sequence[int]:
        """Those that it touches, in the order of their operations."""
        return list(self._groups)

    def touch(self, place: int) -> None:
        """Have this partition's fence written, though nothing else may be."""
        self._groups.setdefault(place, _Group())

    def command(
        self,
        partitions: Iterable[int],
        head: Sequence[Argument],
        openings: Sequence[bytes],
        ceilings: Mapping[int, int],
        ceiling: int,
    ) -> bytes:
        """The script's call for these partitions, as it is sent. head: what comes first in it. openings: of each
        partition, as `opening` makes them. ceilings: as they are stored; those below the ceiling are raised."""
        count = len(head)
        parts = [b"", bulk(*head)]
        raised = bulk(ceiling)
        for place in partitions:
            group = self._groups[place]
            rise = self.writing and ceilings.get(place, 0) < ceiling
            number = group.count
            parts += (openings[place], raised if rise else _NOTHING, _COUNTS[number] if number < 32 else bulk(number))
            parts += group.parts
            count += 5 + number
        parts[0] = b"*%d\r\n" % count
        return b"".join(parts)

    def answered(self, partitions: Sequence[int], reply: list[Any]) -> tuple[list[int], bool]:
        """Take the answer for these partitions into the results.

        Returns: those of them that have another owner, and whether the server has no memory left.
        Raises: what a reply of another shape raises.
        """
        refused, evicted, others, full, answers = reply
        results = self.results
        results.evicted += len(evicted) // 3
        if self._gone is not None:
            for device, slot, version in zip(*[iter(evicted)] * 3, strict=True):
                self._gone("evicted", device, slot.decode(), int.from_bytes(version))
        lost = [partitions[at] for at in others]
        groups = [self._groups[place] for place in partitions if place not in lost]
        if refused:
            puts = [put for group in groups for put in group.puts]
            results.refused.update(puts[at - 1] for at in refused)
        if answers:
            answer = iter(answers)
            for group in groups:
                for take, what in group.questions:
                    take(what, next(answer))
        if full:
            self.full = True
            here = set(partitions)
            results.failed.update(key for key in self._enlarging() if partition(key) in here)
        self.failed(lost)
        return lost, bool(full)

    def failed(self, partitions: Collection[int]) -> None:
        """Nothing is promised of these."""
        if partitions:
            places = set(partitions)
            self.results.failed.update(key for key in self._keys() if partition(key) in places)

    def _keys(self) -> Iterator[bytes]:
        writes, reads = self._writes, self._reads
        yield from (device for device, _ in writes.removals)
        yield from self._enlarging()
        yield from (key for _, key in writes.records)
        yield from reads.inboxes
        yield from (key for _, key in reads.records)
        yield from (name.channel for name in reads.logs)
        yield from reads.log_sizes

    def _enlarging(self) -> Iterator[bytes]:
        """Keys of what a server without memory does not do."""
        writes = self._writes
        yield from (device for device, _ in writes.puts)
        yield from (name[1] for name, value in writes.records.items() if value is not None)
        yield from (name[1] for name, _ in writes.changes)
        yield from (write.channel for write in writes.logs)

    def _group(self, key: bytes) -> _Group:
        place = partition(key)
        group = self._groups.get(place)
        if group is None:
            group = self._groups[place] = _Group()
        return group

    # ------------------------------------------------------------------ writes

    def _removals(self) -> None:
        groups = self._groups
        for (device, name), version in self._writes.removals.items():
            place = crc32(device) & _MASK  # as in _group, but there are very many of these
            group = groups.get(place)
            if group is None:
                group = groups[place] = _Group()
            slot = name.encode()
            if version == ANY_VERSION:
                group.parts.append(_REMOVE_ANY % (len(device), device, len(slot), slot))
                group.count += 3
            elif version >= 0:
                group.parts.append(_REMOVE % (len(device), device, len(slot), slot, number(version)))
                group.count += 4

    def _puts(self) -> None:
        groups, now = self._groups, self._now
        lives: dict[int, bytes] = {}
        for put, item in self._writes.puts.items():
            device, name = put
            place = crc32(device) & _MASK
            group = groups.get(place)
            if group is None:
                group = groups[place] = _Group()
            life = lives.get(item.expires)
            if life is None:
                life = lives[item.expires] = bulk(time_to_live(item.expires, now))
            slot, head = name.encode(), item_head(item)
            body = b"" if item.body is None else item.body.encode()
            group.parts.append(_PUT % (len(device), device, len(slot), slot, len(head) + len(body), head, body, life))
            group.count += 5
            group.puts.append(put)

    def _write(self) -> None:
        writes, now = self._writes, self._now
        for renewal in writes.renewals:
            expires, live = number(renewal.expires), time_to_live(renewal.expires, now)
            before = min(renewal.before, renewal.expires)
            for key in renewal.keys:
                name = record_name((renewal.space, key))
                self._group(key).add(b"n", name, expires, before, live)
        for record, value in writes.records.items():
            group = self._group(record[1])
            name = record_name(record)
            if value is None:
                group.add(b"x", name)
            elif value[1] == KEEP_EXPIRY:
                group.add(b"k", name, value[0])
            else:
                group.add(b"s", name, record_value(value), time_to_live(value[1], now) if value[1] else 0)
        for place, (record, change) in enumerate(writes.changes):
            group = self._group(record[1])
            group.add(b"c", *self._change(record, change))
            group.questions.append((self._changed, place))
        for place, write in enumerate(writes.logs):
            group = self._group(write.channel)
            if isinstance(write, Append):
                most, most_bytes = limits(write, self._options)
                exact = b"1" if write.exact else b""
                group.add(b"a", write.channel, event_value(write), exact, write.offset, most, most_bytes)
            else:
                group.add(b"e", write.channel, max(write.expires, 0))
            group.questions.append((self._appended, place))

    def _change(self, record: RecordName, change: Change) -> tuple[Argument, ...]:
        name = record_name(record)
        if isinstance(change, Take):
            _check_length(change.taker, TAKER_BYTES)
            return b"take", name, change.taker, record_name(names(record, change)[1]), b"", b""
        if isinstance(change, SetAdd):
            _check_length(change.member, ID_BYTES)
            _check_length(change.head, HEAD_BYTES)
            most = change.head + b"%d" % change.most
            return b"add", name, change.member, most, *self._life(change.expires)
        if isinstance(change, SetRemove):
            _check_length(change.member, ID_BYTES)
            return b"remove", name, change.member, b"", b"", b""
        value, expires = change
        if isinstance(change, PutIfNewer) and (value is None or len(value) < STAMP_BYTES):
            raise ValueError(f"a value that may be newer begins with {STAMP_BYTES} bytes that tell")
        there = b"" if value is None else b"1"
        return _KINDS[type(change)], name, there, value or b"", *self._life(expires)

    def _life(self, expires: int) -> tuple[Argument, Argument]:
        if expires == KEEP_EXPIRY:
            return b"", b""
        return number(expires), time_to_live(expires, self._now) if expires else 0

    # ------------------------------------------------------------------ reads

    def _read(self) -> None:
        reads = self._reads
        for device, most in reads.inboxes.items():
            group = self._group(device)
            group.add(b"i", device, 0 if most >= EVERYTHING else most)
            group.questions.append((self._inbox, device))
        for record in reads.records:
            group = self._group(record[1])
            group.add(b"g", record_name(record))
            group.questions.append((self._record, record))
        for name in reads.logs:
            group = self._group(name.channel)
            group.add(b"l", name.channel, *_position(name.position), name.most)
            group.questions.append((self._log, name))
        for channel in reads.log_sizes:
            group = self._group(channel)
            group.add(b"z", channel)
            group.questions.append((self._size, channel))

    # ------------------------------------------------------------------ answers

    def _changed(self, place: int, answer: Any) -> None:
        if isinstance(answer, list):
            self.results.changes[place] = Changed(answer[0], answer[1])
        elif answer is not None:
            self.results.changes[place] = Changed(answer)

    def _appended(self, place: int, answer: Any) -> None:
        if answer is not None:
            self.results.appended[place] = AfterOffset(*answer)

    def _inbox(self, device: bytes, answer: list[bytes]) -> None:
        if not answer:
            return
        try:
            items = items_of(answer, self._now)
        except ValueError:
            self.results.unreadable.add(device)
            return
        if items:
            self.results.inboxes[device] = items[: self._reads.inboxes[device]]

    def _record(self, record: RecordName, answer: bytes | None) -> None:
        if answer is None:
            return
        if len(answer) < STAMP_BYTES:
            self.results.unreadable.add(record)
        elif (value := live_value(answer, self._now)) is not None:
            self.results.records[record] = value

    def _log(self, name: LogName, answer: list[Any]) -> None:
        epoch, last, lost, lost_sequence, found, newest = answer[:6]
        try:
            events = list(events_of(answer[6:]))
        except ValueError:
            self.results.unreadable.add(name)
            return
        row = LogRow(
            epoch,
            last,
            None if found < 0 else found << 1 | 1,
            0,
            lost,
            int.from_bytes(lost_sequence, "big"),
            None if newest < 0 else newest,
            events,
        )
        self.results.logs[name] = row.slice(name.position)

    def _size(self, channel: bytes, answer: list[int] | None) -> None:
        if answer is not None:
            self.results.log_sizes[channel] = LogSize(*answer)


_KINDS: Final = {Put: b"put", PutIfAbsent: b"absent", PutIfNewer: b"newer"}
_NO_CHANGE: Final = Changed(1)


def record_name(record: RecordName) -> bytes:
    """The key of a record, behind the beginning that is its partition's."""
    return b"r:%b:%b" % (record[0].encode(), record[1])


def _check_length(given: bytes, wanted: int) -> None:
    if len(given) != wanted:
        raise ValueError(f"{len(given)} bytes in the place of {wanted}")


def _position(position: Position) -> tuple[Argument, ...]:
    """As the script has it: kind, and three of it."""
    if isinstance(position, Last):
        return 1, position.number, 0, b""
    if isinstance(position, AfterOffset):
        return 2, _OWN if position.epoch == OWN_OFFSETS else position.epoch, position.offset, b""
    if isinstance(position, AfterId):
        return 3, int(position.time == NO_TIME), number(bound(position)), position.id.encode()
    if isinstance(position, AfterTime):
        return 4, 0, number(bound(position)), b""
    return 0, 0, 0, b""
