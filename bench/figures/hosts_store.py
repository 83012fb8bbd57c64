"""The store of one farm on many hosts: memory and servers of Redis or Valkey. Pure."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from bench.errors import BenchError
from bench.figures.evidence import ASSUMED, EXTRAPOLATED, GIVEN, MEASURED, Evidence, Stored

WAITING: Final = 0.1
"""Messages that wait, a device, unless told otherwise."""
DRAIN_SECONDS: Final = 600.0
STORE_BYTES: Final = 16 << 30
STORE_USED: Final = 0.5
"""Of a server's memory: while it rewrites its file, pages that change are there twice."""
COPIES: Final = 2

Add = Callable[[str, str, float | None, str, str, str], None]


@dataclass(frozen=True, slots=True)
class HostsWish:
    """`count` hosts, 0: as many as the devices take. `routers`: 0: one a host. `waiting`: messages that wait for
    devices; None: a tenth of the devices. `store_memory`: bytes of a Redis server; `store_price`: dollars a month;
    `copies`: of everything stored. `drain`: seconds over which the devices of a host are let go."""

    count: int = 0
    routers: int = 0
    waiting: float | None = None
    store_memory: int = STORE_BYTES
    store_price: float | None = None
    copies: int = COPIES
    drain: float = DRAIN_SECONDS


@dataclass(slots=True)
class StoreOfHosts:
    """Adds the figures one by one."""

    add: Add
    wish: HostsWish
    found: Evidence
    devices: int
    push_rate: float
    headroom: float

    def servers(self) -> int:
        """Servers of the store, replicas included."""
        wish = self.wish
        if not self.found.stored:
            raise BenchError(
                "the results do not say what a device takes in Redis: add one of farm bench push --store redis-replica "
                "--devices 15000 --online 0.7 --json stored.json"
            )
        stored = max(self.found.stored, key=lambda one: one.devices)
        self.add("stored_device", "memory of the store a device", stored.device, "bytes", MEASURED, stored.source)
        waiting = self.devices * WAITING if wish.waiting is None else wish.waiting
        kind, text = (ASSUMED, "a tenth of the devices") if wish.waiting is None else (GIVEN, "--waiting")
        self.add("waiting", "messages that wait for devices", waiting, "", kind, text)
        message = self._message(stored)
        used = self.devices * stored.device + waiting * message
        self.add("stored", "memory of the store, one copy", used, "bytes", EXTRAPOLATED, "devices and messages")
        self.add("copies", "copies", wish.copies, "", GIVEN, "--copies: the primary's and its replicas'")
        text = f"that x copies; servers of {wish.store_memory >> 20:,} MiB are filled to {STORE_USED:.0%}"
        self.add("stored_all", "memory of the store, all copies", used * wish.copies, "bytes", EXTRAPOLATED, text)
        by_memory = math.ceil(used / (wish.store_memory * STORE_USED))
        self.add(
            "primaries_memory",
            "primaries for the memory",
            by_memory,
            "",
            EXTRAPOLATED,
            "one copy / what a server is filled to",
        )
        by_pushes = self._primaries_for_pushes()
        primaries = max(1, by_memory, by_pushes)
        self.add(
            "store_servers", "servers of the store", primaries * wish.copies, "", EXTRAPOLATED, "primaries x copies"
        )
        if primaries > 1:
            self.add("slots", "a Redis cluster of primaries", primaries, "", EXTRAPOLATED, "redis.cluster = true")
        return primaries * wish.copies

    def _message(self, stored: Stored) -> float:
        known = [one for one in self.found.stored if one.message is not None]
        if not known:
            self.add(
                "stored_message",
                "memory of the store a message",
                0.0,
                "bytes",
                ASSUMED,
                "not measured: --online below 1",
            )
            return 0.0
        one = max(known, key=lambda one: one.devices)
        assert one.message is not None
        self.add("stored_message", "memory of the store a message", one.message, "bytes", MEASURED, one.source)
        return one.message

    def _primaries_for_pushes(self) -> int:
        measured = [one for one in self.found.pushes if one.store_cpu]
        measured = [one for one in measured if one.flat_out] or measured
        if not measured or not self.push_rate:
            return 1
        dearest = max(measured, key=lambda one: one.store_cpu)
        text = f"the dearest: {dearest.source}; a server has one thread for it"
        self.add("store_cpu", "CPU of a server of the store a push", dearest.store_cpu * 1e6, "us", MEASURED, text)
        count = math.ceil(self.push_rate * dearest.store_cpu / self.headroom)
        text = "notifications/s wanted x that / the share used"
        self.add("primaries_pushes", "primaries for the pushes", count, "", EXTRAPOLATED, text)
        return count
