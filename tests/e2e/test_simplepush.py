"""A whole farm from outside: devices on websocket-client and trio-websocket, app servers on curl, and bad company."""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket
import websocket
from support.farm_fixture import PATIENCE_S, Farm, Json, Raw, curl, new_channel, refusal, running_farm, until
from support.simplepush import Device, put
from websocket import ABNF
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from router.common.token import new_key

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: push\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n"
)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """Two workers, everything at its default but what only makes tests wait, and the echo dialect."""
    with running_farm(tmp_path_factory.mktemp("farm") / "data", {"dialects.echo": True}) as farm:
        yield farm


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    """One worker with short deadlines, low limits and an origin list."""
    settings = {
        "worker.origins": "https://good.example,https://also.example:8443",
        "worker.max_connections": 8,
        "worker.handshake_timeout": 1,
        "worker.retry_after": 17,
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
        "endpoint.request_timeout": 1,
        "endpoint.idle_timeout": 1,
        "endpoint.max_batch": 3,
        "store.inbox_limit": 2,
    }
    with running_farm(tmp_path_factory.mktemp("strict") / "data", settings, workers=1) as farm:
        yield farm


@pytest.fixture
def device(farm: Farm) -> Iterator[Device]:
    """A device that has said hello."""
    with Device(farm) as device:
        device.hello()
        yield device


def masked(opcode: int, payload: bytes, *, fin: bool = True, mask: bytes = b"\x11\x22\x33\x44") -> bytes:
    """One frame of a client."""
    frame = ABNF(1 if fin else 0, 0, 0, 0, opcode, 1, payload)
    frame.get_mask_key = lambda _: mask
    return frame.format()


def text(command: object) -> bytes:
    return masked(ABNF.OPCODE_TEXT, command if isinstance(command, bytes) else json.dumps(command).encode())


def hello(uaid: str = "", channels: tuple[str, ...] = ()) -> Json:
    return {"messageType": "hello", "uaid": uaid, "channelIDs": list(channels)}


class RawDevice(Raw):
    """A device whose bytes the test writes itself; wsproto reads the upgrade, websocket-client the frames."""

    def __init__(self, farm: Farm) -> None:
        super().__init__(farm.device_port)
        upgrade = WSConnection(ConnectionType.CLIENT)
        self.send(upgrade.send(Request(host="push", target="/")))
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += self.socket.recv(1)
        upgrade.receive_data(answer)
        assert isinstance(next(upgrade.events()), AcceptConnection)
        self._frames = websocket.WebSocket()
        self._frames.sock = self.socket
        self._frames.connected = True

    def receive(self) -> Any:
        """One text message, decoded."""
        opcode, payload = self._frames.recv_data()
        assert opcode == ABNF.OPCODE_TEXT, (opcode, payload)
        return json.loads(payload)

    def frame(self) -> tuple[int, bytes]:
        """One frame of any kind."""
        frame = self._frames.recv_frame()
        return frame.opcode, frame.data

    def close_code(self) -> int:
        """The code of the close frame, which must be next."""
        opcode, payload = self.frame()
        assert opcode == ABNF.OPCODE_CLOSE, (opcode, payload)
        return int.from_bytes(payload[:2], "big")


# ---------------------------------------------------------------------- the way through


def test_a_push_reaches_its_device(farm: Farm) -> None:
    with Device(farm) as device:
        assert device.socket.getsubprotocol() == "push-notification"
        reply = device.hello()
        assert reply == {"messageType": "hello", "uaid": device.uaid, "status": 200}
        assert len(device.uaid) == 32
        channel, endpoint = device.register()
        assert endpoint.startswith(farm.url("/update/"))
        assert put(endpoint, 7) == 200
        assert device.updates() == [(channel, 7)]
        device.ack((channel, 7))
        answer = curl("--request", "PUT", "--data", "version=8&data=so+it+is", endpoint)
        assert (answer.status, answer.body, answer.headers["content-type"]) == (200, b"{}", "application/json")
        assert device.receive() == {
            "messageType": "notification",
            "updates": [{"channelID": channel, "version": 8, "data": "so it is"}],
        }


def test_the_same_on_trio_websocket(farm: Farm) -> None:
    async def main() -> None:
        url = farm.device_url
        async with trio_websocket.open_websocket_url(url, subprotocols=["other", "push-notification"]) as device:
            assert device.subprotocol == "push-notification"
            await device.send_message(json.dumps(hello()))
            uaid = json.loads(await device.get_message())["uaid"]
            channel = new_channel()
            await device.send_message(json.dumps({"messageType": "register", "channelID": channel}))
            registered = json.loads(await device.get_message())
            assert registered["uaid"] == uaid
            assert await trio.to_thread.run_sync(put, registered["pushEndpoint"], 1) == 200
            assert json.loads(await device.get_message())["updates"] == [{"channelID": channel, "version": 1}]
            await device.send_message(json.dumps({"messageType": "ack", "updates": [{"channelID": channel}]}))
            await device.ping(b"still there?")
        assert device.closed.code == 1000

    trio.run(main)


@pytest.mark.parametrize("headers", [[], ["Sec-WebSocket-Protocol: other"]])
def test_the_subprotocol_is_only_named_if_it_was_offered(farm: Farm, headers: list[str]) -> None:
    with Device(farm, subprotocols=None, header=headers) as device:
        assert device.socket.getsubprotocol() is None
        assert "sec-websocket-protocol" not in (device.socket.getheaders() or {})
        device.hello()


def test_what_came_while_the_device_was_away_waits_for_it(farm: Farm) -> None:
    with Device(farm) as device:
        device.hello()
        first, first_endpoint = device.register()
        second, second_endpoint = device.register()
        never, _ = device.register()
    until(lambda: put(first_endpoint, 1) == 202, "the farm knows that the device is away")
    assert put(first_endpoint, 2, "--data", "data=gone") == 202
    assert put(second_endpoint, 5) == 202
    with Device(farm) as again:
        again.hello(device.uaid, (first, second, never))
        assert again.uaid == device.uaid
        assert sorted(again.updates()) == sorted([(first, 2), (second, 5)])
        again.ack((first, 2), (second, 4))  # an older version than the one that waits
        again.settle()
    with Device(farm) as again:
        again.hello(device.uaid)
        assert again.updates() == [(second, 5)]
        again.hello(device.uaid)
        assert again.updates() == [(second, 5)]
        again.ack((second, 5))
        again.settle()
    with Device(farm) as again:
        again.hello(device.uaid)
        assert again.ask(messageType="ping") == {}  # nothing before it


def test_an_unregistered_channel_forgets_what_waited(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    assert put(endpoint, 3) == 200
    assert device.updates() == [(channel, 3)]
    assert device.ask(messageType="unregister", channelID=channel) == {
        "messageType": "unregister",
        "status": 200,
        "channelID": channel,
    }
    device.hello(device.uaid)
    assert device.ask(messageType="ping") == {}


def test_a_version_may_be_left_out(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    before = int(time.time())
    assert put(endpoint) == 200
    [(told, version)] = device.updates()
    assert told == channel
    assert before <= version <= time.time() + 1


@pytest.mark.parametrize("times", [1, 12])
def test_the_newest_connection_of_a_uaid_wins(farm: Farm, device: Device, times: int) -> None:
    # One new connection lands on either shard; of twelve some change the shard and some do not.
    channel, endpoint = device.register()
    moved = farm.status()["router"]["devices_moved"]
    holder = device
    with contextlib.ExitStack() as stack:
        for version in range(1, times + 1):
            newer = stack.enter_context(Device(farm))
            newer.hello(device.uaid, (channel,))
            assert holder.close_code() == 1001
            holder = newer
            assert put(endpoint, version) == 200
            assert holder.updates() == [(channel, version)]
            holder.ack((channel, version))
            holder.settle()
        if times > 1:
            # The chance that all of twelve find the shard of the one before them is 1 in 4096.
            assert farm.status()["router"]["devices_moved"] > moved


# ---------------------------------------------------------------------- segments and frames


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


def test_echo(farm: Farm) -> None:
    device = websocket.create_connection(farm.device_url + "echo", timeout=PATIENCE_S)
    for length in (0, 1, 125, 126, 65_535, 65_536, 262_144):
        device.send("ä" * (length // 2))
        assert device.recv() == "ä" * (length // 2)
        payload = os.urandom(length)
        device.send_binary(payload)
        assert device.recv() == payload
    for opcode, parts in ((ABNF.OPCODE_TEXT, [b"\xc3", b"\xa4", b"!"]), (ABNF.OPCODE_BINARY, [b"\0", b"", b"\xff"])):
        for position, part in enumerate(parts):
            last = position == len(parts) - 1
            device.send_frame(ABNF.create_frame(part, ABNF.OPCODE_CONT if position else opcode, 1 if last else 0))
            device.ping("between")
        answers = [device.recv_data(control_frame=True) for _ in range(4)]
        assert sorted(answers) == sorted([(opcode, b"".join(parts)), *[(ABNF.OPCODE_PONG, b"between")] * 3])
    device.close(timeout=PATIENCE_S)


def test_echo_to_trio_websocket(farm: Farm) -> None:
    async def main() -> None:
        async with trio_websocket.open_websocket_url(farm.device_url + "echo") as device:
            for message in ("text", b"binary", "", b"", "x" * 200_000):
                await device.send_message(message)
                assert await device.get_message() == message
        assert device.closed.code == 1000

    trio.run(main)


# ---------------------------------------------------------------------- commands that fail


@pytest.mark.parametrize(
    ("command", "status", "reason"),
    [
        ({"messageType": "register", "channelID": new_channel()}, 401, "Command requires handshake"),
        ({"messageType": "what"}, 401, "Unsupported command type"),
        ({"messageType": 5}, 401, "Invalid command header"),
        ([], 401, "Invalid command header"),
        ({"messageType": "hello"}, 401, "Missing one or more required command fields"),
        (hello("no uuid"), 503, "Invalid device ID"),
    ],
)
def test_an_error_is_told_and_ends_the_connection(farm: Farm, command: object, status: int, reason: str) -> None:
    with Device(farm) as device:
        device.send(command)
        reply = device.receive()
        assert (reply["status"], reply["reason"]) == (status, reason)
        assert reply["error"] == ("Invalid Command" if status == 401 else reason)
        assert device.close_code() == 1000


def test_what_is_not_json_gets_no_reply(farm: Farm) -> None:
    with Device(farm) as device:
        device.socket.send("{")
        assert device.close_code() == 1000


def test_a_second_uaid_on_one_connection_is_refused(farm: Farm, device: Device) -> None:
    reply = device.ask(**hello(new_channel()))
    assert (reply["status"], reply["error"]) == (503, "Device ID already assigned to this client")
    assert device.close_code() == 1000


def test_a_ping_flood_is_closed(farm: Farm, device: Device) -> None:
    assert device.ask() == {}
    reply = device.ask(messageType="ping")
    assert (reply["status"], reply["error"]) == (401, "Invalid Command")
    assert reply["reason"] == "Client sent too many pings"
    assert device.close_code() == 1000


# ---------------------------------------------------------------------- deadlines and limits of devices


def good(strict: Farm) -> Device:
    return Device(strict, origin="https://good.example")


def test_without_a_hello_in_time_the_connection_ends(strict: Farm) -> None:
    with good(strict) as device:
        assert device.ask(messageType="ping") == {"messageType": "ping", "status": 200}
        assert device.close_code() == 1000


def test_a_silent_device_is_sent_pings(strict: Farm) -> None:
    with good(strict) as device:
        device.hello()
        assert [device.receive(), device.receive()] == [{}, {}]
        assert device.ask(messageType="ping") == {"messageType": "ping", "status": 200}


def test_too_many_channels_get_a_fresh_uaid(strict: Farm) -> None:
    channels = [new_channel() for _ in range(4)]
    with good(strict) as device:
        device.hello()
        channel, endpoint = device.register()
    until(lambda: put(endpoint, 1) == 202, "the farm knows that the device is away")
    with good(strict) as other:
        other.hello(device.uaid, tuple(channels))
        assert other.uaid != device.uaid
    with good(strict) as again:
        again.hello(device.uaid, (channel, *channels[:2]))
        assert again.uaid == device.uaid
        assert again.updates() == [(channel, 1)]  # nothing of it was deleted


def test_an_unknown_uaid_with_channels_gets_a_fresh_one(farm: Farm) -> None:
    unknown = new_channel()
    with Device(farm) as device:
        device.hello(unknown, (new_channel(),))
        assert device.uaid != unknown
    with Device(farm) as device:
        device.hello(unknown)
        assert device.uaid == unknown


def test_a_full_inbox_refuses_and_keeps_what_it_has(strict: Farm) -> None:
    with good(strict) as device:
        device.hello()
        endpoints = [device.register()[1] for _ in range(3)]
    until(lambda: put(endpoints[0], 1) == 202, "the farm knows that the device is away")
    assert put(endpoints[1], 1) == 202
    refused = curl("--request", "PUT", endpoints[2])
    assert refused.status == 503
    assert refused.headers["retry-after"].isdigit()
    assert put(endpoints[0], 2) == 202  # in place of what is there
    with good(strict) as again:
        again.hello(device.uaid)
        assert sorted(version for _, version in again.updates()) == [1, 2]


def test_after_an_ack_the_rest_is_said_again_if_so_set(strict: Farm) -> None:
    with good(strict) as device:
        device.hello()
        (one, first), (two, second) = device.register(), device.register()
        assert put(first, 1) == 200
        assert put(second, 1) == 200
        assert device.updates() == [(one, 1)]
        assert device.updates() == [(two, 1)]
        device.ack((one, 1))
        assert device.updates() == [(two, 1)]


@pytest.mark.parametrize("origin", ["https://good.example", "https://also.example:8443"])
def test_allowed_origins(strict: Farm, origin: str) -> None:
    with Device(strict, origin=origin) as device:
        device.hello()


@pytest.mark.parametrize("origin", ["https://good.example:443", "http://good.example", "https://also.example", None])
def test_other_origins(strict: Farm, origin: str | None) -> None:
    with pytest.raises(websocket.WebSocketBadStatusException) as raised:
        Device(strict, **({"origin": origin} if origin else {"suppress_origin": True}))
    assert raised.value.status_code == 403


def test_limits_of_messages_are_settings(strict: Farm) -> None:
    with good(strict) as device:
        device.socket.send("x" * 2001)
        assert device.close_code() == 1009
    with good(strict) as device:
        for _ in range(5):
            device.socket.send_frame(ABNF.create_frame("", ABNF.OPCODE_TEXT if _ == 0 else ABNF.OPCODE_CONT, 0))
        assert device.close_code() == 1009


def test_a_full_worker_says_when_to_come_again(strict: Farm) -> None:
    def fill() -> websocket.WebSocketBadStatusException | None:
        try:
            stack.enter_context(good(strict)).hello()
        except websocket.WebSocketBadStatusException as error:
            return error
        return None

    with contextlib.ExitStack() as stack:
        until(lambda: strict.counter("connections") == 0, "the devices of other tests have gone")
        error = None
        for _ in range(9):
            assert error is None
            error = fill()
        assert error is not None and error.status_code == 503
        assert error.resp_headers is not None and error.resp_headers["retry-after"] == "17"
    with contextlib.ExitStack() as stack:
        until(lambda: fill() is None, "there is room again")


# ---------------------------------------------------------------------- the device port and HTTP


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET / HTTP/1.1\r\nHost push\r\n\r\n", 400),
        ("GET / HTTP/2.0\r\nHost: push\r\n\r\n", 505),
        ("GET  / HTTP/1.1\r\nHost: push\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\nHost: push\n\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: push\r\n folded: no\r\n\r\n", 400),
        (UPGRADE.replace(KEY, "short") + "\r\n", 400),
        ("GET /nothing HTTP/1.1\r\nHost: push\r\n\r\n", 404),
        ("POST / HTTP/1.1\r\nHost: push\r\n\r\n", 405),
        ("GET / HTTP/1.1\r\nHost: push\r\nContent-Length: 4\r\n\r\nbody", 413),
        ("GET / HTTP/1.1\r\nHost: push\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        ("GET / HTTP/1.1\r\nHost: push\r\n\r\n", 426),
        (UPGRADE.replace("Version: 13", "Version: 8") + "\r\n", 426),
        ("GET /" + "x" * 9000 + " HTTP/1.1\r\nHost: push\r\n\r\n", 414),
        ("GET / HTTP/1.1\r\nHost: push\r\n" + "A: b\r\n" * 65 + "\r\n", 431),
    ],
)
def test_what_is_no_upgrade_gets_a_proper_answer(farm: Farm, request_text: str, status: int) -> None:
    answer = refusal(farm.device_port, request_text.encode())
    assert answer.status == status
    assert answer.headers["connection"].lower().endswith("close")
    assert int(answer.headers["content-length"]) == len(answer.body)
    if status == 405:
        assert answer.headers["allow"] == "GET, HEAD"
    if status == 426:
        assert answer.headers["upgrade"] == "websocket"


def test_curl_understands_the_device_port(farm: Farm) -> None:
    assert curl(f"http://127.0.0.1:{farm.device_port}/").status == 426
    assert curl("--http2", f"http://127.0.0.1:{farm.device_port}/").status == 426
    assert curl("--head", f"http://127.0.0.1:{farm.device_port}/").status == 426


@pytest.mark.parametrize("port", ["device_port", "router_port"])
def test_tls_and_garbage_are_sent_away(farm: Farm, port: str) -> None:
    number = getattr(farm, port)
    context = ssl.create_default_context()
    with socket.create_connection(("127.0.0.1", number), timeout=PATIENCE_S) as plain, pytest.raises(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="push")
    for garbage in (b"\0" * 100, b"\r\n\r\n\r\n", os.urandom(5000), b"SSH-2.0-x\r\n", b"\xff"):
        with Raw(number) as raw:
            raw.send(garbage)
            raw.socket.shutdown(socket.SHUT_WR)
            answer = raw.rest()
            assert not answer or answer.startswith(b"HTTP/1.1 4")
    with Device(farm) as device:
        device.hello()


@pytest.mark.parametrize("port", ["device_port", "router_port"])
def test_a_request_that_never_ends_is_given_up(strict: Farm, port: str) -> None:
    with Raw(getattr(strict, port)) as slow, Raw(getattr(strict, port)) as silent:
        started = time.monotonic()
        slow.send(b"GET / HTTP/1.1\r\n")
        slow.socket.settimeout(0.1)
        answer = b""
        with contextlib.suppress(OSError):  # it keeps sending a byte now and then, until it is told
            while not answer:
                assert time.monotonic() - started < PATIENCE_S
                slow.send(b"a")
                with contextlib.suppress(TimeoutError):
                    answer = slow.socket.recv(4096)
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert silent.rest() == b""


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


# ---------------------------------------------------------------------- the app servers' port


@pytest.mark.parametrize(
    ("arguments", "status", "body"),
    [
        (("--data", "version=-1"), 400, '"Invalid Version"'),
        (("--data", "version=one"), 400, '"Invalid Version"'),
        (("--data", f"version={2**63}"), 400, '"Invalid Version"'),
        (("--data", "version=1&data=" + "x" * 4097), 413, '"Data exceeds max length of 4096 bytes"'),
        (("--request", "POST"), 405, '"Method Not Allowed"'),
        (("--request", "DELETE"), 405, '"Method Not Allowed"'),
    ],
)
def test_a_push_that_is_refused(farm: Farm, device: Device, arguments: tuple[str, ...], status: int, body: str) -> None:
    _, endpoint = device.register()
    answer = curl("--request", "PUT", *arguments, endpoint)
    assert (answer.status, answer.body.decode()) == (status, body)
    if status == 405:
        assert answer.headers["allow"] == "PUT, OPTIONS"


def test_ways_to_say_version_and_data(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    body = "version=5&data=five"
    for arguments in (
        ("--data", body),
        ("--header", "Content-Type:", "--data", body),
        ("--form", "version=5", "--form", "data=five"),
        ("--get", "--data", body),
    ):
        assert curl("--request", "PUT", *arguments, endpoint).status == 200
        assert device.receive()["updates"] == [{"channelID": channel, "version": 5, "data": "five"}]
    # Another type of body is not looked at.
    before = time.time() - 1
    assert curl("--request", "PUT", "--header", "Content-Type: text/plain", "--data", body, endpoint).status == 200
    [update] = device.receive()["updates"]
    assert update["version"] >= before
    assert "data" not in update


@pytest.mark.parametrize("token", ["", "x", "%00", "AAAA", "ä", "a" * 5000])
def test_tokens_that_are_none(farm: Farm, token: str) -> None:
    answer = curl("--request", "PUT", farm.url(f"/update/{token}"))
    assert (answer.status, answer.body) == (404, b'"Invalid Token"')


def test_a_token_with_one_bit_changed_opens_nothing(farm: Farm, device: Device) -> None:
    _, endpoint = device.register()
    for position in (-1, -20, -40, len(farm.url("/update/")) + 1):
        other = "A" if endpoint[position] != "A" else "Q"
        changed = endpoint[:position] + other + (endpoint[position:][1:])
        assert put(changed, 1) == 404


def test_limits_of_requests(farm: Farm) -> None:
    assert curl("--request", "PUT", "--header", "Long: " + "x" * 17_000, farm.url("/update/x")).status == 431
    many = [part for number in range(120) for part in ("--header", f"H{number}: x")]
    assert curl(*many, farm.url("/status/")).status == 431
    assert curl(farm.url("/" + "x" * 17_000)).status in (414, 431)
    assert (
        refusal(farm.router_port, b"PUT /update/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n").status == 413
    )
    chunks = (
        b"PUT /update/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + (b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 17
    )
    assert refusal(farm.router_port, chunks).status == 413
    assert refusal(farm.router_port, b"GET /status/ HTTP/1.1\r\n\r\n").status == 400
    assert refusal(farm.router_port, b"GET /status/ HTTP/x\r\n\r\n").status == 400
    assert refusal(farm.router_port, b"NONSENSE /status/ HTTP/1.1\r\n\r\n").status == 501
    assert curl(farm.url("/nothing")).status == 404


def test_a_large_body_after_expect_continue(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    headers = ("--header", "Expect: 100-continue", "--header", "Content-Type: application/octet-stream")
    body = b"x" * 1_000_000
    assert curl("--request", "PUT", *headers, "--data-binary", "@-", endpoint + "?version=9", stdin=body).status == 200
    assert device.updates() == [(channel, 9)]


def test_without_cors_no_page_is_invited(farm: Farm) -> None:
    answer = curl("--request", "OPTIONS", farm.url("/update/x"))
    assert answer.status == 200
    assert "access-control-allow-origin" not in answer.headers


def test_cors(strict: Farm) -> None:
    for arguments, status in ((("--request", "OPTIONS"), 200), (("--request", "PUT"), 404), ((), 405)):
        answer = curl(*arguments, strict.url("/update/x"))
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == "*"
        assert answer.headers["access-control-allow-methods"] == "PUT, OPTIONS"


def test_limits_of_pushes_are_settings(strict: Farm) -> None:
    with good(strict) as device:
        device.hello()
        _, endpoint = device.register()
        assert put(endpoint, 1, "--data", "data=" + "x" * 11) == 413
    lines = b'{"token":"x"}\n' * 4
    assert curl("--data-binary", lines.decode(), strict.url("/v1/push")).status == 413


def test_keep_alive(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    path = endpoint.removeprefix(farm.url(""))
    connection = http.client.HTTPConnection("127.0.0.1", farm.router_port, timeout=PATIENCE_S)
    connection.connect()
    used = connection.sock
    for version in range(1, 30):
        connection.request("PUT", path, f"version={version}")
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (200, b"{}")
        assert device.updates() == [(channel, version)]
    assert connection.sock is used
    connection.request("PUT", path, headers={"Connection": "close"})
    assert connection.getresponse().getheader("connection") == "close"
    connection.close()
    old = refusal(farm.router_port, f"PUT {path} HTTP/1.0\r\n\r\n".encode())
    assert old.status == 200


def test_pipelined_requests_are_answered_in_order(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    path = endpoint.removeprefix(farm.url(""))
    with Raw(farm.router_port) as raw:
        parts = []
        for version in range(1, 301):
            body = f"version={version}"
            parts.append(f"PUT {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}")
            parts.append("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n")
        raw.send("".join(parts).encode())
        assert [answer.status for answer in raw.answers(600)] == [200, 404] * 300
    assert [device.updates() for _ in range(300)] == [[(channel, version)] for version in range(1, 301)]


def test_a_half_closed_app_server_gets_its_answer(farm: Farm, device: Device) -> None:
    channel, endpoint = device.register()
    path = endpoint.removeprefix(farm.url(""))
    with Raw(farm.router_port) as raw:
        raw.send(f"PUT {path}?version=4 HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.rest().startswith(b"HTTP/1.1 200 ")
    assert device.updates() == [(channel, 4)]


def test_an_idle_app_server_is_closed(strict: Farm) -> None:
    with Raw(strict.router_port) as raw:
        raw.send(b"GET /status/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert raw.answers(1)[0].status == 200
        assert raw.rest() == b""


def test_many_pushes_in_one_request(farm: Farm, device: Device) -> None:
    one, first = device.register()
    two, second = device.register()
    with Device(farm) as away:
        away.hello()
        _, third = away.register()
    until(lambda: put(third, 1) == 202, "the farm knows that the device is away")
    lines = [
        {"endpoint": first, "version": 1},
        {"token": second.rpartition("/")[2], "version": "2", "data": "two"},
        {"endpoint": third, "version": 3},
        {"token": "none", "version": 1},
        {"endpoint": first, "version": -1},
        {"endpoint": first, "data": "x" * 4097},
        {"endpoint": 5},
    ]
    body = "\n".join(json.dumps(line) for line in lines) + "\nno JSON\n\n"
    answer = curl("--data-binary", body, farm.url("/v1/push"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/x-ndjson")
    answers = [json.loads(line) for line in answer.body.splitlines()]
    assert [line["status"] for line in answers] == [200, 200, 202, 404, 400, 413, 400, 400]
    assert all(("error" in line) == (line["status"] >= 300) for line in answers)
    assert device.updates() == [(one, 1)]
    assert device.receive()["updates"] == [{"channelID": two, "version": 2, "data": "two"}]
    assert curl("--data-binary", "\n", farm.url("/v1/push")).status == 400
    assert curl(farm.url("/v1/push")).status == 405


def test_pages_of_pushgo(farm: Farm, device: Device) -> None:
    _, endpoint = device.register()
    assert put(endpoint, 1) == 200
    status = curl(farm.url("/status/"))
    assert status.status == 200
    assert status.json()["status"] == "OK"
    assert status.json()["clients"] >= 1
    real = curl(farm.url("/realstatus/")).json()
    assert real["ok"] is True
    assert {plugin["name"]: plugin["ok"] for plugin in real["plugins"]} == {"store": True, "router": True}
    until(lambda: curl(farm.url("/metrics/")).json()["counter.updates.client.hello"] > 0, "a worker's beat")
    numbers = curl(farm.url("/metrics/")).json()
    assert numbers["counter.updates.appserver.received"] > 0
    assert all(isinstance(number, int | float) for number in numbers.values())
    assert curl("--request", "POST", farm.url("/status/")).status == 405
    head = curl("--head", farm.url("/status/"))
    assert (head.status, head.body) == (200, b"")


def test_the_admin_port(farm: Farm, device: Device) -> None:
    code, body = farm.admin("/health")
    assert (code, json.loads(body)) == (200, {"status": "ok", "down": [], "workers": 2})
    until(lambda: farm.status()["connections"] >= 1, "a worker's beat")
    status = farm.status()
    assert [row["state"] for row in status["workers"]] == ["up", "up"]
    assert len({row["pid"] for row in status["workers"]} | {status["pid"], status["router"]["pid"]}) == 4
    assert status["ports"] == {
        "device": farm.device_port,
        "router": farm.router_port,
        "admin": farm.admin_port,
    }
    page = farm.admin("/metrics")[1].decode()
    assert "farm_up 1.0" in page
    assert 'farm_worker_connections{shard="0"}' in page
    assert "farm_router_pushes_total" in page


# ---------------------------------------------------------------------- token keys


def test_token_keys(tmp_path: Path) -> None:
    with running_farm(tmp_path / "data", workers=1) as farm:
        key_file = farm.data / "token.key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert farm.data.stat().st_mode & 0o777 == 0o700
        made = key_file.read_text().strip()
        with Device(farm) as device:
            device.hello()
            channel, old_endpoint = device.register()
        farm.stop()

        # A new key before the old one: endpoints given out earlier go on working.
        fresh = new_key()
        farm.settings["token.keys"] = f"{fresh},{made}"
        farm.start()
        with Device(farm) as again:
            again.hello(device.uaid, (channel,))
            assert again.uaid == device.uaid
            _, new_endpoint = again.register(channel)
            assert put(old_endpoint, 1) == 200
            assert put(new_endpoint, 2) == 200
            assert [again.updates(), again.updates()] == [[(channel, 1)], [(channel, 2)]]
        farm.stop()

        # Without the old key they are nothing any more.
        farm.settings["token.keys"] = fresh
        farm.start()
        assert put(old_endpoint, 3) == 404
        assert put(new_endpoint, 3) == 202


def test_a_refused_request_is_counted(farm: Farm) -> None:
    before = farm.status()["router"]["http_bad_requests"]
    assert refusal(farm.router_port, b"GARBAGE\r\n\r\n").status >= 400
    until(lambda: farm.status()["router"]["http_bad_requests"] > before, "the refusal is counted")
