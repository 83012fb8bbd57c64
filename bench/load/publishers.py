"""The load process of app servers whose events come to many subscribers: as `bench.load.pushers`, but flat out it does
not run ahead of them.

An app server is answered once its event was taken, long before thousands of subscribers have it. So flat out the next
event is sent only while no more than so many deliveries are under way: those of all events sent, less what subscribers
have, which their processes count in memory that is shared with this one.
"""

import gc
import socket
import time
from collections import deque
from typing import Final

from bench.load.http_bytes import Response
from bench.load.link import Link, LinkClosedError, Message
from bench.load.pushers import Connection, Pushers
from bench.load.samples import ACCEPTED
from bench.load.shared_counts import numbers_in

STALL_SECONDS: Final = 2.0
"""What is still under way when nothing has arrived for so long is taken as lost, and waited for no more."""


class Publishers(Pushers):
    """Beside what a pusher gets: `window`, the deliveries that may be under way, `counts`, where the arrivals are
    counted, and as a third blob how many subscribers each channel has. `evenly`: each channel gets an event before one
    gets the next, in the place of random ones."""

    def __init__(self, link: Link, begin: Message) -> None:
        self.subscriber_count = begin.numbers(2, "I")
        self.window: int = begin.fields["window"]
        self.arrivals = numbers_in(begin.fields["counts"])
        self.evenly: bool = begin.fields.get("evenly", False)
        self.queue: deque[int] = deque()
        self.sent = self.arrived = self.moved = 0
        super().__init__(link, begin)

    def _forget_run(self) -> None:
        super()._forget_run()
        self.queue.clear()
        self.sent = self.arrived = sum(self.arrivals)
        self.moved = time.monotonic_ns()

    def _chosen(self) -> int:
        channel = self._next() if self.evenly else super()._chosen()
        self.sent += self.subscriber_count[channel]
        return channel

    def _next(self) -> int:
        """The next in turn. There are no more connections than channels, so one is not busy."""
        for _ in range(len(self.queue)):
            channel = self.queue.popleft()
            if channel not in self.busy:
                return channel
            self.queue.append(channel)
        self.queue.extend(range(len(self.paths)))
        return self._next()

    def _record(self, connection: Connection, response: Response) -> None:
        if response.status not in ACCEPTED:
            self.sent -= self.subscriber_count[connection.channel]
        super()._record(connection, response)

    def _has_room(self) -> bool:
        arrived = sum(self.arrivals)
        if arrived != self.arrived:
            self.arrived, self.moved = arrived, time.monotonic_ns()
        elif time.monotonic_ns() - self.moved > STALL_SECONDS * 1e9:
            self.sent, self.moved = arrived, time.monotonic_ns()
        return self.sent - arrived < self.window


def main(descriptor: int) -> None:
    gc.disable()
    link = Link(socket.socket(fileno=descriptor))
    try:
        Publishers(link, link.wait()).run()
    except LinkClosedError:
        return
