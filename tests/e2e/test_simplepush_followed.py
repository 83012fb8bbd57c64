"""What can be known of a push on its way: lines of `log.pushes` and `log.devices`, and traces, by clients and a
collector that are not ours."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from support.farm_fixture import Farm, Json, curl, running_farm, until
from support.otlp_collector import Collector, Span, running_collector
from support.simplepush import Device, push_many, put

pytestmark = pytest.mark.measured


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with running_collector() as collector:
        yield collector


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Farm]:
    settings = {
        "log.pushes": True,
        "log.devices": 1,
        "router.routers": 2,  # so that some requests come to the one that does not own their device
        "store.sweep_interval": 0.2,
        "simplepush.timeout_live": 1,
        "trace.endpoint": collector.url,
        "trace.share": 0,
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


def test_what_an_operator_pushes_is_of_a_request_too(farm: Farm) -> None:
    for number in range(4):  # of either router
        with Device(farm) as device:
            device.hello()
            channel, _ = device.register()
            url = f"http://127.0.0.1:{farm.admin_port}/api/v1/devices/{device.uaid}/push"
            header = ("--header", "Content-Type: application/json", "--header", f"X-Request-Id: operator-{number}")
            assert curl(url, *header, "--data", json.dumps({"channel": channel})).status == 200
            until(lambda channel=channel: len(told(farm, channel)) == 2, "two lines")  # type: ignore[misc]
        assert {line["request_id"] for line in told(farm, channel)} == {f"operator-{number}"}
        (line,) = (event for event in farm.events("admin.action") if event["request_id"] == f"operator-{number}")
        assert line["arguments"] == f"channel={channel}"


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


TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def traced(trace: str, sampled: bool = True) -> list[str]:
    """As an app server that is traced sends a push."""
    return ["--header", f"traceparent: 00-{trace}-{PARENT}-0{int(sampled)}", "--header", "X-Request-Id: mine-2"]


def test_a_push_is_a_trace_from_its_request_to_the_socket_of_its_device(farm: Farm, collector: Collector) -> None:
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        assert put(endpoint, 6) == 200  # of no trace, and the share is 0
        assert put(endpoint, 7, *traced("f" * 32, sampled=False)) == 200
        assert put(endpoint, 8, *traced(TRACE)) == 200

        def whole() -> dict[str, Span] | None:
            found = collector.spans(TRACE)
            return found if len(found) == 4 else None

        spans = until(whole, "all spans of the trace")
    assert collector.spans().keys() == spans.keys()
    request, push, commit, deliver = (spans[name] for name in ("PUT /update/", "push", "commit", "deliver"))
    assert (request.parent, push.parent, commit.parent, deliver.parent) == (PARENT, request.id, push.id, push.id)
    assert request.begun <= push.begun <= commit.ended <= request.ended
    assert push.begun <= deliver.ended <= push.ended
    about = request.attributes
    assert (about["service.name"], about["http.route"], about["http.response.status_code"]) == ("farm", "/update/", 200)
    assert about["http.request.header.x-request-id"] == ["mine-2"]
    assert endpoint.rpartition("/")[2] not in str(spans)  # who has it may push
    about = push.attributes
    assert (about["farm.device"], about["farm.slot"], about["farm.delivered"]) == (device.uaid, channel, True)
    assert not any(span.failed for span in spans.values())


def test_a_collector_that_fails_harms_no_push(farm: Farm, collector: Collector) -> None:
    with Device(farm) as device:
        device.hello()
        _, endpoint = device.register()
        before, collector.status = collector.requests, 400
        assert put(endpoint, 1, *traced("e" * 32)) == 200
        until(lambda: collector.requests > before, "it was sent to the collector")
        found = until(lambda: list(farm.events("trace.not_sent")), "a line of a router that says so")
        assert {(line["level"], line["endpoint"]) for line in found} == {("warning", collector.url)}
        assert all(line["spans"] > 0 for line in found)
        assert put(endpoint, 2, *traced("d" * 32)) == 200
        collector.status = 200
