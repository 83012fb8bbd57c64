"""Ports for servers that are about to be started."""

import random
import socket
from contextlib import ExitStack
from typing import Final

from bench.machine.procfs import sysctl

FIRST: Final = 10_000
END: Final = 65_536
_ANY: Final = 0


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


def _outside_of_the_kernels() -> list[int]:
    kernels = sysctl("net/ipv4/ip_local_port_range").split()
    if not kernels:
        return []
    first, last = map(int, kernels)
    ports = [*range(FIRST, first), *range(last + 1, END)]
    random.shuffle(ports)
    return ports
