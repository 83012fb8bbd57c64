"""Connections that wait because one of several routers does not keep up, or is away, while others do. Pure.

Only what would go to that router waits: a device whose address it owns is not read, nor is a connection that has sent
something there; a call is not made. A connection has one entry here at most, and takes it with it when it ends: so what
waits is bounded by the connections that a worker may have, for however long a router is away.

With one router, or where none of them keeps up, nothing is here: then no connection is read (`farm.worker.main`).
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Final

from farm.dialects import Attach, Call, DeviceSession, Subscribe
from farm.worker.connection import OPEN, Connection
from farm.worker.routes import Routes
from router.common import messages as m

Deferred = Call | Attach | Subscribe
_NONE: Final[frozenset[int]] = frozenset()


class Backpressure:
    """All such connections of a worker. unwatch: has a connection not be read."""

    def __init__(self, routes: Routes, unwatch: Callable[[Connection], None]) -> None:
        self.routes = routes
        self._owner = routes.owner
        self._unwatch = unwatch
        self.shut: frozenset[int] = _NONE
        """The routers that do not keep up."""
        self.waiting: dict[Connection, int] = {}
        """The connections, and the router that each waits for."""
        self._of: dict[int, dict[Connection, Deferred | None]] = {}  # router -> its part, and what is to be done then

    def _wait(self, connection: Connection, router: int, deferred: Deferred | None) -> None:
        self.forget(connection)
        self.waiting[connection] = router
        self._of.setdefault(router, {})[connection] = deferred
        if deferred is None:
            self._unwatch(connection)

    def forget(self, connection: Connection) -> None:
        """It does not wait any more."""
        router = self.waiting.pop(connection, -1)
        if router >= 0:
            connections = self._of[router]
            del connections[connection]
            if not connections:
                del self._of[router]

    def withholds(self, connection: Connection) -> bool:
        """Whether a connection is not to be read now; then it waits."""
        if connection.call or connection.phase != OPEN:
            return False
        router = self.waiting.get(connection, -1)
        if router < 0 and isinstance(connection.session, DeviceSession):
            router = self._owner(connection.session.key)
        if router not in self.shut:
            return False
        self._wait(connection, router, None)
        return True

    def sent(self, connection: Connection, message: m.Message) -> None:
        """The connection has sent a router this, not as a call."""
        router = self.routes.of(message)
        if router in self.shut and connection not in self.waiting:
            self._wait(connection, router, None)

    def defers(self, connection: Connection, effect: Deferred) -> bool:
        """Whether this has to wait; then it does, and is among what `next` gives when its turn has come."""
        if isinstance(effect, Subscribe):
            routers = [self._owner(wanted.key) for wanted in effect.channels]
        elif isinstance(effect, Attach):
            routers = [self._owner(effect.device)]
        else:
            routers = [self.routes.of(effect.request)]
        for router in routers:
            if router in self.shut:
                self._wait(connection, router, effect)
                return True
        return False

    def deferred(self, connection: Connection) -> Deferred | None:
        """What this one is to do when it goes on, if anything."""
        router = self.waiting.get(connection, -1)
        return self._of[router][connection] if router >= 0 else None

    @property
    def due(self) -> bool:
        """Whether any may go on."""
        return bool(self._of) and not self._of.keys() <= self.shut

    def next(self, most: int) -> list[tuple[Connection, Deferred | None]]:
        """Those that go on now, and what each has to do first. They do not wait any more."""
        found: list[tuple[Connection, Deferred | None]] = []
        for router in [router for router in self._of if router not in self.shut]:
            found += islice(self._of[router].items(), most - len(found))
        for connection, _ in found:
            self.forget(connection)
        return found
