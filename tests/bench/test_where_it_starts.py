"""The bench and its processes import nothing from the folder in which it is started."""

import json
import os
import subprocess
import sys
from pathlib import Path

from support.farm_fixture import ROOT


def test_a_run_imports_nothing_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("bench", "farm", "router"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('the wrong one')\n")
    for name in ("json", "msgspec", "setproctitle", "trio"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')\n")
    file = tmp_path / "result"
    command = [sys.executable, "-P", "-m", "farm", "bench", "connect", "--devices", "5", "--no-baseline"]
    done = subprocess.run(
        [*command, "--json", str(file)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())["connect"]["setup"]["ready"] == 5
