"""Ports for servers that are about to be started."""

import errno
import random
import socket
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Final

from bench.machine.procfs import sysctl

FIRST: Final = 10_000
END: Final = 65_536
TRIES: Final = 100
_ANY: Final = 0
_KERNELS_USUAL: Final = 32_768
"""From here on Linux takes ports of outgoing connections, unless told otherwise."""


def free_ports(count: int) -> list[int]:
    """Ports of loopback that are free now.

    From outside the range out of which the kernel takes those of outgoing connections (ip(7)), as far as that leaves
    any: another process's connection could have the port before the server has it.
    """
    candidates = _outside_of_the_kernels()
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = candidates.pop() if candidates else _ANY
            try:
                sock = stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                if port == _ANY:
                    raise
                continue
            ports.append(int(sock.getsockname()[1]))
    return ports


def free_block(hosts: Sequence[str], count: int) -> int:
    """The first of so many ports in a row that are free now on each of these addresses.

    Raises:
      OSError: there are none, or one of the addresses is not of this machine.
    """
    for _ in range(TRIES):
        first = random.randrange(FIRST, _KERNELS_USUAL - count)
        try:
            with ExitStack() as stack:
                for host in hosts:
                    for port in range(first, first + count):
                        stack.enter_context(socket.create_server((host, port)))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            continue
        return first
    raise OSError(errno.EADDRINUSE, f"no {count} free ports in a row")


def _outside_of_the_kernels() -> list[int]:
    kernels = sysctl("net/ipv4/ip_local_port_range").split()
    if not kernels:
        return []
    first, last = map(int, kernels)
    ports = [*range(FIRST, first), *range(last + 1, END)]
    random.shuffle(ports)
    return ports
