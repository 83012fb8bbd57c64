"""Files of an earlier schema, brought up to date: step by step, and killed between any two of its statements."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from support.killing import in_child
from support.stores import ALL, NOW, OPTIONS, A, bodies, in_sqlite, read_log

from router.store.base import Store, StoreError
from router.store.sqlite_file import SqliteFile
from router.store.statements import MIGRATIONS, SCHEMA_VERSION, migration

FIRST = Path(__file__).parents[1] / "data" / "store-schema-1.sqlite3.gz"
"""Written by a release that had it."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of the first schema."""
    found = tmp_path / "data" / "store.sqlite3"
    found.parent.mkdir(mode=0o700)
    found.touch(mode=0o600)
    found.write_bytes(gzip.decompress(FIRST.read_bytes()))
    return found


def version(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return int(db.execute("PRAGMA user_version").fetchone()[0])


def content(path: Path) -> list[Any]:
    with closing(sqlite3.connect(path)) as db:
        return [row for name in ("inbox", "record", "head", "event") for row in db.execute(f"SELECT * FROM {name}")]


def opened(path: Path, killed_at: str = "", statement: int = -1) -> int:
    """Open it in a process of its own, which is killed before the statement of this number, or that begins so.

    Returns: as `in_child`."""

    def run() -> None:
        left = statement

        def traced(text: str) -> None:
            nonlocal left
            if not left or (killed_at and text.strip().startswith(killed_at)):
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

        class Traced(sqlite3.Connection):
            def __init__(self, *arguments: Any, **named: Any) -> None:
                super().__init__(*arguments, **named)
                self.set_trace_callback(traced)

        # Not for what the process does at its end: coverage writes what it has counted by sqlite3.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Traced))
            SqliteFile(OPTIONS, path, 0, lambda: NOW, lambda db: None).open()

    return in_child(run)


def test_killed_before_any_statement_it_is_as_before_or_up_to_date(path: Path) -> None:
    before, versions = content(path), []
    while (code := opened(path, statement=len(versions))) != 0:
        assert code == -signal.SIGKILL
        versions.append(version(path))
        if versions[-1] == 1:
            assert content(path) == before
        else:
            path.write_bytes(gzip.decompress(FIRST.read_bytes()))
            for beside in path.parent.glob("*-*"):
                beside.unlink()
    assert versions == sorted(versions)
    assert versions.count(1) > 10 and versions.count(SCHEMA_VERSION) > 3  # what a start does besides

    async def test(store: Store) -> None:
        assert bodies(await read_log(store, A, ALL, NOW)) == "2345"

    in_sqlite(path, test)


def test_killed_when_much_of_it_is_on_the_disk_already_it_is_as_before(path: Path) -> None:
    number = 20_000
    with closing(sqlite3.connect(path)) as db:
        db.execute(
            "INSERT INTO event SELECT channel, 1000 + value, expires, hex(randomblob(100)) FROM event, "
            "(WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < ?) SELECT * FROM n) "
            "WHERE (channel, position) = (SELECT channel, max(position) FROM event GROUP BY channel LIMIT 1)",
            (number,),
        )
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = content(path)
    assert opened(path, "COMMIT") == -signal.SIGKILL
    beside = [one.stat().st_size for name in ("-wal", "-journal") for one in path.parent.glob(path.name + name)]
    assert max(beside) > 1_000_000
    assert version(path) == 1 and content(path) == before
    assert opened(path) == 0
    assert version(path) == SCHEMA_VERSION and len(content(path)) == len(before)


def test_each_step_follows_the_one_before_and_all_are_one(path: Path) -> None:
    next_one = "ALTER TABLE record ADD COLUMN note TEXT NOT NULL DEFAULT 'epoch {epoch}';"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        with pytest.raises(sqlite3.OperationalError):
            db.executescript(migration(1, 5, (*MIGRATIONS, next_one, "UPDATE nothing SET x = 1;")))
        db.execute("ROLLBACK")
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        db.executescript(migration(1, 5, (*MIGRATIONS, next_one)))
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
        assert {note for (note,) in db.execute("SELECT note FROM record")} == {"epoch 5"}
        assert db.execute("SELECT epoch FROM meta").fetchone() == (5,)

    async def test(store: Store) -> None:
        raise AssertionError("it is a newer release's")

    with pytest.raises(StoreError, match=f"a newer release wrote it.*knows {SCHEMA_VERSION}"):
        in_sqlite(path, test)


def test_a_file_of_the_schema_before_has_only_the_steps_behind_it() -> None:
    text = migration(SCHEMA_VERSION, 5, (*MIGRATIONS, "DELETE FROM inbox;"))
    assert text == f"BEGIN IMMEDIATE;DELETE FROM inbox;PRAGMA user_version = {SCHEMA_VERSION + 1};\nCOMMIT;"
