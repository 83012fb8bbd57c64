"""What a peer is: another server that the bench can start on this machine and put the same load on."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.farm_process import Farm, Status
from bench.interrupt import Interrupt
from bench.load.sockets import Address
from bench.machine import leftovers
from bench.machine.ports import free_ports
from bench.machine.procfs import descendants
from bench.server_process import listens, remove_stale_folders, spawn, stop_group, wait_until_up

ASK_SECONDS: Final = 30.0
SCRIPTS: Final = Path(__file__).parent / "servers"


class NotInstalledError(Exception):
    """A peer is not there; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Tools:
    """How peers are run. `python`: the interpreter that has the Python ones; `node_modules`: a folder that has `ws`, or
    that has such a folder; `workers`: server processes of those that can have several; `devices`: how many come;
    `stored`: events that a channel keeps where events are stored."""

    python: str = sys.executable
    node_modules: str = ""
    workers: int = 1
    devices: int = 10_000
    stored: int = 100


@dataclass(frozen=True, slots=True)
class Ports:
    """Where a peer listens, on 127.0.0.1."""

    device: int
    push: int


@dataclass(frozen=True, slots=True)
class Storing:
    """How a peer stores events, and replays them to subscribers that come back. `protocol` and `arguments`: of the
    subscribers; `path`: what events are posted to, where `{channel}` stands for a channel's number; `title`: for a
    reader."""

    title: str
    protocol: str
    arguments: dict[str, Any]
    path: str


class Peer(ABC):
    """One server. The class attributes say what a reader of the table has to know.

    `hint`: how it is installed. `processes`: what it runs as, with `{workers}` where it has as many as it is told to.
    `set_up`: what a device does until it is set up. `push`: how an app server pushes, and what the answer means.
    `many`: it can have several processes. `one_port`: for devices and pushes alike.
    `wire`: of its push port, see `bench.load.wires`. `protocol`: of its devices, see `bench.load.protocols`.
    `fans_out`: one push reaches all devices that listen to the same thing.
    """

    name: str
    title: str
    hint: str
    processes: str = "one process"
    set_up: str = "upgrade"
    push: str = "PUT; 200 once the frame was given to the socket"
    durability: str = "none, in memory only"
    many: bool = False
    one_port: bool = False
    wire: str = "put"
    protocol: str = "subscribe"
    fans_out: bool = False

    @abstractmethod
    def find(self, tools: Tools) -> str:
        """Its version.

        Raises:
          NotInstalledError: it is not there.
        """

    @abstractmethod
    def command(self, tools: Tools, ports: Ports, folder: Path) -> list[str]:
        """What to run, in the foreground. Files that it needs are written to `folder`, which is gone afterwards."""

    def environment(self, tools: Tools) -> Mapping[str, str]:
        """What is added to the environment."""
        return {}

    def arguments(self, ports: Ports) -> dict[str, Any]:
        """For the devices' protocol."""
        return {
            "path": "/sub/{index}",
            "endpoint": f"http://127.0.0.1:{ports.push}/push/{{index}}",
        }

    def listening(self, ports: Ports) -> dict[str, Any]:
        """For the protocol of devices that share channels."""
        return {"path": "/sub/{channel}"}

    def storing(self) -> Storing | None:
        """How it stores and replays; None: it does not."""
        return None

    def event_path(self) -> str:
        """What a push to a shared channel goes to; `{channel}` stands for its number."""
        return "/push/{channel}"


class PythonPeer(Peer):
    """A library for Python and a script of ours that uses it. `module`: what is imported."""

    package: str
    module: str
    script: str

    def find(self, tools: Tools) -> str:
        code = f"import {self.module}, importlib.metadata as m, platform as p; "
        code += f"print(m.version({self.package!r}), 'on', p.python_implementation(), p.python_version())"
        return ask([tools.python, "-c", code], f"{tools.python} can't import {self.module}")

    def command(self, tools: Tools, ports: Ports, folder: Path) -> list[str]:
        return [tools.python, str(SCRIPTS / self.script), str(ports.device), str(ports.push)]


def ask(command: list[str], what: str, extra: Mapping[str, str] | None = None) -> str:
    """The output of a short command.

    Raises:
      NotInstalledError: it can't be run, or fails; with `what` and the last line that it wrote.
    """
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=ASK_SECONDS,
            env=os.environ | dict(extra or {}),
            cwd="/",  # an interpreter takes what lies in the current folder for installed
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotInstalledError(f"{what}: {error}") from None
    output = done.stdout.decode("utf-8", "replace").strip()
    if done.returncode:
        raise NotInstalledError(f"{what} ({output.splitlines()[-1] if output else f'exit code {done.returncode}'})")
    return output


def program(name: str) -> str:
    """The path of a program, looked for in the folders of servers, too.

    Raises:
      NotInstalledError: there is none.
    """
    found = shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")
    if found is None:
        raise NotInstalledError(f"no {name} in PATH")
    return found


def libraries(path: str) -> dict[str, str]:
    """What a program needs in its environment: where it was unpacked and not installed, its libraries are beside it."""
    place = Path(path).resolve()
    beside = [str(folder) for folder in place.parent.parent.glob("lib/*-linux-gnu")]
    if not beside or place.is_relative_to("/usr"):
        return {}
    return {"LD_LIBRARY_PATH": os.pathsep.join([*beside, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])}


@dataclass(slots=True)
class PeerServer(Farm):
    """A peer that runs, in the shape in which the bench knows the server that it loads. `ports`: of it."""

    ports: Ports = Ports(0, 0)

    def status(self) -> Status | None:
        assert self.supervisor is not None
        return Status([], {str(pid): pid for pid in descendants(self.supervisor)}, {}, None)

    def groups(self, status: Status | None) -> dict[str, list[int]]:
        assert self.supervisor is not None
        return {"server": [self.supervisor, *descendants(self.supervisor)]}


@contextmanager
def started(peer: Peer, tools: Tools, interrupt: Interrupt) -> Iterator[PeerServer]:
    """A peer on free ports of loopback, with its files in a temporary folder; stopped and removed with the block.

    Raises:
      BenchError: it did not come up; with the last lines that it wrote.
    """
    remove_stale_folders()
    folder = Path(tempfile.mkdtemp(prefix=leftovers.name("")))
    first, second = free_ports(2)
    ports = Ports(first, first if peer.one_port else second)
    log = folder / "log"
    process: subprocess.Popen[bytes] | None = None
    try:
        command = peer.command(tools, ports, folder)
        process = spawn(command, log, peer.environment(tools))
        wanted = (ports.device, ports.push)
        wait_until_up(peer.title, lambda: all(map(listens, wanted)), process, log, interrupt)
        host = f"127.0.0.1:{ports.device}"
        address = Address(int(socket.AF_INET), "127.0.0.1", ports.device)
        yield PeerServer(address, host, "/", "", process.pid, {"peer": peer.name}, ports=ports)
    finally:
        if process is not None:
            stop_group(process)
        shutil.rmtree(folder, ignore_errors=True)
