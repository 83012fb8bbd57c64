"""Events for subscribers of several transports: encoded once for each transport, and only if it is needed. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from farm.transports import Transport
from farm.worker.connection import Connection
from router.common.position import LogEvent


class Encoded:
    """One event of a channel, or a message about its members (event is False). logged: what the channel's log has of
    the event, if it is there.

    Kept for each transport but those that answer once: there may be one of them for each connection.
    """

    __slots__ = ("_event", "_kept", "_logged", "_text")

    def __init__(self, text: bytes, event: bool, logged: LogEvent | None) -> None:
        self._text = text
        self._event = event
        self._logged = logged
        self._kept: dict[Transport, bytes] = {}

    def __len__(self) -> int:
        return len(self._text)

    def part(self, transport: Transport) -> bytes:
        """Its bytes, or what `Transport.answer` takes for it."""
        found = self._kept.get(transport)
        if found is None:
            found = transport.event(self._text, self._logged) if self._event else transport.text(self._text)
            if not transport.once:
                self._kept[transport] = found
        return found

    @property
    def logged(self) -> list[tuple[bytes, LogEvent]]:
        """Its text and what was logged of it, if it is an event with a place in time."""
        return [] if self._logged is None else [(self._text, self._logged)]

    def by(self, transport: Transport) -> bytes:
        """Its bytes on this transport. For one that answers once: the whole answer."""
        part = self.part(transport)
        return transport.answer((part,), 0, "") if transport.once else part


class Joined:
    """Several events that are due together; some of them may be encoded for WebSocket alone."""

    __slots__ = ("_parts", "_size")

    def __init__(self, parts: list[Frame]) -> None:
        self._parts = parts
        self._size = sum(map(len, parts))

    def __len__(self) -> int:
        return self._size

    @property
    def logged(self) -> list[tuple[bytes, LogEvent]]:
        """Those of all of them."""
        return [found for part in self._parts if not isinstance(part, bytes) for found in part.logged]

    def by(self, transport: Transport) -> bytes:
        """Their bytes on this transport. For one that answers once: the whole answer."""
        parts = [part if isinstance(part, bytes) else part.part(transport) for part in self._parts]
        return transport.answer(parts, 0, "") if transport.once else b"".join(parts)


Frame = bytes | Encoded
Data = Frame | Joined


def join(parts: list[Frame]) -> Data:
    """What is due together as one."""
    if all(type(part) is bytes for part in parts):
        return b"".join(parts)  # type: ignore[arg-type]
    return Joined(parts)


def by_transport(connections: Iterable[Connection]) -> dict[Transport, list[Connection]]:
    """Connections of each transport, in their order."""
    found: dict[Transport, list[Connection]] = {}
    for connection in connections:
        group = found.get(connection.transport)
        if group is None:
            found[connection.transport] = [connection]
        else:
            group.append(connection)
    return found
