"""The socket on which the processes of the farm send their log events to the supervisor, beside what each writes to
stderr. Nothing waits for it: a process whose event does not fit drops it."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable
from typing import Final

import trio

from router.common import logs

_EVENT_BYTES: Final = 65_536
_A_TURN: Final = 100


class LogSocket:
    """A pair of datagram sockets. `theirs` is inherited by every process."""

    def __init__(self) -> None:
        self._ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ours.setblocking(False)
        self.theirs.setblocking(False)

    async def run(self, take: Callable[[bytes], None]) -> None:
        """Receive, and hand each event to `take`."""
        while True:
            await trio.lowlevel.wait_readable(self._ours)
            with contextlib.suppress(BlockingIOError):
                for _ in range(_A_TURN):
                    take(self._ours.recv(_EVENT_BYTES))
            await trio.lowlevel.checkpoint()

    def close(self) -> None:
        """Close both."""
        self._ours.close()
        self.theirs.close()


def is_log_socket(descriptor: int) -> bool:
    """Whether what a process has inherited is one: all else is a stream."""
    with socket.socket(fileno=os.dup(descriptor)) as inherited:
        return inherited.type == socket.SOCK_DGRAM


def copy_events(descriptor: int) -> None:
    """In a process that has inherited `theirs`: send this process' events there."""
    to_supervisor = socket.socket(fileno=descriptor)
    logs.copy_to(lambda event: to_supervisor.send(event, socket.MSG_DONTWAIT))
