"""How connections end, as their clients see it: in stock Firefox, which says whether a close was clean, and on
libraries for Python.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
import trio
import websocket
from support import dialects, mirror
from support.farm_fixture import UPGRADE, Farm, Raw, reload, running_farm, until
from support.firefox import Firefox, find_firefox
from support.mirror import Mirror
from support.web_site import Reply, Request, Site
from trio_websocket import ConnectionClosed, open_websocket_url

PAGE: Final = """
const ends = {}, opened = {};
function watch(name, url, first) {
  const socket = opened[name] = new WebSocket(url);
  socket.onclose = ({ code, wasClean }) => ends[name] = [code, wasClean];
  return new Promise((resolve, reject) => {
    socket.onopen = () => { if (first !== undefined) socket.send(first); resolve(true); };
    socket.onerror = reject;
  });
}
"""


class Pages(Site):
    def get(self, request: Request) -> Reply:
        return Reply(f'<!doctype html><title>t</title><link rel="icon" href="data:,"><script>{PAGE}</script>')


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, and every dialect."""
    folder: Path = tmp_path_factory.mktemp("farm")
    settings = dialects.settings(folder) | {"worker.max_message_bytes": 4096}
    with running_farm(folder / "data", settings, environment=mirror.environment(folder)) as found:
        yield found


def test_every_close_is_a_clean_one_in_firefox(farm: Farm, tmp_path: Path) -> None:
    closes = dialects.closes()
    with Pages() as site, Firefox(find_firefox(), tmp_path / "firefox", {}) as firefox:
        firefox.open(site.url("/"))

        def watch(name: str, path: str, first: str | None) -> None:
            assert firefox.call("watch", name, f"{farm.device_url}{path}", *([] if first is None else [first]))

        def check(on_reload: bool) -> None:
            for number, close in enumerate(closes):
                if close.on_reload is on_reload:
                    code, clean = until(lambda n=number: firefox.evaluate("ends").get(f"{n}"), f"the end of {close}")
                    assert clean is True, close
                    assert close.code in (None, code), (close, code)

        for number, close in enumerate(closes):
            watch(f"{number}", close.path, close.first)
        watch("by the page", mirror.PATH, None)
        firefox.evaluate("opened['by the page'].close(3456)")
        assert until(lambda: firefox.evaluate("ends").get("by the page"), "its end") == [3456, True]
        check(on_reload=False)
        reload(farm)
        check(on_reload=True)


def test_a_library_that_waits_for_the_server_sees_tcp_end(farm: Farm) -> None:
    """websocket-client, whose close() sends a close frame and reads on to the server's."""
    with Mirror(farm) as device:
        device.socket.send_close(1000)
        assert device.socket.recv_data(control_frame=True)[0] == websocket.ABNF.OPCODE_CLOSE
        assert device.socket.sock.recv(1) == b""


def test_trio_websocket_hears_the_code(farm: Farm) -> None:
    async def talk() -> None:
        async with open_websocket_url(f"{farm.device_url}{mirror.PATH}") as client:
            await client.send_message("x" * 5000)
            with pytest.raises(ConnectionClosed) as caught:
                await client.get_message()
            assert caught.value.reason is not None
            assert caught.value.reason.code == 1009

    trio.run(talk)


def test_who_does_not_answer_is_cut_off_after_the_close_timeout(farm: Farm) -> None:
    long = (300_000).to_bytes(8, "big")
    with Raw(farm.device_port) as raw:
        raw.send(UPGRADE.replace("GET / ", f"GET /{mirror.PATH} ").encode() + b"\r\n" + b"\x81\xff" + long + bytes(4))
        head, _, frames = raw.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"\x88" in frames  # and then the end, without an answer
