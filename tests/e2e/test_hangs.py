"""Which processes hang: silence counts only while we look ourselves, and a process that starts lives while it runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.farm_fixture import until

from farm.supervisor.hangs import Reads, Silences, Turns, Waits


def test_silence_is_summed_up_and_ended_by_a_sign_of_life() -> None:
    silences = Silences()
    for second in range(5):
        silences.look(float(second), 1.0, {1: False, 2: True})
    assert silences.longer_than(3.5) == [1]
    assert silences.of(1) == 4.0
    silences.look(5.0, 1.0, {1: True, 2: False})
    assert silences.longer_than(0.5) == [2]
    assert silences.of(2) == 1.0


def test_what_could_not_be_seen_is_neither_silence_nor_life() -> None:
    silences = Silences()
    for second, sign in enumerate((False, False, None, None, None, False)):
        silences.look(float(second), 1.0, {1: sign})
    assert silences.of(1) == 2.0


def test_time_in_which_nobody_looked_counts_for_nothing() -> None:
    silences = Silences()
    for now in (0.0, 1.0, 2.0, 3600.0):
        silences.look(now, 1.0, {1: False})
    assert silences.longer_than(0.0) == []
    silences.look(3601.0, 1.0, {1: False})
    assert silences.of(1) == 1.0


def test_a_process_that_is_new_has_not_been_silent() -> None:
    silences = Silences()
    silences.look(0.0, 1.0, {1: False})
    silences.look(4.0, 1.0, {1: False})
    silences.look(5.0, 1.0, {2: False})
    silences.look(6.0, 1.0, {1: False, 2: False})
    assert (silences.of(1), silences.of(2)) == (0.0, 1.0)


def test_time_without_a_core_is_no_silence() -> None:
    silences = Silences()
    for now in (0.0, 1.0, 2.0):
        silences.look(now, 1.0, {1: False, 2: False, 3: False}, {1: 0.75, 2: 2.5})
    assert [silences.of(pid) for pid in (1, 2, 3)] == [0.5, 0.0, 2.0]


def test_a_process_that_others_keep_from_running_waits_and_one_that_is_stopped_does_not() -> None:
    code = "import os\nos.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\nwhile True: pass"
    with ExitStack() as stack:
        one, other = (stack.enter_context(subprocess.Popen([sys.executable, "-c", code])) for _ in range(2))
        stack.callback(one.kill)
        stack.callback(other.kill)
        waits = Waits()
        assert waits.since(one.pid) == 0.0  # since when is not known
        until(lambda: waits.since(one.pid) > 0, "it has waited for the other")
        one.send_signal(signal.SIGSTOP)
        until(lambda: waits.since(one.pid) == waits.since(one.pid) == 0, "it waits for nothing")
    assert Waits().since(2**22 + 1) == 0.0


@pytest.fixture
def ticking() -> Iterator[subprocess.Popen[bytes]]:
    """A process with a thread that runs now and then, while its main thread sleeps."""
    code = (
        "import threading, time\n"
        "def tick():\n  while True: time.sleep(0.005)\n"
        "threading.Thread(target=tick, daemon=True).start()\n"
        "print('on', flush=True)\ntime.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"on\n"
        yield process
        process.kill()


def test_a_process_whose_threads_run_lives_and_one_that_is_stopped_does_not(ticking: subprocess.Popen[bytes]) -> None:
    turns = Turns()
    turns.taken(ticking.pid)
    until(lambda: turns.taken(ticking.pid), "it has run")
    os.kill(ticking.pid, signal.SIGSTOP)
    # One of its threads may still have to be told: it takes a turn behind a time without one.
    until(lambda: turns.taken(ticking.pid) is turns.taken(ticking.pid) is False, "it runs no more")
    os.kill(ticking.pid, signal.SIGCONT)
    until(lambda: turns.taken(ticking.pid), "it runs again")


def test_of_a_process_that_has_gone_nothing_can_be_said() -> None:
    assert Turns().taken(2**22 + 1) is None
    assert Reads().taken(2**22 + 1) is None


def test_a_process_that_turns_in_a_circle_reads_nothing() -> None:
    code = "import sys\nprint('on', flush=True)\nopen('/proc/self/stat').read()\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"on\n"
            reads, turns = Reads(), Turns()
            until(lambda: reads.taken(process.pid) is False, "it has read all that it will")
            turns.taken(process.pid)
            until(lambda: turns.taken(process.pid), "it runs")
            assert reads.taken(process.pid) is False
        finally:
            process.kill()
    reads.taken(os.getpid())
    with open("/proc/self/stat", "rb") as file:
        file.read()
    assert reads.taken(os.getpid())
