"""`farm doctor`: what the machine allows against what a farm with these settings needs.

Every check is a pure function of a `Subject` (the settings, the machine's reader and what is to be held) and
yields rows; none changes anything. A row fails when the farm cannot start, or cannot hold the number of
connections that was asked for; it warns when it will work but not as well as this machine could.
"""

from __future__ import annotations

import errno
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from farm import admin_tokens, cluster_doctor
from farm.capacity import (
    BYTES_PER_PROCESS,
    TLS_BYTES_PER_CONNECTION,
    Limits,
    bytes_per_connection,
    count,
    describe,
    limits,
    raise_descriptor_limit,
    size,
)
from farm.control import ControlError, pid_file, running_pid
from farm.machine import Machine
from farm.supervisor.expiry import DAY_S, SOON_DAYS
from router.common import tls
from router.common.admin_address import is_loopback
from router.common.interpreter import Interpreter
from router.common.options import Settings
from router.common.settings import Data, Listen, RouterOptions, StoreOptions
from router.common.tls_settings import TlsOptions
from router.store.registry import look_over

__all__ = [
    "CHECKS",
    "Check",
    "Limits",
    "Subject",
    "describe",
    "examine",
    "limits",
    "raise_descriptor_limit",
]

MIN_DESCRIPTORS: Final = 1024  # less leaves a worker next to nothing once the reserve is taken
WANTED_DESCRIPTORS: Final = 1_048_576  # what deploy/farm.service sets
MIN_PYTHON: Final = (3, 11)
MIN_SQLITE: Final = (3, 35)  # RETURNING, and an UPSERT that is whole
MIN_FREE_BYTES: Final = 2**30
MAX_IPC_PATH_BYTES: Final = 107  # sun_path of a unix socket, less its closing zero
IPC_NAME_BYTES: Final = 32  # what the control sockets' names may add to the data folder's path
TCP_PAGES_PER_CONNECTION: Final = 1  # an idle socket holds none, one that is being written to at least one
DEFAULT_RMEM: Final = 131_072  # the kernel's own default of the middle value, and so of the one below
DEFAULT_WMEM: Final = 16_384
MIN_PORTS: Final = 16_000  # source ports of one address, for the load generator
COSTS: Final = "Python code takes about a quarter more CPU"
FASTER_PYTHON: Final = (
    "the distribution's: make clean, make PYTHON=/usr/bin/python3; or one that uv or python.org has built"
)
NETWORK_FILESYSTEMS: Final = frozenset(("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"))
PASSING_FILESYSTEMS: Final = frozenset(("tmpfs", "ramfs"))

Status = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """One row: what was looked at, what was found and needed, and the line that would change it."""

    name: str
    status: Status
    found: str
    needed: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is examined. `asked`: connections to hold; None stands for as many as there is room for."""

    settings: Settings
    machine: Machine
    limits: Limits
    asked: int | None

    @property
    def target(self) -> int:
        """Connections that the machine's other limits are measured against."""
        return self.limits.connections if self.asked is None else self.asked

    @property
    def severity(self) -> Status:
        """What it means that the target is out of reach: a number that was asked for must be reached."""
        return "warn" if self.asked is None else "fail"


def examine(settings: Settings, workers: int, asked: int | None = None, machine: Machine | None = None) -> list[Check]:
    """All checks for a farm of so many workers that is to hold `asked` connections."""
    machine = machine or Machine()
    subject = Subject(settings, machine, limits(settings, workers, machine), asked)
    return [row for check in CHECKS for row in check(subject)]


def _sysctl(name: str, value: object) -> str:
    return f"sysctl -w {name}={value!r}".replace("'", '"')


def descriptors(s: Subject) -> Iterator[Check]:
    """RLIMIT_NOFILE: one descriptor a connection."""
    soft, hard = s.machine.descriptor_limits()
    workers, name = s.limits.workers, "descriptors a process"
    found = f"{count(soft)} soft, {count(hard)} hard"
    remedy = f"systemd: LimitNOFILE={WANTED_DESCRIPTORS}; shell: ulimit -Hn {WANTED_DESCRIPTORS}; or more workers"
    share = -(-s.target // workers) + s.limits.reserved
    if hard < MIN_DESCRIPTORS:
        yield Check(name, "fail", found, f"{MIN_DESCRIPTORS:,}", remedy)
    elif hard < share:
        yield Check(name, s.severity, found, f"{share:,} for {s.target:,} on {workers} workers", remedy)
    elif s.limits.bound == "descriptors" and s.asked is None:
        needed = f"more: they allow {count(s.limits.by_descriptors)}, memory {count(s.limits.by_memory)}"
        yield Check(name, "warn", found, needed, remedy)
    else:
        yield Check(name, "ok", found, f"{share:,}")


def open_files(s: Subject) -> Iterator[Check]:
    """The two limits of the kernel above RLIMIT_NOFILE."""
    needed = s.target + s.limits.processes * s.limits.reserved
    yield from _at_least(s, "fs.file-max", needed, "descriptors of the whole machine")
    share = -(-s.target // s.limits.workers) + s.limits.reserved
    yield from _at_least(s, "fs.nr_open", share, "highest descriptor limit a process may have")


def _at_least(s: Subject, name: str, needed: int, meaning: str) -> Iterator[Check]:
    found = s.machine.sysctl(name)
    if not found:
        return
    short = found[0] < needed
    remedy = _sysctl(name, max(needed, WANTED_DESCRIPTORS)) if short else ""
    yield Check(name, s.severity if short else "ok", count(found[0]), f"{needed:,} ({meaning})", remedy)


def backlog(s: Subject) -> Iterator[Check]:
    """The accept queue: the kernel silently cuts the backlog of a listener to somaxconn."""
    wanted = s.limits.backlog
    short = s.limits.somaxconn < wanted
    remedy = f"{_sysctl('net.core.somaxconn', wanted)}; or a lower listen.backlog" if short else ""
    needed = f"{wanted:,} (listen.backlog)"
    yield Check("net.core.somaxconn", "warn" if short else "ok", f"{s.limits.somaxconn:,}", needed, remedy)


def tcp_memory(s: Subject) -> Iterator[Check]:
    """Socket buffers: above the second number of tcp_mem (pages) the kernel grows sparing with windows."""
    found = s.machine.sysctl("net.ipv4.tcp_mem")
    if found and len(found) == 3:
        needed = s.target * TCP_PAGES_PER_CONNECTION
        short = found[1] < needed
        remedy = _sysctl("net.ipv4.tcp_mem", f"{needed} {needed * 4 // 3} {needed * 2}") if short else ""
        shown = f"{found[1]:,} pages ({size(found[1] * s.machine.page_bytes)}) before pressure"
        meaning = f"{needed:,} pages, {TCP_PAGES_PER_CONNECTION} a connection"
        # Only traffic to all devices at once would meet it, so this never fails.
        yield Check("net.ipv4.tcp_mem", "warn" if short else "ok", shown, meaning, remedy)
    for name, default in (("net.ipv4.tcp_rmem", DEFAULT_RMEM), ("net.ipv4.tcp_wmem", DEFAULT_WMEM)):
        found = s.machine.sysctl(name)
        if found and len(found) == 3:
            large = found[1] > default
            remedy = _sysctl(name, f"{found[0]} {default} {found[2]}") if large else ""
            needed_text = f"at most {default:,} bytes to begin with: a slow device may fill it"
            yield Check(name, "warn" if large else "ok", f"{found[1]:,} bytes", needed_text, remedy)


def source_ports(s: Subject) -> Iterator[Check]:
    """Only a load generator on this machine needs many ports."""
    name = "net.ipv4.ip_local_port_range"
    found = s.machine.sysctl(name)
    if found and len(found) == 2:
        ports = found[1] - found[0] + 1
        short = ports < MIN_PORTS
        remedy = _sysctl(name, "20000 65535") if short else ""
        needed = f"{MIN_PORTS:,} a source address (farm bench only)"
        yield Check(name, "warn" if short else "ok", f"{ports:,} ports", needed, remedy)


def memory(s: Subject) -> Iterator[Check]:
    """Memory for the connections, within the control group's limit too."""
    needed = s.target * bytes_per_connection(s.settings) + s.limits.processes * BYTES_PER_PROCESS
    short = s.limits.memory_bytes < needed
    for_devices = s.settings.get(TlsOptions).for_devices
    remedy = "a larger machine or control group (systemd: MemoryMax=)" if short else ""
    if short and for_devices:
        remedy += "; or TLS in a proxy in front of the farm (docs/tls.md)"
    found = f"{size(s.limits.memory_bytes)} available"
    with_tls = f", {size(TLS_BYTES_PER_CONNECTION)} of each for TLS" if for_devices else ""
    meaning = f"{size(needed)} for {s.target:,} connections{with_tls}"
    yield Check("memory", "fail" if short else "ok", found, meaning, remedy)


def certificates(s: Subject) -> Iterator[Check]:
    """Those of TLS: that they can be used, and for how long."""
    options = s.settings.get(TlsOptions)
    name = "tls.certificate"
    if problems := tls.problems(options):
        for problem in problems:
            option, _, why = problem.partition(": ")
            yield Check(option, "fail", why, "certificates and their keys, in PEM format", "see docs/tls.md")
        return
    for path, expires in tls.expiries(options).items():
        days = int((expires - time.time()) // DAY_S)
        late = days < SOON_DAYS
        remedy = "renew it (certbot renew); the farm takes up what has changed" if late else ""
        found = f"{path} is valid for {days} days more"
        yield Check(name, "warn" if late else "ok", found, f"{SOON_DAYS} days or more", remedy)
    for key in options.key:
        if Path(key).stat().st_mode & stat.S_IROTH:
            yield Check("tls.key", "warn", f"{key}: every user can read it", "only the farm's", f"chmod o= {key}")


def connection_tracking(s: Subject) -> Iterator[Check]:
    """A firewall that tracks connections drops new ones when its table is full."""
    found = s.machine.sysctl("net.netfilter.nf_conntrack_max")
    if found is None:
        return
    short = found[0] < s.target
    name, needed = "net.netfilter.nf_conntrack_max", f"{s.target:,}"
    remedy = f"{_sysctl(name, s.target * 2)}; or do not track the device port" if short else ""
    yield Check(name, s.severity if short else "ok", count(found[0]), needed, remedy)


def overcommit(s: Subject) -> Iterator[Check]:
    """Mode 2 counts what is mapped, not what is used, and so refuses memory that is there."""
    found = s.machine.sysctl("vm.overcommit_memory")
    if found:
        strict = found[0] == 2
        remedy = _sysctl("vm.overcommit_memory", 0) if strict else ""
        yield Check("vm.overcommit_memory", "warn" if strict else "ok", str(found[0]), "0 or 1", remedy)


def processors(s: Subject) -> Iterator[Check]:
    """A worker a core is enough, since batches shrink as processes multiply; more only buy descriptors. More
    routers than cores buy nothing."""
    cpus, workers = s.machine.cpus(), s.limits.workers
    many = workers > 2 * cpus
    remedy = "fewer workers (farm.workers), with a higher descriptor limit" if many else ""
    found = f"{workers} on {cpus} cores"
    yield Check("workers", "warn" if many else "ok", found, f"at most {2 * cpus}", remedy)
    routers = s.limits.routers
    many = routers > cpus
    remedy = "fewer routers (router.routers)" if many else ""
    yield Check("routers", "warn" if many else "ok", f"{routers} on {cpus} cores", f"at most {cpus}", remedy)


def right_of_way(s: Subject) -> Iterator[Check]:
    """The nice value of the router and the supervisor: the others wait for them."""
    wanted, lowest = s.settings.get(RouterOptions).nice, s.machine.lowest_nice()
    short = wanted < lowest
    remedy = f"systemd: LimitNICE={wanted}; shell, as root: ulimit -e {20 - wanted}; or --set router.nice=0"
    name, needed = "nice value", f"{wanted} (router.nice)"
    yield Check(name, "warn" if short else "ok", f"{lowest} or higher", needed, remedy if short else "")


def versions(s: Subject) -> Iterator[Check]:
    """The interpreter, how it was built, and the SQLite library it was built with."""
    python, sqlite = s.machine.python_version(), s.machine.sqlite_version()
    yield _version("Python", python, MIN_PYTHON)
    yield _build(s.machine.interpreter())
    if s.settings.get(StoreOptions).kind == "sqlite":
        yield _version("SQLite", sqlite, MIN_SQLITE)


def store(s: Subject) -> Iterator[Check]:
    """The server that is the store, where it is one."""
    for found in look_over(s.settings):
        yield Check(*found)


def cluster(s: Subject) -> Iterator[Check]:
    """The other hosts, where there may be some."""
    for found in cluster_doctor.findings(s.settings, s.machine, _running(s.settings)):
        yield Check(*found)


def _running(settings: Settings) -> int | None:
    """The pid of the farm that runs on the data folder."""
    try:
        return running_pid(pid_file(settings))
    except ControlError:
        return None


def _version(name: str, found: tuple[int, ...], needed: tuple[int, ...]) -> Check:
    old = found < needed
    dotted = [".".join(map(str, version)) for version in (found, needed)]
    remedy = f"a Python with {name} {dotted[1]} or later" if old else ""
    return Check(name, "fail" if old else "ok", dotted[0], f"{dotted[1]} or later", remedy)


def _build(python: Interpreter) -> Check:
    missing = " and ".join(python.missing)
    found = f"{python.implementation}, PGO {python.pgo}, LTO {python.lto}"
    if not missing:
        return Check("Python's build", "ok", found, "PGO and LTO")
    return Check("Python's build", "warn", found, f"PGO and LTO: without {missing} {COSTS}", FASTER_PYTHON)


def ports(s: Subject) -> Iterator[Check]:
    """Whether the three ports can be had; those of a farm that runs on the same data folder are its own."""
    listen, pid = s.settings.get(Listen), _running(s.settings)
    rows = (
        ("device_port", listen.host, listen.device_port),
        ("router_port", listen.host, listen.router_port),
        ("admin_port", listen.admin_host, listen.admin_port),
    )
    for key, host, port in rows:
        name, place = f"listen.{key}", f"{host}:{port}"
        error = s.machine.bind_error(host, port)
        if error is None:
            yield Check(name, "ok", f"{place} is free", "free")
        elif error.errno == errno.EADDRINUSE and pid is not None:
            yield Check(name, "ok", f"{place} is held by the farm that runs ({pid})", "free")
        else:
            remedy = f"another port: --set {name}=..." if error.errno == errno.EADDRINUSE else ""
            if error.errno == errno.EACCES:
                remedy = "systemd: AmbientCapabilities=CAP_NET_BIND_SERVICE; or a port from 1024"
            yield Check(name, "fail", f"{place}: {error.strerror}", "free", remedy)


def admin(s: Subject) -> Iterator[Check]:
    """Who may ask the admin port."""
    name, host = "admin port", s.settings.get(Listen).admin_host
    wrong = admin_tokens.problems(s.settings)
    for problem in wrong:
        yield Check(name, "fail", problem, "a token that only its owner can read", "docs/admin-api.md")
    if not wrong:
        tokens = admin_tokens.admin_tokens(s.settings)
        here = is_loopback(host)
        found = f"{host}, {'with a token' if tokens else 'without a token'}"
        yield Check(name, "ok", found, "any" if here else "a token")


def data_folder(s: Subject) -> Iterator[Check]:
    """The folder of the store, the token key and the control sockets."""
    folder, name = Path(s.settings.get(Data).dir), "data.dir"
    error = s.machine.write_error(folder)
    if error is not None:
        found = f"{error.filename or folder}: {error.strerror}"
        yield Check(name, "fail", found, "a folder that the farm may write", "another one: --data DIR")
        return
    length = len(str(folder.absolute()).encode()) + IPC_NAME_BYTES
    if length > MAX_IPC_PATH_BYTES:
        found = f"a path of {length - IPC_NAME_BYTES} bytes"
        needed = f"at most {MAX_IPC_PATH_BYTES - IPC_NAME_BYTES}: control sockets stand in it"
        yield Check(name, "fail", found, needed, "a shorter path: --data DIR")
    yield _filesystem(s, folder)


def _filesystem(s: Subject, folder: Path) -> Check:
    kind, name = s.machine.filesystem(folder), "data.dir"
    if kind in NETWORK_FILESYSTEMS:
        needed = "a local one: SQLite's write-ahead log needs shared memory"
        return Check(name, "fail", f"on {kind}", needed, "a folder on a local disk: --data DIR")
    if kind in PASSING_FILESYSTEMS:
        return Check(name, "warn", f"on {kind}", "one that outlives a reboot", "a folder on a disk: --data DIR")
    free = s.machine.free_bytes(folder)
    found = f"writable, {kind or 'unknown file system'}, {size(free)} free"
    short = free < MIN_FREE_BYTES
    remedy = "more room on that disk" if short else ""
    return Check(name, "warn" if short else "ok", found, f"{size(MIN_FREE_BYTES)} free", remedy)


CHECKS: Final[tuple[Callable[[Subject], Iterator[Check]], ...]] = (
    descriptors,
    open_files,
    memory,
    certificates,
    backlog,
    tcp_memory,
    connection_tracking,
    overcommit,
    source_ports,
    processors,
    right_of_way,
    versions,
    ports,
    admin,
    data_folder,
    store,
    cluster,
)
