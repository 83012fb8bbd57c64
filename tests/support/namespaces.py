"""Machines of a test: network namespaces on bridges, and cables between them that can be pulled.

A program that has begun with `in_namespaces` has a network, process numbers and mounts of its own. Whatever it makes
there ends with it, however it ends: when its first process is killed the kernel kills the others, and no interface is
left. Network namespaces have no names, so there is nothing to remove either.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Final, TypeVar

from support.installed import cannot, ends_with_us

HERE: Final = 254
"""The last part of the address that the program itself has in each network."""
_CLONE_NEWNET: Final = 0x40000000
_NOBODY: Final = "02:00:00:00:01:00"
_PATIENCE_S: Final = 30.0
_PROBE: Final = (
    "ip link add br0 type bridge && ip link add v0 type veth peer name v1 && ip link set v0 master br0 &&"
    " unshare --net true && nsenter --net=/proc/self/ns/net true"
)

T = TypeVar("T")


def in_namespaces(command: Sequence[str]) -> list[str]:
    """The command line that runs a program in namespaces of its own; without root in one of users besides."""
    root = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    own = ["--net", "--pid", "--mount-proc", "--fork", "--kill-child"]
    return [*ends_with_us(), "unshare", *root, *own, *command]


@cache
def refused() -> str:
    """Why this machine lets us make no namespaces, bridges or cables; empty: it does."""
    try:
        done = subprocess.run(
            in_namespaces(["sh", "-c", _PROBE]), capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except OSError as error:
        return f"no network namespaces: {error}"
    if not done.returncode:
        return ""
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    return f"no network namespaces: {said} (they need root or user namespaces, and iproute2)"


def needs_namespaces() -> None:
    """Skip the test where this machine lets us make none; with CI=true fail it."""
    if why := refused():
        cannot(why)


class Machine:
    """A network namespace with an interface in some networks, each named as its network."""

    def __init__(self, network: Network, name: str, number: int, cables: Sequence[str]) -> None:
        self.name = name
        self.number = number
        self.cables = tuple(cables)
        self._network = network
        self._namespace = _in_thread(_new_namespace)
        ours, theirs = [], ["link set lo up"]
        for cable in cables:
            port = self._port(cable)
            ours += [
                f"link add {port} type veth peer name {cable} netns /proc/{os.getpid()}/fd/{self._namespace}",
                f"link set {port} master {cable} up",
            ]
            theirs += [f"address add {self.address(cable)}/24 dev {cable}", f"link set {cable} up"]
        _ip(ours)
        self._ip(*theirs)

    def address(self, network: str) -> str:
        """Its address there."""
        return self._network.address(network, self.number)

    @property
    def prefix(self) -> list[str]:
        """What a command line begins with so that its program runs there."""
        return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{self._namespace}"]

    def call(self, function: Callable[..., T], *arguments: object) -> T:
        """The result of a function whose sockets are there."""

        def act() -> T:
            _enter(self._namespace)
            return function(*arguments)

        return _in_thread(act)

    def cut(self, *cables: str) -> None:
        """Its interfaces are down: whoever sends from here is told at once, whoever sends to here hears nothing."""
        self._ip(*(f"link set {cable} down" for cable in cables or self.cables))

    def silence(self, *cables: str) -> None:
        """Its cables end nowhere: nobody is told anything."""
        _ip([f"link set {self._port(cable)} nomaster" for cable in cables or self.cables])

    def deafen(self, other: Machine, network: str) -> None:
        """What these two send each other there gets lost, and nothing else."""
        for one, to in ((self, other), (other, self)):
            one._ip(f"neighbour replace {to.address(network)} lladdr {_NOBODY} dev {network} nud permanent")

    def hear(self, other: Machine, network: str) -> None:
        """They reach each other again."""
        for one, to in ((self, other), (other, self)):
            one._ip(f"neighbour delete {to.address(network)} dev {network}")

    def mend(self, *cables: str) -> None:
        """All is as it was before `cut` and `silence`."""
        chosen = cables or self.cables
        _ip([f"link set {self._port(cable)} master {cable}" for cable in chosen])
        self._ip(*(f"link set {cable} up" for cable in chosen))

    def _port(self, cable: str) -> str:
        return f"{cable}-{self.name}"

    def _ip(self, *lines: str) -> None:
        _ip(lines, self.prefix)


class Network:
    """Bridges in the namespace of this program, and the machines on them."""

    def __init__(self, *names: str) -> None:
        """names: of the networks; the first has the addresses 10.0.0.0/24, the next 10.0.1.0/24."""
        self._names = names
        lines = ["link set lo up"]
        for number, name in enumerate(names):
            # With an address of its own a bridge keeps it, whatever is plugged in later.
            lines += [f"link add {name} address 02:00:00:00:00:{number:02x} type bridge", f"link set {name} up"]
            lines.append(f"address add {self.address(name, HERE)}/24 dev {name}")
        _ip(lines)

    def address(self, network: str, number: int) -> str:
        """That of a machine."""
        return f"10.0.{self._names.index(network)}.{number}"

    def machine(self, name: str, number: int, *cables: str) -> Machine:
        """A new one, in some networks or in all."""
        return Machine(self, name, number, cables or self._names)


def _new_namespace() -> int:
    """Returns: a descriptor of it, by which it lives."""
    _checked(_libc().unshare(_CLONE_NEWNET))
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(namespace: int) -> None:
    _checked(_libc().setns(namespace, _CLONE_NEWNET))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _in_thread(function: Callable[[], T]) -> T:
    """A namespace is a thread's, so what is done in another has a thread of its own."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _ip(lines: Sequence[str], prefix: Sequence[str] = ()) -> None:
    done = subprocess.run(
        [*prefix, "ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True, check=False
    )
    assert not done.returncode, f"{done.stderr}\n{lines}"
