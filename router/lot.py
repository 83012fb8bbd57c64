"""The parking lot: very many file descriptors in one epoll, and one trio task that waits on it.

trio's own epoll is oneshot and wants a task for each waiter: 3 KB and two system calls a wake-up. An epoll of our own
is itself a descriptor that becomes readable when anything in it is ready, so trio watches a single descriptor
however many are parked, and one wake-up hands over everything that is ready at that moment.
"""

from __future__ import annotations

import select

import trio

READ = select.EPOLLIN | select.EPOLLRDHUP
WRITE = select.EPOLLOUT
NOTHING = 0
BROKEN = select.EPOLLHUP | select.EPOLLERR
"""Reported whether asked for or not: both directions are shut, or the connection was reset."""

_MAX_EVENTS = 1024
_MAX_STREAK = 4


class Lot:
    """An epoll instance that one task drives. Level-triggered: what is not dealt with is reported again."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._streak = 0
        self.park = self._epoll.register
        self.change = self._epoll.modify
        self.unpark = self._epoll.unregister

    async def ready(self) -> list[tuple[int, int]]:
        """Wait until something is ready; (descriptor, epoll event mask) pairs. Other tasks run at the latest after
        `_MAX_STREAK` calls: a turn of trio's loop costs as much as a small batch."""
        events = self._epoll.poll(0, _MAX_EVENTS)
        if events and self._streak < _MAX_STREAK:
            self._streak += 1
            return events
        self._streak = 0
        if events:
            await trio.lowlevel.checkpoint()
            return events
        while not events:
            await trio.lowlevel.wait_readable(self._epoll.fileno())
            events = self._epoll.poll(0, _MAX_EVENTS)
        return events

    def close(self) -> None:
        """Let go of the epoll; the descriptors in it stay open."""
        self._epoll.close()
