"""What the store on disk reads after the writes of a batch: a statement for what is of one kind, and the answers."""

from __future__ import annotations

import sqlite3
from operator import itemgetter
from typing import Final

import msgspec

from router.common.item import Item
from router.common.messages import EVERYTHING
from router.common.position import AfterOffset, Last
from router.store.base import LogName, LogSize, Reads, Results, Writes
from router.store.changes import RecordName
from router.store.log_rows import LogRow, name_row
from router.store.log_statements import READ_APPENDED, READ_LOGS, READ_SIZES
from router.store.statements import READ

_inboxes_in = msgspec.json.Decoder(list[tuple[bytes, Item]])
_records_in = msgspec.json.Decoder(list[tuple[tuple[str, bytes], bytes]])
_logs_in = msgspec.json.Decoder(list[tuple[int, LogRow]])
_sizes_in = msgspec.json.Decoder(list[tuple[bytes, LogSize]])
_appended_in = msgspec.json.Decoder(list[tuple[int, AfterOffset]])
_encode = msgspec.json.Encoder().encode
_by_slot = itemgetter(0)

_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, KeyError)
"""What is wrong is what was stored."""


def read(db: sqlite3.Connection, writes: Writes, reads: Reads, now: int, results: Results) -> None:
    """Put the answers into the results. What is damaged is missed by those alone who asked for it."""
    try:
        _read(db, writes, reads, now, results)
    except _UNREADABLE:
        _read_apart(db, writes, reads, now, results)


def _read(db: sqlite3.Connection, writes: Writes, reads: Reads, now: int, results: Results) -> None:
    if writes.logs:
        found = dict(_appended_in.decode(db.execute(READ_APPENDED).fetchone()[0]))
        results.appended = [found.get(place) for place in range(len(writes.logs))]
    if reads.inboxes or reads.records:
        read_tables(db, reads, now, results)
    if reads.logs:
        by_newest: dict[int, list[LogName]] = {}  # one statement for each number of newest events that is asked for
        for name in reads.logs:
            by_newest.setdefault(name.position.number if isinstance(name.position, Last) else 0, []).append(name)
        for newest, names in by_newest.items():
            asked = _encode(list(map(name_row, names)))
            for place, row in _logs_in.decode(db.execute(READ_LOGS, (asked, now, newest)).fetchone()[0]):
                results.logs[names[place]] = row.slice(names[place].position)
    if reads.log_sizes:
        rows = db.execute(READ_SIZES, (_encode(list(reads.log_sizes)), now)).fetchone()[0]
        results.log_sizes = dict(_sizes_in.decode(rows))


def read_tables(db: sqlite3.Connection, reads: Reads, now: int, results: Results) -> None:
    """Inboxes and records alone."""
    parts = [most for most in reads.inboxes.values() if most < EVERYTHING]
    row = db.execute(
        READ,
        (_encode(list(reads.inboxes.items())), _encode(reads.records), now, max(parts, default=1) - 1),
    ).fetchone()
    results.inboxes.clear()
    for device, item in _inboxes_in.decode(row[0]):
        results.inboxes.setdefault(device, []).append(item)
    for device, items in results.inboxes.items():
        items.sort(key=_by_slot)
        del items[reads.inboxes[device] :]
    results.records = dict(_records_in.decode(row[1]))


def _read_apart(db: sqlite3.Connection, writes: Writes, reads: Reads, now: int, results: Results) -> None:
    """Something that was stored is damaged: read each on its own, so that only who asked for that must do without.
    The places of this batch's events come by themselves, too."""
    found = Results()
    _read(db, writes, Reads(), now, found)
    results.appended = found.appended
    results.inboxes, results.records, results.logs, results.log_sizes = {}, {}, {}, {}
    parts: list[tuple[bytes | RecordName | LogName, Reads]]
    parts = [(device, Reads(inboxes={device: most})) for device, most in reads.inboxes.items()]
    parts += [(name, Reads(records={name})) for name in reads.records]
    parts += [(log, Reads(logs={log})) for log in reads.logs]
    parts += [(channel, Reads(log_sizes={channel})) for channel in reads.log_sizes]
    for name, part in parts:
        found = Results()
        try:
            _read(db, Writes(), part, now, found)
        except _UNREADABLE:
            results.unreadable.add(name)
            continue
        results.inboxes |= found.inboxes
        results.records |= found.records
        results.logs |= found.logs
        results.log_sizes |= found.log_sizes
