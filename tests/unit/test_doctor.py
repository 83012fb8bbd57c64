"""The doctor's checks and the capacity figures, over machines that are made up."""

from __future__ import annotations

import errno
import os
import resource
import socket
from pathlib import Path

import pytest

from farm.capacity import count, describe, limits, no_room, raise_descriptor_limit, size
from farm.doctor import Check, examine
from farm.machine import UNLIMITED, Machine, nearest_folder
from farm.settings import OWN_SECTIONS, AdminOptions, WorkerOptions
from router.common.interpreter import Interpreter
from router.common.options import Settings, defaults
from router.common.settings import SECTIONS, Data, Listen, RouterOptions, StoreOptions

GIB = 2**30


class MadeUp(Machine):
    """A machine whose /proc and /sys are a folder of fixtures, and whose other answers are given."""

    page_bytes = 4096

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.root = root
        self.descriptors = (1024, 1_048_576)
        self.cores = 2
        self.nice = -20
        self.python: tuple[int, ...] = (3, 11, 7)
        self.built = Interpreter("CPython", "3.11.7", "yes", "yes")
        self.sqlite: tuple[int, ...] = (3, 40, 1)
        self.taken: dict[int, int] = {}
        self.unwritable: OSError | None = None
        self.disk = 100 * GIB
        for name, value in {
            "fs.file-max": "4194304",
            "fs.nr_open": "2097152",
            "net.core.somaxconn": "4096",
            "net.ipv4.tcp_mem": "1048576\t1572864\t2097152",
            "net.ipv4.tcp_rmem": "4096\t131072\t6291456",
            "net.ipv4.tcp_wmem": "4096\t16384\t4194304",
            "net.ipv4.ip_local_port_range": "20000\t65535",
            "vm.overcommit_memory": "0",
        }.items():
            self.set_sysctl(name, value)
        self.put("/proc/meminfo", "MemTotal: 8388608 kB\nMemAvailable:    4194304 kB\n")
        self.put("/proc/self/cgroup", "0::/\n")
        self.put("/proc/self/mountinfo", "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n")

    def put(self, path: str, text: str) -> None:
        place = self.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)

    def set_sysctl(self, name: str, value: str) -> None:
        self.put("/proc/sys/" + name.replace(".", "/"), value + "\n")

    def descriptor_limits(self) -> tuple[int, int]:
        return self.descriptors

    def lowest_nice(self) -> int:
        return self.nice

    def cpus(self) -> int:
        return self.cores

    def python_version(self) -> tuple[int, ...]:
        return self.python

    def interpreter(self) -> Interpreter:
        return self.built

    def sqlite_version(self) -> tuple[int, ...]:
        return self.sqlite

    def bind_error(self, host: str, port: int) -> OSError | None:
        number = self.taken.get(port)
        return OSError(number, os.strerror(number)) if number else None

    def write_error(self, folder: Path) -> OSError | None:
        return self.unwritable

    def free_bytes(self, folder: Path) -> int:
        return self.disk


@pytest.fixture
def machine(tmp_path: Path) -> MadeUp:
    return MadeUp(tmp_path / "machine")


@pytest.fixture
def settings() -> Settings:
    return defaults(SECTIONS + OWN_SECTIONS).replace(Data, dir="/data/farm")


def row(rows: list[Check], name: str) -> Check:
    (found,) = (r for r in rows if r.name == name)
    return found


def test_a_machine_that_is_set_up_well(machine: MadeUp, settings: Settings) -> None:
    rows = examine(settings, 2, 500_000, machine)
    assert [r.name for r in rows if r.status != "ok"] == []
    assert all(not r.remedy for r in rows)
    assert {"fs.file-max", "memory", "Python", "SQLite", "listen.device_port", "data.dir"} <= {r.name for r in rows}


@pytest.mark.parametrize(
    ("sysctl", "value", "status", "remedy"),
    [
        ("fs.file-max", "65536", "fail", "sysctl -w fs.file-max=1048576"),
        ("fs.nr_open", "65536", "fail", "sysctl -w fs.nr_open=1048576"),
        ("net.core.somaxconn", "128", "warn", "sysctl -w net.core.somaxconn=4096; or a lower listen.backlog"),
        ("net.ipv4.tcp_mem", "10 20 30", "warn", 'sysctl -w net.ipv4.tcp_mem="500000 666666 1000000"'),
        (
            "net.ipv4.tcp_rmem",
            "4096 1048576 6291456",
            "warn",
            'sysctl -w net.ipv4.tcp_rmem="4096 131072 6291456"',
        ),
        (
            "net.ipv4.tcp_wmem",
            "4096 65536 6291456",
            "warn",
            'sysctl -w net.ipv4.tcp_wmem="4096 16384 6291456"',
        ),
        (
            "net.ipv4.ip_local_port_range",
            "60000 61000",
            "warn",
            'sysctl -w net.ipv4.ip_local_port_range="20000 65535"',
        ),
        (
            "net.netfilter.nf_conntrack_max",
            "65536",
            "fail",
            "sysctl -w net.netfilter.nf_conntrack_max=1000000; or do not track the device port",
        ),
        ("vm.overcommit_memory", "2", "warn", "sysctl -w vm.overcommit_memory=0"),
    ],
)
def test_each_sysctl_has_its_remedy(
    machine: MadeUp, settings: Settings, *, sysctl: str, value: str, status: str, remedy: str
) -> None:
    machine.set_sysctl(sysctl, value)
    rows = examine(settings, 2, 500_000, machine)
    assert [r.name for r in rows if r.status != "ok"] == [sysctl]
    assert (row(rows, sysctl).status, row(rows, sysctl).remedy) == (status, remedy)


def test_a_router_that_may_not_come_first(machine: MadeUp, settings: Settings) -> None:
    machine.nice = -5
    found = row(examine(settings, 2, 1000, machine), "nice value")
    assert (found.status, found.found, found.needed) == ("warn", "-5 or higher", "-10 (router.nice)")
    assert found.remedy == "systemd: LimitNICE=-10; shell, as root: ulimit -e 30; or --set router.nice=0"
    asked_for_nothing = settings.replace(RouterOptions, nice=0)
    assert row(examine(asked_for_nothing, 2, 1000, machine), "nice value").status == "ok"


def test_a_kernel_that_does_not_say_is_not_complained_of(tmp_path: Path, settings: Settings) -> None:
    bare = MadeUp(tmp_path)
    for file in (tmp_path / "proc").rglob("*"):
        if file.is_file():
            file.write_text("what?\n") if file.name == "somaxconn" else file.unlink()
    rows = examine(settings, 2, 1000, bare)
    assert all(r.status == "ok" for r in rows)
    assert row(rows, "memory").found == "unlimited available"


def test_descriptors(machine: MadeUp, settings: Settings) -> None:
    name = "descriptors a process"
    machine.descriptors = (1024, 20_000)
    found = row(examine(settings, 2, None, machine), name)
    assert found.status == "warn"
    assert "they allow 39,744" in found.needed
    assert row(examine(settings, 2, 39_744, machine), name).status == "ok"
    short = row(examine(settings, 2, 39_745, machine), name)
    assert (short.status, short.needed) == ("fail", "20,001 for 39,745 on 2 workers")
    assert "LimitNOFILE=1048576" in short.remedy
    machine.descriptors = (512, 512)
    assert row(examine(settings, 2, None, machine), name).status == "fail"
    machine.descriptors = (1024, UNLIMITED)
    assert row(examine(settings, 2, None, machine), name).found == "1,024 soft, unlimited hard"


def test_memory(machine: MadeUp, settings: Settings) -> None:
    assert row(examine(settings, 2, 800_000, machine), "memory").status == "ok"
    assert row(examine(settings, 2, 1_000_000, machine), "memory").status == "fail"


@pytest.mark.parametrize(
    ("name", "groups", "files", "expected"),
    [
        ("none", "0::/\n", {}, 4 * GIB),
        ("v2", "0::/a/b\n", {"/a/b/memory.max": f"{GIB}", "/a/b/memory.current": "100"}, GIB - 100),
        ("v2 parent", "0::/a/b\n", {"/a/memory.max": f"{GIB}", "/a/memory.current": "0"}, GIB),
        ("v2 no limit", "0::/a\n", {"/a/memory.max": "max", "/a/memory.current": "5"}, 4 * GIB),
        (
            "v2 cache is given back",
            "0::/a\n",
            {
                "/a/memory.max": f"{GIB}",
                "/a/memory.current": f"{GIB}",
                "/a/memory.stat": "anon 3\ninactive_file 4096\n",
            },
            4096,
        ),
        ("v2 over the limit", "0::/a\n", {"/a/memory.max": "10", "/a/memory.current": "20"}, 0),
        (
            "v1",
            "3:cpu:/x\n2:memory:/c\n",
            {"/memory/c/memory.limit_in_bytes": "1000", "/memory/c/memory.usage_in_bytes": "1"},
            999,
        ),
        (
            "v1 in a container",
            "2:cpuset,memory:/docker/abc\n",
            {"/memory/memory.limit_in_bytes": "1000", "/memory/memory.usage_in_bytes": "1"},
            999,
        ),
    ],
)
def test_available_memory(machine: MadeUp, name: str, groups: str, files: dict[str, str], expected: int) -> None:
    machine.put("/proc/self/cgroup", groups)
    for path, text in files.items():
        machine.put(f"/sys/fs/cgroup{path}", text)
    assert machine.available_memory() == expected


def test_workers_and_versions(machine: MadeUp, settings: Settings) -> None:
    assert row(examine(settings, 4, 100, machine), "workers").status == "ok"
    assert row(examine(settings, 5, 100, machine), "workers").status == "warn"
    assert row(examine(settings, 4, 100, machine), "routers").status == "ok"
    assert row(examine(settings.replace(RouterOptions, routers=3), 4, 100, machine), "routers").status == "warn"
    machine.python, machine.sqlite = (3, 10, 9), (3, 31, 1)
    rows = examine(settings, 2, 100, machine)
    assert row(rows, "Python").status == "fail"
    assert (row(rows, "SQLite").status, row(rows, "SQLite").found) == ("fail", "3.31.1")
    rows = examine(settings.replace(StoreOptions, kind="memory"), 2, 100, machine)
    assert "SQLite" not in {r.name for r in rows}


def test_a_python_without_pgo_and_lto_is_told_with_what_to_use_instead(machine: MadeUp, settings: Settings) -> None:
    assert row(examine(settings, 2, 100, machine), "Python's build").status == "ok"
    machine.built = Interpreter("CPython", "3.11.7", "no", "no")
    found = row(examine(settings, 2, 100, machine), "Python's build")
    assert (found.status, found.found) == ("warn", "CPython, PGO no, LTO no")
    assert "without PGO and LTO" in found.needed and "PYTHON=/usr/bin/python3" in found.remedy
    machine.built = Interpreter("CPython", "3.11.7", "unknown", "unknown")
    assert row(examine(settings, 2, 100, machine), "Python's build").status == "ok"


def test_ports(machine: MadeUp, settings: Settings) -> None:
    machine.taken = {8080: errno.EADDRINUSE, 80: errno.EACCES}
    rows = examine(settings.replace(Listen, admin_port=80), 2, 100, machine)
    taken = row(rows, "listen.device_port")
    assert (taken.status, taken.found) == ("fail", "0.0.0.0:8080: Address already in use")
    assert "--set listen.device_port=" in taken.remedy
    assert row(rows, "listen.router_port").status == "ok"
    assert "CAP_NET_BIND_SERVICE" in row(rows, "listen.admin_port").remedy


def test_the_admin_port(machine: MadeUp, settings: Settings) -> None:
    assert row(examine(settings, 2, 100, machine), "admin port").status == "ok"
    outside = settings.replace(Listen, admin_host="0.0.0.0")
    found = row(examine(outside, 2, 100, machine), "admin port")
    assert found.status == "fail" and "admin.token_file" in found.found
    assert row(examine(outside.replace(AdminOptions, token="t" * 32), 2, 100, machine), "admin port").status == "ok"


def test_the_data_folder(machine: MadeUp, settings: Settings) -> None:
    assert row(examine(settings, 2, 100, machine), "data.dir").found == "writable, ext4, 100.0 GiB free"
    machine.disk = 1000
    assert row(examine(settings, 2, 100, machine), "data.dir").status == "warn"
    mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:5 / {} rw shared:3 - {} none rw\nbroken\n"
    for kind, status in (("nfs4", "fail"), ("tmpfs", "warn")):
        machine.put("/proc/self/mountinfo", mounts.format("/", kind))
        assert row(examine(settings, 2, 100, machine), "data.dir").status == status
    machine.unwritable = PermissionError(errno.EACCES, "Permission denied", "/data")
    found = row(examine(settings, 2, 100, machine), "data.dir")
    assert (found.status, found.found) == ("fail", "/data: Permission denied")


def test_a_data_folder_too_deep_for_control_sockets(machine: MadeUp, settings: Settings) -> None:
    rows = examine(settings.replace(Data, dir="/" + "x" * 90), 2, 100, machine)
    assert [r.status for r in rows if r.name == "data.dir"] == ["fail", "ok"]


def test_limits_and_their_first_bound(machine: MadeUp, settings: Settings) -> None:
    machine.descriptors = (1024, 20_000)
    found = limits(settings, 2, machine)
    assert found.by_descriptors == 2 * (20_000 - 128)
    assert found.by_memory == (4 * GIB - 4 * 40 * 2**20) // 4608
    assert (found.connections, found.bound, found.by_option) == (39_744, "descriptors", None)
    three = limits(settings.replace(RouterOptions, routers=3), 2, machine)
    assert three.by_memory == (4 * GIB - 6 * 40 * 2**20) // 4608
    machine.descriptors = (1024, 1_048_576)
    assert limits(settings, 2, machine).bound == "memory"
    machine.set_sysctl("fs.file-max", "10000")
    assert limits(settings, 2, machine).bound == "fs.file-max"
    capped = limits(settings.replace(WorkerOptions, max_connections=100), 2, machine)
    assert (capped.connections, capped.bound, capped.by_option) == (200, "worker.max_connections", 200)


def test_limits_in_words(machine: MadeUp, settings: Settings) -> None:
    machine.descriptors = (1024, 20_000)
    machine.set_sysctl("net.core.somaxconn", "128")
    assert describe(limits(settings, 2, machine)) == [
        "descriptors: 20,000 a process",
        "somaxconn: 128 (listen.backlog 4,096, cut to it)",
        "memory: 4.0 GiB available",
        "connections: 39,744; 2 workers, first bound: descriptors (descriptors 39,744, memory 895,658)",
    ]


def test_a_farm_with_room_for_no_connection_is_told_by_which_limit(machine: MadeUp, settings: Settings) -> None:
    machine.descriptors = (1024, 129)
    assert no_room(limits(settings, 2, machine)) == ""
    machine.descriptors = (1024, 128)
    assert no_room(limits(settings, 2, machine)) == (
        "no room for any connection, by descriptors: a process may open 128 descriptors, and the farm itself needs 128"
        " of each: raise the limit (ulimit -Hn, or LimitNOFILE= of the unit)"
    )
    machine.descriptors = (1024, 20_000)
    machine.set_sysctl("fs.file-max", "512")
    assert "by fs.file-max" in no_room(limits(settings, 2, machine))
    assert "more than 512" in no_room(limits(settings, 2, machine))
    machine.set_sysctl("fs.file-max", "100000")
    crowded = limits(settings, 110, machine)
    assert (crowded.by_memory, no_room(crowded)) == (0, "")  # by an estimate


def test_numbers_for_people() -> None:
    assert [count(0), count(1234567), count(UNLIMITED)] == ["0", "1,234,567", "unlimited"]
    assert [size(5), size(2048), size(3 * 2**20), size(GIB * 5 // 2), size(UNLIMITED)] == [
        "5 B",
        "2.0 KiB",
        "3.0 MiB",
        "2.5 GiB",
        "unlimited",
    ]


def test_the_soft_limit_is_raised_to_the_hard_one() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, before[1]), before[1]))
        raised = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
        assert raised == (UNLIMITED if before[1] == resource.RLIM_INFINITY else before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    here = Machine()
    assert here.cpus() >= 1
    assert 0 < here.available_memory() < UNLIMITED
    assert here.descriptor_limits()[0] <= here.descriptor_limits()[1]
    assert here.python_version() >= (3, 11)
    assert here.sqlite_version() >= (3, 0)
    assert here.sysctl("net.ipv4.ip_local_port_range") is not None
    assert here.filesystem(tmp_path / "not" / "yet") != ""
    assert here.free_bytes(tmp_path) > 0
    assert nearest_folder(tmp_path / "not" / "yet") == tmp_path


def test_a_real_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        error = Machine().bind_error("127.0.0.1", port)
        assert error is not None
        assert error.errno == errno.EADDRINUSE
    assert Machine().bind_error("127.0.0.1", port) is None


def test_a_real_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert Machine().write_error(tmp_path / "new") is None
    file = tmp_path / "file"
    file.touch()
    error = Machine().write_error(file / "below")
    assert isinstance(error, NotADirectoryError)
