"""How much of a worker one connection may have: turns, commands a second, and time for a message."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from farm.settings import WorkerOptions
from farm.worker.address_limits import Registrations
from farm.worker.backpressure import Backpressure
from farm.worker.clock import Clock
from farm.worker.connection import IDLE, OPEN, Connection
from farm.worker.rates import Rates
from router.common.limit_settings import LimitOptions
from router.common.metrics import WorkerCounters
from router.common.poller import READ


class Turns:
    """The connections whose input waits for their next turn or second, and those with an incomplete message."""

    def __init__(
        self,
        options: WorkerOptions,
        limits: LimitOptions,
        counters: WorkerCounters,
        clock: Clock,
        watch: Callable[[Connection, int], None],
        backpressure: Backpressure,
        shared: Registrations | None = None,
    ) -> None:
        """shared: what devices may register together; None: there is no limit."""
        self._timeout: Final = options.message_timeout
        self._counters = counters
        self._clock = clock
        self._watch = watch
        self._backpressure = backpressure
        self._for_routers = backpressure.waiting
        self._commands = Rates(limits.commands_per_second, limits.burst_seconds)
        self._registrations = Rates(limits.registrations_per_second, limits.burst_seconds)
        self._shared = shared
        self._later: dict[Connection, None] = {}  # their input is here, and waits for its turn
        self._throttled: dict[Connection, None] = {}  # they have asked for too much, and are read again later
        self._unfinished: dict[Connection, float] = {}  # when a message has to be whole, the earliest first
        self.held: dict[Connection, list[tuple[int, bytes]]] = {}
        """Messages that came while the reply to a call was awaited."""
        self.spend = self._commands.spend

    def __len__(self) -> int:
        """The number of connections that wait for their next turn."""
        return len(self._later)

    def waits(self, connection: Connection) -> bool:
        """Whether the connection is not to be read now."""
        return connection in self._later or connection in self._throttled or connection in self._for_routers

    def throttled(self, connection: Connection) -> bool:
        """Whether it has asked for more than it may."""
        return connection in self._throttled

    def later(self, connection: Connection) -> None:
        """Handle its input, which is here already, in its next turn."""
        self._later[connection] = None
        self._watch(connection, connection.mask & ~READ)

    def may(self, connection: Connection) -> bool:
        """Whether it may ask for more now."""
        return self._commands.may(connection.fd) and self._registrations.may(connection.fd)

    def throttle(self, connection: Connection) -> None:
        """It asks for more than it may: what it sends next waits in the kernel."""
        if self._throttle(connection):
            self._counters.limited_commands_per_second += 1

    def _throttle(self, connection: Connection) -> bool:
        if connection.phase not in (OPEN, IDLE) or connection in self._throttled:
            return False
        self._throttled[connection] = None
        self._watch(connection, connection.mask & ~READ)
        return True

    def register(self, connection: Connection) -> None:
        """It has registered something."""
        if not self._registrations.spend(connection.fd) and self._throttle(connection):
            self._counters.limited_registrations_per_second += 1
        if self._shared is not None and not self._shared.registered(connection.fd):
            self._throttle(connection)

    def next(self) -> dict[Connection, None]:
        """The connections that have a turn now."""
        now, self._later = self._later, {}
        return now

    def second(self) -> None:
        """A second is over: let those go on that are below their rate again."""
        self._commands.second()
        self._registrations.second()
        shared = self._shared
        if shared is not None:
            shared.second()
        for connection in list(self._throttled):
            if self.may(connection) and (shared is None or shared.may_go_on(connection.fd)):
                del self._throttled[connection]
                self._later[connection] = None

    # ------------------------------------------------------------------ messages that are incomplete

    def finished(self, connection: Connection) -> None:
        """Nothing of it is incomplete that was before."""
        self._unfinished.pop(connection, None)

    def unfinished(self, connection: Connection) -> None:
        """A part of a message is here."""
        self._unfinished.setdefault(connection, self._clock.now + self._timeout)

    def overdue(self, now: float) -> list[Connection]:
        """Connections whose message has been incomplete for too long. One that was not read meanwhile has more time."""
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
        """Its input is not handled any more."""
        self._later.pop(connection, None)
        self._throttled.pop(connection, None)
        self._unfinished.pop(connection, None)
        self.held.pop(connection, None)
        if self._for_routers:
            self._backpressure.forget(connection)

    def forget(self, connection: Connection, fd: int) -> None:
        """It is closed, and another connection may get its descriptor next."""
        self.end(connection)
        self._commands.forget(fd)
        self._registrations.forget(fd)
        if self._shared is not None:
            self._shared.left(fd)
