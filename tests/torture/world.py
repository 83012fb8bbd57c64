"""What the clients, the senders and the faults of one run share."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable

from torture.history import Connection, History, Oddity
from torture.wire import WebSocket


class World:
    """One run: its history, its clock, and where the farm is."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.history = History()
        self.device_port = 0
        self.router_port = 0
        self.clock_offset = 0.0
        """How far the farm's clock is from ours."""
        self.quiet = False
        """Clients stay where they are, acknowledge everything at once, and senders have ended."""
        self.closing = False
        """Clients end with their connections."""
        self.counts: Counter[str] = Counter()
        self.last_arrival = 0.0
        self.wall = time.time()
        """When it began."""
        self._began = time.monotonic()
        self._numbers = itertools.count(1)
        self._abandoned: list[tuple[float, WebSocket]] = []

    def random(self, *who: object) -> random.Random:
        """A source of chance for one actor, the same in every run with this seed."""
        return random.Random(repr((self.seed, *who)))

    def now(self) -> float:
        """Seconds since the run began."""
        return time.monotonic() - self._began

    def farm_time(self) -> float:
        """The farm's clock, more or less."""
        return time.time() + self.clock_offset

    def connected(self, client: str, dialled: float, port: int = 0) -> Connection:
        """A client has been greeted. port: its own."""
        one = Connection(next(self._numbers), client, dialled, self.now(), port=port)
        self.history.connections[one.number] = one
        return one

    def odd(self, rule: str, text: str) -> None:
        """Something was seen that must not be."""
        self.history.oddities.append(Oddity(rule, text, self.now()))
        print(f"{self.now():8.1f} s  ODD {rule}: {text[:300]}", flush=True)  # an hour is long to wait for it

    def abandon(self, socket: WebSocket, seconds: float) -> None:
        """Leave a connection half open for a time: it is neither read nor closed."""
        socket.deafen()
        self._abandoned.append((self.now() + seconds, socket))

    def bury(self, everything: bool = False) -> None:
        """Close what has been half open for long enough."""
        kept = []
        for until, socket in self._abandoned:
            if everything or until < self.now():
                socket.reset()
            else:
                kept.append((until, socket))
        self._abandoned = kept

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        """Call something after a time."""
        asyncio.get_running_loop().call_later(seconds, what)
