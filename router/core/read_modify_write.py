"""Changes of records that depend on what a record holds: read it, change it, write it, in the order they were asked
for. Part of the router's pure core."""

from __future__ import annotations

from collections.abc import Callable

from router.common import messages as v
from router.core.committer import GroupCommitter
from router.store.base import KEEP_EXPIRY

Change = Callable[[bytes | None], tuple[int, bytes | None, int]]
"""What is to become of a record: takes its value, gives OK or FULL, the new value and its expiry."""
Answer = Callable[[int], None]
"""Called once with the status: when the change is durable, or it could not be made."""
_Name = tuple[str, bytes]  # space, key


class ReadModifyWrite:
    """The records that are being changed, each with what waits for its turn."""

    def __init__(self, committer: GroupCommitter) -> None:
        self._committer = committer
        self._waiting: dict[_Name, list[tuple[Change, Answer]]] = {}

    def __contains__(self, name: _Name) -> bool:
        """Whether a record is being changed: who wants to write it has to wait for its turn too."""
        return name in self._waiting

    def __len__(self) -> int:
        return len(self._waiting)

    def make(self, name: _Name, change: Change, answer: Answer, new: bool = False) -> None:
        """Change a record after all that was asked for before. new: there is none yet, so none has to be read."""
        waiting = self._waiting.get(name)
        if waiting is not None:
            waiting.append((change, answer))
        else:
            self._waiting[name] = [(change, answer)]
            self._turn(name, new)

    def _turn(self, name: _Name, new: bool = False) -> None:
        """All changes of a record that wait when it has been read are made in one write."""
        outcomes: list[tuple[int, Answer]] = []

        def looked_up(status: int, value: bytes | None) -> None:
            changes, self._waiting[name] = self._waiting[name], []
            until = KEEP_EXPIRY
            write = False
            for change, answer in changes:
                outcome, changed, expires = change(value) if status == v.OK else (status, value, KEEP_EXPIRY)
                outcomes.append((outcome, answer))
                if outcome == v.OK and (changed != value or expires != KEEP_EXPIRY):
                    write = True
                    value = changed
                    until = until if expires == KEEP_EXPIRY else expires
            if write:
                self._committer.record(*name, value, until)
            self._committer.when_durable(durable)

        def durable(status: int) -> None:
            for outcome, answer in outcomes:
                answer(status if outcome == v.OK else outcome)
            if self._waiting[name]:
                self._turn(name)
            else:
                del self._waiting[name]

        if new:
            looked_up(v.OK, None)
        else:
            self._committer.read_record(*name, looked_up)
