"""What a run cost the whole machine in memory: both ends of every connection, the kernel, and each process's base.

A process that lists /proc/PID/fd leaves inodes and dentries of procfs behind that the kernel gives back only when
it runs short. With millions of sockets that is much, and no part of what a connection costs: their growth is taken
off, and the report says how much that was. Linux only.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.machine.procfs import PAGE_BYTES, Kernel, kernel_memory

PROC_INODES: Final = "proc_inode_cache"
DENTRIES: Final = "dentry"


@dataclass(frozen=True, slots=True)
class Cache:
    """A slab cache: objects in use, bytes of one, bytes that the cache takes in all."""

    objects: int
    object_bytes: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Reading:
    """The machine at one moment, in bytes. `unavailable`: MemTotal - MemAvailable. `used`: MemTotal - MemFree -
    Buffers - Cached + Shmem, so all but the page cache of files, reclaimable slabs included. `proc_inodes` and
    `dentry_bytes` (of one object): None where /proc/slabinfo can't be read."""

    unavailable: int
    used: int
    swap: int
    kernel: Kernel
    proc_inodes: Cache | None
    dentry_bytes: int | None


def read() -> Reading:
    """The machine now."""
    try:
        slabs = parse_slabinfo(Path("/proc/slabinfo").read_text())
    except OSError:  # root only, and not there everywhere
        slabs = {}
    dentries = slabs.get(DENTRIES)
    return reading_of(
        Path("/proc/meminfo").read_text(),
        kernel_memory(),
        slabs.get(PROC_INODES),
        dentries.object_bytes if dentries else None,
    )


def reading_of(meminfo: str, kernel: Kernel, proc_inodes: Cache | None, dentry_bytes: int | None) -> Reading:
    """A reading from the text of /proc/meminfo."""
    at = {line.partition(":")[0]: int(line.split()[1]) * 1024 for line in meminfo.splitlines() if line}
    return Reading(
        unavailable=at["MemTotal"] - at["MemAvailable"],
        used=at["MemTotal"] - at["MemFree"] - at["Buffers"] - at["Cached"] + at["Shmem"],
        swap=at["SwapTotal"] - at["SwapFree"],
        kernel=kernel,
        proc_inodes=proc_inodes,
        dentry_bytes=dentry_bytes,
    )


def parse_slabinfo(text: str) -> dict[str, Cache]:
    """The caches of /proc/slabinfo by name."""
    caches = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) < 16 or not words[1].isdigit():
            continue  # the version, and the names of the columns
        slabs, pages = int(words[14]), int(words[5])
        caches[words[0]] = Cache(int(words[1]), int(words[3]), slabs * pages * PAGE_BYTES)
    return caches


def growth(before: Reading, after: Reading, devices: int) -> dict[str, Any]:
    """For JSON, in bytes: what the machine holds more than before, in all and for each device."""
    taken = left_by_listings(before, after)
    subtracted = sum(taken.values()) if taken else 0

    def share(total: int) -> dict[str, Any]:
        return {"total": total, "a_device": total / devices if devices else None}

    return {
        "unavailable": share(after.unavailable - before.unavailable),
        "used": share(after.used - before.used - subtracted),
        "kernel": share(after.kernel.total - before.kernel.total - subtracted),
        "subtracted": taken,
        "swap": after.swap - before.swap,
        "note": (
            "growth from before the farm and the load processes were started until the devices were held: both ends "
            "of every connection, the kernel, and the base memory of every process. unavailable: MemTotal - "
            "MemAvailable, which leaves out what the kernel could give back. used: MemTotal - MemFree - Buffers - "
            "Cached + Shmem. kernel: Slab and TCP buffers, a part of used. "
            + (
                "From used and kernel are subtracted procfs inodes and their dentries, which listings of /proc/PID/fd "
                "leave behind"
                if taken is not None
                else "/proc/slabinfo can't be read, so what listings of /proc/PID/fd leave behind is in it"
            )
        ),
    }


def left_by_listings(before: Reading, after: Reading) -> dict[str, int] | None:
    """What listings of /proc/PID/fd left behind, in bytes: the growth of procfs inodes, and of as many dentries; None
    where it is not known."""
    if before.proc_inodes is None or after.proc_inodes is None or after.dentry_bytes is None:
        return None
    objects = after.proc_inodes.objects - before.proc_inodes.objects
    return {
        "proc_inodes": max(0, after.proc_inodes.bytes - before.proc_inodes.bytes),
        "dentries": max(0, objects) * after.dentry_bytes,
    }
