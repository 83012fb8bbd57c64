"""`farm demo` as a process of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from support.farm_fixture import ROOT, STOP_S, Farm, environ

_URL: Final = re.compile(r"http://localhost:\d+/")


@contextmanager
def running_demo(*arguments: str) -> Iterator[str]:
    """A demo on a free port for the time of the block. It must end by SIGTERM with exit code 0. Yields: its URL."""
    command = [sys.executable, "-m", "farm", "demo", "--port", "0", *arguments]
    with subprocess.Popen(command, cwd=ROOT, env=environ(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = _URL.search(process.stdout.readline())
            assert found, "farm demo prints its URL"
            yield found[0]
        finally:
            process.terminate()
            code = process.wait(STOP_S)
        assert code == 0


def addresses(farm: Farm) -> tuple[str, ...]:
    """The flags that point a demo at a farm."""
    return ("--router-url", farm.url(""), "--device-url", farm.device_url)
