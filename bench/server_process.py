"""A server that the bench starts for a run: its process, the wait until it is up, and its end."""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from bench.errors import BenchError
from bench.interrupt import Interrupt
from bench.machine import leftovers

START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 20.0
POLL_SECONDS: Final = 0.05
PR_SET_PDEATHSIG: Final = 1
LOG_LINES: Final = 5


def spawn(
    command: list[str],
    log: Path,
    more_environment: Mapping[str, str] | None = None,
    join: Callable[[], None] | None = None,
) -> "subprocess.Popen[bytes]":
    """Start it in the folder of its log, to which everything it writes goes. It ends with this process.

    join: called in the child before the server is executed, so it may only make system calls.
    """
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # a process group of its own keeps Ctrl-C for the bench; a session of its own would let the scheduler
            # (autogroup) share the cores out by sessions and starve one part of the run for another
            process_group=0,
            cwd=log.parent,
            env=environment() | dict(more_environment or {}),
            preexec_fn=_before_exec(join),  # noqa: PLW1509  it makes system calls only
        )


def wait_until_up(
    title: str,
    ready: Callable[[], bool],
    process: "subprocess.Popen[bytes]",
    log: Path,
    interrupt: Interrupt,
    patience: float = START_SECONDS,
) -> None:
    """Until it is ready. ready: OSError and BenchError mean not yet.

    Raises:
      BenchError: it has ended, or is not ready in time, with the last lines that it wrote; or we are interrupted.
    """
    deadline = time.monotonic() + patience
    while time.monotonic() < deadline:
        if interrupt.requested:
            raise BenchError(f"interrupted before {title} was up")
        if process.poll() is not None:
            raise BenchError(f"{title} ended with code {process.returncode} at its start:\n{tail(log)}")
        with suppress(OSError, BenchError):
            if ready():
                return
        time.sleep(POLL_SECONDS)
    raise BenchError(f"{title} was not up after {patience:g} s:\n{tail(log)}")


def listens(port: int) -> bool:
    """Whether a port of 127.0.0.1 takes connections."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def stop_group(process: "subprocess.Popen[bytes]") -> None:
    """End it with its children, by SIGTERM first."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):  # what is left of its group, also when the supervisor itself was killed
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def environment() -> dict[str, str]:
    """Ours, without the settings in it: what is measured is the defaults and what the options say, wherever it runs."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("FARM_")}
    package = str(Path(__file__).resolve().parent.parent)
    return ours | {"PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))}


def _before_exec(join: Callable[[], None] | None) -> Callable[[], None]:
    """What a child runs before exec: the kernel tells it to end when this process is gone, and it joins its group."""
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if join is not None:
            join()

    return prepare


def remove_stale_folders() -> None:
    """The folders of servers whose bench was killed."""
    for folder in Path(tempfile.gettempdir()).glob(f"{leftovers.PREFIX}*"):
        if leftovers.is_stale(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def tail(log: Path) -> str:
    """The last lines of a log; empty if there is none."""
    try:
        return "\n".join(log.read_text(errors="replace").splitlines()[-LOG_LINES:])
    except OSError:
        return ""
