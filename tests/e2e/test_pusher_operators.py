"""Operators and the channels and users of Pusher: /api/v1 and the commands on a farm of two routers, real clients."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from support.admin_api import api, code
from support.commands import Commands
from support.farm_fixture import Farm, running_farm
from support.pusher_sdk import APP, Device, allowed, library

pytestmark = pytest.mark.measured

CHANNELS = [f"room-{number}" for number in range(5)]


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    folder = tmp_path_factory.mktemp("farm")
    apps = folder / "apps.json"
    apps.write_text(json.dumps({"applications": [APP]}))
    with running_farm(folder / "data", {"pusher.apps": apps, "router.routers": 2}) as farm:
        yield farm


@pytest.fixture
def said(farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Commands:
    return Commands(farm, monkeypatch, capsys)


def test_channels_are_listed_page_by_page(farm: Farm, said: Commands) -> None:
    with ExitStack() as stack:
        devices = [stack.enter_context(Device(farm)) for _ in range(4)]
        for number, device in enumerate(devices):
            for channel in CHANNELS[number:]:
                device.subscribe(channel)
        expected = [1, 2, 3, 4, 4]
        found, after = [], ""
        while after is not None:
            status, page = api(farm, "GET", f"/channels?prefix=room-&limit=2&after={after}")
            assert (status, len(page["channels"]) <= 2) == (200, True)
            found += [(row["application"], row["channel"], row["subscribers"]) for row in page["channels"]]
            after = page["next"]
        assert found == [("3", name, number) for name, number in zip(CHANNELS, expected, strict=True)]
        status, printed, more = said.run("channel", "list", "--prefix", "room-", "--limit", "3")
        assert (status, more) == (0, "there are more: --after pusher/3/room-2\n")
        listed = printed.splitlines()
        assert [line.replace("│", " ").split() for line in listed if "room-" in line] == [
            ["pusher", "3", name, str(number)] for name, number in zip(CHANNELS[:3], expected, strict=False)
        ]
        assert max(map(len, listed)) <= 80


def test_a_channel_its_members_and_a_test_event(farm: Farm, said: Commands) -> None:
    server, name = library(farm), "presence-cache-ops"
    with Device(farm) as device:
        user = {"user_id": "7", "user_info": {"name": "ann"}}
        device.subscribe(name, **allowed(server, device, name, user))
        device.hear("pusher:cache_miss")
        shown = json.loads(said("channel", "show", name, "--json"))
        assert (shown["subscribers"], shown["member_count"], shown["stored"]) == (1, 1, 0)
        assert [(one["user"], json.loads(one["info"])) for one in shown["members"]] == [("7", {"name": "ann"})]
        assert "200" in said("channel", "publish", name, "hello", "--event", "greeting")
        heard = device.hear("greeting")
        assert (heard["channel"], heard["data"]) == (name, "hello")
        text = said("channel", "show", name)
        assert ("stored events  1" in text, "ann" in text) == (True, True)
        (line,) = (event for event in farm.events("admin.action") if event["target"] == f"pusher {name}")
        assert (line["outcome"], line["role"]) == ("ok", "act")
    status, line = said.fails("channel", "show", "nobody")
    assert (status, "no channel 'nobody' is listed" in line) == (1, True)
    status, line = said.fails("channel", "show", "nobody", "--dialect", "pusher")
    assert (status, line) == (1, "farm channel show: pusher has no channel 'nobody' now\n")
    assert said.fails("channel", "publish", "not a name", "--dialect", "pusher")[0] == 2
    assert code(api(farm, "POST", "/channels/pusher/room/events", {"data": "x" * 20_000})) == (422, "refused")


def test_the_connections_of_a_user_are_closed(farm: Farm, said: Commands) -> None:
    server = library(farm)
    with Device(farm) as device, Device(farm) as other:
        device.say("pusher:signin", **server.authenticate_user(device.id, {"id": "7"}))
        device.hear("pusher:signin_success")
        other.subscribe("news")
        assert said("user", "terminate", "7") == "closed: all connections of 7\n"
        assert device.close_code() == 4009
        other.nothing_more()
