"""Machines of a test in network namespaces: what their cables do, and that nothing of them is left."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.farm_fixture import ROOT, environ, until
from support.namespaces import Machine, Network, in_namespaces, needs_namespaces

PATIENCE_S = 1.0
PORT = 9000


def _reaches(one: Machine, other: Machine, network: str) -> bool:
    try:
        one.call(socket.create_connection, (other.address(network), PORT), PATIENCE_S).close()
    except OSError:
        return False
    return True


def _wait_for_the_end() -> None:
    one = Network("front").machine("a", 1)
    sleeper = subprocess.Popen([*one.prefix, "sleep", "600"])
    print("made", flush=True)
    sleeper.wait()


def _pull_cables() -> None:
    network = Network("front", "peers")
    machines = [network.machine(name, number) for number, name in enumerate("abc", 1)]
    listeners = [machine.call(socket.create_server, ("0.0.0.0", PORT)) for machine in machines]
    a, _, c = machines
    pairs = [(one, other) for one in machines for other in machines if one is not other]

    def reached(cable: str) -> str:
        with ThreadPoolExecutor(len(pairs)) as pool:
            answers = pool.map(lambda pair: _reaches(*pair, cable), pairs)
            return " ".join(one.name + other.name for (one, other), yes in zip(pairs, answers, strict=True) if yes)

    everybody = "ab ac ba bc ca cb"

    def mended(cable: str) -> None:
        until(lambda: reached(cable) == everybody, f"all reach each other over {cable}")

    mended("front")
    mended("peers")
    for pull in (a.cut, a.silence):
        pull("peers")
        assert reached("peers") == "bc cb"
        assert reached("front") == everybody
        a.mend("peers")
        mended("peers")
    a.silence()
    assert reached("peers") == reached("front") == "bc cb"
    a.mend()
    mended("front")
    mended("peers")
    a.deafen(c, "peers")
    assert reached("peers") == "ab ba bc cb"
    assert reached("front") == everybody
    a.hear(c, "peers")
    mended("peers")
    for listener in listeners:
        listener.close()


def _program(name: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests")))
    return subprocess.Popen(
        in_namespaces([sys.executable, __file__, name]),
        stdout=subprocess.PIPE,
        text=True,
        env=environ() | {"PYTHONPATH": path},
    )


@pytest.fixture(autouse=True)
def permitted() -> None:
    needs_namespaces()


def test_cables_are_pulled_and_put_back() -> None:
    done = _program("_pull_cables")
    assert done.wait() == 0


def test_nothing_is_left_of_a_program_that_was_killed() -> None:
    before = set(os.listdir("/sys/class/net"))
    program = _program("_wait_for_the_end")
    assert program.stdout is not None
    assert program.stdout.readline() == "made\n"
    (first,) = _children(program.pid)
    within = [first, *_children(first)]
    assert len(within) == 2
    program.send_signal(signal.SIGKILL)
    program.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in within), "all have ended")
    assert set(os.listdir("/sys/class/net")) == before


def _children(pid: int) -> list[int]:
    found = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (thread / "children").read_text().split())
    return found


if __name__ == "__main__":
    globals()[sys.argv[1]]()
