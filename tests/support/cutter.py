"""A TCP relay that loses what is on its way, at any byte, as a network does that breaks."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress


class Cutter:
    """A TCP relay in front of a port, whose connections can be cut at any byte."""

    def __init__(self, port: int) -> None:
        self._to = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.connections = 0
        self._carries = threading.Event()
        self._carries.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                return
            self.connections += 1
            self._pairs.append((client, server))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        try:
            while data := one.recv(997):  # so a cut may come within a frame
                self._carries.wait()
                other.sendall(data)
        except OSError:
            pass
        self._end((one, other))

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        for end in pair:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def hold(self) -> None:
        """What is sent from now on stays on its way."""
        self._carries.clear()

    def cut(self) -> None:
        """All that is on its way is lost."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            self._end(pair)
        self._carries.set()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
