"""SQLite alone: crashes, files that are not ours, disks that fail, and that no statement scans a table."""

from __future__ import annotations

import gzip
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import pytest
import trio
from support.stores import (
    ALL,
    LATER,
    NOW,
    OPTIONS,
    ROOMY,
    A,
    B,
    C,
    bodies,
    event,
    everything,
    in_sqlite,
    inbox,
    item,
    puts,
    read_log,
    with_store,
)

from router.common.item import Item
from router.common.position import LIVE, AfterOffset
from router.common.settings import StoreOptions
from router.store.base import LARGE_BODY, BadBatchError, LogName, Reads, Results, Store, StoreError, Writes
from router.store.changes import CHANGED, Changed, SetAdd
from router.store.log_statements import READ_LOGS
from router.store.sqlite import SqliteStore
from router.store.statements import READ, RENEW, SCHEMA_VERSION, WRITE, WRITE_NUL

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "store.sqlite3"


async def fill(store: Store, *urgencies: int, body: str = "") -> None:
    """One message after the other, in slots named by their number and urgency."""
    for number, urgency in enumerate(urgencies):
        results = await store.apply(
            puts(A, item(f"{number}:{urgency}", number, urgency=urgency, body=body)), Reads(), NOW
        )
        assert (results.refused, results.evicted) == (set(), 0)


def test_what_an_older_release_stored_is_read_as_it_was(path: Path) -> None:
    """It did not keep the length of bodies, and had none of messages that may take the place of others."""

    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await fill(store, 3, 0, body="x" * 4000)
        store.file.db().execute("UPDATE inbox SET urgency = urgency & 7")
        assert [(i.urgency, len(i.body or "")) for i in await inbox(store, A)] == [(3, 4000), (0, 4000)]
        assert await store.apply(puts(A, item("new", 3, urgency=3, body="x" * LARGE_BODY)), Reads(), NOW) == Results()

    in_sqlite(path, test, ROOMY)


CHILD = textwrap.dedent("""
    import sys
    from pathlib import Path
    import trio
    from router.common.settings import StoreOptions
    from router.common.item import Item
    from router.store.base import Append, Reads, Writes
    from router.store.sqlite import SqliteStore

    async def main() -> None:
        store = SqliteStore(StoreOptions(), Path(sys.argv[1]))
        await store.open()
        for number in range(1_000_000):
            device = number.to_bytes(16, "big")
            writes = Writes(logs=[Append(b"c" * 16, 0, 2_000_000, str(number))])
            for n in range(20):
                writes.puts[device, str(n)] = Item(str(n), 1, n, 2_000_000, 0, "x" * 100)
            writes.records["last", b"k"] = (str(number).encode(), 0)
            await store.apply(writes, Reads(), 1_000_000)
            print(number, flush=True)

    trio.run(main)
""")


@pytest.mark.parametrize("synchronous", ["full", "normal"])
def test_kill_loses_nothing_that_was_reported(path: Path, synchronous: str) -> None:
    root = Path(__file__).parents[2]
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, cwd=root, text=True)
    assert child.stdout is not None
    reported = [int(child.stdout.readline()) for _ in range(100)]
    child.send_signal(signal.SIGKILL)
    reported += [int(line) for line in child.stdout.read().split()]
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    last = reported[-1]

    async def test(store: Store) -> None:
        devices = {number.to_bytes(16, "big") for number in range(last + 2)}
        results = await store.apply(Writes(), Reads(everything(*devices), {("last", b"k")}, {LogName(C, LIVE)}), NOW)
        whole = [len(results.inboxes.get(number.to_bytes(16, "big"), [])) for number in reported]
        assert whole == [20] * len(reported)
        # One batch more may have been committed and not reported; it is there as a whole or not at all.
        kept = int(results.records["last", b"k"])
        assert kept in {last, last + 1}
        assert len(results.inboxes) == results.logs[LogName(C, LIVE)].offset == kept + 1
        assert len(results.inboxes.get((last + 1).to_bytes(16, "big"), [])) == (20 if kept > last else 0)

    in_sqlite(path, test, StoreOptions(synchronous=synchronous))


def test_all_shapes_survive_a_restart(path: Path) -> None:
    async def write(store: Store) -> Results:
        writes = puts(A, item("x", 1, body="kept\0"))
        writes.records["s", A] = (b"kept", 0)
        writes.logs = [event(A, "kept")]
        return await store.apply(writes, Reads(everything(A), {("s", A)}, {LogName(A, ALL), LogName(B, ALL)}), NOW)

    async def read(store: Store) -> Results:
        return await store.apply(Writes(), Reads(everything(A), {("s", A)}, {LogName(A, ALL), LogName(B, ALL)}), NOW)

    before = in_sqlite(path, write)
    before.appended.clear()
    assert in_sqlite(path, read) == before


def test_files_are_private(path: Path) -> None:
    async def test(store: Store) -> None:
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        files = {p.name: p.stat().st_mode & 0o777 for p in path.parent.iterdir()}
        assert files.pop(path.name) == 0o600
        assert files.pop(path.name + "-wal") == 0o600
        assert set(files.values()) == {0o600}
        assert path.parent.stat().st_mode & 0o777 == 0o700

    mask = os.umask(0)
    try:
        in_sqlite(path, test)
    finally:
        os.umask(mask)


def test_second_opener_is_refused_and_harms_nothing(path: Path) -> None:
    async def test(store: Store) -> None:
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        second = SqliteStore(OPTIONS, path)
        with pytest.raises(StoreError, match=rf"another router uses it \(process {os.getpid()}\)"):
            await second.open()
        assert [i.slot for i in await inbox(store, A)] == ["x"]

    in_sqlite(path, test)
    # The lock goes with the store that held it.
    assert [i.slot for i in in_sqlite(path, partial(inbox, device=A))] == ["x"]


def test_newer_schema_is_refused_and_left_alone(path: Path) -> None:
    in_sqlite(path, partial(inbox, device=A))
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(StoreError, match=f"schema {SCHEMA_VERSION + 1}"):
        in_sqlite(path, partial(inbox, device=A))
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
    db.close()


@pytest.mark.parametrize("content", [b"not a database, " * 400, None])
def test_foreign_file_is_refused_and_left_alone(path: Path, content: bytes | None) -> None:
    path.parent.mkdir()
    if content is None:
        with sqlite3.connect(path) as db:
            db.execute("CREATE TABLE theirs (x)")
        db.close()
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="move it away"):
        in_sqlite(path, partial(inbox, device=A))
    assert path.read_bytes() == before


@pytest.mark.parametrize("version", [-1, 1])
def test_a_database_with_a_number_of_ours_and_other_tables_is_refused(path: Path, version: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with sqlite3.connect(path) as db:
        db.executescript(f"CREATE TABLE theirs (x); PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(StoreError, match="move it away"):
        in_sqlite(path, partial(inbox, device=A))


def test_folder_that_cannot_be_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=f"{tmp_path / 'file'} is not a folder"):
        in_sqlite(tmp_path / "file" / "store.sqlite3", partial(inbox, device=A))


def test_read_only_folder() -> None:
    with pytest.raises(StoreError, match="user may write the folder"):
        in_sqlite(Path("/proc/store.sqlite3"), partial(inbox, device=A))  # not even root may write there


def test_full_disk_fails_the_batch_as_a_whole_and_passes(path: Path) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        # SQLite itself keeps this limit, and fails with the code of a full disk.
        db = store.file.db()
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}").fetchone()
        writes = puts(A, item("y", 2), item("long", 3, body="x" * 100_000))
        with pytest.raises(StoreError, match="free some space"):
            await store.apply(writes, Reads(), NOW)
        assert [i.slot for i in await inbox(store, A)] == ["x"]
        db.execute("PRAGMA max_page_count = 1000000").fetchone()
        assert (await store.apply(writes, Reads(), NOW)).refused == set()
        assert [i.slot for i in await inbox(store, A)] == ["long", "x", "y"]

    in_sqlite(path, test)


def test_lock_held_by_another_program(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.store.sqlite_file.BUSY_TIMEOUT_S", 0)

    async def test(store: Store) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="another process keeps the database locked"):
            await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        with pytest.raises(StoreError, match="another process keeps the database locked"):
            await store.sweep(NOW, 10)
        other.execute("ROLLBACK")
        other.close()
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        assert [i.slot for i in await inbox(store, A)] == ["x"]

    in_sqlite(path, test)


@pytest.mark.parametrize("bad", [item("x", 2, version=2**63), item("x", 2, body="\ud800")])
def test_what_cannot_be_stored_fails_the_batch_as_a_whole(path: Path, bad: Item) -> None:
    async def test(store: Store) -> None:
        writes = puts(A, item("good", 1), bad)
        writes.records["s", A] = (b"", 0)
        with pytest.raises(BadBatchError):
            await store.apply(writes, Reads(), NOW)
        results = await store.apply(Writes(), Reads(everything(A), {("s", A)}), NOW)
        assert results == Results()

    in_sqlite(path, test)


@pytest.mark.parametrize(
    ("statement", "unreadable"),
    [
        ("UPDATE inbox SET body = CAST(x'ff' AS TEXT) WHERE slot = 'y'", {A}),
        ("UPDATE record SET value = '*' WHERE space = 's'", {("s", A)}),
        ("UPDATE event SET body = CAST(x'ff' AS TEXT) WHERE body = 'e'", {LogName(A, ALL)}),
    ],
)
def test_what_is_damaged_is_missed_by_who_asked_for_it_alone(
    path: Path, statement: str, unreadable: set[object]
) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        writes = puts(A, item("x", 1), item("y", 2)) if "inbox" in statement else Writes()
        writes.puts |= puts(B, item("z", 3)).puts
        writes.records = {("s", A): (b"1", 0), ("t", A): (b"2", 0)}
        writes.logs = [event(A, "e"), event(B, "f")] if "event" in statement else [event(B, "f")]
        await store.apply(writes, Reads(), NOW)
        store.file.db().execute(statement)
        logs: set[LogName] = {LogName(A, ALL), LogName(B, ALL)} if "event" in statement else {LogName(B, ALL)}
        more = Writes(logs=[event(C, "g"), event(C, "h")])
        found = await store.apply(more, Reads(everything(A, B), {("s", A), ("t", A)}, logs), NOW)
        assert found.unreadable == unreadable
        assert [end.offset for end in found.appended if end] == [1, 2]
        assert [i.slot for i in found.inboxes[B]] == ["z"]
        assert found.records["t", A] == b"2" and (("s", A) in found.records) is ("record" not in statement)
        assert bodies(found.logs[LogName(B, ALL)]) == "f"

    in_sqlite(path, test)


def test_a_connection_that_keeps_failing_is_made_anew(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.store.sqlite_file.REOPEN_AFTER_S", 0)

    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        store.file.db().close()  # as good as broken: every call fails from now on
        for _ in range(2):
            with pytest.raises(StoreError):
                await inbox(store, A)
        assert [i.slot for i in await inbox(store, A)] == ["x"]
        with pytest.raises(StoreError, match="another router uses it"):
            await SqliteStore(OPTIONS, path).open()

    in_sqlite(path, test)


def test_cancelled_apply_is_done_or_not_begun(path: Path) -> None:
    async def test(store: Store) -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.apply(puts(A, item("x", 1)), Reads(), NOW)
        assert scope.cancelled_caught
        assert await inbox(store, A) == []

    in_sqlite(path, test)


def test_closed_store_says_so_and_closes_again(path: Path) -> None:
    async def main() -> None:
        store = SqliteStore(OPTIONS, path)
        await store.close()
        with pytest.raises(StoreError, match="not open"):
            await store.apply(Writes(logs=[event(A)]), Reads(), NOW)
        await store.open()
        await store.close()
        await store.close()

    trio.run(main)


@pytest.mark.parametrize(
    ("statement", "arrays", "numbers"), [(WRITE, 4, 2), (WRITE_NUL, 4, 3), (READ, 2, 2), (READ_LOGS, 1, 2)]
)
def test_no_statement_of_a_batch_scans_a_table(path: Path, statement: str, arrays: int, numbers: int) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        plan = store.file.db().execute(f"EXPLAIN QUERY PLAN {statement}", (b"[]",) * arrays + (0,) * numbers)
        allowed = {"SCAN CONSTANT ROW", "SCAN meta", "SCAN asked", "SCAN p"}
        scans = {row[3] for row in plan if row[3].startswith("SCAN")}
        of_its_own = ("VIRTUAL TABLE", "(subquery")
        assert {s for s in scans if not any(kind in s for kind in of_its_own)} <= allowed

    in_sqlite(path, test)


@pytest.mark.parametrize("how", ["count", "bytes", "expiry"])
def test_an_append_to_a_log_that_is_full_looks_at_a_few_of_its_events(path: Path, how: str) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        db = store.file.db()
        steps = []
        for channel, kept in ((A, 50), (B, 1000)):
            most, most_bytes = (kept, 0) if how == "count" else (0, 100 * kept)
            expires = NOW if how == "expiry" else LATER
            one = event(channel, "x" * 100, expires, most=most, most_bytes=most_bytes)
            await store.apply(Writes(logs=[one] * (kept + 1)), Reads(), NOW - 1)
            taken = []
            db.set_progress_handler(lambda taken=taken: taken.append(1), 100)
            await store.apply(Writes(logs=[one._replace(expires=LATER)] * 50), Reads(), NOW)
            db.set_progress_handler(None, 0)
            steps.append(len(taken))
        small, large = steps
        # All that has expired goes at once, but once for all that come then.
        assert small > 10 and large < (2 if how != "expiry" else 10) * small

    in_sqlite(path, test, StoreOptions(log_limit=2000, log_bytes=2**20))


def test_a_renewal_finds_its_records_by_their_key(path: Path) -> None:
    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        plan = [row[3] for row in store.file.db().execute(f"EXPLAIN QUERY PLAN {RENEW}", ("s", b"[]", 1, 1, 1))]
        assert any("SEARCH record USING PRIMARY KEY (space=? AND key=?)" in step for step in plan)

    in_sqlite(path, test)


def test_a_file_of_the_first_schema_is_brought_up_to_date(path: Path) -> None:
    """Written by a release whose events had neither time, ID nor offsets of their own, with room for four of them."""
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(gzip.decompress((DATA / "store-schema-1.sqlite3.gz").read_bytes()))

    async def test(store: Store) -> None:
        reads = Reads(everything(A, B), {("s", A), ("s", B), ("set", A)}, {LogName(key, ALL) for key in (A, B, C)})
        found = await store.apply(Writes(), reads, NOW)
        assert [(i.slot, i.body) for i in found.inboxes[A]] == [("#b", "nul \0 é"), ("a", "body")]
        assert [(i.slot, i.body) for i in found.inboxes[B]] == [("none", None)]
        set_of_two = b"day1" + b"1" * 16 + b"2" * 16
        assert found.records == {("s", A): b"for ever", ("s", B): b"\0\xff", ("set", A): set_of_two}
        assert [(one.offset, one.body) for one in found.logs[LogName(A, ALL)].events] == [
            (n, str(n - 1)) for n in (3, 4, 5, 6)
        ]
        assert [one.body for one in found.logs[LogName(B, ALL)].events] == ["nul \0 é"]
        assert [(part.offset, part.recovered) for part in found.logs.values()].count((1, False)) == 1
        assert (await read_log(store, A, AfterOffset(found.logs[LogName(A, ALL)].epoch, 2))).recovered
        assert not (await read_log(store, A, AfterOffset(found.logs[LogName(A, ALL)].epoch, 1))).recovered
        # It goes on as it was.
        change = SetAdd(b"3" * 16, b"day2", LATER, 3)
        writes = Writes(logs=[event(A, "new"), event(C, "new"), event(b"d" * 16, "d")], changes=[(("set", A), change)])
        results = await store.apply(writes, reads, NOW)
        assert [end and end.offset for end in results.appended] == [7, 2, 1]
        assert results.changes == [Changed(CHANGED)]
        assert bodies(results.logs[LogName(A, ALL)]) == "345new" and bodies(results.logs[LogName(C, ALL)]) == "new"
        assert results.records["set", A] == b"day2" + set_of_two[4:] + b"3" * 16
        await store.sweep(NOW, 1000)

    in_sqlite(path, test)
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)


def test_a_sweep_that_fails_midway_is_told_when_it_is_made(path: Path) -> None:
    gone: list[tuple[str, bytes, str, int]] = []

    async def test(store: Store) -> None:
        assert isinstance(store, SqliteStore)
        await store.apply(puts(A, item("x", 1, expires=NOW + 1)), Reads(), NOW)
        await store.apply(Writes(logs=[event(A, "1", NOW + 1)]), Reads(), NOW)
        db = store.file.db()
        db.execute("INSERT INTO inbox VALUES ('not ours!', 'y', 1, 2, ?, 0, NULL)", (NOW + 1,))
        db.execute("CREATE TEMP TRIGGER fails BEFORE DELETE ON main.event BEGIN SELECT RAISE(ABORT, 'broken'); END")
        with pytest.raises(StoreError):
            await store.sweep(NOW + 2, 1000)
        assert gone == []  # nothing has gone
        db.execute("DROP TRIGGER fails")
        assert await store.sweep(NOW + 2, 1000) == 3
        assert gone == [("expired", A, "x", 1)]
        await store.sweep(NOW + 2, 1000)
        assert len(gone) == 1

    store = SqliteStore(OPTIONS, path)
    store.watch(lambda *one: gone.append(one))
    trio.run(with_store, store, test)
