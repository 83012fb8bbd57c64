"""How many devices a farm can hold on this machine, and which limit comes first.

The figures are measured ones, rounded up: an idle TCP socket costs the kernel 3.5 to 4 KB whatever the
language, a hello'd device with one channel about half a KB of a worker and the router together, a process
some 40 MiB before its first connection.
"""

from __future__ import annotations

import resource
from dataclasses import dataclass
from typing import Final

from farm.machine import UNLIMITED, Machine
from farm.settings import WorkerOptions
from router.common.options import Settings
from router.common.settings import Listen, RouterOptions
from router.common.tls_settings import TlsOptions

KERNEL_BYTES_PER_CONNECTION: Final = 4096
USER_BYTES_PER_CONNECTION: Final = 512
TLS_BYTES_PER_CONNECTION: Final = 15 * 1024
"""Besides, where the device port speaks TLS: OpenSSL's object, and two of Python's."""
BYTES_PER_PROCESS: Final = 40 * 2**20
REFUSAL_ROOM: Final = 64
"""Connections beyond a worker's limit that are accepted, so that they can be answered 503."""
_RESERVED_DESCRIPTORS: Final = 64 + REFUSAL_ROOM
_DESCRIPTORS_PER_LINK: Final = 5  # of ZeroMQ's sockets, both directions


def bytes_per_connection(settings: Settings) -> int:
    """Of memory, the kernel's and ours."""
    tls = TLS_BYTES_PER_CONNECTION if settings.get(TlsOptions).for_devices else 0
    return KERNEL_BYTES_PER_CONNECTION + USER_BYTES_PER_CONNECTION + tls


def reserved_descriptors(routers: int) -> int:
    """Of each process, for listeners, log, epoll, store and the links to so many routers, and for connections that are
    answered 503."""
    return _RESERVED_DESCRIPTORS + _DESCRIPTORS_PER_LINK * (routers - 1)


@dataclass(frozen=True, slots=True)
class Limits:
    """What the machine allows. Numbers are connections unless their name says otherwise."""

    workers: int  # processes
    routers: int  # processes
    processes: int  # all of the farm that it counts with: workers, routers and the supervisor
    reserved: int  # descriptors of one process that no connection gets
    descriptors: int  # descriptors of one process, once the soft limit is raised to the hard one
    somaxconn: int  # connections that may wait at one listener, whatever it requests
    memory_bytes: int
    backlog: int  # what the listeners request
    by_descriptors: int
    by_files: int  # fs.file-max, all processes together
    by_memory: int
    by_option: int | None  # worker.max_connections, if it is set
    connections: int
    bound: str  # what is reached first: "descriptors", "fs.file-max", "memory" or "worker.max_connections"


def limits(settings: Settings, workers: int, machine: Machine | None = None) -> Limits:
    """The limits of a farm of so many workers on this machine."""
    machine = machine or Machine()
    descriptors = machine.descriptor_limits()[1]
    memory_bytes = machine.available_memory()
    file_max = (machine.sysctl("fs.file-max") or (UNLIMITED,))[0]
    routers = settings.get(RouterOptions).routers
    processes = workers + routers + 1
    reserved = reserved_descriptors(routers)
    option = settings.get(WorkerOptions).max_connections
    bounds = {
        "descriptors": workers * max(0, descriptors - reserved),
        "fs.file-max": max(0, file_max - processes * reserved),
        "memory": max(0, memory_bytes - processes * BYTES_PER_PROCESS) // bytes_per_connection(settings),
    }
    if option:
        bounds["worker.max_connections"] = workers * option
    bound = min(bounds, key=lambda name: bounds[name])
    listen = settings.get(Listen)
    return Limits(
        workers=workers,
        routers=routers,
        processes=processes,
        reserved=reserved,
        descriptors=descriptors,
        somaxconn=(machine.sysctl("net.core.somaxconn") or (listen.backlog,))[0],
        memory_bytes=memory_bytes,
        backlog=listen.backlog,
        by_descriptors=bounds["descriptors"],
        by_files=bounds["fs.file-max"],
        by_memory=bounds["memory"],
        by_option=bounds.get("worker.max_connections"),
        connections=bounds[bound],
        bound=bound,
    )


def describe(found: Limits) -> list[str]:
    """The limits in a few lines, for the start of the farm."""
    cut = ", cut to it" if found.somaxconn < found.backlog else ""
    return [
        f"descriptors: {count(found.descriptors)} a process",
        f"somaxconn: {found.somaxconn:,} (listen.backlog {found.backlog:,}{cut})",
        f"memory: {size(found.memory_bytes)} available",
        f"connections: {count(found.connections)}; {found.workers} workers, first bound: {found.bound}"
        f" (descriptors {count(found.by_descriptors)}, memory {count(found.by_memory)})",
    ]


def no_room(found: Limits) -> str:
    """Why there is room for no connection at all, and what to do about it; "" if there is room.

    Memory is no reason: what a process takes is an estimate, and forked ones share much of it.
    """
    if found.by_descriptors == 0:
        name, remedy = (
            "descriptors",
            f"a process may open {count(found.descriptors)} descriptors, and the farm itself needs {found.reserved} of"
            " each: raise the limit (ulimit -Hn, or LimitNOFILE= of the unit)",
        )
    elif found.by_files == 0:
        name, remedy = (
            "fs.file-max",
            "all processes together may open too few files: raise it (sysctl fs.file-max), to more than"
            f" {found.processes * found.reserved:,}",
        )
    else:
        return ""
    return f"no room for any connection, by {name}: {remedy}"


def raise_descriptor_limit() -> int:
    """Raise this process' soft limit of descriptors to the hard one, for its children too.

    Returns: the limit in force.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # a hard limit above fs.nr_open cannot be had
            return soft
    return UNLIMITED if hard == resource.RLIM_INFINITY else hard


def count(number: int) -> str:
    """A number for people: 39,872; or "unlimited"."""
    return "unlimited" if number >= UNLIMITED // 2 else f"{number:,}"


def size(number: int) -> str:
    """Bytes for people: 21.9 GiB."""
    if number >= UNLIMITED // 2:
        return "unlimited"
    amount = float(number)
    for unit in ("B", "KiB", "MiB"):
        if abs(amount) < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"
