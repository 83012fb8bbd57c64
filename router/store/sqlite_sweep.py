"""The sweep of the store on disk: a part of its tables at a time, and where it goes on."""

from __future__ import annotations

import sqlite3

from router.common.numbers import next_epoch
from router.store.log_statements import NOTE_SWEPT
from router.store.statements import SWEPT


class Sweeper:
    """Goes through all tables, over and over. router: its number, for the epochs of logs that begin anew."""

    def __init__(self, router: int) -> None:
        self._router = router
        self._cursor: tuple[int, tuple[str | int, ...]] = (0, SWEPT[0][2])

    def sweep(self, db: sqlite3.Connection, now: int, budget: int) -> int:
        """See `Store.sweep`, in one transaction. It ends early where a round through all tables ends."""
        db.execute("BEGIN IMMEDIATE")
        try:
            deleted, cursor = self._sweep_tables(db, now, budget)
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        self._cursor = cursor
        return deleted

    def _sweep_tables(
        self, db: sqlite3.Connection, now: int, budget: int
    ) -> tuple[int, tuple[int, tuple[str | int, ...]]]:
        """Returns: how many were deleted, and where to go on."""
        table, start = self._cursor
        deleted = 0
        while True:
            name, columns, _, expired = SWEPT[table]
            key = ", ".join(columns)
            after = f"({key}) > ({', '.join(f':a{i}' for i in range(len(columns)))})"
            values: dict[str, str | int] = {f"a{i}": part for i, part in enumerate(start)}
            end = db.execute(
                f"SELECT {key} FROM {name} WHERE {after} ORDER BY {key} LIMIT 1 OFFSET :skip",
                values | {"skip": budget - 1},
            ).fetchone()
            part = after
            if end is not None:
                part += f" AND ({key}) <= ({', '.join(f':b{i}' for i in range(len(columns)))})"
                values |= {f"b{i}": value for i, value in enumerate(end)}
            else:
                budget -= db.execute(f"SELECT count(*) FROM {name} WHERE {after}", values).fetchone()[0]
            condition = f"{part} AND {expired}"
            values["now"] = now
            if name == "head":
                self._forget_channels(db, condition, values, now)
            else:
                if name == "event":
                    db.execute(NOTE_SWEPT.format(condition=condition), values)
                deleted += db.execute(f"DELETE FROM {name} WHERE {condition}", values).rowcount
            if end is not None:
                return deleted, (table, end)
            table += 1
            if table == len(SWEPT):
                return deleted, (0, SWEPT[0][2])
            start = SWEPT[table][2]

    def _forget_channels(self, db: sqlite3.Connection, condition: str, values: dict[str, str | int], now: int) -> None:
        """A channel that begins anew counts from 1: under another epoch, with none of its old events."""
        db.execute(f"DELETE FROM event WHERE channel IN (SELECT channel FROM head WHERE {condition})", values)
        if db.execute(f"DELETE FROM head WHERE {condition}", values).rowcount:
            (epoch,) = db.execute("SELECT epoch FROM meta").fetchone()
            db.execute("UPDATE meta SET epoch = ?", (next_epoch(epoch, self._router, now),))
