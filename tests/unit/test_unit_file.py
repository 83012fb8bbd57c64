"""The unit in deploy/, as systemd's own tool reads it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

import pytest
from support.installed import find_program, with_libraries
from support.sources import ROOT

from router.common.settings import Listen

UNIT: Final = ROOT / "deploy" / "farm.service"
MOST_EXPOSED: Final = 2.0
"""Of 10, by `systemd-analyze security`."""


def analyze(*words: str) -> subprocess.CompletedProcess[str]:
    program = find_program("systemd-analyze")
    command, environment = [program, *words], with_libraries(program)
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


def test_systemd_understands_every_line(tmp_path: Path) -> None:
    """But the commands are others, for those are not installed here."""
    text = re.sub(r"(?m)^(Exec\w+)=.*", r"\1=/bin/true", UNIT.read_text())
    (tmp_path / "farm.service").write_text(text)
    found = analyze("verify", "--man=no", "--recursive-errors=no", str(tmp_path / "farm.service"))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
    (tmp_path / "farm.service").write_text(text + "NoSuchSetting=1\n")
    assert "NoSuchSetting" in analyze("verify", "--man=no", str(tmp_path / "farm.service")).stderr


@pytest.mark.parametrize(("name", "option"), [("farm.socket", "device_port"), ("farm-router.socket", "router_port")])
def test_the_sockets_are_where_the_settings_say(tmp_path: Path, name: str, option: str) -> None:
    text = re.sub(r"(?m)^(Exec\w+)=.*", r"\1=/bin/true", UNIT.read_text())
    (tmp_path / "farm.service").write_text(text)
    unit = UNIT.with_name(name).read_text()
    (tmp_path / name).write_text(unit)
    found = analyze("verify", "--man=no", "--recursive-errors=no", str(tmp_path / name), str(tmp_path / "farm.service"))
    assert (found.returncode, found.stdout + found.stderr) == (0, "")
    listen = Listen()
    places = re.findall(r"(?m)^ListenStream=(.*)", unit)
    assert set(places) == {f"{listen.host}:{getattr(listen, option)}"}
    assert re.findall(r"(?m)^FileDescriptorName=(.*)", unit) == [f"{Listen.SECTION}.{option}"]
    assert ("\nReusePort=yes\n" in unit) == (len(places) > 1)


def test_it_may_do_little() -> None:
    found = analyze("security", "--offline=yes", f"--threshold={MOST_EXPOSED * 10:.0f}", "--no-pager", str(UNIT))
    assert found.returncode == 0, found.stdout[-200:]
    assert "Overall exposure level for farm.service" in found.stdout


def test_a_bad_setting_is_not_tried_again() -> None:
    """Its exit code is 2; what ran before the farm itself would be started again whatever it ends with."""
    lines = UNIT.read_text().splitlines()
    assert "RestartPreventExitStatus=2" in lines
    assert not [line for line in lines if line.startswith("ExecStartPre=")]
