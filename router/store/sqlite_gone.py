"""Which items a commit has evicted, and a sweep has deleted: for `log.pushes`, and only where that is on."""

from __future__ import annotations

import sqlite3
from base64 import b64decode
from collections.abc import Container
from typing import Final

from router.store.base import Gone

_TRIGGER: Final = """
CREATE TEMP TRIGGER IF NOT EXISTS gone AFTER DELETE ON main.inbox BEGIN
    SELECT note_gone(OLD.device, OLD.slot, OLD.version);
END"""


class GoneRows:
    """Rows of the inboxes that were deleted in a transaction."""

    def __init__(self, gone: Gone) -> None:
        self._gone = gone
        self._db: sqlite3.Connection | None = None
        self._rows: list[tuple[str, str, int]] = []

    def begin(self, db: sqlite3.Connection) -> None:
        """A transaction begins."""
        self._rows.clear()
        if self._db is not db:
            db.create_function("note_gone", 3, self._note)
            db.execute(_TRIGGER)
            self._db = db

    def _note(self, device: str, slot: str, version: int) -> None:
        self._rows.append((device, slot, version))

    def tell(self, why: str, but: Container[tuple[bytes, str]] = ()) -> None:
        """It is committed, and nothing of it is told twice. but: these were asked for."""
        rows, self._rows = self._rows, []
        for text, slot, version in rows:
            try:
                device = b64decode(text, validate=True)
            except ValueError:  # which somebody else has written: of all others there is something to tell
                continue
            if (device, slot) not in but:
                self._gone(why, device, slot, version)
