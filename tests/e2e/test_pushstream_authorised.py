"""push stream where a main server decides, as was meant with gogin: a browser with its cookie, and one without."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import websocket
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import PATIENCE_S, Farm, curl, running_farm, until
from support.main_server import REFUSAL, MainServer


@pytest.fixture(scope="module")
def farm(main_server: MainServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {
        "dialects.pushstream": True,
        "pushstream.auth_url": main_server.url(),
        "pushstream.websocket_allow_publish": True,
        "pushstream.longpolling_connection_ttl": 20,
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings) as running:
        yield running


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(find_chromium(), tmp_path_factory.mktemp("chromium")) as running:
        yield running


def url(farm: Farm, path: str) -> str:
    return f"http://127.0.0.1:{farm.device_port}{path}"


def publish(farm: Farm, channel: str, text: str) -> None:
    assert curl("--data-binary", text, farm.url(f"/pub?id={channel}")).status == 200


def subscribed(farm: Farm, channel: str) -> None:
    def there() -> bool:
        answer = curl(farm.url(f"/channels-stats?id={channel}"))
        return answer.status == 200 and answer.json()["subscribers"] > 0

    until(there, "it is subscribed")


OPENS = """
globalThis.opens = (url, credentials) => new Promise((done) => {
  const source = globalThis.source = new EventSource(url, {withCredentials: credentials});
  globalThis.heard = [];
  source.onmessage = (message) => globalThis.heard.push(JSON.parse(message.data).text);
  source.onopen = () => done("open");
  source.onerror = () => source.readyState === EventSource.CLOSED && done("refused");
}), null
"""


def at_the_farm(tab: Tab, farm: Farm) -> None:
    """A page of the farm's own host: whatever it answers there."""
    tab.open(url(farm, "/nowhere"))
    tab.evaluate(OPENS)


@pytest.mark.parametrize("path", ["/ev/a", "/lp/a", "/sub/a"])
def test_without_the_cookie_a_subscriber_gets_what_the_main_server_says(farm: Farm, path: str) -> None:
    answer = curl(url(farm, path))
    assert (answer.status, answer.body.decode()) == (403, REFUSAL)


def test_a_browser_without_the_cookie_is_refused_and_one_with_it_gets_its_messages(
    farm: Farm, chromium: Chromium
) -> None:
    with Tab(chromium) as tab:
        at_the_farm(tab, farm)
        answered = tab.evaluate("fetch('/ev/a').then(async (answer) => [answer.status, await answer.text()])")
        assert answered == [403, REFUSAL]
        assert tab.evaluate("opens('/ev/a', false)") == "refused"
        tab.evaluate("document.cookie = 'does=redirects-inside.browser; path=/'")
        assert tab.evaluate("opens('/ev/', false)") == "open"  # the main server names the channel
        subscribed(farm, "a")
        publish(farm, "a", "hello")
        until(lambda: tab.evaluate("heard"), "the event reaches the page")
        assert tab.evaluate("heard") == ["hello"]
        tab.evaluate("source.close(), null")


def test_a_page_of_another_host_cannot_use_the_cookies_of_its_visitor(
    farm: Farm, main_server: MainServer, chromium: Chromium
) -> None:
    with Tab(chromium) as tab:
        tab.open(main_server.url("/open"))
        tab.evaluate(OPENS)
        tab.evaluate("document.cookie = 'does=yes.elsewhere; path=/'")
        assert tab.evaluate(f"opens({json.dumps(url(farm, '/ev/a'))}, true)") == "refused"
        opened = "new Promise((done) => { const socket = new WebSocket(%s);"
        opened += " socket.onopen = () => done('open'); socket.onclose = () => done('refused'); })"
        assert tab.evaluate(opened % json.dumps(f"{farm.device_url}ws/a")) == "refused"
    assert main_server.seen(cookie="does=yes.elsewhere", x_action="connect") == []


def test_a_subscriber_has_the_channels_that_are_granted(farm: Farm, main_server: MainServer) -> None:
    client = websocket.create_connection(f"{farm.device_url}ws/a/b", timeout=PATIENCE_S, cookie="does=channels.ws")
    subscribed(farm, "a")
    publish(farm, "b", "not this")
    publish(farm, "a", "this")
    assert json.loads(client.recv())["text"] == "this"
    (seen,) = main_server.seen(cookie="does=channels.ws")
    assert (seen["x-channels"], seen["x-dialect"]) == ("a,b", "pushstream")
    client.close()


def test_what_only_keeps_caches_away_is_not_asked(farm: Farm, main_server: MainServer) -> None:
    for number in range(2):
        path = f"ws/a?_={number}&tag=&time=&eventid=&x=1"
        client = websocket.create_connection(f"{farm.device_url}{path}", timeout=PATIENCE_S, cookie="does=yes.cached")
        client.close()
    (seen,) = main_server.seen(cookie="does=yes.cached")
    assert seen["x-original-uri"] == "/ws/a?x=1"


def test_the_main_server_is_asked_about_a_message_before_it_is_published(farm: Farm, main_server: MainServer) -> None:
    reader = websocket.create_connection(f"{farm.device_url}ws/talk", timeout=PATIENCE_S, cookie="does=reads")
    writer = websocket.create_connection(f"{farm.device_url}ws/talk", timeout=PATIENCE_S, cookie="does=yes.writer")
    subscribed(farm, "talk")
    reader.send("not allowed")
    until(lambda: main_server.seen(cookie="does=reads", x_action="publish"), "it is asked about")
    writer.send("hällo")
    for client in (reader, writer):
        assert json.loads(client.recv())["text"] == "hällo"
    (asked,) = main_server.seen(cookie="does=yes.writer", x_action="publish")
    assert (asked["method"], asked["body"], asked["x-channels"]) == ("POST", "hällo", "talk")
    for client in (reader, writer):
        client.close()


def test_who_is_not_allowed_any_more_is_closed(farm: Farm) -> None:
    client = websocket.create_connection(f"{farm.device_url}ws/a", timeout=PATIENCE_S, cookie="does=twice.ws")
    opcode, data = client.recv_data()
    assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, 1008)
    client.shutdown()
    stream = curl("--no-buffer", "--header", "Cookie: does=twice.sse", url(farm, "/ev/a"))
    assert stream.status == 200  # and it has ended
