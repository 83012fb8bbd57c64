"""Single processes: those of a farm that are stopped for a while, and programs whose lines a test reads."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.farm_fixture import PATIENCE_S, environ


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """A process that does not run for a while, but for one that has been killed meanwhile."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


@contextmanager
def printing(
    *command: str, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> Iterator[Iterator[str]]:
    """A program that runs until the end of the block. Yields: the lines that it prints, which end after PATIENCE_S.

    environment: what it is started with besides."""
    with subprocess.Popen(
        command,
        cwd=cwd,
        env=environ() | (environment or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = threading.Timer(PATIENCE_S, process.kill)
        deadline.start()
        try:
            assert process.stdout is not None
            yield (line.rstrip("\n") for line in process.stdout)
        finally:
            deadline.cancel()
            process.kill()
