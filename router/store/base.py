"""What a store is: three shapes of stored things, each with batch operations.

| shape | holds | who uses it |
|---|---|---|
| inbox of a device | items by slot (the collapse key); the last one put replaces the others | devices that ack |
| log of a channel | events with an offset, kept by count and age | dialects that replay |
| table | small records by (space, key) with an expiry | registrations, one-time tokens, broadcast versions |

A store is driven by one owner (`router.core.committer`), which never has two `apply` calls under way. `apply` is a
group commit: everything in `Writes` becomes durable together, then the reads are answered and see those writes. That
form suits SQLite (one transaction), Redis (one pipeline) and memcached (multi-set, multi-get) alike.

Times are integers of unix seconds. Device keys and channel keys are 16 bytes. Slots, spaces and bodies are text.

A log keeps its events by count, bytes and age, and says what a position has missed: `lost` is the highest offset that
has gone from it in whichever way, so a reader that stands there or further on has missed nothing. What has expired goes
before the next event of its log is counted; so no limit depends on when a sweep comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from router.common.errors import MendableError
from router.common.item import Item
from router.common.position import MAX_EVENT_ID, MAX_HEADERS, AfterOffset, LogSlice, Position
from router.common.settings import StoreOptions
from router.store.changes import Change, Changed, RecordName
from router.store.lease import Lease


class LogName(NamedTuple):
    """A part of a channel's log: what follows a position, the whole of it or the first events of that."""

    channel: bytes
    position: Position
    most: int = 0
    """Bytes of events, of which each counts EVENT_BYTES more than it has; the one that passes this bound is the last.
    0: all."""


EVENT_BYTES = 100
"""What an event counts for beside its texts, where it is read in parts."""


class LogSize(NamedTuple):
    """How much a log holds."""

    offset: int  # of the newest event there ever was
    number: int  # events
    expires: int  # of the event that lives longest, also of those that have gone


CEILING_SPACE: Final = "mark"
"""Space of the record in which a store may keep `Writes.ceiling`."""
PROBE_SPACE: Final = "probe"
"""Space of the record that is written to see whether the store can write."""

ANY_VERSION = 2**63 - 1
"""As the version of a removal: whatever version is stored goes."""

MAX_OFFSET = 2**53 - 1
"""The highest offset of an event: JavaScript keeps numbers exactly up to here."""

LARGE_BODY = 8192
"""Bytes. An inbox that holds fewer than `store.inbox_bytes` / LARGE_BODY items is not looked at for its bytes unless
one that is longer comes; so larger ones may take up to twice the room."""


class StoreError(MendableError):
    """The store could not do what was asked; nothing of that batch may be promised to anybody."""


class BadBatchError(StoreError):
    """Something in the batch can't be written whatever the state of the store. The rest of it can, without that."""


NO_HEADERS: Final[dict[str, str]] = {}


class Append(NamedTuple):
    """One event for a channel's log.

    Without `exact` its offset is the next one, and at least `offset`; behind MAX_OFFSET there is none, and it is
    refused. With it its offset is `offset`, wherever that is among the others; where the log holds one of this offset
    already, or the event alone is too large, it is refused.

    Beyond `most` events or `most_bytes` of them, those with the lowest offsets go; one that was given its own offset
    stays, though it is the lowest. The store's own limits hold too, and alone where these are 0.
    """

    channel: bytes
    sequence: int  # its place in the order of arrival (`router.common.numbers`), which is its time and tag; 0: none
    expires: int
    body: str
    id: str = ""
    headers: dict[str, str] = NO_HEADERS
    offset: int = 0
    exact: bool = False
    most: int = 0
    most_bytes: int = 0


class ExpireLog(NamedTuple):
    """The log of a channel, all of it, ends at `expires` at the latest; 0: only as its events do. At most now: it ends
    at once. One that has ended is not there: whatever comes then begins another one, in a new epoch, from offset 1."""

    channel: bytes
    expires: int


class Renewal(NamedTuple):
    """Raise to `expires` the expiry of those of these records that would expire before `before`. What is not there,
    or never expires, stays as it is."""

    space: str
    keys: list[bytes]
    expires: int
    before: int


@dataclass(slots=True)
class Writes:
    """One batch. Within it each (device, slot) occurs once, and each (space, key) once in `records` or any number of
    times in `changes`: the committer has merged them. Renewals come before the records."""

    puts: dict[tuple[bytes, str], Item] = field(default_factory=dict)
    # Remove the item of this slot if its stored version is at most the number (ANY_VERSION: always).
    removals: dict[tuple[bytes, str], int] = field(default_factory=dict)
    # value and expiry (0: never, KEEP_EXPIRY), or None to delete.
    records: dict[RecordName, tuple[bytes, int] | None] = field(default_factory=dict)
    # Made in order, each on what the one before left.
    changes: list[tuple[RecordName, Change]] = field(default_factory=list)
    # Made in order.
    logs: list[Append | ExpireLog] = field(default_factory=list)
    renewals: list[Renewal] = field(default_factory=list)
    # No sequence above this will be written until it is raised; 0: as before. Kept for `Store.highest`.
    ceiling: int = 0

    def __len__(self) -> int:
        records = len(self.records) + len(self.changes) + len(self.renewals) + (self.ceiling > 0)
        return len(self.puts) + len(self.removals) + records + len(self.logs)


@dataclass(slots=True)
class Reads:
    """What to read after the writes of the same batch."""

    # device -> how many items at most, the first by slot.
    inboxes: dict[bytes, int] = field(default_factory=dict)
    records: set[RecordName] = field(default_factory=set)
    logs: set[LogName] = field(default_factory=set)
    # channels
    log_sizes: set[bytes] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.inboxes) + len(self.records) + len(self.logs) + len(self.log_sizes)


@dataclass(slots=True)
class Results:
    """Answers to one batch. Keys without anything stored are absent from `inboxes`, `records` and `log_sizes`, and so
    are those of `unreadable`: what is stored there is damaged."""

    refused: set[tuple[bytes, str]] = field(default_factory=set)  # puts that found the device's inbox full
    evicted: int = 0  # items that gave their place to others
    changes: list[Changed] = field(default_factory=list)  # one for each of Writes.changes
    # One for each of Writes.logs: the position after it, None where it was refused or is no event.
    appended: list[AfterOffset | None] = field(default_factory=list)
    inboxes: dict[bytes, list[Item]] = field(default_factory=dict)  # in order of slot
    records: dict[RecordName, bytes] = field(default_factory=dict)
    logs: dict[LogName, LogSlice] = field(default_factory=dict)
    log_sizes: dict[bytes, LogSize] = field(default_factory=dict)
    # Devices, names of records and of logs.
    unreadable: set[bytes | RecordName | LogName] = field(default_factory=set)
    # Keys of devices, channels and records of which nothing is promised, though the rest of the batch is good: of a
    # store in parts, one that could not do it.
    failed: set[bytes] = field(default_factory=set)


Gone = Callable[[str, bytes, str, int], None]
"""Told of an item that the store has removed: `expired` or `evicted`, the device, the slot, the version. It may be
called from any thread."""


class Store(Protocol):
    """Every store does this and nothing else. All methods run in trio; none but `run` may be called concurrently."""

    used: int
    """Bytes that what is stored takes, as far as the store knows at this moment."""
    promise: str
    """What an accepted message survives, in a line, once the store is open."""
    forgets: bool
    """Whether it may lose a record before its time while the farm goes on: then one that is missing says nothing."""

    @property
    def lease(self) -> Lease | None:
        """Until when nobody else may own what this router owns; None: nobody else ever does."""

    def check(self) -> None:
        """See, beside a store that is open, whether this one could be opened. Raises: StoreError."""

    def watch(self, gone: Gone) -> None:
        """Tell this of what is evicted and expires, as far as the store sees it go. Called before `open`, if at all."""

    async def open(self) -> None:
        """Make ready. Raises: StoreError, with what to do about it."""

    async def run(self) -> None:
        """What the store does all the time beside what is asked of it, until it is cancelled: from `open` to `close`,
        and beside every other call. Raises: StoreError where its owner has to begin anew."""

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        """Make the writes durable, then answer the reads. Entries whose expiry is at most `now` do not exist.

        A put into a full inbox is refused and named in `Results.refused`; the rest of the batch is not touched by
        that. Full for an item with urgency 0: `store.inbox_limit` unexpired items, none of them in that slot. Any
        other is refused if with it there were more items than that, or more than `store.inbox_bytes` of bodies, and
        it would not help to remove those with an urgency from 1 to its own. If it helps, as many of them go as have
        to: the least urgent first, and of those the oldest.
        Raises: StoreError; then nothing of the batch is promised, though some of it may have been kept.
        BadBatchError if something in it can never be written; then nothing was.
        """

    async def highest(self) -> int:
        """A number that no sequence of what is stored is above: the last `Writes.ceiling`, or where there has been none
        the largest `seq` of all items, 0 without any. Then it looks at every item."""

    async def sweep(self, now: int, budget: int) -> int:
        """Look at up to `budget` entries, going on where the last sweep stopped, and delete the expired ones.

        Returns: how many were deleted.
        """

    async def close(self) -> None:
        """Flush and let go. No call follows."""


def check_event(event: Append) -> None:
    """Raises: ValueError for an event that no log can hold."""
    if event.exact and not 0 < event.offset <= MAX_OFFSET:
        raise ValueError(f"an event's own offset is from 1 to {MAX_OFFSET}, not {event.offset}")
    texts = (event.id, *event.headers, *event.headers.values())
    if len(event.headers) > MAX_HEADERS or any(len(text) > MAX_EVENT_ID or "\0" in text for text in texts):
        raise ValueError("an event's ID or headers are too long, too many, or hold U+0000")


def limits(event: Append, options: StoreOptions) -> tuple[int, int]:
    """Events, and bytes of them, that the log of this one may hold."""
    most = min(event.most or options.log_limit, options.log_limit)
    return most, min(event.most_bytes or options.log_bytes, options.log_bytes)


def event_bytes(event: Append) -> int:
    """What an event counts for in the bytes of its log."""
    texts = (event.body, event.id, *event.headers, *event.headers.values())
    return sum(len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts)
