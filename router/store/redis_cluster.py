"""Which server of a cluster has a partition."""

from __future__ import annotations

import dataclasses
import time
from binascii import crc_hqx
from collections.abc import Sequence
from typing import Any, Final

import trio

from router.common.redis_address import Address, parse
from router.common.redis_settings import RedisOptions
from router.store.base import StoreError
from router.store.redis_connection import connect
from router.store.redis_keys import TAGS

_SLOTS: Final = 16_384
_PAUSE_S: Final = 0.1
"""From one time that the map is asked for to the next."""


def slot(tag: str) -> int:
    """The slot of the keys with this hash tag."""
    return crc_hqx(tag.encode(), 0) % _SLOTS


_SLOT_OF: Final = tuple(map(slot, TAGS))


class Topology:
    """The addresses of the primaries, as one of the servers says that is known.

    One whose map was not right may not know better for a while, being cut off from the others, perhaps. So another
    one is asked each time.
    """

    def __init__(self, options: RedisOptions) -> None:
        self._options = options
        self._address = parse(options.url)
        self._known: list[Address] = [self._address]
        self._next_at = 0.0
        self.primaries: list[Address] = []
        """Of each partition, or nothing before it was asked for."""

    async def refresh(self) -> None:
        """Ask for it, not more often than is of use. Raises: StoreError if no server that is known answers."""
        await trio.sleep(max(0.0, self._next_at - time.monotonic()))
        self._next_at = time.monotonic() + _PAUSE_S
        problems = []
        known = self._known  # whoever renews leases may ask at the same time as a batch
        for at, address in enumerate(known):
            try:
                slots = await self._asked(address)
                self.primaries = self._of_partitions(slots, address)
            except StoreError as error:
                problems.append(str(error))
                continue
            # Next time those that were not asked come first, those that did not answer last. The one of redis.url is
            # one of these, perhaps, or a name for all of them.
            there = [*self.primaries, *self._replicas(slots, address), self._address]
            asked = [address, *known[:at]]
            new = [one for one in there if one not in known]
            order = dict.fromkeys([*known[at + 1 :], *new, *asked])
            self._known = [one for one in order if one in there]
            return
        raise StoreError(*problems)

    async def _asked(self, address: Address) -> list[Any]:
        connection = await connect(address, self._options.connect_timeout, self._options.ca_file)
        try:
            with trio.fail_after(self._options.connect_timeout):
                slots: list[Any] = await connection.ask("CLUSTER", "SLOTS")
                return slots
        except trio.TooSlowError:
            raise StoreError(f"Redis {address} does not answer within redis.connect_timeout") from None
        finally:
            connection.abandon()

    def _of_partitions(self, slots: Sequence[Any], asked: Address) -> list[Address]:
        found = []
        for number in _SLOT_OF:
            node = next((row[2] for row in slots if row[0] <= number <= row[1]), None)
            if node is None:
                raise StoreError(f"Redis {asked}: the cluster has no server for slot {number}; see CLUSTER INFO")
            found.append(self._node(node, asked))
        return found

    def _replicas(self, slots: Sequence[Any], asked: Address) -> list[Address]:
        return [self._node(node, asked) for row in slots for node in row[3:]]

    def _node(self, node: Sequence[Any], asked: Address) -> Address:
        """node: its host, which is none where it is the one that was asked, and its port."""
        host = node[0].decode() if node[0] else asked.host
        return dataclasses.replace(self._address, host=host, port=node[1])
