"""What this worker knows of its devices' connections, for users of the admin port.

A search goes through the descriptors, a few hundred at a time, with turns of the devices in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Final

from farm.dialects import DeviceSession
from farm.worker.attachments import Attachments
from farm.worker.clock import Clock
from farm.worker.connection import OPEN, Connection
from farm.worker.table import Table
from router.common import messages as m

_SLICE: Final = 256
"""Descriptors that are looked at in one step."""
_SEARCHES: Final = 16
"""Searches that may wait; further ones are answered at once, as not complete."""
_LONGEST_S: Final = 10.0
"""A search that has not ended by then is given up: so long the supervisor waits for an answer at most."""


class _Search:
    __slots__ = ("asked", "at", "deadline", "found")

    def __init__(self, asked: m.Inspect, deadline: float) -> None:
        self.asked = asked
        self.deadline = deadline
        self.at = 0  # the next descriptor
        self.found: list[m.Inspection] = []


class Inspections:
    """Answers INSPECT. address_of: of the client of a descriptor; "" if it is not known."""

    def __init__(
        self,
        connections: Table,
        attachments: Attachments,
        clock: Clock,
        send: Callable[[Any], None],
        address_of: Callable[[int], str],
    ) -> None:
        self._connections = connections
        self._devices = attachments.devices
        self._clock = clock
        self._send = send
        self._address_of = address_of
        self._searches: deque[_Search] = deque()

    @property
    def waiting(self) -> bool:
        """Whether a search is under way: then `go_on` is to be called."""
        return bool(self._searches)

    def inspect(self, asked: m.Inspect) -> None:
        """INSPECT has come."""
        if not asked.device:
            if len(self._searches) < _SEARCHES:
                self._searches.append(_Search(asked, self._clock.now + _LONGEST_S))
            else:
                self._send(m.Inspected(asked.number, [], True))
            return
        connection = self._devices.get(asked.device)
        found = [] if connection is None else [self._inspection(connection, self._address_of(connection.fd))]
        self._send(m.Inspected(asked.number, found, False))

    def go_on(self) -> None:
        """Take the oldest search a step further."""
        search = self._searches[0]
        if search.deadline <= self._clock.now:
            self._searches.popleft()
            return
        rows, asked = self._connections.rows, search.asked
        end = min(search.at + _SLICE, len(rows))
        more = False
        while search.at < end and not more:
            connection = rows[search.at]
            search.at += 1
            if connection is not None and self._is_device(connection):
                address = self._address_of(connection.fd)
                if address == asked.address:
                    more = len(search.found) >= asked.limit
                    if not more:
                        search.found.append(self._inspection(connection, address))
        if more or search.at >= len(rows):
            self._searches.popleft()
            self._send(m.Inspected(asked.number, search.found, more))

    def _is_device(self, connection: Connection) -> bool:
        session = connection.session
        return isinstance(session, DeviceSession) and self._devices.get(session.key) is connection

    def _inspection(self, connection: Connection, address: str) -> m.Inspection:
        session = connection.session
        assert isinstance(session, DeviceSession)
        silent = max(0.0, self._clock.now - connection.since) if connection.phase == OPEN else 0.0
        buffered = len(connection.out) if connection.out is not None else 0
        return m.Inspection(session.key, session.speaks, address, round(silent, 1), buffered)
