"""Processes and the machine: memory, CPU time, kernel memory. From psutil; from /proc what it has not, or less finely.

Linux only."""

import os
import platform
import resource
import time
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

import psutil

import router
from router.common.interpreter import interpreter

CPUCLOCK_SCHED: Final = 2
"""The low bits of a process's clock id: all the time that its threads ran, in nanoseconds."""
TICKS_A_SECOND: Final = os.sysconf("SC_CLK_TCK")
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")
_PACKAGES: Final = ("trio", "trio-websocket", "pyzmq", "msgpack", "wsproto", "msgspec")


@dataclass(frozen=True, slots=True)
class Kernel:
    """Kernel memory of the whole machine, in bytes."""

    slab: int
    tcp: int

    @property
    def total(self) -> int:
        return self.slab + self.tcp


def kernel_memory() -> Kernel:
    """Slab, and the pages that TCP's buffers hold: what connections cost outside of processes."""
    slab = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("Slab:"))
    sockets = next(line for line in Path("/proc/net/sockstat").read_text().splitlines() if line.startswith("TCP:"))
    words = sockets.split()
    return Kernel(int(slab.split()[1]) * 1024, int(words[words.index("mem") + 1]) * PAGE_BYTES)


def private_memory(pid: int) -> int | None:
    """Bytes that only this process has (USS: private clean and dirty); None if it is gone or not ours to see."""
    try:
        return int(psutil.Process(pid).memory_full_info().uss)
    except psutil.Error:
        return None


def proportional_memory(pid: int) -> int:
    """Bytes of a process, with its part of the pages that it shares (PSS); 0 if it is gone or not ours to see."""
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0


def descriptors(pid: int) -> int | None:
    """How many descriptors a process has open; None if it is gone or not ours to see."""
    try:
        return int(psutil.Process(pid).num_fds())
    except psutil.Error:
        return None


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they started, as of now; not itself. Those whose
    parent has ended are not found."""
    try:
        return sorted(child.pid for child in psutil.Process(pid).children(recursive=True))
    except psutil.Error:
        return []


def cpu_seconds(pid: int) -> float | None:
    """User and system time of a process so far, threads that have ended included; None if it is gone. By its CPU clock
    (clock_getcpuclockid(3)) and not by /proc/PID/stat, whose ticks of 10 ms are more than a small run takes."""
    try:
        return time.clock_gettime((~pid << 3) | CPUCLOCK_SCHED)
    except OSError:
        return None


def wanted_seconds(pid: int) -> float | None:
    """How long the main thread ran or waited for a core to run on; None where the kernel does not count it."""
    try:
        words = Path(f"/proc/{pid}/schedstat").read_text().split()
    except OSError:
        return None
    return (int(words[0]) + int(words[1])) / 1e9 if int(words[0]) else None


def available_memory() -> int:
    """Bytes that the machine could still give."""
    return int(psutil.virtual_memory().available)


def free_files() -> int:
    """How many files the machine may still open (fs.file-max)."""
    opened, _, most = (int(word) for word in Path("/proc/sys/fs/file-nr").read_text().split())
    return most - opened


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def machine_busy_seconds() -> float:
    """CPU time of all cores that was not idle."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    ticks = [int(word) for word in words]
    return (sum(ticks) - ticks[3] - ticks[4]) / TICKS_A_SECOND


def machine() -> dict[str, object]:
    """The facts without which a figure means nothing."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "kernel": platform.release(),
        "cpu": cpu,
        "cores": cores(),
        "memory_bytes": int(psutil.virtual_memory().total),
        "nofile": resource.getrlimit(resource.RLIMIT_NOFILE),
        "python": platform.python_version(),
        "interpreter": interpreter().fields(),
        "sysctl": {
            name: sysctl(name) for name in ("net/core/somaxconn", "net/ipv4/ip_local_port_range", "fs/file-max")
        },
        "versions": {"connection-farm": router.__version__} | {name: _version(name) for name in _PACKAGES},
    }


def sysctl(name: str) -> str:
    """A setting of the kernel, by its path in /proc/sys; "" if this one has none of that name."""
    try:
        return " ".join(Path("/proc/sys", name).read_text().split())
    except OSError:
        return ""


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
