"""pusher-js in stock Firefox, through rolling reloads of the farm."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from support.farm_fixture import Farm, reload, running_farm, until
from support.firefox import Firefox, find_firefox
from support.installed import npm_file
from support.web_site import Reply, Request, Site

APP: Final = {"id": "1", "name": "shop", "key": "shop-key", "secret": "shop-secret"}
RECONNECT_S: Final = 60.0
SCRIPTS: Final = {"8": "pusher-js/dist/web/pusher.min.js", "4": "pusher-js-4/dist/web/pusher.min.js"}
PAGE: Final = """
const seen = [];
let pusher;
function connect(key, options) {
  pusher = new Pusher(key, options);
  pusher.connection.bind("state_change", ({ current }) => seen.push(current));
}
"""


class Pages(Site):
    def __init__(self) -> None:
        super().__init__()
        for path in SCRIPTS.values():
            npm_file(path)  # the test is skipped here, not while a browser waits for the page

    def get(self, request: Request) -> Reply:
        if request.path.startswith("/npm/"):
            return Reply(npm_file(request.path.removeprefix("/npm/")).read_text(), "text/javascript")
        script = f'<script src="/npm/{SCRIPTS[request.path[1:]]}"></script>'
        return Reply(f'<!doctype html><title>t</title><link rel="icon" href="data:,">{script}<script>{PAGE}</script>')


@pytest.fixture(scope="module")
def program() -> str:
    return find_firefox()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder: Path = tmp_path_factory.mktemp("farm")
    apps = folder / "apps.json"
    apps.write_text(json.dumps({"applications": [APP]}))
    settings = {"pusher.apps": apps}
    with running_farm(folder / "data", settings) as found:
        yield found


@pytest.fixture(scope="module")
def firefox(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with Firefox(program, tmp_path_factory.mktemp("firefox"), {}) as found:
        yield found


@pytest.fixture(scope="module")
def site() -> Iterator[Pages]:
    with Pages() as found:
        yield found


@pytest.mark.parametrize("version", ["8", "4"])
def test_pusher_js_survives_rolling_reloads_in_firefox(farm: Farm, firefox: Firefox, site: Pages, version: str) -> None:
    firefox.open(site.url(f"/{version}"))
    options: dict[str, Any] = {"wsHost": "localhost", "wsPort": farm.device_port}
    if version == "8":
        options |= {"cluster": "none", "forceTLS": False, "enabledTransports": ["ws"]}
    firefox.call("connect", APP["key"], options)

    def connected(times: int) -> bool:
        return bool(firefox.evaluate("seen").count("connected") >= times)

    until(lambda: connected(1), "pusher-js is connected")
    for times in (2, 3):
        reload(farm)
        until(lambda times=times: connected(times), f"connected {times} times", RECONNECT_S)
    seen = firefox.evaluate("seen")
    assert not {"failed", "unavailable"} & set(seen), seen
