"""`worker.origins` with a real browser: what pages of the farm's own host and of another one may open."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import Farm
from support.main_server import MainServer, running_main_server

from bench.machine.ports import free_ports

OPENS = """
globalThis.opens = (url) => new Promise((done) => {
  const source = new EventSource(url);
  source.onopen = () => { source.close(); done("open"); };
  source.onerror = () => source.readyState === EventSource.CLOSED && done("refused");
}),
globalThis.connects = (url) => new Promise((done) => {
  const socket = new WebSocket(url);
  socket.onopen = () => { socket.close(); done("open"); };
  socket.onerror = () => done("refused");
}),
globalThis.fetches = (url, referrerPolicy) => {
  const stop = new AbortController();
  return fetch(url, {referrerPolicy, signal: stop.signal}).then((answer) => { stop.abort(); return answer.status; });
}, null
"""


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Its own pages are the only ones."""
    (port,) = free_ports(1)
    settings = {
        "dialects.pushstream": True,
        "pushstream.allowed_origins": "*",
        "worker.origins": f"http://127.0.0.1:{port}",
    }
    farm = Farm(tmp_path_factory.mktemp("farm") / "data", settings)
    farm.device_port = port
    farm.start()
    yield farm
    farm.stop()


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with Chromium(find_chromium(), tmp_path_factory.mktemp("chromium")) as chromium, Tab(chromium) as tab:
        yield tab


@pytest.fixture(scope="module")
def site() -> Iterator[MainServer]:
    """Another host's pages."""
    with running_main_server() as running:
        yield running


def test_a_page_of_the_own_host_may_connect_though_it_sends_no_origin(farm: Farm, tab: Tab) -> None:
    tab.open(f"http://127.0.0.1:{farm.device_port}/nowhere")
    tab.evaluate(OPENS)
    assert tab.evaluate("opens('/ev/a')") == "open"
    assert tab.evaluate("fetches('/sub/a', 'same-origin')") == 200
    assert tab.evaluate("fetches('/sub/a', 'no-referrer')") == 200
    assert tab.call("connects", f"{farm.device_url}ws/a") == "open"


def test_a_page_of_another_may_not(farm: Farm, tab: Tab, site: MainServer) -> None:
    tab.open(site.url("/open"))
    tab.evaluate(OPENS)
    own = f"http://127.0.0.1:{farm.device_port}"
    assert tab.call("opens", f"{own}/ev/a") == "refused"
    assert tab.call("connects", f"{farm.device_url}ws/a") == "refused"
    script = "new Promise((done) => { const script = document.createElement('script');"
    script += f" script.src = {json.dumps(f'{own}/lp/a?callback=alert')}; script.referrerPolicy = 'no-referrer';"
    script += " script.onload = () => done('open'); script.onerror = () => done('refused');"
    script += " document.documentElement.append(script); })"
    assert tab.evaluate(script) == "refused"
