"""Control groups: where they are, what their files say, and real ones."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.control_groups import MIB, needs_groups

from bench.machine import cgroups, leftovers
from bench.machine.cgroups import (
    CgroupError,
    Group,
    Hierarchy,
    here,
    hierarchies,
    processes,
    prune,
    remove,
)
from bench.machine.group_files import cpu_v1, cpu_v2, memory_v1, memory_v2, quota
from bench.machine.procfs import proportional_memory
from bench.machine.socket_charge import SocketCharge, expected_socket_bytes, socket_charge

pytestmark = pytest.mark.measured

SEPARATE = """tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
"""


def reader(**files: str) -> Callable[[str], str]:
    return lambda name: files.get(name.replace(".", "_"), "")


def tree_of_plain_files(root: Path, monkeypatch: pytest.MonkeyPatch, controllers: str, enabled: str) -> Hierarchy:
    """A session in a slice that has CPU only; files do not go with their folder here, as a kernel's do."""
    monkeypatch.setattr(cgroups, "remove", lambda folder: shutil.rmtree(folder) is None)
    (root / "slice/session").mkdir(parents=True)
    (root / "cgroup.controllers").write_text(controllers)
    (root / "cgroup.subtree_control").write_text(enabled)
    (root / "slice/cgroup.controllers").write_text("cpu\n")
    (root / "slice/session/cgroup.controllers").write_text("\n")
    return Hierarchy(2, root, "/slice/session")


@contextmanager
def inside(group: Group, code: str) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=group.join)  # noqa: PLW1509
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 60
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


def command_of(pid: int) -> str:
    """The command line of a process; "" once it is dead."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_each_controller_is_found_where_it_is_mounted() -> None:
    found = hierarchies(SEPARATE, "9:name=systemd:/\n4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/d\n")
    assert found == {
        "memory": Hierarchy(1, Path("/sys/fs/cgroup/memory"), "/a/b"),
        "cpu": Hierarchy(1, Path("/sys/fs/cgroup/cpu,cpuacct"), "/c"),
        "cpuacct": Hierarchy(1, Path("/sys/fs/cgroup/cpu,cpuacct"), "/c"),
        "": Hierarchy(2, Path("/sys/fs/cgroup/unified"), "/d"),
    }


def test_version_2_alone_and_nothing_at_all() -> None:
    assert hierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "0::/user.slice\n") == {
        "": Hierarchy(2, Path("/sys/fs/cgroup"), "/user.slice")
    }
    assert hierarchies("proc /proc proc rw 0 0\n", "") == {}


def test_a_group_is_made_as_near_as_it_can_be(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    assert Hierarchy(1, tmp_path, "/a/b").parents() == [tmp_path / "a/b", tmp_path / "a", tmp_path]
    assert Hierarchy(1, tmp_path, "/").parents() == [tmp_path]
    # in a container: the path is the host's
    assert Hierarchy(1, tmp_path, "/docker/1234").parents() == [tmp_path]
    assert Hierarchy(1, tmp_path, "/../..").parents() == [tmp_path]


def test_memory_of_version_1() -> None:
    read = reader(
        memory_usage_in_bytes="1000\n",
        memory_max_usage_in_bytes="2000\n",
        memory_kmem_usage_in_bytes="300\n",
        memory_kmem_tcp_usage_in_bytes="50\n",
        memory_stat="cache 1\nrss 2\ntotal_rss 400\ntotal_cache 250\ntotal_inactive_file 200\n",
        memory_oom_control="oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
    )
    memory = memory_v1(read)
    assert (memory.used, memory.total, memory.user, memory.kernel) == (850, 1050, 400, 350)
    assert (memory.buffers, memory.cache, memory.peak, memory.oom_kills) == (50, 250, 2000, 3)


def test_memory_of_version_2() -> None:
    stat = "anon 400\nfile 250\nkernel 300\nsock 50\ninactive_file 200\nslab 290\n"
    events = "low 0\noom 4\noom_kill 3\n"
    files = {"memory_current": "1000\n", "memory_peak": "2000\n", "memory_stat": stat, "memory_events": events}
    memory = memory_v2(reader(**files))
    assert (memory.used, memory.total, memory.user, memory.kernel) == (800, 1000, 400, 350)
    assert (memory.buffers, memory.cache, memory.peak, memory.oom_kills) == (50, 250, 2000, 3)
    older = files | {"memory_peak": "", "memory_stat": "anon 1\nslab 290\nkernel_stack 7\n"}
    assert memory_v2(reader(**older)).kernel == 297
    assert memory_v2(reader(**older)).peak is None


def test_cpu_of_both_versions() -> None:
    old = cpu_v1(reader(cpu_stat="nr_periods 10\nnr_throttled 4\nthrottled_time 2000000000\n"), "1500000000\n")
    new = cpu_v2(reader(cpu_stat="usage_usec 1500000\nnr_periods 10\nnr_throttled 4\nthrottled_usec 2000000\n"))
    assert old == new
    assert (new.seconds, new.periods, new.throttled, new.throttled_seconds) == (1.5, 10, 4, 2.0)
    assert cpu_v1(reader(), "").seconds is None


@pytest.mark.parametrize("cpus", [0.05, 0.097, 0.5, 1.0, 1.5, 64.0])
def test_a_quota_is_the_share_that_was_asked_for(cpus: float) -> None:
    time_us, period = quota(cpus)
    assert 10_000 <= period <= 100_000
    assert time_us >= 1_000
    assert time_us / period == pytest.approx(cpus, rel=0.01)


def test_a_group_of_version_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tree_of_plain_files(tmp_path, monkeypatch, "cpu memory pids\n", "cpu memory\n")
    with Group("test", 300 * MIB, 0.5, {"": place}) as group:
        assert group.version == 2 and not group.notes
        folder = group.folder
        assert folder.parent == tmp_path  # both controllers in one group, and the slice has one of them only
        assert (folder / "memory.max").read_text() == str(300 * MIB)
        assert (folder / "cpu.max").read_text() == "5000 10000"
        group.cap(None)
        assert (folder / "cpu.max").read_text() == "max 100000"
    assert not folder.exists()
    assert (tmp_path / "cgroup.subtree_control").read_text() == "cpu memory\n"


def test_what_was_enabled_for_a_group_is_disabled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tree_of_plain_files(tmp_path, monkeypatch, "memory\n", "pids\n")
    with Group("test", 300 * MIB, 0.5, {"": place}) as group:
        assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory"
        assert group.cpus is None
        (note,) = group.notes
        assert "CPU is not limited" in note and "no cpu controller there" in note
        assert group.cpu().seconds is None
    assert (tmp_path / "cgroup.subtree_control").read_text() == "-memory"
    assert not list(tmp_path.rglob("farm-bench-*"))


def test_without_controllers_there_is_a_reason(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match="no control group for memory: it is not mounted"):
        Group("test", MIB, places={})
    (tmp_path / "cgroup.controllers").write_text("hugetlb\n")
    with pytest.raises(CgroupError, match="no memory controller there"):
        Group("test", MIB, places={"": Hierarchy(2, tmp_path, "/")})
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.controllers"]


def test_names_tell_whether_their_maker_lives() -> None:
    assert not leftovers.is_stale(leftovers.name("x"))
    assert not leftovers.is_stale("farm-bench-other")
    assert not leftovers.is_stale("something-else")
    with subprocess.Popen([sys.executable, "-c", "from bench.machine import leftovers; print(leftovers.name('y'))"],
                          stdout=subprocess.PIPE, text=True) as process:  # fmt: skip
        name, _ = process.communicate(timeout=60)
    assert leftovers.is_stale(name.strip())
    # a pid that was given to another process since
    assert leftovers.is_stale(f"farm-bench-{os.getpid()}-1-x")


@needs_groups
def test_memory_beyond_the_limit_is_refused() -> None:
    with Group("test", 64 * MIB) as group:
        with inside(group, "print(len(bytearray(32 << 20)))") as process:
            assert process.communicate(timeout=60)[0] == f"{32 * MIB}\n"
        assert group.memory().oom_kills == 0
        with inside(group, "print(len(bytearray(256 << 20)))") as process:
            assert process.communicate(timeout=60)[0] == ""
            assert process.returncode == -signal.SIGKILL
        memory = group.memory()
        assert memory.oom_kills == 1
        assert memory.peak is None or memory.peak <= 64 * MIB


@needs_groups
def test_cpu_beyond_the_share_is_withheld() -> None:
    with Group("test", 64 * MIB, 0.1) as group, inside(group, "while True: pass"):
        assert until(lambda: group.cpu().throttled > 10)
        cpu = group.cpu()
        assert cpu.periods >= cpu.throttled and cpu.throttled_seconds > 0
        assert cpu.seconds is None or cpu.seconds > 0


@needs_groups
def test_a_group_goes_with_what_runs_in_it() -> None:
    with Group("test", 64 * MIB, 0.5) as group:
        folder = group.folder
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, preexec_fn=group.join)  # noqa: PLW1509
        assert processes(folder) == [process.pid]
    assert process.wait(60) == -signal.SIGKILL
    assert not folder.exists()
    assert process.stdin is not None
    process.stdin.close()


@needs_groups
def test_what_a_killed_bench_left_is_removed() -> None:
    code = (
        "import subprocess, sys, time\n"
        "from bench.machine.cgroups import Group\n"
        "group = Group('left', 64 << 20, 0.5)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'], preexec_fn=group.join)\n"
        "print(group.folder, flush=True)\n"
        "time.sleep(600)\n"
    )
    with (
        Group("alive", 64 * MIB) as mine,
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as bench,
    ):
        assert bench.stdout is not None
        folder = Path(bench.stdout.readline().strip())
        (orphan,) = processes(folder)
        assert folder not in prune(seconds=0)  # its bench lives
        bench.kill()
        bench.wait()
        removed = prune(seconds=0)
        assert folder in removed and not folder.exists()
        assert until(lambda: not command_of(orphan))
        assert mine.folder.exists()


@needs_groups
def test_the_kernel_charges_sockets_or_the_missing_part_is_known() -> None:
    charge = socket_charge()
    assert charge.expected > 2_000
    assert charge.full == (charge.missing == 0)
    assert charge.charged + charge.missing >= 0.85 * charge.expected
    assert not any(leftovers.PREFIX in path.name for path in here()["memory"].mount.glob("*sockets"))


def test_a_charge_that_lacks_something_is_completed() -> None:
    good, bad = SocketCharge(3700.0, 3744, False), SocketCharge(1500.0, 3744, True)
    assert good.full and good.missing == 0 and "NOT" not in good.describe()
    assert not bad.full and bad.missing == 2244 and "NOT all charged" in bad.describe()


@pytest.mark.skipif(not os.access("/proc/slabinfo", os.R_OK), reason="/proc/slabinfo can't be read")
def test_the_size_of_a_socket_is_known() -> None:
    expected = expected_socket_bytes()
    assert expected is not None and 2_000 < expected < 20_000


def test_the_memory_of_a_process_with_its_part_of_what_it_shares() -> None:
    code = "print(1, flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        assert proportional_memory(process.pid) > 100_000
        assert process.stdin is not None
        process.stdin.write(b"\n")
    assert proportional_memory(process.pid) == 0


def test_a_folder_that_is_gone_is_removed(tmp_path: Path) -> None:
    assert remove(tmp_path / "none")
