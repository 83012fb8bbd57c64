"""Control groups: limits of memory and CPU for the farm under test, and what it used of them. Versions 1 and 2.

A controller is used where it is mounted: memory may be of version 1 and CPU of version 2. A group of ours is made below
the group that the bench runs in, or else below the nearest group above it where that is allowed, and it is removed
with the block that made it. What a killed bench left is removed by `prune` at the next start.

Version 1 charges the sockets that a listener accepts only to groups for which `memory.kmem.tcp.limit_in_bytes` was set
before they were made, and some kernels do not charge them at all: `bench.machine.socket_charge` measures it.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Final

from bench.errors import BenchError
from bench.machine import leftovers
from bench.machine.group_files import PERIOD_US, Cpu, Memory, cpu_v1, cpu_v2, memory_v1, memory_v2, quota, reader

CONTROLLERS: Final = ("memory", "cpu", "cpuacct")
PROC: Final = Path("/proc")
END_SECONDS: Final = 10.0
ORPHAN_SECONDS: Final = 5.0
"""So long a farm whose bench was killed has to end by itself before it is killed."""
POLL_SECONDS: Final = 0.02
FOLDERS_SEARCHED: Final = 20_000


class CgroupError(BenchError):
    """No control group can be had; the text says why."""


# ---------------------------------------------------------------------- where


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of control groups. `own` is the path in it of the group that this process is in."""

    version: int
    mount: Path
    own: str

    def parents(self) -> list[Path]:
        """The folders below which a group could be made: our own group's first, the root's last."""
        inside = Path(self.own.lstrip("/"))
        folders = [self.mount / inside, *(self.mount / above for above in inside.parents)]
        # in a container the path may be the host's, which is not seen here: then only the root is there
        return [folder for folder in dict.fromkeys(folders) if ".." not in folder.parts and folder.is_dir()]


def hierarchies(mounts: str, own: str) -> dict[str, Hierarchy]:
    """Where controllers are mounted, by their names; "" is version 2, which says itself what it controls. Pure.

    Args:
      mounts: the text of /proc/mounts
      own: the text of /proc/self/cgroup
    """
    paths: dict[str, str] = {}
    for line in own.splitlines():
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            paths[name] = path
    found: dict[str, Hierarchy] = {}
    for line in mounts.splitlines():
        words = line.split()
        if len(words) < 4 or words[2] not in ("cgroup", "cgroup2"):
            continue
        mount = Path(words[1].replace("\\040", " "))
        if words[2] == "cgroup2":
            found.setdefault("", Hierarchy(2, mount, paths.get("", "/")))
            continue
        for name in set(words[3].split(",")) & set(CONTROLLERS):
            found.setdefault(name, Hierarchy(1, mount, paths.get(name, "/")))
    return found


def here() -> dict[str, Hierarchy]:
    """The hierarchies of this machine; empty where there are none to be seen."""
    try:
        return hierarchies((PROC / "mounts").read_text(), (PROC / "self/cgroup").read_text())
    except OSError:
        return {}


class Group:
    """A control group with a limit of memory, and perhaps one of CPU. A context manager: what still runs in it is
    killed and the group removed when the block ends.

    Raises (when made):
      CgroupError: it can't be had.
    """

    def __init__(
        self, label: str, memory: int, cpus: float | None = None, places: dict[str, Hierarchy] | None = None
    ) -> None:
        places = here() if places is None else places
        self.name = leftovers.name(label)
        self.limit = memory
        self.cpus = cpus
        self.notes: list[str] = []
        self._folders: dict[str, Path] = {}
        self._versions: dict[str, int] = {}
        self._enabled: list[tuple[Path, str]] = []
        try:
            self._make(places, "memory")
            self._limit_memory(memory)
            try:
                self._make(places, "cpu")
                self.cap(cpus)
            except CgroupError as error:
                self.cpus = None
                self.notes.append(f"CPU is not limited: {error}")
            if self._versions.get("cpu") == 1:
                with suppress(CgroupError):  # only counts
                    self._make(places, "cpuacct")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Group":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def version(self) -> int:
        """Of the memory controller."""
        return self._versions["memory"]

    @property
    def folder(self) -> Path:
        """Of the memory controller."""
        return self._folders["memory"]

    def join(self) -> None:
        """Put this process into the group: for a child, between fork and exec."""
        for folder in dict.fromkeys(self._folders.values()):
            descriptor = os.open(folder / "cgroup.procs", os.O_WRONLY)
            os.write(descriptor, b"0")
            os.close(descriptor)

    def memory(self) -> Memory:
        read = reader(self._folders["memory"])
        return memory_v1(read) if self.version == 1 else memory_v2(read)

    def cpu(self) -> Cpu:
        folder = self._folders.get("cpu")
        if folder is None:
            return Cpu(None, 0, 0, 0.0)
        if self._versions["cpu"] == 2:
            return cpu_v2(reader(folder))
        counter = self._folders.get("cpuacct")
        return cpu_v1(reader(folder), reader(counter)("cpuacct.usage") if counter else "")

    def cap(self, cpus: float | None) -> None:
        """Limit the CPU time from now on to this share of a core, or number of cores; None: no limit.

        Raises:
          CgroupError: the kernel does not take it.
        """
        folder = self._folders.get("cpu")
        if folder is None:
            return
        time_us, period = quota(cpus) if cpus else (-1, PERIOD_US[1])
        if self._versions["cpu"] == 2:
            _write(folder / "cpu.max", f"{time_us if cpus else 'max'} {period}")
            return
        _write(folder / "cpu.cfs_quota_us", "-1")  # the period can be any only while there is no quota
        _write(folder / "cpu.cfs_period_us", str(period))
        _write(folder / "cpu.cfs_quota_us", str(time_us))

    def close(self) -> None:
        """Kill what is left in it and remove it.

        Raises:
          CgroupError: it can't be removed.
        """
        folders = list(dict.fromkeys(self._folders.values()))
        self._folders = {}
        left = [folder for folder in folders if not remove(folder)]
        for parent, controller in reversed(self._enabled):
            with suppress(OSError):
                (parent / "cgroup.subtree_control").write_text(f"-{controller}")
        self._enabled.clear()
        if left:
            raise CgroupError(f"the control group {left[0]} could not be removed")

    def _make(self, places: dict[str, Hierarchy], controller: str) -> None:
        reasons = []
        candidates = [place for place in (places.get(controller), places.get("")) if place is not None]
        for place in candidates:
            for parent in self._parents(place):
                try:
                    if place.version == 2:
                        self._enable(parent, controller)
                    (parent / self.name).mkdir(exist_ok=place.version == 2 or controller == "cpuacct")
                except OSError as error:
                    reasons.append(f"{parent}: {(error.strerror or str(error)).lower()}")
                    continue
                self._folders[controller] = parent / self.name
                self._versions[controller] = place.version
                return
        why = "; ".join(reasons) or "it is not mounted"
        raise CgroupError(f"no control group for {controller}: {why}")

    def _parents(self, place: Hierarchy) -> list[Path]:
        """Where a group may be made. In version 2 a process is in one group for all controllers: CPU must go where
        memory is, and memory goes where both are to be had, if there is such a place."""
        if place.version == 1:
            return place.parents()
        if self._versions.get("memory") == 2:
            return [self.folder.parent]
        return sorted(place.parents(), key=lambda parent: "cpu" not in reader(parent)("cgroup.controllers").split())

    def _enable(self, parent: Path, controller: str) -> None:
        """Have the children of a group of version 2 controlled. Raises OSError."""
        if controller not in (parent / "cgroup.controllers").read_text().split():
            raise OSError(0, f"no {controller} controller there")
        control = parent / "cgroup.subtree_control"
        if controller not in control.read_text().split():
            control.write_text(f"+{controller}")
            self._enabled.append((parent, controller))

    def _limit_memory(self, memory: int) -> None:
        folder = self.folder
        if self.version == 2:
            _write(folder / "memory.max", str(memory))
            _write_if_there(folder / "memory.swap.max", "0")
            return
        _write(folder / "memory.limit_in_bytes", str(memory))
        _write_if_there(folder / "memory.memsw.limit_in_bytes", str(memory))
        if not _write_if_there(folder / "memory.kmem.tcp.limit_in_bytes", str(memory)):
            self.notes.append("this kernel can't limit the memory of sockets in a group")


def remove(folder: Path, seconds: float = END_SECONDS) -> bool:
    """Kill what runs in a group and remove its folder; whether it is gone."""
    deadline = time.monotonic() + seconds
    while folder.exists():
        for pid in processes(folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with suppress(OSError):  # busy while the last of them end
            folder.rmdir()
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_SECONDS)
    return True


def processes(folder: Path) -> list[int]:
    """The processes in a group."""
    return [int(word) for word in reader(folder)("cgroup.procs").split() if word != "0"]


def prune(places: dict[str, Hierarchy] | None = None, seconds: float = ORPHAN_SECONDS) -> list[Path]:
    """Remove the groups of benches that were killed, with the farms that still run in them; those groups' folders.

    Such a farm was signalled by the kernel when its bench died, and has some seconds for it.
    """
    places = here() if places is None else places
    stale = [folder for mount in {place.mount for place in places.values()} for folder in _stale(mount)]
    deadline = time.monotonic() + seconds
    while any(processes(folder) for folder in stale) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    return [folder for folder in stale if remove(folder)]


def _stale(mount: Path) -> Iterator[Path]:
    for parent, folders, _ in islice(os.walk(mount), FOLDERS_SEARCHED):
        yield from (Path(parent, name) for name in folders if leftovers.is_stale(name))


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text)
    except OSError as error:
        raise CgroupError(f"{path} does not take {text}: {(error.strerror or str(error)).lower()}") from None


def _write_if_there(path: Path, text: str) -> bool:
    if not path.exists():
        return False
    with suppress(CgroupError):
        _write(path, text)
        return True
    return False
