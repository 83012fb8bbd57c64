"""The devices that are attached to this worker, and its open calls to the router. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from farm.dialects import Attach, Call, DeviceSession
from farm.worker.ages import Ages
from farm.worker.connection import OPEN, Connection
from router.common import messages as m


class Attachments:
    """Which connection holds which device, and which calls to the router are open.

    DETACH is sent only when no connection here holds the device or is being attached to it: a DETACH under way would
    otherwise remove the attachment of a newer connection. send: takes messages for the router.
    """

    def __init__(self, send: Callable[[Any], None], monotonic: Callable[[], float]) -> None:
        self._send = send
        self._monotonic = monotonic
        self._ages = Ages()
        self.devices = self._ages.devices
        self.held = self._ages.held
        self._attaching: dict[bytes, int] = {}  # device key -> ATTACHs without a reply
        self._calls: dict[int, tuple[Connection, Call | Attach, int]] = {}  # and when it was made, in ms
        self._number = 0

    def number(self) -> int:
        """A number for a call, used once."""
        self._number += 1
        return self._number

    def call(self, connection: Connection, call: Call | Attach) -> None:
        """Make a call to the router; the connection waits for its reply."""
        connection.call = number = self.number()
        if isinstance(call, Attach):
            device, since = call.device, int(self._monotonic() * 1000)
            self._calls[number] = (connection, call, since)
            self._attaching[device] = self._attaching.get(device, 0) + 1
            self._send(m.Call(number, m.Attach(device, call.needs, call.fetch, since)))
            return
        self._calls[number] = (connection, call, 0)
        self._send(m.Call(number, call.request))

    def asks(self, connection: Connection) -> bool:
        """Whether the call whose reply this connection waits for is a question to the main server."""
        found = self._calls.get(connection.call)
        return found is not None and isinstance(found[1], Call) and isinstance(found[1].request, m.Authorise)

    def again(self) -> None:
        """The link is new, and the router may be: it does not keep what it was to ask the main server."""
        for number, (_, call, _) in self._calls.items():
            if isinstance(call, Call) and isinstance(call.request, m.Authorise):
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

    def _attached(self, connection: Connection, key: bytes, status: int, since: int) -> Connection | None:
        left = self._attaching[key] - 1
        if left:
            self._attaching[key] = left
        else:
            del self._attaching[key]
        if status != m.OK or connection.phase != OPEN:
            self._leave(key)
            return None
        older = self._ages.put(key, connection, since)
        return older if older is not connection else None

    def shed(self, key: bytes) -> Connection | None:
        """The device has a newer connection elsewhere. Returns: the one that it had here."""
        return self.devices.pop(key, None)

    def forget(self, connection: Connection) -> None:
        """The connection's session has ended: nothing is delivered to it from here on."""
        if connection.call and self.asks(connection):
            del self._calls[connection.call]
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
