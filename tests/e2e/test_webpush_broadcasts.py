"""Broadcasts of WebPush, from the admin port to the devices that follow them."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.admin_api import api, code
from support.commands import Commands
from support.farm_fixture import Farm, running_farm
from support.webpush import UserAgent, broadcasts, request, set_broadcast
from support.webpush_traffic import CRASH

ID = "remote-settings/monitor_changes"


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as farm:
        yield farm


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker with low limits."""
    settings = {
        "webpush.max_broadcasts": 2,
        "link.max_broadcasts": 3,
    }
    with running_farm(tmp_path_factory.mktemp("narrow") / "data", settings, workers=1) as farm:
        yield farm


def test_broadcasts_reach_their_followers(farm: Farm) -> None:
    assert set_broadcast(farm, ID, '"1"\n') == 204
    assert broadcasts(farm) == {ID: '"1"'}
    with contextlib.ExitStack() as stack:
        # Of twelve, each of the two shards has some.
        followers = [stack.enter_context(UserAgent(farm, None, {ID: '"0"', "late": "x"})) for _ in range(12)]
        for device in followers:
            assert device.greeting["broadcasts"] == {ID: '"1"', "errors": {"late": "Broadcast not found"}}
        other = stack.enter_context(UserAgent(farm))
        up_to_date = stack.enter_context(UserAgent(farm, None, {ID: '"1"'}))
        assert up_to_date.greeting["broadcasts"] == {}
        assert set_broadcast(farm, ID, '"2"') == 204
        for device in (*followers, up_to_date):
            assert device.message() == {"messageType": "broadcast", "broadcasts": {ID: '"2"'}}
        assert set_broadcast(farm, "late", "1") == 204
        for device in followers:
            assert device.message() == {"messageType": "broadcast", "broadcasts": {"late": "1"}}
        other.send({"messageType": "broadcast_subscribe", "broadcasts": {ID: '"1"'}})
        assert other.message() == {"messageType": "broadcast", "broadcasts": {ID: '"2"'}}
        for device in (*followers, up_to_date, other):
            device.nothing()
    assert set_broadcast(farm, "late", None) == 204
    assert set_broadcast(farm, "late", None) == 204
    with UserAgent(farm, None, {"late": "1"}) as device:
        assert device.greeting["broadcasts"] == {"errors": {"late": "Broadcast not found"}}


def test_broadcasts_survive_the_router_and_the_farm(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", CRASH) as farm, contextlib.ExitStack() as stack:
        assert set_broadcast(farm, ID, "1") == 204
        followers = [stack.enter_context(UserAgent(farm, None, {ID: "1"})) for _ in range(6)]
        os.kill(farm.router_pid(), signal.SIGKILL)
        farm.wait_healthy()
        assert broadcasts(farm) == {ID: "1"}
        assert set_broadcast(farm, ID, "2") == 204
        for device in followers:
            # No device was sent again what had not changed.
            assert device.message() == {"messageType": "broadcast", "broadcasts": {ID: "2"}}
        os.kill(farm.worker_pid(0), signal.SIGKILL)
        farm.wait_healthy()
        for _ in range(6):
            with UserAgent(farm, None, {ID: "1"}) as device:
                assert device.greeting["broadcasts"] == {ID: "2"}
        farm.kill()
        farm.start()
        assert broadcasts(farm) == {ID: "2"}
        with UserAgent(farm, None, {ID: "1"}) as device:
            assert device.greeting["broadcasts"] == {ID: "2"}


def test_bad_broadcasts(narrow: Farm) -> None:
    url = f"http://127.0.0.1:{narrow.admin_port}/broadcasts"
    for broadcast in ("a", "b/c", "d%20e"):
        assert set_broadcast(narrow, broadcast, "1") == 204
    assert set_broadcast(narrow, "one/more", "1") == 400
    assert set_broadcast(narrow, "a", "2") == 204
    assert broadcasts(narrow) == {"a": "2", "b/c": "1", "d e": "1"}
    for broadcast, version in (
        ("a", b""),
        ("a", b" \n"),
        ("a", b"\xff"),
        ("a", b"1\x002"),
        ("a", b"x" * 1025),
        ("a", b"x" * 1_000_000),
        ("x" * 257, b"1"),
        ("errors", b"1"),
        ("", b"1"),
        ("%00", b"1"),
    ):
        assert request("PUT", f"{url}/{broadcast}", version).status == 400, (broadcast[:20], version[:20])
    assert request("POST", f"{url}/a", b"1").status == 405
    assert request("PUT", url, b"1").status == 405
    assert broadcasts(narrow) == {"a": "2", "b/c": "1", "d e": "1"}
    for broadcast in ("a", "b/c", "d%20e"):
        assert set_broadcast(narrow, broadcast, None) == 204
    with UserAgent(narrow, None, {"a": "1", "b": "1"}) as device:
        device.send({"messageType": "broadcast_subscribe", "broadcasts": {"c": "1"}})
        assert device.close_code() == 1008


def test_while_the_router_is_away_broadcasts_are_answered_503(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", CRASH | {"router.routers": 1}, workers=1) as farm:
        router = farm.router_pid()
        os.kill(router, signal.SIGSTOP)
        try:
            assert set_broadcast(farm, ID, "1") == 503
            assert farm.admin("/broadcasts")[0] == 503
        finally:
            os.kill(router, signal.SIGCONT)
        farm.wait_healthy()
        assert set_broadcast(farm, ID, "2") == 204
        assert broadcasts(farm) == {ID: "2"}


def test_broadcasts_of_the_api_and_the_commands(
    farm: Farm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said = Commands(farm, monkeypatch, capsys)
    assert "v1" in said("broadcast", "set", "of/commands", "v1")
    with UserAgent(farm, None, {"of/commands": "v0"}) as device:
        assert device.greeting["broadcasts"] == {"of/commands": "v1"}
        assert api(farm, "PUT", "/broadcasts/of%2Fcommands", {"version": "v2"})[0] == 200
        assert device.message() == {"messageType": "broadcast", "broadcasts": {"of/commands": "v2"}}
    assert ("of/commands", "v2") in [
        (row["key"], row["version"]) for row in api(farm, "GET", "/broadcasts")[1]["broadcasts"]
    ]
    assert "of/commands" not in said("broadcast", "remove", "of/commands")
    assert code(api(farm, "PUT", "/broadcasts/errors", {"version": "1"})) == (400, "bad_request")
    assert code(api(farm, "GET", "/broadcasts?dialect=none")) == (404, "not_found")
