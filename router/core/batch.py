"""One batch of the committer: what it writes and reads, and the callbacks that wait for it. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from router.common import logs
from router.common.item import Item
from router.common.messages import EVERYTHING, FAILED, FULL, OK
from router.common.position import AfterOffset, LogSlice
from router.store.base import LogName, LogSize, Reads, Results, Writes
from router.store.changes import Changed, RecordName

PutDone = Callable[[int], None]
InboxDone = Callable[[int, list[Item]], None]
InboxesDone = Callable[[int, dict[bytes, list[Item]]], None]
RecordDone = Callable[[int, bytes | None], None]
LogDone = Callable[[int, LogSlice | None], None]
SizesDone = Callable[[int, dict[bytes, LogSize]], None]
AppendDone = Callable[[int, AfterOffset | None], None]
ChangeDone = Callable[[int, Changed | None], None]

SlotName = tuple[bytes, str]  # device, slot
Place = tuple[str, int]  # "log" or "change", and which of the batch's

_by_seq = attrgetter("seq")


@dataclass(slots=True)
class Batch:
    """What goes to the store in one commit, and what is called afterwards."""

    number: int
    writes: Writes = field(default_factory=Writes)
    reads: Reads = field(default_factory=Reads)
    size: int = 0  # writes and reads
    pushes: int = 0  # of those, what app servers sent
    chars: int = 0  # of their bodies
    acks: dict[bytes, int] = field(default_factory=dict)
    """How many removals of it are acknowledgements of a device."""
    displaced: dict[SlotName, int] = field(default_factory=dict)
    """Removals that a put made needless: unless the batch fails."""
    puts: list[tuple[SlotName, PutDone]] = field(default_factory=list)
    commits: list[PutDone] = field(default_factory=list)
    inboxes: list[tuple[bytes, int, InboxDone]] = field(default_factory=list)
    many: list[tuple[list[bytes], InboxesDone]] = field(default_factory=list)
    records: list[tuple[RecordName, RecordDone]] = field(default_factory=list)
    logs: list[tuple[LogName, LogDone]] = field(default_factory=list)
    sizes: list[tuple[list[bytes], SizesDone]] = field(default_factory=list)
    appends: list[AppendDone | None] = field(default_factory=list)  # one for each of writes.logs
    changes: list[ChangeDone | None] = field(default_factory=list)  # one for each of writes.changes
    changing: set[RecordName] = field(default_factory=set)
    """The records of those."""


@dataclass(slots=True)
class Outcome:
    """What became of a batch. `bad` names what could not be written though the rest of the batch was: puts by
    (device, slot), log writes and changes by their place in the batch; `commits` is the status of all else."""

    status: int
    results: Results
    bad: set[SlotName | Place] = field(default_factory=set)
    commits: int = OK


def call_back(batch: Batch, outcome: Outcome, gone: dict[SlotName, int]) -> None:
    """Call all callbacks. One that raises is logged; the others are called all the same.

    gone: removals that have not been made yet: what they name is left out.
    """
    status, results, bad = outcome.status, outcome.results, outcome.bad
    refused, unreadable = results.refused, results.unreadable
    for key, put_done in batch.puts:  # the hot ones
        try:
            put_done(FULL if key in refused else FAILED if key in bad else status)
        except Exception as error:
            _defect(error)
    for device, most, inbox_done in batch.inboxes:
        items = _part(_left(device, results.inboxes.get(device, []), gone), most)
        _call(inbox_done, FAILED if device in unreadable else status, items)
    for devices, many_done in batch.many:
        found = {
            device: _left(device, results.inboxes[device], gone) for device in devices if device in results.inboxes
        }
        many_status = FAILED if results.failed and not results.failed.isdisjoint(devices) else status
        _call(many_done, many_status, {device: _part(items, EVERYTHING) for device, items in found.items() if items})
    for record_key, record_done in batch.records:
        _call(record_done, FAILED if record_key in unreadable else status, results.records.get(record_key))
    ends = results.appended or [None] * len(batch.appends)
    for place, (end, append_done) in enumerate(zip(ends, batch.appends, strict=True)):
        if append_done is not None:
            _call(append_done, FAILED if ("log", place) in bad else status, end)
    for name, log_done in batch.logs:  # behind the events that were read with it
        _call(log_done, FAILED if name in unreadable else status, results.logs.get(name))
    for channels, sizes_done in batch.sizes:
        held = {channel: results.log_sizes[channel] for channel in channels if channel in results.log_sizes}
        _call(sizes_done, status if unreadable.isdisjoint(channels) else FAILED, held)
    changes: list[Changed | None] = [*results.changes] or [None] * len(batch.changes)
    for place, (changed, change_done) in enumerate(zip(changes, batch.changes, strict=True)):
        if change_done is not None:
            _call(change_done, FAILED if ("change", place) in bad else status, changed)
    for commit_done in batch.commits:
        _call(commit_done, status if status != OK else outcome.commits)


def note_failed(batch: Batch, outcome: Outcome) -> None:
    """Enter the keys that failed in the store where they are looked for: by item, record, log and change."""
    failed, writes, reads = outcome.results.failed, batch.writes, batch.reads
    outcome.bad.update(key for key in writes.puts if key[0] in failed)
    outcome.bad.update(("change", place) for place, (name, _) in enumerate(writes.changes) if name[1] in failed)
    outcome.bad.update(("log", place) for place, write in enumerate(writes.logs) if write.channel in failed)
    unreadable = outcome.results.unreadable
    unreadable.update(failed.intersection(reads.inboxes))
    unreadable.update(name for name in reads.records if name[1] in failed)
    unreadable.update(log for log in reads.logs if log.channel in failed)
    unreadable.update(failed.intersection(reads.log_sizes))
    outcome.commits = FAILED


def _call(done: Callable[..., None], *found: Any) -> None:
    try:
        done(*found)
    except Exception as error:
        _defect(error)


def _defect(error: Exception) -> None:
    logs.limited("committer.callback_failed", at="error", per=type(error).__name__, exc=error)


def _left(device: bytes, items: list[Item], gone: dict[SlotName, int]) -> list[Item]:
    if not gone:
        return items
    return [item for item in items if gone.get((device, item.slot), item.version - 1) < item.version]


def _part(items: list[Item], most: int) -> list[Item]:
    """What one reader asked for, of what was read for all readers of this inbox."""
    return sorted(items, key=_by_seq) if most >= EVERYTHING else items[:most]
