"""SimplePush in segments and frames as no library cuts them."""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
from collections.abc import Iterator

import pytest
from support.farm_fixture import UPGRADE, Farm, Raw, new_channel, running_farm, until
from support.simplepush import Device, put
from support.simplepush_frames import RawDevice, hello, masked, text
from websocket import ABNF


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data") as farm:
        yield farm


@pytest.fixture
def device(farm: Farm) -> Iterator[Device]:
    """A device that has said hello."""
    with Device(farm) as device:
        device.hello()
        yield device


def test_several_commands_in_one_segment(farm: Farm) -> None:
    channels = [new_channel() for _ in range(20)]
    with RawDevice(farm) as device:
        commands = [text({"messageType": "register", "channelID": channel}) for channel in channels]
        device.send(text(b"{}") + text(hello()) + b"".join(commands))
        assert device.receive() == {}
        assert device.receive()["messageType"] == "hello"
        assert [device.receive()["channelID"] for _ in channels] == channels


def test_the_first_command_may_come_with_the_upgrade(farm: Farm) -> None:
    with Raw(farm.device_port) as device:
        device.send(UPGRADE.encode() + b"\r\n" + text(hello()) + text({"messageType": "nonsense"}))
        answer = device.rest()
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert answer.index(b'"status":200') < answer.index(b'"status":401')


def test_one_command_in_many_segments(farm: Farm) -> None:
    with RawDevice(farm) as device:
        device.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in text(hello()):
            device.send(bytes([byte]))
        assert device.receive()["status"] == 200


def test_fragments_with_control_frames_between_them(farm: Farm) -> None:
    command = json.dumps(hello()).encode()
    with RawDevice(farm) as device:
        device.send(masked(ABNF.OPCODE_TEXT, command[:5], fin=False) + masked(ABNF.OPCODE_PING, b"between"))
        assert device.frame() == (ABNF.OPCODE_PONG, b"between")
        device.send(masked(ABNF.OPCODE_CONT, command[5:9], fin=False) + masked(ABNF.OPCODE_PONG, b""))
        device.send(masked(ABNF.OPCODE_CONT, command[9:]))
        assert device.receive()["status"] == 200


def test_a_ping_frame_behind_a_command_is_answered_after_it(farm: Farm) -> None:
    with RawDevice(farm) as device:
        device.send(text(hello()) + masked(ABNF.OPCODE_PING, b"one") + text({"messageType": "ping"}))
        device.send(masked(ABNF.OPCODE_PING, b"two"))
        assert device.receive()["messageType"] == "hello"
        assert [device.frame() for _ in range(3)] == [
            (ABNF.OPCODE_PONG, b"one"),
            (ABNF.OPCODE_TEXT, b"{}"),
            (ABNF.OPCODE_PONG, b"two"),
        ]


def test_a_message_of_256_kib_is_answered(farm: Farm, device: Device) -> None:
    command = {"messageType": "unregister", "channelID": "", "padding": ""}
    command["channelID"] = "x" * (262_144 - len(json.dumps(command)))
    device.send(command)
    assert device.receive() == {"messageType": "unregister", "status": 200, "channelID": command["channelID"]}


def test_a_longer_message_is_refused_with_1009(farm: Farm) -> None:
    with RawDevice(farm) as device:
        # Refused by its header: the payload has not come.
        device.send(b"\x81\xff" + (262_145).to_bytes(8, "big") + b"\x11\x22\x33\x44" + b"x" * 100)
        assert device.close_code() == 1009
    with RawDevice(farm) as device:
        device.send(masked(ABNF.OPCODE_TEXT, b"x" * 200_000, fin=False))
        device.send(masked(ABNF.OPCODE_CONT, b"x" * 62_145))
        assert device.close_code() == 1009


def test_fragments_without_end_are_refused_with_1009(farm: Farm) -> None:
    with RawDevice(farm) as device:
        device.send(masked(ABNF.OPCODE_TEXT, b"", fin=False) + masked(ABNF.OPCODE_CONT, b"", fin=False) * 256)
        assert device.close_code() == 1009


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x02{}", 1002),  # not masked
        (b"\xc1\x82\0\0\0\0{}", 1002),  # a reserved bit
        (b"\x83\x80\0\0\0\0", 1002),  # a reserved opcode
        (b"\x80\x80\0\0\0\0", 1002),  # goes on with nothing
        (b"\x09\x80\0\0\0\0", 1002),  # a ping in fragments
        (b"\x89\xfe\x00\x7e\0\0\0\0", 1002),  # a ping of 126 bytes
        (b"\x81\xfe\x00\x02\0\0\0\0{}", 1002),  # a length longer than it needs to be
        (b"\x81\x82\0\0\0\0\xff\xfe", 1007),  # no UTF-8
        (b"\x88\x81\0\0\0\0\x03", 1002),  # a close with half a code
        (b"\x88\x82\0\0\0\0\x03\xed", 1002),  # 1005 is never sent
        (masked(ABNF.OPCODE_CLOSE, b"\x03\xe8bye"), 1000),
        (masked(ABNF.OPCODE_CLOSE, b"\x0f\xa0"), 4000),
    ],
)
def test_close_codes(farm: Farm, frame: bytes, code: int) -> None:
    with RawDevice(farm) as device:
        device.send(frame)
        assert device.close_code() == code
        assert device.rest() == b""  # and the connection ends


def test_bad_company_does_not_disturb_a_good_device(farm: Farm) -> None:
    frames = (
        b"\x81\x02{}",
        b"\x81\x82\0\0\0\0\xff\xfe",
        text(b"{"),
        text({"messageType": "what"}),
        text(hello())[:7],
        text(hello()) * 50,
        masked(ABNF.OPCODE_PING, b"x") * 500,
        masked(ABNF.OPCODE_TEXT, b"", fin=False) + masked(ABNF.OPCODE_CONT, b"", fin=False) * 300,
        masked(ABNF.OPCODE_CLOSE, b"") + masked(ABNF.OPCODE_PING, b"after the end") * 100,
    )

    def bad(number: int) -> None:
        with contextlib.suppress(OSError), Raw(farm.device_port) as raw:
            raw.send(UPGRADE.encode() + b"\r\n" + frames[number % len(frames)])
            raw.socket.settimeout(0.2)
            raw.rest()

    with Device(farm) as device, concurrent.futures.ThreadPoolExecutor(16) as pool:
        device.hello()
        channel, endpoint = device.register()
        running = [pool.submit(bad, number) for number in range(180)]
        version = 0
        while version < 10 or not all(one.done() for one in running):
            version += 1
            assert put(endpoint, version) == 200
            assert device.updates() == [(channel, version)]
            device.ack((channel, version))
        for one in running:
            one.result()
    until(lambda: farm.counter("connections") == 0, "the bad devices have gone")
    assert all(row["restarts"] == 0 for row in farm.status()["workers"])
