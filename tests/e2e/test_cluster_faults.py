"""A short run of `make test-cluster`: three hosts behind a balancer, and what is lost of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from support.farm_fixture import ROOT, environ
from support.namespaces import needs_namespaces

FAULTS = ("kill-host", "cut-store", "kill-router")
LIMIT_S = 300.0


def test_nothing_accepted_is_lost_when_hosts_are(tmp_path: Path) -> None:
    needs_namespaces()
    command = [sys.executable, "-m", "torture.cluster", "--rounds", "1", "--seed", "5", "--devices", "36"]
    command += ["--rate", "60", "--workers", "1", "--dialects", "simplepush,webpush,pusher", "--pairs", "0"]
    command += ["--faults", ",".join(FAULTS), "--pause", "0.2", "0.6", "--keep", str(tmp_path)]
    environment = environ() | {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=LIMIT_S, env=environment)
    assert done.returncode == 0, f"{done.stdout[-20_000:]}\n{done.stderr[-5_000:]}"
    for name in FAULTS:
        assert f"{name} 1" in done.stdout
