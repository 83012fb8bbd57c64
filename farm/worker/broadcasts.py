"""Broadcasts of the router, passed on to the sessions that follow them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from farm.dialects import BroadcastTracker, Close, Effects
from farm.worker.connection import OPEN, Connection
from router.common import logs
from router.common.close_codes import INTERNAL

STEP: Final = 2000
"""Descriptors visited in one step: some milliseconds, however many devices there are."""


class BroadcastScan:
    """Walks over all connections when broadcasts of their dialect have changed: a part at a time, one walk at a time.

    A session gets what is newest when the walk reaches it. What changes behind the walk begins another one, in which
    nothing is sent to a session that has everything.
    """

    def __init__(self, trackers: Mapping[str, BroadcastTracker]) -> None:
        self._trackers = trackers
        self._waiting: dict[str, BroadcastTracker] = {}
        self._tracker: BroadcastTracker | None = None
        self._at = 0
        self._top = 0

    def renewed(self) -> None:
        """The link is new: the router sends all broadcasts again."""
        for tracker in self._trackers.values():
            tracker.renewed()

    def complete(self) -> None:
        """It has sent all of them."""
        for tracker in self._trackers.values():
            tracker.complete()

    def broadcast_changed(self, space: str, key: str, value: str | None) -> None:
        """The router has sent a broadcast."""
        tracker = self._trackers.get(space)
        if tracker is not None and tracker.changed(key, value):
            self._waiting[space] = tracker

    def step(self, connections: Mapping[int, Connection]) -> Iterator[tuple[Connection, Effects]]:
        """The next part of a walk: connections, and what is sent to each. The table may change meanwhile."""
        if self._at >= self._top:
            if not self._waiting:
                return
            _, self._tracker = self._waiting.popitem()
            self._at, self._top = 0, max(connections, default=-1) + 1
        tracker = self._tracker
        assert tracker is not None
        first, self._at = self._at, min(self._at + STEP, self._top)
        for fd in range(first, self._at):
            connection = connections.get(fd)
            if connection is not None and connection.phase == OPEN and type(connection.session) is tracker.session_type:
                try:
                    effects = tracker.notify(connection.session)
                except Exception as error:  # a defect: it ends this connection and no other
                    logs.limited("dialect.failed", at="error", per=repr(error), exc=error)
                    effects = (Close(INTERNAL, "internal error"),)
                yield connection, effects
