"""Debian's memcached, as many servers as a test wants."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from bench.machine.ports import free_ports
from support.farm_fixture import PATIENCE_S, until
from support.installed import ends_with_us, find_program, with_libraries


class Memcached:
    """One server, on a port of its own or on a unix socket, which stays the same. arguments: of its command line."""

    def __init__(self, *arguments: str, path: Path | None = None) -> None:
        self._address: tuple[str, int] | str
        if path is None:
            self._address = ("127.0.0.1", *free_ports(1))
            listen = ["-l", "127.0.0.1", "-p", str(self._address[1])]
            self.name = f"127.0.0.1:{self._address[1]}"
        else:
            self.name = self._address = str(path)
            listen = ["-s", str(path)]
        user = ["-u", "root"] if os.geteuid() == 0 else []
        program = Path(find_program("memcached"))
        self._command = [*ends_with_us(), str(program), *listen, *user, *arguments]
        self._environment = with_libraries(program)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """It holds nothing then."""
        self._process = subprocess.Popen(
            self._command, env=self._environment, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(self._accepts, "memcached listens")

    def _accepts(self) -> bool:
        assert self._process is not None and self._process.poll() is None, "memcached has ended"
        with self._socket() as tried:
            return tried.connect_ex(self._address) == 0

    def _socket(self) -> socket.socket:
        return socket.socket(socket.AF_UNIX if isinstance(self._address, str) else socket.AF_INET)

    def kill(self) -> None:
        """SIGKILL, also to one that is stopped."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE_S)
            self._process = None

    def stop(self) -> None:
        """SIGSTOP: it does not answer."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def ask(self, request: bytes, end: bytes) -> bytes:
        """Have a request answered. end: of the answer."""
        with self._socket() as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(self._address)
            connection.sendall(request)
            answer = b""
            while not answer.endswith(end):
                part = connection.recv(65_536)
                assert part, answer
                answer += part
            return answer

    def statistics(self) -> dict[str, str]:
        """What `stats` says."""
        lines = self.ask(b"stats\r\n", b"END\r\n").decode().splitlines()
        return {name: value for _, name, value in (line.split(" ", 2) for line in lines if line.startswith("STAT "))}

    def forget(self) -> None:
        """Drop everything, as a server does that is restarted."""
        self.ask(b"flush_all\r\n", b"OK\r\n")


@contextmanager
def running_memcached(*arguments: str, path: Path | None = None) -> Iterator[Memcached]:
    """A server for the time of the block."""
    server = Memcached(*arguments, path=path)
    server.start()
    try:
        yield server
    finally:
        server.kill()


@cache
def shared_memcached() -> Memcached:
    """The one that all tests of this process use that leave it as it is. Each takes a prefix of its own."""
    server = Memcached()
    server.start()
    atexit.register(server.kill)
    return server
