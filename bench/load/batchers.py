"""The load process of app servers that push to many channels in one request: as `bench.load.pushers`, but each
connection has so many pushes outstanding, and they are answered together.

At a rate the pushes of a batch are all due when its first is.
"""

import gc
import socket
from typing import Final

from bench.load.http_bytes import Response
from bench.load.link import Link, LinkClosedError, Message
from bench.load.pushers import Connection, Pushers
from bench.load.wires import BatchWire

FREE_SHARE: Final = 2
"""Of so many channels at most one is busy, so that those to push to next are soon found."""


class Batchers(Pushers):
    """Beside what a pusher gets in its `begin`: `batch`, the pushes of a request."""

    wire: BatchWire

    def __init__(self, link: Link, begin: Message) -> None:
        super().__init__(link, begin)
        self.batch = max(1, min(begin.fields["batch"], len(self.paths) // FREE_SHARE))
        self.wanted = min(self.wanted, max(1, len(self.paths) // (FREE_SHARE * self.batch)))
        self.under_way: dict[Connection, list[tuple[int, int]]] = {}

    def _due(self, number: int) -> int:
        return super()._due(number - number % self.batch)

    def _push(self, connection: Connection, version: int) -> None:
        pushes = [self._begun(version) for _ in range(min(self.batch, self.quota - self.count))]
        self.under_way[connection] = pushes
        connection.channel, connection.version = pushes[0]
        versions = [version for _, version in pushes]
        self._send(
            connection, self.wire.requests([self.paths[channel] for channel, _ in pushes], versions, self.payload)
        )

    def _record(self, connection: Connection, response: Response) -> None:
        pushes = self.under_way.pop(connection)
        statuses = response.statuses if len(response.statuses) == len(pushes) else [response.status] * len(pushes)
        for (channel, version), status in zip(pushes, statuses, strict=True):
            self._note(channel, version, status)
        connection.channel = -1


def main(descriptor: int) -> None:
    gc.disable()
    link = Link(socket.socket(fileno=descriptor))
    try:
        Batchers(link, link.wait()).run()
    except LinkClosedError:
        return
