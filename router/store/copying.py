"""Copies the rows of a store's file into the files of another number of routers, each row to that of its key's owner.

Texts are copied as bytes, neither decoded nor looked at, so what is damaged stays as it was. A row whose key does not
lie in the file of its owner (someone has put a file into another's place) comes last, and gives way to what is there.
"""

from __future__ import annotations

import binascii
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from router.store.base import CEILING_SPACE, PROBE_SPACE
from router.store.layout import Layout
from router.store.sqlite_file import explained

BATCH_ROWS: Final = 2000
BATCH_BYTES: Final = 8_388_608
"""A batch that has so many rows, or bytes of bodies, is written. (One row more may be as large as a row can be.)"""


class Table(NamedTuple):
    """A table of the store."""

    name: str
    key: str
    """The column with the key that says in which partition a row is."""
    rows: str
    """What is copied of it."""


TABLES: Final = (
    Table("inbox", "device", "inbox"),
    # but for those that are about a file itself, of which each file has its own
    Table("record", "key", f"record WHERE space NOT IN ('{CEILING_SPACE}', '{PROBE_SPACE}')"),
    Table("head", "channel", "head"),
    Table("event", "channel", "event"),
)


class Target(NamedTuple):
    """A new file."""

    path: Path
    db: sqlite3.Connection


class Copier:
    """Copies rows into the targets, of which there is one for each router of the new layout.

    copied: called after each batch with its number of rows; what it raises ends the copying.
    """

    def __init__(self, old: Layout, new: Layout, targets: list[Target], copied: Callable[[int], None]) -> None:
        self._old = old
        self._new = new
        self._targets = targets
        self._copied = copied
        self._refused: set[bytes | int | None] = set()
        """Channels whose log was in the file of its owner and in another one: of that no event is copied."""
        self.strays = 0
        """Rows that were not in the file of their key's owner."""
        self.doubles = 0
        """Those of them that gave way."""

    def copy(self, db: sqlite3.Connection, path: Path, number: int, strays: bool) -> None:
        """Copy the rows of the file of the old router of this number: those that lie there rightly, or the others.

        Raises: StoreError if it cannot be read, sqlite3.Error if a target cannot be written.
        """
        db.text_factory = bytes
        for table in TABLES:
            if strays:
                self._copy_strays(db, path, number, table)
            else:
                self._copy_own(db, path, number, table)

    def _copy_own(self, db: sqlite3.Connection, path: Path, number: int, table: Table) -> None:
        columns, insert = self._statements(table)
        sql = insert.format("INSERT")
        place = columns.index(table.key)
        parts: list[list[tuple[bytes | int | None, ...]]] = [[] for _ in self._targets]
        last: bytes | int | None = None
        part = parts[0]
        mine = True
        rows = size = 0
        for row in _rows(db, path, columns, table):
            if row[place] != last:
                last = row[place]
                key = _key(last)
                mine = self._old.owner(key) == number
                part = parts[self._new.owner(key)]
            if not mine:
                self.strays += 1
                continue
            part.append(row)
            rows += 1
            body = row[-1]
            if type(body) is bytes:
                size += len(body)
            if rows >= BATCH_ROWS or size >= BATCH_BYTES:
                self._write(sql, parts)
                self._copied(rows)
                rows = size = 0
        self._write(sql, parts)
        self._copied(rows)

    def _write(self, sql: str, parts: list[list[tuple[bytes | int | None, ...]]]) -> None:
        for target, part in zip(self._targets, parts, strict=True):
            if part:
                target.db.executemany(sql, part)
                part.clear()

    def _copy_strays(self, db: sqlite3.Connection, path: Path, number: int, table: Table) -> None:
        columns, insert = self._statements(table)
        sql = insert.format("INSERT OR IGNORE")
        place = columns.index(table.key)
        for row in _rows(db, path, columns, table):
            name = row[place]
            key = _key(name)
            if self._old.owner(key) == number:
                continue
            if table.name == "event" and name in self._refused:
                self.doubles += 1
            elif not self._targets[self._new.owner(key)].db.execute(sql, row).rowcount:
                self.doubles += 1
                if table.name == "head":
                    self._refused.add(name)
            self._copied(1)

    def _statements(self, table: Table) -> tuple[list[str], str]:
        """Its columns, and what inserts a row of them into a target, but for how it begins."""
        info = self._targets[0].db.execute(f"SELECT name, type FROM pragma_table_info('{table.name}')").fetchall()
        values = ", ".join("CAST(? AS TEXT)" if kind == "TEXT" else "?" for _, kind in info)
        columns = [name for name, _ in info]
        return columns, f"{{}} INTO {table.name} ({', '.join(columns)}) VALUES ({values})"


def _rows(
    db: sqlite3.Connection, path: Path, columns: list[str], table: Table
) -> Iterator[tuple[bytes | int | None, ...]]:
    try:
        yield from db.execute(f"SELECT {', '.join(columns)} FROM {table.rows}")
    except sqlite3.Error as error:
        raise explained(path, error) from error


def _key(text: bytes | int | None) -> bytes:
    """What the text stands for; one that is damaged, itself."""
    assert isinstance(text, bytes)
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except binascii.Error:
        return text


def count(db: sqlite3.Connection) -> int:
    """How many rows of a file there are to copy, or were copied into it."""
    return sum(db.execute(f"SELECT count(*) FROM {table.rows}").fetchone()[0] for table in TABLES)
