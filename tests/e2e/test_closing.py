"""How connections end, as their clients see it: in stock Firefox, which says whether a close was clean, with pusher-js
in it through rolling reloads, and on libraries for Python.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import trio
import websocket
from support.farm_fixture import Farm, Raw, running_farm, until
from support.firefox import Firefox, find_firefox
from support.installed import npm_file
from support.simplepush import Device
from support.web_site import Reply, Request, Site
from trio_websocket import ConnectionClosed, open_websocket_url

APP: Final = {"id": "1", "name": "shop", "key": "shop-key", "secret": "shop-secret"}
RECONNECT_S: Final = 60.0
SCRIPTS: Final = {"8": "pusher-js/dist/web/pusher.min.js", "4": "pusher-js-4/dist/web/pusher.min.js"}
PAGE: Final = """
const ends = {}, opened = {}, seen = [];
function watch(name, url, first) {
  const socket = opened[name] = new WebSocket(url);
  socket.onclose = ({ code, wasClean }) => ends[name] = [code, wasClean];
  return new Promise((resolve, reject) => {
    socket.onopen = () => { if (first !== undefined) socket.send(first); resolve(true); };
    socket.onerror = reject;
  });
}
let pusher;
function connect(key, options) {
  pusher = new Pusher(key, options);
  pusher.connection.bind("state_change", ({ current }) => seen.push(current));
}
"""


class Pages(Site):
    def get(self, request: Request) -> Reply:
        if request.path.startswith("/npm/"):
            return Reply(npm_file(request.path.removeprefix("/npm/")).read_text(), "text/javascript")
        scripts = "".join(f'<script src="/npm/{path}"></script>' for path in [SCRIPTS.get(request.path[1:])] if path)
        return Reply(f'<!doctype html><title>t</title><link rel="icon" href="data:,">{scripts}<script>{PAGE}</script>')


@pytest.fixture(scope="module")
def program() -> str:
    return find_firefox()


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder: Path = tmp_path_factory.mktemp("farm")
    apps = folder / "apps.json"
    apps.write_text(json.dumps({"applications": [APP]}))
    settings = {"pusher.apps": apps, "dialects.echo": True, "worker.max_message_bytes": 4096}
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


def reload(farm: Farm) -> None:
    """A rolling reload, from its beginning to its end."""
    before = len(list(farm.events("reload.done")))
    os.kill(farm.pid, signal.SIGHUP)
    until(lambda: len(list(farm.events("reload.done"))) > before, "the reload is done", RECONNECT_S)


def test_every_close_is_a_clean_one_in_firefox(farm: Farm, firefox: Firefox, site: Pages) -> None:
    firefox.open(site.url("/plain"))
    device, pusher = farm.device_url, f"{farm.device_url}app/{APP['key']}?protocol=7"

    def watch(name: str, url: str, first: str | None = None) -> None:
        assert firefox.call("watch", name, url, *([] if first is None else [first]))

    def end(name: str) -> Any:
        return until(lambda: firefox.evaluate("ends").get(name), f"the close of {name}")

    watch("unknown application", f"{device}app/nobody?protocol=7")
    watch("no hello", device, "what is this")
    watch("too long", f"{device}echo", "x" * 300_000)
    watch("by the page", f"{device}echo")
    firefox.evaluate("opened['by the page'].close(3456)")
    assert end("unknown application") == [4001, True]
    assert end("no hello")[1] is True
    assert end("too long") == [1009, True]
    assert end("by the page") == [3456, True]
    watch("first", device, json.dumps({"messageType": "hello", "uaid": "", "channelIDs": []}))
    watch("goes away", f"{device}echo")
    watch("pusher goes away", pusher)
    reload(farm)
    assert end("first") == [1001, True]
    assert end("goes away") == [1001, True]
    assert end("pusher goes away")[1] is True


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


def test_a_library_that_waits_for_the_server_sees_tcp_end(farm: Farm) -> None:
    """websocket-client, whose close() sends a close frame and reads on to the server's."""
    with Device(farm) as device:
        device.hello()
        device.socket.send_close(1000)
        assert device.socket.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_CLOSE
        assert device.socket.sock.recv(1) == b""


def test_trio_websocket_hears_the_code(farm: Farm) -> None:
    async def talk() -> None:
        async with open_websocket_url(f"{farm.device_url}echo") as client:
            await client.send_message("x" * 5000)
            with pytest.raises(ConnectionClosed) as caught:
                await client.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1009

    trio.run(talk)


def test_who_does_not_answer_is_cut_off_after_the_close_timeout(farm: Farm) -> None:
    request = ["GET /app/nobody HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
    request += ["Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13", "", ""]
    with Raw(farm.device_port) as raw:
        raw.send("\r\n".join(request).encode())
        head, _, frames = raw.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\x88" in frames  # and then the end, though nothing was said
