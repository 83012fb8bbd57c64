"""The map of addresses to shards: the only state by which a push finds its sockets.

Two kinds of address, one table of 16-byte keys. A **device** is held by at most one shard, a **channel** by any
number. The value is the holder's *lease*, or a tuple of leases where a channel has several; for a device it is a
`Stay`, which knows the lease and since when, and is shared by all devices that attached there at that time. A lease is
one incarnation of a shard: when the shard dies its lease does, and everything it held is gone at that moment without a
walk through the table; dead entries are dropped when they are met, and by `sweep`.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

STRETCH_MS: Final = 50
"""Devices that a lease came to hold within this time count as having come at once."""


class Lease:
    """One incarnation of one shard, as long as it lives."""

    __slots__ = ("alive", "devices", "incarnation", "shard", "stay", "stayed")

    def __init__(self, shard: int, incarnation: bytes) -> None:
        self.shard = shard
        self.incarnation = incarnation
        self.alive = True
        self.devices = 0
        self.stay = Stay(self, 0)  # the last one
        self.stayed = self.stay  # of all that have been there for long

    def __repr__(self) -> str:
        return f"Lease({self.shard}, {self.incarnation.hex()}, {'alive' if self.alive else 'dead'})"


class Stay:
    """Since when (ms) some devices are held by a lease."""

    __slots__ = ("lease", "since")

    def __init__(self, lease: Lease, since: int) -> None:
        self.lease = lease
        self.since = since


class AddressMap:
    """Keys to leases. Every method is O(1) in the number of addresses, but for `sweep`."""

    def __init__(self) -> None:
        self._holders: dict[bytes, Stay | Lease | tuple[Lease, ...]] = {}
        self._sweep_position = 0

    def __len__(self) -> int:
        return len(self._holders)

    def keys(self) -> list[bytes]:
        """All of them, with some that no lease holds any more."""
        return list(self._holders)

    def device(self, key: bytes) -> Lease | None:
        """The live lease that holds this device."""
        held = self._holders.get(key)
        if held is None:
            return None
        if type(held) is Stay:
            lease = held.lease
            if lease.alive:
                return lease
            del self._holders[key]
        return None

    def since(self, key: bytes) -> int:
        """Since when (ms) this device is held by its lease: to within `STRETCH_MS`, and never later; 0: long ago."""
        held = self._holders.get(key)
        return held.since if type(held) is Stay else 0

    def attach(self, key: bytes, lease: Lease, since: int = 0) -> Lease | None:
        """The newest connection wins: `lease` holds the device from now on. since: when (ms) it came to hold it.

        Returns: another live lease that held it until now, to which DISCONNECT must be sent; None if there is none.
        """
        before = self.device(key)
        stay = lease.stay
        if not 0 <= since - stay.since < STRETCH_MS:
            stay = lease.stay = Stay(lease, since) if since else lease.stayed
        self._holders[key] = stay
        if before is lease:
            return None
        lease.devices += 1
        if before is not None:
            before.devices -= 1
        return before

    def leave(self, key: bytes, lease: Lease) -> bool:
        """The device's connection on this lease has gone. A newer holder elsewhere stays.

        Returns: whether the device is held by no lease now because of this.
        """
        held = self._holders.get(key)
        if type(held) is Stay and held.lease is lease:
            del self._holders[key]
            lease.devices -= 1
            return True
        return False

    def channel(self, key: bytes) -> tuple[Lease, ...]:
        """The live leases with subscribers of this channel."""
        held = self._holders.get(key)
        if held is None:
            return ()
        if type(held) is Lease:
            held = (held,)
        if type(held) is not tuple:
            return ()  # a device's key, which has no subscribers
        alive = tuple(lease for lease in held if lease.alive)
        if len(alive) != len(held):
            self._put_channel(key, alive)
        return alive

    def subscribe(self, key: bytes, lease: Lease) -> None:
        """This lease has subscribers of the channel from now on."""
        held = self.channel(key)
        if lease not in held:
            self._put_channel(key, (*held, lease))

    def unsubscribe(self, key: bytes, lease: Lease) -> None:
        """The last subscriber of the channel on this lease has gone."""
        self._put_channel(key, tuple(other for other in self.channel(key) if other is not lease))

    def _put_channel(self, key: bytes, leases: tuple[Lease, ...]) -> None:
        if leases:
            self._holders[key] = leases if len(leases) > 1 else leases[0]
        else:
            self._holders.pop(key, None)

    def sweep(self, budget: int, long_ago: int = 0) -> int:
        """Look at up to `budget` entries, going round the table over many calls, and drop what dead leases hold. When
        devices came that did so before `long_ago` (ms) is forgotten.

        Returns: how many entries were dropped.
        """
        keys = list(islice(self._holders, self._sweep_position, self._sweep_position + budget))
        dropped = sum(self._drop_dead(key, long_ago) for key in keys)
        self._sweep_position += len(keys) - dropped
        if len(keys) < budget:
            self._sweep_position = 0
        return dropped

    def _drop_dead(self, key: bytes, long_ago: int) -> bool:
        held = self._holders[key]
        if type(held) is Stay:
            lease = held.lease
            if not lease.alive:
                del self._holders[key]
                return True
            if held.since < long_ago:
                self._holders[key] = lease.stayed
            return False
        assert not isinstance(held, Stay)
        leases = held if isinstance(held, tuple) else (held,)
        alive = tuple(lease for lease in leases if lease.alive)
        if not alive:
            del self._holders[key]
            return True
        if isinstance(held, tuple):
            self._put_channel(key, alive)
        return False
