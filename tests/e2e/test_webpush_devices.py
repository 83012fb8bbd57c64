"""What WebPush devices may send and may not, and what becomes of their connections."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import websocket
from support.dialects import alone
from support.farm_fixture import PATIENCE_S, Farm, new_channel, running_farm
from support.webpush import UserAgent, body_of, error, post, pushed


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as farm:
        yield farm


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker with low limits, and without any other dialect."""
    settings = alone("webpush") | {
        "webpush.batch": 2,
        "webpush.max_unacked": 3,
        "webpush.max_channels": 2,
    }
    with running_farm(tmp_path_factory.mktemp("narrow") / "data", settings, workers=1) as farm:
        yield farm


def test_a_device_may_leave_so_much_unacknowledged(narrow: Farm) -> None:
    with UserAgent(narrow) as device:
        _, endpoint = device.register()
        for number in range(8):
            pushed(endpoint, f"{number}")
        first = device.notes(3)
        device.nothing()
        device.ack(*first)
        assert [body_of(note) for note in first] == ["0", "1", "2"]
        assert device.bodies(2) == ["3", "4"]
        assert device.bodies(2) == ["5", "6"]
        assert device.bodies(1) == ["7"]
        device.nothing()


def test_after_unregister_the_sender_is_told_410(farm: Farm) -> None:
    with UserAgent(farm) as device:
        channel, endpoint = device.register()
        _, kept_endpoint = device.register()
        pushed(endpoint, "a")
        pushed(kept_endpoint, "b")
        live = device.notes(2)
        device.unregister(channel)
        answer = post(endpoint, "c")
        assert error(answer) == (410, 106)
        assert answer.headers["cache-control"] == "max-age=86400"
        device.unregister(channel)
        device.nothing()
        device.ack(live[0])
    with UserAgent(farm, device.uaid) as again:
        assert again.bodies(1) == ["b"]
        again.nothing()
        assert post(endpoint, "c").status == 410
        _, renewed = again.register(channel=channel)
        pushed(renewed, "d")
        assert again.bodies(1) == ["d"]


def test_a_uaid_that_is_not_known_is_replaced(farm: Farm) -> None:
    with UserAgent(farm) as device:
        never_registered = device.uaid
    for uaid in (never_registered, "0" * 32, "", "x", new_channel()):
        with UserAgent(farm, uaid) as device:
            assert device.uaid != uaid
            assert len(device.uaid) == 32


def test_a_device_may_have_so_many_channels(narrow: Farm) -> None:
    with UserAgent(narrow) as device:
        first, _ = device.register()
        device.register()
        reply = device.ask(messageType="register", channelID=new_channel())
        assert reply["status"] == 400
        device.register(channel=first)
        device.unregister(first)
        device.register()


def test_the_newest_connection_wins(farm: Farm) -> None:
    with contextlib.ExitStack() as stack:
        holder = stack.enter_context(UserAgent(farm))
        _, endpoint = holder.register()
        for number in range(8):
            newer = stack.enter_context(UserAgent(farm, holder.uaid))
            assert holder.close_code() == 1001
            holder = newer
            pushed(endpoint, f"{number}")
            assert holder.bodies(1) == [f"{number}"]
            holder.nothing()


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("nonsense", 1008),
        ("[]", 1008),
        ('{"messageType":"hello","use_webpush":true}', 1008),
        ('{"messageType":"purge"}', 1008),
        ('{"messageType":"register","channelID":"x"}', 1008),
        ('{"messageType":"register","channelID":"AAAAAAAA-2222-3333-4444-555555555555"}', 1008),
        ('{"messageType":"ack"}', 1008),
        ('{"messageType":"ack","updates":' + "[" * 50_000, 1008),
        (b"{}", 1003),
    ],
)
def test_close_codes(farm: Farm, message: str | bytes, code: int) -> None:
    with UserAgent(farm) as device:
        if isinstance(message, str):
            device.socket.send(message)
        else:
            device.socket.send_binary(message)
        assert device.close_code() == code


def test_pings(farm: Farm) -> None:
    with UserAgent(farm) as device:
        assert device.ask() == {}
        device.send({"messageType": "ping"})
        assert device.close_code() == 1008


@pytest.mark.parametrize("first", ["{}", "x", '{"messageType":"register"}', None])
def test_where_webpush_is_alone_hello_comes_first_and_soon(narrow: Farm, first: str | None) -> None:
    device = websocket.create_connection(narrow.device_url, timeout=PATIENCE_S)
    if first is not None:
        device.send(first)
    opcode, payload = device.recv_data(control_frame=True)
    assert (opcode, payload[:2]) == (websocket.ABNF.OPCODE_CLOSE, (1008).to_bytes(2, "big"))
    device.shutdown()
