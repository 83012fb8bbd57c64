"""The man pages: one for each command, which roff sets without a warning."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.farm_fixture import ROOT, environ
from support.installed import find_program


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("man")
    (folder / "farm-of-old.1").write_text("")
    made = [sys.executable, str(ROOT / "docs" / "manpages.py"), str(folder)]
    environment = environ() | {"SOURCE_DATE_EPOCH": "86400"}
    subprocess.run(made, check=True, env=environment, timeout=60)
    return folder


def groff(*words: str) -> subprocess.CompletedProcess[str]:
    command = [find_program("groff"), "-ww", "-man", "-Tutf8", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)


def test_every_command_has_one(pages: Path) -> None:
    found = {file.name for file in pages.iterdir()}
    named = {
        f"{name}.1" for file in pages.iterdir() for name in re.findall(r"^\.BR (\S+) \(1\)", file.read_text(), re.M)
    }
    assert {name.replace("\\", "") for name in named} == found
    assert {"farm.1", "farm-start.1", "farm-device-find.1", "farm-bench-connect.1"} <= found


def test_they_are_set_without_a_warning(pages: Path) -> None:
    done = groff("-z", *map(str, sorted(pages.iterdir())))
    assert done.stderr == ""


def test_what_a_page_says(pages: Path) -> None:
    text = re.sub(r"\x1b\[\d*m|.\x08", "", groff(str(pages / "farm-device-push.1")).stdout)
    words = " ".join(text.split())
    assert "farm-device-push - Send it a test message" in words
    assert "farm device push [OPTIONS] DEVICE" in words
    assert "-h, --help" in words
    assert re.search(r'^ +farm device push \S+ "?\w+.*$', text, re.M)
    assert "1970-01-02" in words
    assert words.index("SEE ALSO") < words.index("farm-device(1)")
