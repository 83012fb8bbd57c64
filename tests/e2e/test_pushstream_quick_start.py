"""What the quick start has its readers type works as it stands there, in that order."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.farm_fixture import ROOT, Farm, running_farm, until

PAGE: Final = (ROOT / "docs" / "quick-start.md").read_text(encoding="utf-8")
LINES: Final = [
    line for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE) for line in block.splitlines()
]
_START: Final = ".venv/bin/farm start --workers 2 --set "


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """The farm of the page's first step, on ports of its own."""
    (start,) = (line for line in LINES if line.startswith(_START))
    settings = dict(setting.split("=") for setting in shlex.split(start)[5::2])
    with running_farm(tmp_path_factory.mktemp("quick") / "data", settings) as found:
        yield found


def curl(farm: Farm, containing: str) -> list[str]:
    """The command of the page that has this in it, for the ports of this farm."""
    (line,) = (line for line in LINES if line.startswith("curl ") and containing in line)
    ports = {"8080": farm.device_port, "8081": farm.router_port, "8082": farm.admin_port}
    return shlex.split(re.sub(r"(?<=127\.0\.0\.1:)\d+", lambda found: str(ports[found[0]]), line.removesuffix(" &")))


def answer(farm: Farm, containing: str) -> str:
    ran = subprocess.run(curl(farm, containing), check=True, capture_output=True, text=True, timeout=60)
    return ran.stdout.strip()


def test_the_steps_of_the_quick_start(farm: Farm, tmp_path: Path) -> None:
    said = tmp_path / "said"
    assert json.loads(answer(farm, "/health"))["status"] == "ok"
    with said.open("wb") as file, subprocess.Popen(curl(farm, "/ev/news &"), stdout=file) as device:
        until(said.read_bytes, "the stream has begun")
        assert answer(farm, "-d 'hello'") in PAGE
        until(lambda: '"text":"hello"' in said.read_text(), "the message at the device")
        device.kill()
    answer(farm, "while you were away")
    farm.stop()
    farm.start()
    with said.open("wb") as file, subprocess.Popen(curl(farm, "/ev/news.b2"), stdout=file) as device:
        until(lambda: '"while you were away"' in said.read_text(), "what was missed")
        assert '"text":"hello"' in said.read_text()
        device.kill()
