"""The dashboard in Chromium, on a farm with devices: what it shows, what it does, by whom, and by keyboard alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from support.chromium import Chromium, find_chromium
from support.dashboard import Dashboard
from support.farm_fixture import Farm, running_farm, until
from support.pusher import with_apps
from support.pushstream import ON, Socket, publish
from support.simplepush import Device, put

ACT, READ = "act-token-that-is-long-enough", "read-token-that-is-long-enough"
HOSTILE = "<img src=x onerror=faults.push('html')>"
VIEWS = ("overview", "devices", "channels", "processes", "log")
SEARCH = "Find a device (key: /)"
ACTING = ("Drain worker 0", "Restart worker 0", "Reload", "Terminate", "Set")


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    settings = ON | with_apps(folder) | {"admin.token": ACT, "admin.read_token": READ}
    with running_farm(folder / "data", settings) as found:
        yield found


@pytest.fixture(scope="module")
def chromium(farm: Farm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with Chromium(find_chromium(), tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest.fixture(scope="module")
def page(chromium: Chromium, farm: Farm) -> Iterator[Dashboard]:
    with Dashboard(chromium, farm, ACT) as tab:
        tab.go("overview")
        yield tab


def test_it_shows_devices_pushes_processes_and_the_log_as_they_are(farm: Farm, page: Dashboard) -> None:
    with Device(farm) as device:
        device.hello()
        _, endpoint = device.register()
        assert put(endpoint, 1) == 200
        page.go("overview")
        tiles = "[...document.querySelectorAll('.tile')].map((one) => one.innerText.split('\\n').slice(0, 2))"
        until(lambda: ["Devices", "1"] in page.evaluate(tiles), "the device is counted")
        until(lambda: page.evaluate("document.querySelectorAll('.chart path.line').length") > 10, "charts are drawn")
    page.go("processes")
    page.sees("router 0", "worker 1", str(farm.worker_pid(1)))
    page.go("log")
    page.sees("farm.ready", "worker.joined", "store.opened")
    assert page.faults == []


def test_what_a_client_has_named_is_text(farm: Farm, page: Dashboard) -> None:
    with Socket(farm, f"ws/{quote(HOSTILE)}") as subscriber:
        page.go("channels")
        until(lambda: HOSTILE in page.text, "the channel in the list")
        page.evaluate(
            f"[...document.querySelectorAll('#channels a')].find((a) => a.textContent === {HOSTILE!r}).click()"
        )
        page.sees("Publish a test event", "Subscribers")
        assert page.evaluate("document.querySelectorAll('main img').length") == 0
        page.evaluate("document.querySelector('#channels h2[tabindex]').focus()")
        page.tab_to("Publish")
        page.press("Enter")
        assert subscriber.message()["text"] == "This is a test."
        page.sees("an app server would get 200")
    assert page.faults == []


def test_a_broadcast_is_set_and_removed_and_a_user_is_terminated(page: Dashboard) -> None:
    page.go("channels")
    page.sees("There is none.")
    for label, text in (("Broadcast", "farm/news"), ("Version", '"v1"')):
        page.tab_to(label)
        page.write(text)
    page.press("Enter")
    page.sees("farm/news is set.")
    for label in ("Remove farm/news", "Remove"):
        page.tab_to(label)
        page.press("Enter")
    page.sees("farm/news is removed.", "There is none.")
    for label, text in (("User", "ann"), ("Application", "3")):
        page.tab_to(label)
        page.write(text)
    page.press("Enter")
    page.sees("Terminate the user?")
    page.tab_to("Terminate")
    page.press("Enter")
    page.sees("The connections of ann are closed.")
    assert page.faults == []


def test_who_may_only_read_has_no_buttons_that_act(chromium: Chromium, farm: Farm, page: Dashboard) -> None:
    page.go("processes")
    until(lambda: {"Reload", "Drain worker 0"} <= set(page.buttons), "the buttons of who may act")
    with Dashboard(chromium, farm, READ) as reader:
        reader.go("overview")
        reader.sees("read only")
        for view in VIEWS:
            reader.go(view)
            until(lambda view=view: reader.evaluate(f"!document.getElementById('{view}').hidden"), view)
            assert not set(reader.buttons) & set(ACTING)
        assert reader.faults == []


def test_it_is_usable_by_keyboard_alone(farm: Farm, page: Dashboard) -> None:
    page.go("overview")
    page.sees("The last hour")
    page.evaluate("document.activeElement.blur()")
    page.press("Tab")
    page.tab_to("Processes")
    page.press("Enter")
    page.sees("Routers and workers")
    page.tab_to("Restart worker 1")
    page.press("Enter")
    page.sees("Restart worker 1?")
    assert page.focused == "Cancel"
    page.press("Enter")
    until(lambda: page.focused == "Restart worker 1", "the focus is where it was")
    before = farm.worker_pid(1)
    page.press("Enter")
    page.tab_to("Restart")
    page.press("Enter")
    page.sees("another process is started")
    until(lambda: farm.worker_pid(1) != before, "the worker is replaced")
    page.go("log")
    page.sees("admin.action")
    assert page.faults == []


def test_a_device_is_found_pushed_to_and_emptied_by_keyboard(farm: Farm, page: Dashboard, tmp_path: Path) -> None:
    page.go("overview")
    page.evaluate("document.activeElement.blur()")
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        page.press("/")
        until(lambda: page.focused == SEARCH, "the search has the focus")
        page.write(endpoint)
        page.press("Enter")
        page.sees("connected", "127.0.0.1", device.uaid)
        page.tab_to("Channel ID")
        assert page.evaluate("document.activeElement.value") == channel
        page.tab_to("Push")
        page.press("Enter")
        page.sees("200 delivered")
        ((pushed, version),) = device.updates()
        assert pushed == channel
        device.send({"messageType": "ack", "updates": [{"channelID": channel, "version": version}]})
        page.picture(tmp_path / "device.png")
    page.sees("not connected")
    assert put(endpoint, version + 1) == 202
    page.sees("1 message", str(version + 1))
    page.look(360, dark=True)
    page.picture(tmp_path / "device-360.png")
    page.look(1320)
    for button, ask, done in (
        ("Empty inbox", "Empty", "Deleted: 1 message."),
        ("Forget", "Forget", "The device is forgotten."),
    ):
        page.evaluate("document.querySelector('#devices h2').focus()")
        page.tab_to(button)
        page.press("Enter")
        page.sees(f"{button.split()[0]} the ")
        page.tab_to(ask)
        page.press("Enter")
        page.sees(done)
    assert page.faults == []


@pytest.mark.parametrize("width", [1320, 360])
def test_no_view_is_wider_than_the_screen(page: Dashboard, tmp_path: Path, width: int) -> None:
    for view in VIEWS:
        page.go(view)
        page.look(width, dark=width < 1000)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view
    page.go("overview")
    page.picture(tmp_path / "overview.png")
    page.look(1320)


def test_a_page_of_channels_that_is_asked_for_twice_is_shown_once(farm: Farm, page: Dashboard) -> None:
    for number in range(60):
        publish(farm, f"many-{number}", "x")
    page.go("channels")
    until(lambda: "More" in page.buttons, "a second page")
    page.evaluate(
        "[...document.querySelectorAll('#channels button')].filter((one) => one.textContent === 'More')"
        ".forEach((one) => { one.click(); one.click(); })"
    )
    until(lambda: "More" not in page.buttons, "all of them")
    rows = page.evaluate("[...document.querySelectorAll('#channels a')].map((one) => one.textContent)")
    assert len(rows) == len(set(rows)) >= 60
    assert page.faults == []


def test_it_says_that_the_farm_is_gone_and_goes_on_when_it_is_back(page: Dashboard) -> None:
    page.go("overview")
    page.sees("The last hour")
    page.cut_off(True)
    page.sees("The farm has not answered since", "no answer")
    page.evaluate("Object.defineProperty(document, 'hidden', {value: true, configurable: true})")
    page.evaluate("dispatchEvent(new Event('online'))")
    page.sees("no answer")  # a page that is not seen does not ask, and so has not been answered
    page.evaluate("delete document.hidden")
    page.cut_off(False)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    until(lambda: "no answer" not in page.text, "it answers again")
