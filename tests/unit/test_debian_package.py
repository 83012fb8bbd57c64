"""What the Debian package is made of. `make test-deb` builds and installs it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from support.sources import ROOT

DEBIAN = ROOT / "deploy" / "debian"
SCRIPTS = {"build": "bash", "postinst": "sh", "prerm": "sh", "postrm": "sh"}
BUILD = (DEBIAN / "build").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "shell"), SCRIPTS.items())
def test_a_script_is_understood(name: str, shell: str) -> None:
    done = subprocess.run([shell, "-n", str(DEBIAN / name)], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


def test_it_takes_files_that_are_there() -> None:
    named = set(re.findall(r'"\$tree/([\w./-]+)"', BUILD))
    assert {"deploy/99-farm.conf", "deploy/farm.service"} <= named
    assert not {name for name in named if not (ROOT / name).is_file()}


def test_its_unit_starts_the_farm_of_the_package() -> None:
    found = re.search(r"sed \"s\|(\S+)\|\$home\|g\" \"\$tree/deploy/farm.service\"", BUILD)
    assert found is not None
    unit = (ROOT / "deploy" / "farm.service").read_text(encoding="utf-8").replace(found[1], "/PACKAGED")
    programs = [Path(line.split()[0]) for line in re.findall(r"^Exec\w+=[-+!@]*(.+)$", unit, re.MULTILINE)]
    assert programs
    assert {str(program) for program in programs} == {"/PACKAGED/bin/farm"}
