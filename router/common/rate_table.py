"""How often each of many clients may do something: a rate and a burst for each key, in bounded memory. Pure.

The rule is GCRA (ITU-T I.371): of a key only the time is kept at which it will have paid for all that it was allowed.
What lies no further ahead than the burst is allowed. A key whose time has passed is the same as one that was never
seen, so that its place can be given to another and nothing is forgotten.

There is a fixed number of places. A key that comes while all are taken, by keys that have not paid yet, is counted in
one of as many cells that keys share: a cell is at least as far ahead as each key that was counted in it, and a key that
gets a place begins where its cell is. So whoever comes from a million addresses takes no more memory and turns no limit
off: those that have places are counted as before, all others may be allowed less than they should be, never more.

Each call takes the same time, however many keys there are.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Hashable
from typing import Final

_LOOKS: Final = 4
"""Places that are looked at for one whose key has paid, before a cell is used."""


class RateTable:
    """A rate a key."""

    __slots__ = ("_ahead", "_cells", "_hand", "_keys", "_most", "_places", "_salt", "_step", "_times")

    def __init__(self, per_second: float, burst: float, most: int) -> None:
        """per_second: more than 0. burst: what a quiet key may do at once; at least 1 counts. most: places."""
        self._step = 1.0 / per_second
        self._ahead = (max(1.0, burst) - 1.0) * self._step + 1e-6  # as far as sums of times are not exact
        self._most = most
        self._places: dict[Hashable, int] = {}
        self._keys: list[Hashable] = []
        self._times = array("d")
        self._hand = 0
        self._cells = array("d")  # none until all places were taken
        self._salt = random.getrandbits(61)  # so that nobody can choose who shares a cell with whom

    def __len__(self) -> int:
        """Places that have a key."""
        return len(self._keys)

    @property
    def step(self) -> float:
        """Seconds that one is paid with."""
        return self._step

    def wait(self, key: Hashable, now: float) -> float:
        """For how many seconds the key has to wait, if it has: nothing is counted."""
        place = self._places.get(key, -1)
        return max(0.0, (self._shared(key, now) if place < 0 else self._times[place]) - now - self._ahead)

    def take(self, key: Hashable, now: float, count: int = 1) -> float:
        """Count so many of a key. Returns: 0, or how long it has to wait; then nothing is counted.

        A key that need not wait may take more than is left of its burst, and then waits for longer: what comes as a
        whole is allowed as a whole. now: in seconds, never less than before.
        """
        place = self._places.get(key, -1)
        if place < 0:
            return self._take_new(key, now, count)
        at = self._times[place]
        if at < now:
            at = now
        elif at - now > self._ahead:
            return at - now - self._ahead
        self._times[place] = at + count * self._step
        return 0.0

    def add(self, key: Hashable, now: float, count: int = 1) -> bool:
        """Count so many of a key, whatever it has done. Returns: whether it may go on at once."""
        place = self._places.get(key, -1)
        if place < 0:
            at = self._shared(key, now) + count * self._step
            self._put(key, now, at)
        else:
            at = self._times[place] = max(self._times[place], now) + count * self._step
        return at - now <= self._ahead

    def _take_new(self, key: Hashable, now: float, count: int) -> float:
        at = self._shared(key, now)
        if at - now > self._ahead:
            return at - now - self._ahead
        self._put(key, now, at + count * self._step)
        return 0.0

    def _shared(self, key: Hashable, now: float) -> float:
        """How far ahead a key is that has no place."""
        cells = self._cells
        return max(now, cells[hash((self._salt, key)) % len(cells)]) if cells else now

    def _put(self, key: Hashable, now: float, at: float) -> None:
        """Of a key that has no place."""
        keys, times = self._keys, self._times
        if len(keys) < self._most:
            self._places[key] = len(keys)
            keys.append(key)
            times.append(at)
            return
        for _ in range(_LOOKS):
            place = self._hand = (self._hand + 1) % self._most
            if times[place] <= now:
                del self._places[keys[place]]
                self._places[key] = place
                keys[place] = key
                times[place] = at
                return
        if not self._cells:
            self._cells = array("d", bytes(8 * self._most))
        self._cells[hash((self._salt, key)) % self._most] = at
