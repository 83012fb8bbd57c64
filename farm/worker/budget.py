"""Bytes that a worker buffers: input that is incomplete or not handled, and output that the kernel has not taken."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from typing import Final

from farm.transports import Reader
from farm.worker.connection import Connection

_MESSAGE_BYTES: Final = 100
"""Of a message that waits, beside its payload."""
_FREED: Final = 8
"""At the limit this part of it is freed at once, so that the search for the largest happens seldom."""


def waiting_bytes(connection: Connection, held: list[tuple[int, bytes]] | None) -> int:
    """Bytes that are buffered for this connection. held: its messages that wait for the reply to a call."""
    size = 0 if connection.out is None else len(connection.out)
    reader = connection.reader
    if isinstance(reader, bytearray):
        size += len(reader)
    elif isinstance(reader, Reader):
        size += reader.kept
    if held is not None:
        size += sum(_MESSAGE_BYTES + len(payload) for _, payload in held)
    return size


class Budget:
    """The sum over all connections, and the share of each that has something buffered.

    held: messages that wait for the reply to a call, by connection."""

    def __init__(self, limit: int, held: Mapping[Connection, list[tuple[int, bytes]]]) -> None:
        self._limit = limit
        self._held = held
        self._sizes: dict[Connection, int] = {}
        self.total = 0

    def count(self, connection: Connection) -> bool:
        """What is buffered for this connection has changed. Returns: whether the sum is within the limit."""
        size = waiting_bytes(connection, self._held.get(connection))
        self.total += size - self._sizes.get(connection, 0)
        if size:
            self._sizes[connection] = size
        else:
            self._sizes.pop(connection, None)
        return self.total <= self._limit

    def forget(self, connection: Connection) -> None:
        """Nothing is buffered for this connection any more."""
        self.total -= self._sizes.pop(connection, 0)

    def largest(self) -> Iterator[Connection]:
        """Connections to close, the largest first, while the sum is too large. The caller has each counted or forgotten
        before it takes the next."""
        enough = self._limit - self._limit // _FREED
        order = [(-size, number, connection) for number, (connection, size) in enumerate(self._sizes.items())]
        heapq.heapify(order)
        while order and self.total > enough:
            yield heapq.heappop(order)[2]
