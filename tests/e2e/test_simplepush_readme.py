"""What the README lets users paste into a browser's console works, in the browsers that they have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from support.browser import Scripts
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import ROOT, Farm, running_farm, until
from support.firefox import Firefox, find_firefox
from support.simplepush import put

README: Final = (ROOT / "README.md").read_text()
EXAMPLE: Final = README[README.index("## A device in ten lines") :]
LISTENING: Final = (
    "window.said = []; console.log = (...parts) => said.push(parts.map((p) => JSON.stringify(p)).join(' '));"
)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as found:
        yield found


def for_this(farm: Farm, text: str) -> str:
    """The README's text with the ports of this farm."""
    ports = {"8080": farm.device_port, "8081": farm.router_port, "8082": farm.admin_port}
    return re.sub(r"(?<=localhost:)\d+", lambda found: str(ports[found[0]]), text)


def device_in_ten_lines(farm: Farm, page: Scripts) -> None:
    """Paste the example into this page's console, and push with the line that it prints."""
    (code,) = re.findall(r"```js\n(.*?)```", EXAMPLE, re.DOTALL)[:1]
    page.evaluate(f"(() => {{ {LISTENING} {for_this(farm, code)} return null; }})()")
    (line,) = until(lambda: page.evaluate("said"), "the line to run in a shell")
    found = re.search(r"curl -X PUT -d version=1 '(\S+)'", line)
    assert found is not None, line
    assert put(found[1], 1) == 200
    _, told = until(lambda: said if len(said := page.evaluate("said")) > 1 else None, "the notification")
    assert '"version":1' in told


def page_of(farm: Farm) -> str:
    """The page on which the README lets it be pasted."""
    found = re.search(r"on a page such as `(\S+?)`", EXAMPLE)
    assert found is not None
    return for_this(farm, found[1])


def test_in_firefox(farm: Farm, tmp_path: Path) -> None:
    with Firefox(find_firefox(), tmp_path / "firefox", {}) as firefox:
        firefox.open(page_of(farm))
        device_in_ten_lines(farm, firefox)


def test_in_chromium(farm: Farm, tmp_path: Path) -> None:
    with Chromium(find_chromium(), tmp_path / "chromium") as chromium, Tab(chromium) as tab:
        tab.open(page_of(farm))
        device_in_ten_lines(farm, tab)
