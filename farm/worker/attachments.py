"""The devices that are attached to this worker, and its open calls to the router. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from farm.dialects import Attach, Call, DeviceSession
from farm.worker.ages import Ages
from farm.worker.backpressure import Backpressure
from farm.worker.connection import OPEN, Connection
from router.common import messages as m
from router.common.histogram import Histogram
from router.common.numbers import of_router, router_of


class Attachments:
    """Which connection holds which device, and which calls to the router are open.

    DETACH is sent only when no connection here holds the device or is being attached to it: a DETACH under way would
    otherwise remove the attachment of a newer connection. send: takes messages for the routers. clock: by which it is
    known of two connections of a device which one is newer, wherever they are. took: how long routers took to attach
    devices.
    """

    def __init__(
        self, send: Callable[[Any], None], clock: Callable[[], float], backpressure: Backpressure, took: Histogram
    ) -> None:
        self._send = send
        self._clock = clock
        self._backpressure = backpressure
        self._took = took
        self._routes = backpressure.routes
        self._ages = Ages()
        self.devices = self._ages.devices
        self._attaching: dict[bytes, int] = {}  # device key -> ATTACHs without a reply
        self._calls: dict[int, tuple[Connection, Call | Attach, float]] = {}  # and when it was made
        self._number = 0

    def number(self) -> int:
        """A number for a call, used once."""
        self._number += 1
        return self._number

    def number_of(self, question: m.Authorise) -> int:
        """The same for this question, with the router in it that is asked."""
        return of_router(self._routes.of(question), self.number())

    def call(self, connection: Connection, call: Call | Attach) -> None:
        """Make a call to its router; the connection waits for its reply. Where that router does not keep up, it is made
        when it does."""
        connection.call = number = self.number()
        if self._backpressure.shut and self._backpressure.defers(connection, call):
            return
        if isinstance(call, Attach):
            device, since = call.device, self._clock()
            self._calls[number] = (connection, call, since)
            self._attaching[device] = self._attaching.get(device, 0) + 1
            self._send(m.Call(number, m.Attach(device, call.needs, call.fetch, int(since * 1000))))
            return
        if isinstance(call.request, m.Authorise):
            connection.call = number = of_router(self._routes.of(call.request), number)
        self._calls[number] = (connection, call, 0)
        self._send(m.Call(number, call.request))

    def asks(self, connection: Connection) -> bool:
        """Whether the call whose reply this connection waits for is a question to the main server."""
        found = self._calls.get(connection.call)
        call = self._backpressure.deferred(connection) if found is None else found[1]
        return isinstance(call, Call) and isinstance(call.request, m.Authorise)

    def held(self, router: int) -> Iterator[tuple[list[bytes], list[tuple[int, int]]]]:
        """The devices of this router that are here, as ANNOUNCE has them."""
        return self._ages.held(self._routes.share(router))

    def again(self, router: int) -> None:
        """The link is new, and the router may be: it does not keep what it was to ask the main server."""
        for number, (_, call, _) in self._calls.items():
            if isinstance(call, Call) and isinstance(call.request, m.Authorise) and router_of(number) == router:
                self._send(m.Call(number, call.request))

    def replied(self, number: int, status: int) -> tuple[Connection, Call | Attach, Connection | None] | None:
        """The reply to a call has come.

        Returns: the connection, its call, and an older connection of the device that is replaced by this one; None if
        the call is not open any more (replied to twice, because the link was renewed).
        """
        found = self._calls.pop(number, None)
        if found is None:
            return None
        connection, call, since = found
        older = self._attached(connection, call.device, status, since) if isinstance(call, Attach) else None
        return connection, call, older

    def _attached(self, connection: Connection, key: bytes, status: int, since: float) -> Connection | None:
        left = self._attaching[key] - 1
        if left:
            self._attaching[key] = left
        else:
            del self._attaching[key]
        if status != m.OK or connection.phase != OPEN:
            self._leave(key)
            return None
        self._took.observe(max(0.0, self._clock() - since))  # in a cluster it may be set back
        older = self._ages.put(key, connection, int(since * 1000))
        return older if older is not connection else None

    def shed(self, key: bytes) -> Connection | None:
        """The device has a newer connection elsewhere. Returns: the one that it had here."""
        return self.devices.pop(key, None)

    def forget(self, connection: Connection) -> None:
        """The connection's session has ended: nothing is delivered to it from here on."""
        if connection.call and self.asks(connection) and self._calls.pop(connection.call, None) is not None:
            self._send(m.Withdraw(connection.call))
        session = connection.session
        connection.session = None
        if session is None:
            return
        if isinstance(session, DeviceSession) and self.devices.get(session.key) is connection:
            del self.devices[session.key]
            self._leave(session.key)
        session.closed()

    def _leave(self, key: bytes) -> None:
        if key not in self.devices and key not in self._attaching:
            self._send(m.Detach(key))
