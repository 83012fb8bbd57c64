"""Push stream in Chromium: the browser's own EventSource, and a page that does as pushstream.js does, in every mode.

The farm is killed under them and started again: they go on where they were.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.chromium import Chromium, Tab, find_chromium
from support.farm_fixture import Farm, running_farm, until
from support.pushstream import CRASH, ON, device_url, new_channel, publish, subscribers
from support.pushstream_page import Page, Pages

MODES = ("websocket", "eventsource", "stream", "longpolling", "jsonp")
TEXT = 'Grüße, 世界 "quoted" \\ </script>\nanother line'


@pytest.fixture(scope="module")
def program() -> str:
    return find_chromium()


@pytest.fixture(scope="module")
def farm(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {
        "pushstream.allowed_origins": "*",
        "pushstream.websocket_allow_publish": True,
        "pushstream.longpolling_connection_ttl": 2,
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", ON | CRASH | settings) as found:
        yield found


@pytest.fixture(scope="module")
def chromium(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(program, tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def site() -> Iterator[Pages]:
    with Pages() as found:
        yield found


def typed(page: str) -> dict[str, str]:
    """A header for the publisher: only an EventSource that listens for the type hears of such a message."""
    return {"Event_Type": "news"} if page == "browser" else {}


def test_nothing_is_lost_or_doubled_in_any_mode_when_the_farm_is_killed(
    farm: Farm, chromium: Chromium, site: Pages
) -> None:
    channels = {name: (new_channel(), new_channel()) for name in (*MODES, "browser")}
    tabs = {name: Tab(chromium) for name in channels}
    pages = {name: Page(tab, site.url("/")) for name, tab in tabs.items()}
    try:
        for one, _ in channels.values():
            for text in ("too old", "before", TEXT):
                publish(farm, one, text)
        for name, page in pages.items():
            one, other = channels[name]
            if name == "browser":
                page.tab.call("watch", device_url(farm, f"ev/{one}.b2/{other}"), "news")
            else:
                page.tab.call("follow", device_url(farm, "").rstrip("/"), name, {one: 2, other: 0}, name == "websocket")
        for name, page in pages.items():
            page.expect("before", TEXT)
            until(lambda name=name: subscribers(farm, channels[name][1]), f"{name} is subscribed")  # type: ignore[misc]
        for name, (_, other) in channels.items():
            publish(farm, other, "live", Event_Id="mine", **typed(name))
        for page in pages.values():
            page.expect("before", TEXT, "live")
        farm.kill()
        farm.start()
        for name, (one, other) in channels.items():
            publish(farm, other, "first after")
            publish(farm, one, "second after")
            publish(farm, other, "third after", Event_Id="mine", **typed(name))
        for name, page in pages.items():
            rows = page.expect("before", TEXT, "live", "first after", "second after", "third after")
            if name == "browser":
                assert [row[2] for row in rows] == ["message", "message", "news", "message", "message", "news"]
                assert [row[1] == "mine" for row in rows] == [False, False, True, False, False, True]
                assert "connecting" in page.states() and "closed" not in page.states()
        for one, _ in channels.values():
            publish(farm, one, "last")
        for page in pages.values():
            page.expect("before", TEXT, "live", "first after", "second after", "third after", "last")
    finally:
        for tab in tabs.values():
            tab.close()


def test_a_page_publishes_and_is_told_of_the_end_of_a_channel(farm: Farm, chromium: Chromium, site: Pages) -> None:
    name = new_channel()
    with Tab(chromium) as tab:
        page = Page(tab, site.url("/"))
        tab.call("follow", device_url(farm, "").rstrip("/"), "websocket", {name: 0}, False)
        until(lambda: subscribers(farm, name), "the page is subscribed")
        tab.call("publish", "100 % Grüße")
        page.expect("100 % Grüße")


def test_a_refused_page_is_told_why(farm: Farm, chromium: Chromium, site: Pages) -> None:
    with Tab(chromium) as tab:
        page = Page(tab, site.url("/"))
        tab.call("follow", device_url(farm, "").rstrip("/"), "websocket", {"ALL": 0}, False)
        code, reason = until(page.states, "the close")[0]
        assert (code, reason) == (
            1008,
            '{"http_status": 403, "explain":"Channel id not authorized for this method."}',
        )
        tab.call("watch", device_url(farm, "ev/ALL"))
        until(lambda: "closed" in page.states(), "an EventSource does not come again after a 403")
