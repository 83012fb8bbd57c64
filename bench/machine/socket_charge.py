"""Whether a memory group is charged for the kernel's memory of sockets: it is tried, with some hundred of them."""

import ctypes
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.machine.cgroups import PROC, CgroupError, Group, Hierarchy

SOCKETS_TRIED: Final = 512
SOCKET_CACHES: Final = ("TCP", "sock_inode_cache", "dentry", "filp", "eventpoll_epi", "lsm_inode_cache")
SOCKET_BYTES: Final = 3_700
"""What they come to on Linux 6.x, for where /proc/slabinfo can't be read."""
CHARGED: Final = 0.85
"""From this part on a socket's memory is taken as charged: charges go by pages, and a batch may be outstanding."""
TRY_BYTES: Final = 256 << 20
TRY_SECONDS: Final = 20.0
PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class SocketCharge:
    """Kernel memory charged for one accepted socket in an epoll, against what the kernel's caches say it takes."""

    charged: float
    expected: float
    assumed: bool

    @property
    def full(self) -> bool:
        return self.charged >= CHARGED * self.expected

    @property
    def missing(self) -> float:
        """Bytes a connection that have to be added to what a group says; 0 if all is charged."""
        return 0.0 if self.full else self.expected - self.charged

    def describe(self) -> str:
        """One sentence."""
        source = "taken from Linux 6.x" if self.assumed else "by /proc/slabinfo"
        figures = f"{self.charged:,.0f} of {self.expected:,.0f} bytes a socket ({source})"
        if self.full:
            return f"kernel memory of sockets is charged to the group: {figures}"
        return f"kernel memory of sockets is NOT all charged to the group: {figures}; what is missing is added"


def socket_charge(places: dict[str, Hierarchy] | None = None, count: int = SOCKETS_TRIED) -> SocketCharge:
    """Accept some hundred loopback connections in a scratch group, and see what it is charged for them.

    Raises:
      CgroupError: there is no group to be had, or the try failed.
    """
    expected = expected_socket_bytes()
    with Group("sockets", TRY_BYTES, places=places) as group, _acceptor(group, count) as (process, port):
        before = group.memory().kernel
        peers: list[socket.socket] = []
        try:
            for _ in range(count):
                peers.append(socket.create_connection(("127.0.0.1", port), TRY_SECONDS))
            _line(process)  # all of them are accepted
            charged = (group.memory().kernel - before) / count
        except OSError as error:
            raise CgroupError(f"the try with {count} sockets failed: {error}") from None
        finally:
            for peer in peers:
                peer.close()
    return SocketCharge(charged, expected or SOCKET_BYTES, expected is None)


def expected_socket_bytes() -> int | None:
    """The sizes of the kernel's objects for a socket, added up; None where they can't be read."""
    try:
        lines = (PROC / "slabinfo").read_text().splitlines()
    except OSError:
        return None
    sizes = {words[0]: int(words[3]) for line in lines[2:] if len(words := line.split()) > 3}
    return sum(sizes.get(name, 0) for name in SOCKET_CACHES) if "TCP" in sizes else None


@contextmanager
def _acceptor(group: Group, count: int) -> Iterator[tuple["subprocess.Popen[str]", int]]:
    join, libc = group.join, ctypes.CDLL(None)

    def prepare() -> None:
        join()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    package = str(Path(__file__).resolve().parent.parent.parent)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.machine.socket_charge", str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))},
        preexec_fn=prepare,  # noqa: PLW1509  it makes system calls only
    )
    try:
        yield process, int(_line(process))
    finally:
        process.kill()
        process.communicate()


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], TRY_SECONDS)
    line = process.stdout.readline() if ready else ""
    if not line:
        raise CgroupError("the process that tries sockets in a control group did not answer")
    return line


def _accept(count: int) -> None:
    """The process in the scratch group: accept so many connections into an epoll, then wait for the end of stdin."""
    with socket.create_server(("127.0.0.1", 0), backlog=count) as listener, select.epoll() as epoll:
        print(listener.getsockname()[1], flush=True)
        held = []
        for _ in range(count):
            accepted, _ = listener.accept()
            epoll.register(accepted, select.EPOLLIN)
            held.append(accepted)
        print("accepted", flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    _accept(int(sys.argv[1]))
