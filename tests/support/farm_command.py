"""The farm command, run as its users run it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 60  # a command that hangs fails its test; none is expected to take a tenth of it


def environ(**more: str) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("FARM_")}
    return clean | {"PYTHONPATH": str(ROOT), "COLUMNS": "200"} | more


class Farm:
    """Runs `farm ...` in an empty folder."""

    def __init__(self, cwd: Path) -> None:
        self.cwd = cwd

    def __call__(self, *args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "farm", *args],
            cwd=self.cwd,
            env=environ(**variables),
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def fails(self, code: int, *args: str, **variables: str) -> list[str]:
        """The lines on stderr of a command that must end with this code and print nothing else."""
        done = self(*args, **variables)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()
