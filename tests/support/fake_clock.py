"""A clock of a farm that a test sets."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.farm_fixture import Farm, until
from support.installed import cannot


class FakeClock:
    """The clock of a farm under libfaketime, and of nothing else. The monotonic one is left alone."""

    def __init__(self, file: Path) -> None:
        library = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)
        if library is None:
            cannot("no libfaketime; as root: apt-get install --no-install-recommends libfaketime")
        self._file = file
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """So far from the machine's clock."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.rename(self._file)


def restart_router(farm: Farm) -> None:
    before = farm.router_pid()
    os.kill(before, signal.SIGKILL)
    until(lambda: farm.healthy() and farm.router_pid() != before, "another router serves")
