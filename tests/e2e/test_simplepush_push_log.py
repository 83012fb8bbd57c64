"""`log.pushes`: what the log proves of pushes, by a farm with devices and app servers that are not ours."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.farm_fixture import Farm, Json, curl, running_farm, until
from support.simplepush import Device, push_many, put


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    settings = {
        "log.pushes": True,
        "log.devices": 1,
        "router.routers": 1,  # of a push that another one took, the owner of its device does not know the request
        "store.sweep_interval": 0.2,
        "simplepush.timeout_live": 1,
    }
    with running_farm(tmp_path_factory.mktemp("farm") / "data", settings, workers=1) as farm:
        yield farm


def told(farm: Farm, channel: str) -> list[Json]:
    """The lines about the pushes to a channel."""
    lines = [line for line in farm.log_file.read_text().splitlines(keepends=True) if line.endswith("\n")]
    found = [json.loads(line) for line in lines if '"event":"push.' in line]
    return [line for line in found if line.get("slot") == channel]


def test_the_log_shows_what_became_of_each_push(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        assert put(endpoint, 7, "--header", "X-Request-Id: mine-1") == 200
        assert device.updates() == [(channel, 7)]
        device.ack((channel, 7))
        until(lambda: len(told(farm, channel)) == 3, "three lines")
    accepted, delivered, acked = told(farm, channel)
    about = {"device": device.uaid, "slot": channel, "version": 7}
    for line in (accepted, delivered, acked):
        assert about.items() <= line.items()
        assert line["process"] == "router" and line["time"]
    events = [line["event"] for line in (accepted, delivered, acked)]
    assert sorted(events[:2]) == ["push.accepted", "push.delivered"] and events[2] == "push.acked"
    assert {line.get("request_id") for line in (accepted, delivered)} == {"mine-1"}
    until(lambda: put(endpoint, 8) == 202, "the device has gone")
    until(lambda: told(farm, channel)[-1]["event"] == "push.expired", "nobody has fetched it")


def test_the_log_has_a_line_for_a_device_at_its_end(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        device.socket.close(4000)
        (line,) = until(lambda: [one for one in farm.events("device.ended") if one.get("code") == 4000], "its line")
    assert (line["process"], line["address"], line["by"]) == ("worker", "127.0.0.1", "peer")
    assert (line["dialect"], line["device"]) == ("simplepush", device.uaid)


def test_the_lines_of_a_batch_are_of_its_request(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        registered = [device.register() for _ in range(20)]
        pushes = [{"endpoint": endpoint, "version": 3} for _, endpoint in registered]
        assert push_many(farm, pushes) == [200] * 20
        until(lambda: all(len(told(farm, channel)) == 2 for channel, _ in registered), "two lines each")
    ids = {line["request_id"] for channel, _ in registered for line in told(farm, channel)}
    assert len(ids) == 1
    answer = curl(farm.url("/realstatus/"))
    assert answer.headers["x-request-id"] not in ids  # one is made for each, and named
