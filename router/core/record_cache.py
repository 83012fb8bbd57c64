"""A bounded cache of records, for what is looked up at every push.

Two generations: what is put goes into the young one; when that has its share of the room, or its time is over, it
becomes the old one, and what the old one held is forgotten. An entry is not renewed by being used, so that none
outlives its record by more than ten minutes: the cache does not know when a record expires.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

Name = tuple[str, bytes]

MAX_AGE_S: Final = 600.0
_GENERATION_S: Final = MAX_AGE_S / 3  # at its end another generation may have begun as late as after two of these
_ENTRY_BYTES: Final = 256


class RecordCache:
    """Values by (space, key). `limit` is in entries of up to 256 bytes; a longer value counts as several. 0: none."""

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._share = limit / 2
        self._clock = clock
        self._young: dict[Name, bytes] = {}
        self._old: dict[Name, bytes] = {}
        self._weight = 0
        self._since = clock()

    def get(self, name: Name) -> bytes | None:
        """The value, if it is known."""
        self._turn()
        value = self._young.get(name)
        return self._old.get(name) if value is None else value

    def put(self, name: Name, value: bytes) -> None:
        """What has just been read."""
        weight = 1 + len(value) // _ENTRY_BYTES
        if weight > self._share:
            self.drop(name)
            return
        self._turn(weight)
        self._old.pop(name, None)
        self._young[name] = value
        self._weight += weight  # also for one that is replaced: then the generation ends a little early

    def written(self, name: Name, value: bytes | None) -> None:
        """A record changes; only what is held follows."""
        if name not in self._young and name not in self._old:
            return
        if value is None:
            self.drop(name)
        else:
            self.put(name, value)

    def drop(self, name: Name) -> None:
        """Forget one."""
        self._young.pop(name, None)
        self._old.pop(name, None)

    def _turn(self, coming: int = 0) -> None:
        now = self._clock()
        age = now - self._since
        if 0 <= age < _GENERATION_S and self._weight + coming <= self._share:
            return
        self._old = self._young if 0 <= age < 2 * _GENERATION_S else {}
        self._young = {}
        self._weight = 0
        self._since = now

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
