"""Lets clients in that have a key of the cluster, and no others (ZAP, RFC 27).

The bytes of a connection are handled by ZeroMQ's own thread. Who does not know the server's key is not even asked
about: ZeroMQ drops the connection, and says so on a monitor, which is where strangers come to light.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import trio
import zmq
from zmq.utils import z85

from router.common import logs
from router.common.curve import DOMAIN, ClusterKey

_WHERE: Final = "inproc://zeromq.zap.01"
_VERSION: Final = b"1.0"
_CURVE: Final = b"CURVE"
_QUESTION: Final = 7
"""Parts: version, number, domain, address, routing ID, mechanism, the client's public key."""
_FAILED: Final = int(
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_NOBLOCK: Final = int(zmq.NOBLOCK)
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)

_Socket = zmq.Socket[bytes]


class Gatekeeper:
    """Of one process. To be made before a socket of its context listens with CURVE."""

    def __init__(self, context: zmq.Context[_Socket], keys: Iterable[ClusterKey]) -> None:
        self._known = {z85.decode(key.client_public) for key in keys}
        self._context = context
        self._questions = context.socket(zmq.REP)
        self._questions.setsockopt(zmq.LINGER, 0)
        self._questions.bind(_WHERE)
        self.refused = 0
        """Connections that were not let in."""
        self._watched: list[tuple[_Socket, _Socket]] = []

    def watch(self, socket: _Socket) -> None:
        """Have failed handshakes on this socket logged."""
        where = f"inproc://strangers-{len(self._watched)}"
        socket.monitor(where, _FAILED)
        monitor = self._context.socket(zmq.PAIR)
        monitor.setsockopt(zmq.LINGER, 0)
        # ZeroMQ's thread would wait where too many events are unread, and with it all links.
        monitor.setsockopt(zmq.RCVHWM, 0)
        monitor.connect(where)
        self._watched.append((socket, monitor))

    async def run(self) -> None:
        """Decide, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_serve, self._questions, self._answer)
            for _, monitor in self._watched:
                nursery.start_soon(_serve, monitor, self._stranger)

    def _answer(self, question: list[bytes]) -> None:
        known = (
            len(question) == _QUESTION
            and question[0] == _VERSION
            and question[2] == DOMAIN
            and question[5] == _CURVE
            and question[6] in self._known
        )
        if not known:
            self.refused += 1
            address = question[3].decode(errors="replace") if len(question) > 3 else ""
            logs.limited("link.stranger", at="warning", per="key", why="its key is not known", peer=address)
        status = (b"200", b"OK") if known else (b"400", b"not known")
        number = question[1] if len(question) > 1 else b""
        self._questions.send_multipart([_VERSION, number, *status, b"", b""], _NOBLOCK)

    def _stranger(self, event: list[bytes]) -> None:
        self.refused += 1
        logs.limited("link.stranger", at="warning", per="handshake", why="it made no handshake with the cluster's key")

    def close(self) -> None:
        """To be called before the sockets that are watched are closed."""
        for socket, monitor in self._watched:
            socket.disable_monitor()
            monitor.close()
        self._questions.close()


async def _serve(socket: _Socket, each: Callable[[list[bytes]], None]) -> None:
    fileno: int = socket.getsockopt(zmq.FD)  # type: ignore[assignment]
    while True:
        # What is sent or received changes what the descriptor reports: so ask until there is nothing.
        while socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]
            each(socket.recv_multipart(_NOBLOCK))
        await trio.lowlevel.wait_readable(fileno)
