"""Very many file descriptors in one epoll, and one trio task that waits on it.

trio's own epoll is oneshot and wants a task for each waiter: 3 KB and two system calls a wake-up. An epoll of our own
is itself a descriptor that becomes readable when anything in it is ready, so trio watches a single descriptor
however many are parked, and one wake-up hands over everything that is ready at that moment.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from operator import itemgetter
from typing import Final

import trio

from router.common.pace import Pace

INPUT = select.EPOLLIN
ENDED = select.EPOLLRDHUP
"""The peer has ended its direction, perhaps behind something that it has sent."""
READ = INPUT | ENDED
WRITE = select.EPOLLOUT
NOTHING = 0
BROKEN = select.EPOLLHUP | select.EPOLLERR
"""Always reported: both directions are shut, or the connection was reset."""

MAX_EVENTS: Final = 256
"""In one turn: some 20 ms of work in a worker. Other tasks run in between, among them the one that sends the sign of
life, and where a hundred processes compete for the core a turn of 20 ms takes two seconds."""
_TURN_S = 0.001
_descriptor = itemgetter(0)


class Poller:
    """An epoll instance that one task drives. Level-triggered: what is not dealt with is reported again.

    linger: seconds to wait for more in the epoll itself before trio is asked to: under load the next batch is there
    by then. Meanwhile no other task of this process runs, so it is only for those that have none in a hurry.
    pace, urgent: how long to let events gather before a look, and a descriptor in the epoll that ends such a wait. No
    other task runs then, either.
    """

    def __init__(self, linger: float = 0.0, pace: Pace | None = None, urgent: int = -1) -> None:
        self._linger = linger
        self._pace = pace if pace is not None and pace.interval else None
        self._urgent = select.poll()
        if urgent >= 0:
            self._urgent.register(urgent, select.POLLIN)
        self.waits = 0
        """How often `pace` made it wait."""
        self.accepting: set[int] = set()
        """Descriptors by which new connections come. Their events are handed over behind all others of a batch: a
        connection may be closed by the event of another, and a new one that took its descriptor then would be handled
        by an event that was for the closed one."""
        self._epoll = select.epoll()
        self._yielded = 0.0
        self.register = self._epoll.register
        self.change = self._epoll.modify
        self.unregister = self._epoll.unregister

    async def ready(self, wait: bool = True) -> list[tuple[int, int]]:
        """Wait until something is ready; (descriptor, epoll event mask) pairs. wait: False if there is other work, then
        there may be none; nor are there any when the urgent one has ended a wait.

        A turn of trio's loop costs as much as a small batch, so while there is more it is only taken once in a while:
        other tasks run at the latest after `_TURN_S` or a few times `linger`, and the batch then at hand.
        """
        pace = self._pace
        if pace is not None and wait and (rest := pace.rest(time.monotonic())) > 0:
            self.waits += 1
            if self._urgent.poll(rest * 1000):
                return []
        events = self._epoll.poll(self._linger if wait else 0, MAX_EVENTS)
        if pace is not None:
            pace.looked(time.monotonic(), len(events))
        if (events or not wait) and time.monotonic() - self._yielded < max(_TURN_S, 4 * self._linger):
            return self._in_order(events)
        if events or not wait:
            await trio.lowlevel.checkpoint()
        if wait and not events:
            while not events:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
                events = self._epoll.poll(0, MAX_EVENTS)
            if pace is not None:
                pace.looked(time.monotonic(), len(events))
        self._yielded = time.monotonic()
        return self._in_order(events)

    def ready_now(self) -> list[tuple[int, int]]:
        """What is ready already."""
        return self._in_order(self._epoll.poll(0, MAX_EVENTS))

    def _in_order(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        accepting = self.accepting
        if accepting.isdisjoint(map(_descriptor, events)):  # the usual
            return events
        return sorted(events, key=lambda event: event[0] in accepting)

    def close(self) -> None:
        """Let go of the epoll; the descriptors in it stay open."""
        self._epoll.close()


def half_close(fd: int) -> bool:
    """Close our half of the connection (shutdown(2), SHUT_WR). Returns: whether the connection was still there."""
    shell = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        shell.shutdown(socket.SHUT_WR)
    except OSError:
        return False
    finally:
        shell.detach()
    return True


def prefer_batches() -> None:
    """Have the kernel schedule this process for throughput (SCHED_BATCH, sched(7)): waking it does not interrupt who
    runs, so what comes meanwhile is one batch. Where that is not allowed, nothing changes."""
    with contextlib.suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
