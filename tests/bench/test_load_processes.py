"""The load processes of a run, and the link to them."""

import os
import signal
import subprocess
import sys
from array import array
from typing import Any

import pytest
from support.bench import ended

from bench.errors import BenchError
from bench.load.link import MessageReader, encode
from bench.runs.load_processes import LoadProcesses

pytestmark = pytest.mark.measured

IDLE_PUSHERS: dict[str, Any] = {
    "wire": "put",
    "address": (2, "127.0.0.1", 1),
    "host": "",
    "connections": 1,
    "timeout": 1.0,
    "payload": 0,
}


def test_words_at_every_boundary() -> None:
    numbers = array("q", [1, -2, 10])
    data = encode("ready", {"up": 3}, (numbers.tobytes(), b"")) + encode("stop", {}, ())
    for cut in range(len(data) + 1):
        reader = MessageReader()
        ready, stop = reader.feed(data[:cut]) + reader.feed(data[cut:])
        assert (ready.kind, ready.fields, ready.blobs[1], stop.kind) == ("ready", {"up": 3}, b"", "stop")
        assert ready.numbers(0, "q") == numbers


def test_a_child_that_dies_is_named() -> None:
    with pytest.raises(BenchError, match=r"a server .* code -9"), LoadProcesses() as processes:
        child = processes.start("pushers", "a server", b"", b"", **IDLE_PUSHERS)
        processes.gather([child], "up")
        os.kill(child.pid, signal.SIGKILL)
        processes.gather([child], "never")


def test_children_do_not_outlive_a_bench_that_is_killed() -> None:
    code = (
        "import sys\n"
        "from bench.runs.load_processes import LoadProcesses\n"
        "with LoadProcesses() as processes:\n"
        f"    child = processes.start('pushers', 'a server', b'', b'', **{IDLE_PUSHERS})\n"
        "    processes.gather([child], 'up')\n"
        "    print(child.pid, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as bench:
        assert bench.stdout is not None
        pid = int(bench.stdout.readline())
        bench.kill()
        assert ended(pid)
