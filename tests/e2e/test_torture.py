"""A short run of `make torture`: the quick ones of its faults. What its checker knows is tested beside it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.farm_fixture import ROOT, environ

FAULTS = (
    "kill-worker",
    "kill-router",
    "kill-fork-server",
    "kill-everything",
    "eio",
    "resets",
)
"""What a machine does not allow is left out, and named."""
LIMIT_S = 300.0


def test_nothing_accepted_is_lost_under_a_few_faults(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torture", "--rounds", "1", "--seed", "7", "--devices", "60", "--rate", "80"]
    command += ["--workers", "2", "--faults", ",".join(FAULTS), "--pause", "0.2", "0.6", "--keep", str(tmp_path)]
    environment = environ() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
    for name in FAULTS:
        assert name in done.stdout
