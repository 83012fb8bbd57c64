"""The listener of the app servers' port: accepts while there is room, and else leaves connections in its queue."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator
from typing import Any, Final

from router.common import logs
from router.common.poller import READ, Poller

_BATCH: Final = 256
_BATCH_OF_SHARED: Final = 4


class Acceptor:
    """A listener in the poller."""

    def __init__(self, listener: socket.socket, poller: Poller, shared: bool = False) -> None:
        """shared: other processes accept from it, too, and are to have their part of what comes."""
        listener.setblocking(False)
        self._listener: socket.socket | None = listener
        self._poller = poller
        self._accepting = True
        self._batch = _BATCH_OF_SHARED if shared else _BATCH
        self.fd = listener.fileno()
        """-1 once it is closed."""
        poller.accepting.add(self.fd)
        poller.register(self.fd, READ)

    def accept(self, room: Callable[[], bool], evict: Callable[[], bool]) -> Iterator[tuple[socket.socket, Any]]:
        """What waits in the queue, at most a batch: connections, and where they come from.

        room: whether another may be accepted. evict: closes a connection. Returns: whether there was one.
        """
        listener = self._listener
        assert listener is not None
        for _ in range(self._batch):
            if not room():
                self.pause()
                return
            try:
                accepted = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ECONNABORTED:
                    continue
                logs.limited("http.accept_failed", error=str(error), hint="it is tried again when there is room")
                if error.errno != errno.EMFILE or not evict():
                    self.pause()
                    return
            else:
                yield accepted

    def pause(self) -> None:
        """Leave them in the queue until `resume`."""
        if self._accepting and self._listener is not None:
            self._accepting = False
            self._poller.unregister(self.fd)

    def resume(self) -> None:
        """Accept again, unless it is closed."""
        if not self._accepting and self._listener is not None:
            self._accepting = True
            self._poller.register(self.fd, READ)

    def close(self) -> None:
        """Accept no more."""
        if self._listener is not None:
            self.pause()
            self._poller.accepting.discard(self.fd)
            self._listener.close()
            self._listener = None
            self.fd = -1
