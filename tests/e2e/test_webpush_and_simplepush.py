"""WebPush and SimplePush on one path."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import websocket
from support.farm_fixture import PATIENCE_S, Farm, Json, new_channel, running_farm, until
from support.simplepush import Device, put
from support.webpush import UserAgent, post, pushed


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default; but SimplePush is more patient than WebPush by far."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data", {"webpush.hello_timeout": 0.5}) as farm:
        yield farm


def test_simplepush_on_the_same_path_is_not_disturbed(farm: Farm) -> None:
    with Device(farm) as silent, Device(farm) as pinging, Device(farm) as device, UserAgent(farm) as firefox:
        assert pinging.ask() == {}
        time.sleep(1.5)  # longer than WebPush would wait for a hello
        for simple in (silent, pinging, device):
            assert simple.hello() == {"messageType": "hello", "uaid": simple.uaid, "status": 200}
            channel, endpoint = simple.register()
            assert put(endpoint, 7) == 200
            assert simple.updates() == [(channel, 7)]
            simple.ack((channel, 7))
            simple.settle()
        _, endpoint = firefox.register()
        pushed(endpoint, "a")
        assert firefox.bodies(1) == ["a"]


def test_a_device_that_uses_its_uaid_in_both_dialects_harms_only_itself(farm: Farm) -> None:
    with UserAgent(farm) as firefox:
        _, endpoint = firefox.register()
    with Device(farm) as simple:
        simple.hello(firefox.uaid)
        _, update = simple.register()
    until(lambda: put(update, 5) == 202, "the farm knows that the device is away")
    assert post(update.replace("/update/", "/wpush/v1/")).status == 404
    assert put(endpoint.replace("/wpush/v1/", "/update/"), 6) == 404
    pushed(endpoint, "a")
    with UserAgent(farm, firefox.uaid) as firefox:
        assert firefox.bodies(1) == ["a"]
        assert put(update, 6) == 202
        pushed(endpoint, "b")
        assert firefox.bodies(1) == ["b"]
        firefox.nothing()


@pytest.mark.parametrize("channels", [[], ["0b4a7f0e-0000-4000-8000-000000000001"]])
def test_a_uaid_of_one_dialect_is_unknown_to_the_other(farm: Farm, channels: list[str]) -> None:
    with UserAgent(farm) as firefox, Device(farm) as simple, Device(farm) as other:
        _, endpoint = firefox.register()
        hello = simple.ask(messageType="hello", uaid=firefox.uaid, channelIDs=channels)
        assert hello["status"] == 200
        assert (hello["uaid"] == firefox.uaid) is not bool(channels)  # with channels only a uaid that is known is taken
        pushed(endpoint, "a")
        assert firefox.bodies(1) == ["a"]
        other.hello()
        channel, update = other.register()
        with UserAgent(farm, other.uaid) as fresh:
            assert fresh.uaid != other.uaid
            assert put(update, 1) == 200
            assert other.updates() == [(channel, 1)]


def test_a_second_connection_of_a_uaid_without_channels_replaces_the_first(farm: Farm) -> None:
    for _ in range(6):  # on one worker or on two
        with UserAgent(farm) as first, UserAgent(farm, first.uaid) as second:
            assert second.uaid != first.uaid
            assert first.close_code() == 1001
    for channels in ([], [new_channel()]):
        for _ in range(6):
            with Device(farm) as older, Device(farm) as newer:
                older.hello()
                hello = newer.ask(messageType="hello", uaid=older.uaid, channelIDs=channels)
                assert (hello["uaid"] == older.uaid) is not bool(channels)
                assert older.close_code() == 1001


@pytest.mark.parametrize("uaid", [None, "null"])
def test_what_distributors_say_first_is_understood_if_the_settings_say_so(tmp_path: Path, uaid: str | None) -> None:
    nulls: Json = {"uaid": None, "channelIDs": None}
    bare: Json = {"messageType": "hello"} | ({} if uaid is None else nulls)
    with running_farm(tmp_path / "data", {"webpush.bare_hello": True}, workers=1) as farm:
        for first, webpush in ((bare, True), ({"messageType": "hello", "channelIDs": [], "uaid": ""}, False)):
            device = websocket.create_connection(farm.device_url, timeout=PATIENCE_S)
            try:
                device.send(json.dumps(first))
                greeting = json.loads(device.recv())
                assert greeting["status"] == 200
                assert greeting.get("use_webpush", False) is webpush
            finally:
                device.close()
