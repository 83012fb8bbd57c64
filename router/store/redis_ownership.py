"""Who owns which partitions in Redis: leases, and the tokens that fence them. It makes commands and reads replies.

A partition has one hash, its fence:

| field | holds |
|---|---|
| `t` | the owner's token, `number:nonce:connection`; number and nonce are its epoch, and the number grows |
| `h` | name of the owner |
| `u` | when its lease ends, in milliseconds of Redis' clock; or the key of the same owner's fence that says so |
| `w` | name of the newer placement that waits for it |
| `q` | ceiling: no sequence above it has been stored |
| `b` | number of the last batch that wrote: so each batch has a write that a replica can be waited for |
| `r` | run ID of the server |
| `g` | no log counts as of an earlier epoch than this: raised with each other run ID |
| `l` | epoch of the next log that is new |
| `v` | layout of the partition's keys; without it the first |

Every script compares the whole token. The epoch keeps out a router that was thought dead. The number of the connection
keeps out what this router gave up: a batch whose outcome is unknown ends its connection, and no batch is sent on
another one before the token has been raised; so what arrives late changes nothing, and none lands behind its successor.

Another run ID may be a replica that was promoted, and may have lost events whose offsets will be given out again; so
the logs get another epoch.

A lease says who may take a partition, not who may write: an owner that was late, and whose partition nobody took,
resumes it with its epoch. Partitions that one script can reach have one end of their leases, in the fence of the first:
so a router on one server renews one fence, not hundreds. In a cluster a script reaches one partition.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from router.store.lease import Lease
from router.store.redis_keys import LAYOUT, fence
from router.store.redis_scripts import ownership_script

Command = tuple[bytes | str | int, ...]


class Held(Exception):
    """A partition is another's. holder: its name. left: seconds until its lease ends, if it is not renewed."""

    def __init__(self, holder: str, left: float) -> None:
        super().__init__(holder)
        self.holder = holder
        self.left = left


class Newer(Exception):
    """A partition has a layout that this release does not know, which is the argument."""


@dataclass(frozen=True, slots=True)
class Owner:
    """What the fence of a partition says."""

    holder: str
    epoch: str


class Ownership:
    """The partitions of one router, on one server.

    bases: of all partitions (`router.store.redis_keys`). holder: name of the router; another start of the same router
    has the same, and need not wait for its predecessor's lease. lease: seconds. router: its number. shared: whether
    other routers take over what it has left.
    """

    def __init__(self, bases: Sequence[bytes], holder: str, lease: float, router: int, shared: bool = False) -> None:
        self._bases = bases
        self.lease = Lease(lease, shared)
        self.holder = holder
        """Name of the router."""
        self._lease_ms = int(lease * 1000)
        self._router = router
        self._connection = 0
        self.epochs: dict[int, str] = {}
        """Of each partition that is owned."""
        self.tokens: dict[int, bytes] = {}
        """Their epochs with the connection that may write."""
        self.ceilings: dict[int, int] = {}
        """Their ceilings of sequences, as they are stored."""

    def free(self, partitions: Collection[int]) -> Command:
        """Look whether partitions could be acquired. An older placement that has them cannot renew them any more."""
        places = sorted(partitions)
        return self._command(places, "look", self.holder, self._lease_ms, LAYOUT, *self._with_epochs(places))

    def acquire(self, partitions: Collection[int], run: bytes, unix_time: float) -> Command:
        """For partitions that are to be owned from now on, all or none, or that were owned before on another
        connection: these are resumed if nobody has taken them. run: ID of the server's run."""
        self._connection += 1
        places = sorted(partitions)
        return self._command(
            places,
            "acquire",
            self.holder,
            self._lease_ms,
            LAYOUT,
            int(unix_time * 1000),
            secrets.token_hex(8),
            self._connection,
            run,
            self._router,
            *self._with_epochs(places),
        )

    def acquired(self, partitions: Collection[int], reply: list[Any]) -> bool:
        """The answer to that. Returns: whether they were owned all the time, as far as this router knows.

        Raises: Held, Newer.
        """
        check_free(reply)
        places = sorted(partitions)
        kept = True
        for place, token, ceiling in zip(places, reply[1::2], reply[2::2], strict=True):
            self.tokens[place] = token
            self.ceilings[place] = int(ceiling)
            epoch = token.rpartition(b":")[0].decode()
            kept = kept and self.epochs.get(place, epoch) == epoch
            self.epochs[place] = epoch
        return kept

    def renew(self, partitions: Iterable[int]) -> Command:
        """Move the ends of the leases of partitions that are owned."""
        places = sorted(partitions)
        return self._command(places, "renew", self._lease_ms, *self._with_epochs(places))

    def renewed(
        self, partitions: Iterable[int], epochs: Mapping[int, str], reply: list[int]
    ) -> tuple[float, list[int]]:
        """The answer to that. epochs: `epochs` as it was when it was made.

        Returns: the server's time, in unix seconds, and the partitions that have another owner, or are to have one.
        """
        clock, *refused = reply
        places = sorted(partitions)
        # What was acquired anew meanwhile is this router's.
        return clock / 1000, [one for one in map(places.__getitem__, refused) if self.epochs.get(one) == epochs[one]]

    def release(self, partitions: Iterable[int], successor: str = "") -> Command:
        """Give partitions up, to whoever comes, or to a router of this name, for which they are kept for a lease."""
        places = sorted(partitions)
        command = self._command(places, "release", successor, self._lease_ms, *self._with_epochs(places))
        for place in places:
            self._forget(place)
        return command

    def lost(self, partitions: Iterable[int]) -> None:
        """These have another owner."""
        for place in partitions:
            self._forget(place)

    def _forget(self, place: int) -> None:
        for known in (self.tokens, self.ceilings, self.epochs):
            known.pop(place, None)

    def look(self, partition: int) -> Command:
        """Read who owns a partition."""
        return "HMGET", fence(self._bases[partition]), "h", "t"

    def _with_epochs(self, places: Iterable[int]) -> list[bytes | str]:
        return [part for place in places for part in (self.epochs.get(place, ""), self._bases[place])]

    def _command(self, places: Sequence[int], *arguments: bytes | str | int) -> Command:
        return "EVALSHA", ownership_script().name, 1, fence(self._bases[places[0]]), 0, 0, *arguments


def owner(reply: list[bytes | None]) -> Owner | None:
    """What `Ownership.look` found; None: the partition was never owned."""
    holder, token = reply
    if holder is None or token is None:
        return None
    return Owner(holder.decode(errors="replace"), token.rpartition(b":")[0].decode())


def check_free(reply: list[Any]) -> None:
    """The answer to `Ownership.free` or `acquire`.

    Raises: Held if another router has a partition; Newer if one is a newer release's.
    """
    if len(reply) == 2 and isinstance(reply[1], int):
        raise Newer(reply[1])
    if len(reply) == 3 and isinstance(reply[2], int):
        raise Held(reply[1].decode(errors="replace"), reply[2] / 1000)
