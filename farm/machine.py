"""What this machine has and allows, for the doctor and the capacity figures.

Everything above it (`farm.capacity`, `farm.doctor`) is a pure function of a `Machine`, so a test hands in one
that reads a folder of fixture files and answers made-up limits.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
import sqlite3
import sys
from pathlib import Path, PurePosixPath
from typing import Final

from router.common import priority
from router.common.interpreter import Interpreter, interpreter

UNLIMITED: Final = 2**63 - 1
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Machine:
    """Reads /proc and /sys below `root`, and the limits of this process."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    page_bytes = _PAGE_BYTES

    def text(self, path: str) -> str | None:
        """A small file of the kernel, without the space around it; None if it cannot be read."""
        try:
            return (self._root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    def sysctl(self, name: str) -> tuple[int, ...] | None:
        """The numbers of a sysctl such as net.ipv4.tcp_mem; None if this kernel has none of that name."""
        text = self.text("/proc/sys/" + name.replace(".", "/"))
        if text is None:
            return None
        try:
            return tuple(int(word) for word in text.split())
        except ValueError:
            return None

    def descriptor_limits(self) -> tuple[int, int]:
        """RLIMIT_NOFILE of this process: soft, hard."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        return _finite(soft), _finite(hard)

    def lowest_nice(self) -> int:
        """The lowest nice value that a process which is started here may take."""
        return priority.lowest()

    def cpus(self) -> int:
        """Cores this process may run on."""
        return len(os.sched_getaffinity(0))

    def python_version(self) -> tuple[int, ...]:
        return tuple(sys.version_info[:3])

    def interpreter(self) -> Interpreter:
        """The Python that runs this, and how it was built."""
        return interpreter()

    def sqlite_version(self) -> tuple[int, ...]:
        return sqlite3.sqlite_version_info

    def available_memory(self) -> int:
        """Bytes that can still be used, of the machine's memory and within every control group's limit."""
        found = [self._system_memory(), *self._group_headrooms()]
        return max(0, min(found))

    def bind_error(self, host: str, port: int) -> OSError | None:
        """Why a listener could not be put there; None if it could. Nothing stays open."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, port))
                probe.listen(1)
        except OSError as exc:
            return exc
        return None

    def write_error(self, folder: Path) -> OSError | None:
        """Why no file could be made in this folder (or the nearest above that exists); None if one could."""
        existing = nearest_folder(folder)
        if not existing.is_dir():
            return NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(existing))
        if os.access(existing, os.W_OK | os.X_OK):
            return None
        return PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(existing))

    def free_bytes(self, folder: Path) -> int:
        """Bytes free on the file system that holds this folder.

        Raises: OSError if it cannot be read.
        """
        found = os.statvfs(nearest_folder(folder))
        return found.f_bavail * found.f_frsize

    def filesystem(self, folder: Path) -> str:
        """The type of the file system that holds this folder ("ext4"); "" if it is not known."""
        place = PurePosixPath(nearest_folder(folder).resolve())
        best, kind = -1, ""
        for line in (self.text("/proc/self/mountinfo") or "").splitlines():
            before, _, after = line.partition(" - ")
            fields, rest = before.split(), after.split()
            if len(fields) < 5 or not rest:
                continue
            mount = PurePosixPath(fields[4].replace("\\040", " "))
            # The later of two mounts on the same point is the one that is seen.
            if place.is_relative_to(mount) and len(mount.parts) >= best:
                best, kind = len(mount.parts), rest[0]
        return kind

    def _system_memory(self) -> int:
        for line in (self.text("/proc/meminfo") or "").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return UNLIMITED

    def _group_headrooms(self) -> list[int]:
        """What each memory limit above this process leaves, in control groups of both versions."""
        headrooms = []
        for line in (self.text("/proc/self/cgroup") or "").splitlines():
            number, controllers, path = line.split(":", 2)
            if number == "0":
                base, names = "/sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
            elif "memory" in controllers.split(","):
                base = "/sys/fs/cgroup/memory"
                names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            else:
                continue
            # In a container the path may be the host's, which is not seen here: then only the root is found.
            group = PurePosixPath(path)
            for node in (group, *group.parents):
                folder = base + str(node).rstrip("/")
                headroom = self._headroom(folder, *names)
                if headroom is not None:
                    headrooms.append(headroom)
        return headrooms

    def _headroom(self, folder: str, limit_name: str, usage_name: str, cache_name: str) -> int | None:
        limit, usage = self.text(f"{folder}/{limit_name}"), self.text(f"{folder}/{usage_name}")
        if limit is None or usage is None or not limit.isdecimal() or not usage.isdecimal():
            return None  # "max", or no limit at this level
        cache = 0  # file pages that the kernel gives back before it refuses memory
        for line in (self.text(f"{folder}/memory.stat") or "").splitlines():
            name, _, value = line.partition(" ")
            if name == cache_name:
                cache = int(value)
        return int(limit) - int(usage) + cache


def nearest_folder(folder: Path) -> Path:
    """The path itself, or the nearest of its parents that exists, be it a folder or not."""
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place


def _finite(limit: int) -> int:
    return UNLIMITED if limit == resource.RLIM_INFINITY else limit
