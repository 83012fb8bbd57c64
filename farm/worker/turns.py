"""How much of a worker one connection may have: turns, commands a second, and time for a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from farm.settings import LimitOptions, WorkerOptions
from farm.worker.clock import Clock
from farm.worker.connection import IDLE, OPEN, Connection
from farm.worker.rates import Rates
from router.common.metrics import WorkerCounters
from router.common.poller import READ


class Turns:
    """Whose input waits, for its next turn or for its next second, and since when a message is incomplete."""

    def __init__(
        self,
        options: WorkerOptions,
        limits: LimitOptions,
        counters: WorkerCounters,
        clock: Clock,
        watch: Callable[[Connection, int], None],
    ) -> None:
        self._timeout: Final = options.message_timeout
        self._counters = counters
        self._clock = clock
        self._watch = watch
        self._commands = Rates(limits.commands_per_second, limits.burst_seconds)
        self._registrations = Rates(limits.registrations_per_second, limits.burst_seconds)
        self._later: dict[Connection, None] = {}  # its input is here
        self._resting: dict[Connection, None] = {}  # it has asked for too much, and is read again later
        self._unfinished: dict[Connection, float] = {}  # when a message has to be whole, the earliest first
        self.held: dict[Connection, list[tuple[int, bytes]]] = {}
        """Messages that came behind a call whose answer is awaited."""
        self.spend = self._commands.spend

    def __len__(self) -> int:
        """How many wait for their next turn."""
        return len(self._later)

    def waits(self, connection: Connection) -> bool:
        """Whether what it has sent is not to be read now."""
        return connection in self._later or connection in self._resting

    def rests(self, connection: Connection) -> bool:
        """Whether it has asked for more than it may."""
        return connection in self._resting

    def later(self, connection: Connection) -> None:
        """Its input is here already and has its next turn soon."""
        self._later[connection] = None
        self._watch(connection, connection.mask & ~READ)

    def may(self, connection: Connection) -> bool:
        """Whether it may ask for more now."""
        return self._commands.may(connection.fd) and self._registrations.may(connection.fd)

    def rest(self, connection: Connection) -> None:
        """It asks for more than it may: what it sends next waits in the kernel."""
        if connection.phase in (OPEN, IDLE) and connection not in self._resting:
            self._counters.rested += 1
            self._resting[connection] = None
            self._watch(connection, connection.mask & ~READ)

    def register(self, connection: Connection) -> None:
        """It has registered something."""
        if not self._registrations.spend(connection.fd):
            self.rest(connection)

    def next(self) -> dict[Connection, None]:
        """Those that have a turn now."""
        now, self._later = self._later, {}
        return now

    def second(self) -> None:
        """A second is over: who may go on?"""
        self._commands.second()
        self._registrations.second()
        for connection in list(self._resting):
            if self.may(connection):
                del self._resting[connection]
                self._later[connection] = None

    # ------------------------------------------------------------------ messages that are incomplete

    def finished(self, connection: Connection) -> None:
        """Nothing of it is incomplete that was before."""
        self._unfinished.pop(connection, None)

    def unfinished(self, connection: Connection) -> None:
        """A part of a message is here."""
        self._unfinished.setdefault(connection, self._clock.now + self._timeout)

    def overdue(self, now: float) -> list[Connection]:
        """Those who began a message long ago. One that was not read meanwhile has more time."""
        found = []
        for connection, deadline in list(self._unfinished.items()):
            if deadline > now:
                break
            if connection.mask & READ and not connection.call:
                found.append(connection)
            else:
                del self._unfinished[connection]
                self._unfinished[connection] = now + self._timeout
        return found

    # ------------------------------------------------------------------ the end

    def end(self, connection: Connection) -> None:
        """What it sends is not handled any more."""
        self._later.pop(connection, None)
        self._resting.pop(connection, None)
        self._unfinished.pop(connection, None)
        self.held.pop(connection, None)

    def forget(self, connection: Connection, fd: int) -> None:
        """It has gone, and another may have its descriptor next."""
        self.end(connection)
        self._commands.forget(fd)
        self._registrations.forget(fd)
