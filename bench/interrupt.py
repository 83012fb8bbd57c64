"""Ctrl-C and SIGTERM as a flag that the waits of a run look at, so that a run ends with what it has measured."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupt:
    """`requested` turns true at the first signal; `wake` is readable from then on. A second signal raises
    KeyboardInterrupt."""

    def __init__(self) -> None:
        self.wake, self._waker = socket.socketpair()
        self.requested = False

    def request(self) -> None:
        self.requested = True
        self._waker.send(b"!")

    @contextmanager
    def on_signals(self) -> Iterator["Interrupt"]:
        """Catch the signals for the time of the block. Main thread only."""

        def handle(number: int, frame: FrameType | None) -> None:
            if self.requested:
                raise KeyboardInterrupt
            self.request()

        before = [(number, signal.signal(number, handle)) for number in SIGNALS]
        try:
            yield self
        finally:
            for number, handler in before:
                signal.signal(number, handler)
