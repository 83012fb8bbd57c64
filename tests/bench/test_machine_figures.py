"""What the machine says of a run: CPU time and who was the limit, memory of all of it."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from bench.machine import machine_memory, procfs
from bench.machine.machine_memory import Cache, Reading, growth, parse_slabinfo, reading_of
from bench.machine.procfs import Kernel
from bench.machine.usage import Usage, Use

WAIT_SECONDS = 60.0


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SLABS = """slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
proc_inode_cache     871   1426    696   23    4 : tunables    0    0    0 : slabdata     62     62      0
dentry             97427 101997    192   21    1 : tunables    0    0    0 : slabdata   4857   4857      0
"""  # noqa: E501  as the kernel writes it


@pytest.mark.parametrize(
    ("uses", "machine", "start"),
    [
        (
            [Use("router", 1, 9.5, 0.95, 1.0), Use("load devices", 2, 9.9, 0.99, 1.0)],
            0.99,
            "the load generator",
        ),
        ([Use("router", 1, 9.5, 0.95, 1.0), Use("load devices", 2, 5.0, 0.5, 0.6)], 0.7, "the router"),
        ([Use("router", 1, 6.0, 0.6, 1.0), Use("load devices", 2, 6.0, 0.6, 1.0)], 0.95, "the machine"),
        ([Use("router", 1, 6.0, 0.6, 1.0)], 0.5, "router: a process was never idle"),
        ([Use("router", 1, 2.0, 0.2, 0.2)], 0.2, "none"),
    ],
)
def test_the_limit_is_named(uses: list[Use], machine: float, start: str) -> None:
    usage = Usage(10.0, uses, machine)
    assert usage.limit().startswith(start)
    assert usage.fields(1000)["groups"][uses[0].group]["cpu_seconds_a_1000"] == uses[0].cpu


def test_cpu_time_is_finer_than_a_tick_and_a_process_that_is_gone_has_none() -> None:
    before = time.process_time()
    mine = procfs.cpu_seconds(os.getpid())
    assert mine is not None and before <= mine <= time.process_time()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert procfs.cpu_seconds(child.pid) is not None
        child.communicate(b"\n", timeout=60)
        assert procfs.cpu_seconds(child.pid) is None
    finally:
        child.kill()


def test_what_listings_of_descriptors_leave_behind_is_taken_off() -> None:
    slabs = parse_slabinfo(SLABS)
    assert slabs == {
        "proc_inode_cache": Cache(871, 696, 62 * 4 * 4096),
        "dentry": Cache(97427, 192, 4857 * 4096),
    }

    def reading(used: int, slab: int, inodes: Cache | None) -> Reading:
        return Reading(used, used, 0, Kernel(slab, 0), inodes, 192)

    before = reading(1_000_000, 100_000, Cache(10, 696, 8192))
    grown = growth(before, reading(3_000_000, 400_000, Cache(110, 696, 100_192)), 100)
    assert grown["subtracted"] == {"proc_inodes": 92_000, "dentries": 19_200}
    assert grown["unavailable"] == {"total": 2_000_000, "a_device": 20_000}
    assert grown["used"] == {"total": 2_000_000 - 111_200, "a_device": 18_888}
    assert grown["kernel"]["total"] == 300_000 - 111_200
    unknown = growth(before, reading(3_000_000, 400_000, None), 0)
    assert unknown["subtracted"] is None and unknown["used"] == {"total": 2_000_000, "a_device": None}
    assert "can't be read" in unknown["note"]


def test_the_page_cache_is_not_in_use_but_shared_memory_is() -> None:
    sizes = {"MemTotal": 1000, "MemAvailable": 700, "MemFree": 400, "Buffers": 20, "Cached": 200, "Shmem": 50}
    text = "".join(f"{name}: {size} kB\n" for name, size in (sizes | {"SwapTotal": 10, "SwapFree": 8}).items())
    reading = reading_of(text, Kernel(1, 2), None, None)
    assert (reading.unavailable, reading.used, reading.swap) == (300 * 1024, 430 * 1024, 2 * 1024)
    now = machine_memory.read()
    assert 0 < now.kernel.slab < now.used


def test_descendants_of_a_process() -> None:
    code = "import subprocess, sys; subprocess.run(['sleep', '60'])"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.DEVNULL) as parent:
        wait_until(lambda: len(procfs.descendants(parent.pid)) == 1)
        (child,) = procfs.descendants(parent.pid)
        assert procfs.descendants(child) == []
        assert child in procfs.descendants(os.getpid())
        parent.kill()
        os.kill(child, signal.SIGKILL)
