"""The limits and deadlines of SimplePush devices and of pushes to them, each as its setting has it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.farm_fixture import Farm, curl, new_channel, running_farm, until
from support.simplepush import Device, put
from websocket import ABNF


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker with short deadlines and low limits."""
    settings = {
        "worker.max_message_bytes": 2000,
        "worker.max_fragments": 4,
        "simplepush.hello_timeout": 1,
        "simplepush.pong_interval": 1,
        "simplepush.min_ping_interval": 0,
        "simplepush.long_pongs": True,
        "simplepush.resend_on_ack": True,
        "simplepush.max_channels": 3,
        "simplepush.max_data_bytes": 10,
        "endpoint.cors": True,
        "endpoint.max_batch": 3,
        "store.inbox_limit": 2,
    }
    with running_farm(tmp_path_factory.mktemp("strict") / "data", settings, workers=1) as farm:
        yield farm


def test_without_a_hello_in_time_the_connection_ends(strict: Farm) -> None:
    with Device(strict) as device:
        assert device.ask(messageType="ping") == {"messageType": "ping", "status": 200}
        assert device.close_code() == 1000


def test_a_silent_device_is_sent_pings(strict: Farm) -> None:
    with Device(strict) as device:
        device.hello()
        assert [device.receive(), device.receive()] == [{}, {}]
        assert device.ask(messageType="ping") == {"messageType": "ping", "status": 200}


def test_too_many_channels_get_a_fresh_uaid(strict: Farm) -> None:
    channels = [new_channel() for _ in range(4)]
    with Device(strict) as device:
        device.hello()
        channel, endpoint = device.register()
    until(lambda: put(endpoint, 1) == 202, "the farm knows that the device is away")
    with Device(strict) as other:
        other.hello(device.uaid, tuple(channels))
        assert other.uaid != device.uaid
    with Device(strict) as again:
        again.hello(device.uaid, (channel, *channels[:2]))
        assert again.uaid == device.uaid
        assert again.updates() == [(channel, 1)]  # nothing of it was deleted


def test_a_full_inbox_refuses_and_keeps_what_it_has(strict: Farm) -> None:
    with Device(strict) as device:
        device.hello()
        endpoints = [device.register()[1] for _ in range(3)]
    until(lambda: put(endpoints[0], 1) == 202, "the farm knows that the device is away")
    assert put(endpoints[1], 1) == 202
    refused = curl("--request", "PUT", endpoints[2])
    assert refused.status == 503
    assert refused.headers["retry-after"].isdigit()
    assert put(endpoints[0], 2) == 202  # in place of what is there
    with Device(strict) as again:
        again.hello(device.uaid)
        assert sorted(version for _, version in again.updates()) == [1, 2]


def test_after_an_ack_the_rest_is_said_again_if_so_set(strict: Farm) -> None:
    with Device(strict) as device:
        device.hello()
        (one, first), (two, second) = device.register(), device.register()
        assert put(first, 1) == 200
        assert put(second, 1) == 200
        assert device.updates() == [(one, 1)]
        assert device.updates() == [(two, 1)]
        device.ack((one, 1))
        assert device.updates() == [(two, 1)]


def test_limits_of_messages_are_settings(strict: Farm) -> None:
    with Device(strict) as device:
        device.socket.send("x" * 2001)
        assert device.close_code() == 1009
    with Device(strict) as device:
        for _ in range(5):
            device.socket.send_frame(ABNF.create_frame("", ABNF.OPCODE_TEXT if _ == 0 else ABNF.OPCODE_CONT, 0))
        assert device.close_code() == 1009


def test_cors(strict: Farm) -> None:
    for arguments, status in ((("--request", "OPTIONS"), 200), (("--request", "PUT"), 404), ((), 405)):
        answer = curl(*arguments, strict.url("/update/x"))
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "PUT, OPTIONS"


def test_limits_of_pushes_are_settings(strict: Farm) -> None:
    with Device(strict) as device:
        device.hello()
        _, endpoint = device.register()
        assert put(endpoint, 1, "--data", "data=" + "x" * 11) == 413
    lines = b'{"token":"x"}\n' * 4
    assert curl("--data-binary", lines.decode(), strict.url("/v1/push")).status == 413
