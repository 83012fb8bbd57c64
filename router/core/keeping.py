"""Records of connected devices are renewed: a device that is connected counts as seen.

A device's record expires when the device has not been seen for its dialect's `timeout_uaid`. It is written when the
device says hello, and a connection may outlast it. So the router goes through its map in rounds, three in the shortest
such time, and raises the expiry of records that have less than two thirds of it left; it makes none. The keys of the
map are all that it needs: those of channels find no record.

The store's share of this is one statement for a thousand devices: for a million of them and 60 days about one in half
an hour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from router.common.last_seen import ROUNDS
from router.core.address_map import AddressMap
from router.core.committer import GroupCommitter

_CHUNK: Final = 1000
_SPREAD_S: Final = 3600.0
"""The longest time over which the writes of one round are spread, and for which its keys are kept."""
_FIRST_S: Final = 30.0
"""From the start to the first round at the latest: how long ago the one before was is not known."""


class Keeper:
    """Renews what the devices of the map depend on. `tick` is to be called a few times a second.

    kept: spaces of records by device key, each with the seconds that one lives after its device was seen; 0: no end.
    """

    def __init__(
        self,
        committer: GroupCommitter,
        addresses: AddressMap,
        kept: Iterable[tuple[str, int]],
        unix_time: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self._committer = committer
        self._addresses = addresses
        self._kept = [(space, ttl) for space, ttl in kept if ttl]
        self._unix_time = unix_time
        self._monotonic = monotonic
        self._period = min((ttl for _, ttl in self._kept), default=0) / ROUNDS
        self._next_round = monotonic() + min(self._period, _FIRST_S)
        self._keys: list[bytes] = []  # of this round, not renewed yet
        self._next_chunk = 0.0
        self._pace = 0.0

    def tick(self) -> None:
        """Renew what is due."""
        now = self._monotonic()
        if not self._kept or not self._committer.healthy:  # a store that cannot write gets it when it can
            return
        if not self._keys:
            if now < self._next_round:
                return
            self._next_round = now + self._period
            self._keys = self._addresses.keys()
            chunks = -(-len(self._keys) // _CHUNK)
            self._pace = min(self._period / 2, _SPREAD_S) / max(1, chunks)
            self._next_chunk = now
        while self._keys and self._next_chunk <= now:
            self._next_chunk += self._pace
            chunk = self._keys[-_CHUNK:]
            del self._keys[-_CHUNK:]
            self._renew([key for key in chunk if self._addresses.device(key) is not None])

    def _renew(self, keys: list[bytes]) -> None:
        if not keys:
            return
        now = int(self._unix_time())
        for space, ttl in self._kept:
            self._committer.renew(space, keys, now + ttl, now + ttl - ttl // ROUNDS)
