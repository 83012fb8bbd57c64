"""Since when each device of a worker is attached, at no cost for each. Pure.

The table of devices is in the order in which they attached. Marks stand in it between them, one for each stretch of
time: what follows a mark attached at its time. So a device costs nothing, and one that goes takes nothing with it.
Only recent attachments need a time, to order two connections of a device of which the older one is perhaps not closed
yet: older marks are removed.

Times are milliseconds of the machine's monotonic clock, which is the same in all its processes; in a cluster of unix
time, which differs between hosts as their clocks do.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from farm.worker.connection import Connection
from router.common import messages as m

STRETCH_MS: Final = 50
"""Devices that attached within this time have one mark."""
REMEMBER_MS: Final = 600_000
"""A device that attached longer ago than this has the time 0, "long ago"."""
MAX_MARKS: Final = 8192
"""The oldest goes when there are more."""

_MARK: Final = Connection(-1, 0, 0.0)
_mark_key: Final = struct.Struct(">QI")  # its time and its number: no device's key has this length
_NUMBERS: Final = 2**32


class Ages:
    """The devices by key, in the order in which they attached, and the marks between them."""

    def __init__(self) -> None:
        self.devices: dict[bytes, Connection] = {}
        self._marks: deque[bytes] = deque()
        self._number = 0
        self._since = -STRETCH_MS  # of the last mark

    def put(self, key: bytes, connection: Connection, since: int) -> Connection | None:
        """The device is attached by this connection. Returns: the one that it had before."""
        before = self.devices.pop(key, None)
        if not 0 <= since - self._since < STRETCH_MS:
            self._mark(since)
        self.devices[key] = connection
        return before

    def _mark(self, since: int) -> None:
        marks, devices = self._marks, self.devices
        self._since = since
        self._number = (self._number + 1) % _NUMBERS
        mark = _mark_key.pack(since, self._number)
        devices[mark] = _MARK
        marks.append(mark)
        while len(marks) > MAX_MARKS or since - _mark_key.unpack(marks[0])[0] > REMEMBER_MS:
            del devices[marks.popleft()]

    def __len__(self) -> int:
        """Devices, without the marks."""
        return len(self.devices) - len(self._marks)

    def held(
        self, wanted: Callable[[bytes], bool] | None = None
    ) -> Iterator[tuple[list[bytes], list[tuple[int, int]]]]:
        """The content of ANNOUNCE: keys, and for each stretch of them how many attached at which time. wanted: whether
        a key is to be among them; None: all are."""
        keys: list[bytes] = []
        runs: list[tuple[int, int]] = []
        since = run = 0
        for key, connection in self.devices.items():
            if connection is _MARK:
                if run:
                    runs.append((run, since))
                since, run = _mark_key.unpack(key)[0], 0
                continue
            if wanted is not None and not wanted(key):
                continue
            keys.append(key)
            run += 1
            if len(keys) == m.ANNOUNCE_CHUNK:
                yield keys, [*runs, (run, since)]
                keys, runs, run = [], [], 0
        if keys:
            yield keys, [*runs, (run, since)] if run else runs
