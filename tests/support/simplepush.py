"""The two sides of SimplePush for the end-to-end tests: a device on websocket-client, an app server on curl."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import websocket

from support.dialects import Close
from support.farm_fixture import PATIENCE_S, Farm, Json, curl, new_channel

CLOSES: Final = [
    Close("", "what is this", None),
    Close("", '{"messageType":"hello","uaid":"","channelIDs":[]}', 1001, on_reload=True),
]


def put(endpoint: str, version: int | None = None, *more: str) -> int:
    """`curl -X PUT` as in the README. Returns: status."""
    form = [] if version is None else ["--data", f"version={version}"]
    return curl("--request", "PUT", *form, *more, endpoint).status


def push_many(farm: Farm, pushes: list[Json]) -> list[int]:
    """One `/v1/push` request. Returns: the status of each."""
    body = "\n".join(map(json.dumps, pushes)).encode()
    answer = curl("--data-binary", "@-", farm.url("/v1/push"), stdin=body)
    assert answer.status == 200, answer
    return [json.loads(line)["status"] for line in answer.body.splitlines()]


class Device:
    """A SimplePush device on websocket-client, which blocks: one step after the other."""

    def __init__(self, farm: Farm, **options: Any) -> None:
        options = {"subprotocols": ["push-notification"], "timeout": PATIENCE_S} | options
        self.socket = websocket.create_connection(farm.device_url, **options)
        self.uaid = ""

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close(timeout=PATIENCE_S)
        self.socket.shutdown()  # close() leaves the socket open if the server has closed first

    def send(self, command: object) -> None:
        """One command, as JSON."""
        self.socket.send(json.dumps(command))

    def receive(self) -> Any:
        """One message, decoded."""
        return json.loads(self.socket.recv())

    def ask(self, **command: Any) -> Any:
        """One command and its reply."""
        self.send(command)
        return self.receive()

    def hello(self, uaid: str = "", channels: tuple[str, ...] = ()) -> Any:
        """Send hello. Returns: the reply, whose status must be 200."""
        reply = self.ask(messageType="hello", uaid=uaid, channelIDs=list(channels))
        assert reply["status"] == 200, reply
        self.uaid = reply["uaid"]
        return reply

    def register(self, channel: str = "") -> tuple[str, str]:
        """Register a channel. Returns: the channel and its endpoint."""
        channel = channel or new_channel()
        reply = self.ask(messageType="register", channelID=channel)
        assert reply["status"] == 200 and reply["channelID"] == channel, reply
        return channel, reply["pushEndpoint"]

    def updates(self) -> list[tuple[str, int]]:
        """Wait for a notification. Returns: (channel, version) pairs."""
        message = self.receive()
        assert message["messageType"] == "notification", message
        return [(update["channelID"], update["version"]) for update in message["updates"]]

    def ack(self, *updates: tuple[str, int]) -> None:
        """Acknowledge; there is no reply."""
        pairs = [{"channelID": channel, "version": version} for channel, version in updates]
        self.send({"messageType": "ack", "updates": pairs})

    def settle(self) -> None:
        """Wait until everything sent so far has been handled, in the store too."""
        self.ask(messageType="unregister", channelID=new_channel())

    def close_code(self) -> int | None:
        """Read on until the server's close frame. Returns: its code, None if there was none."""
        while True:
            opcode, payload = self.socket.recv_data(control_frame=True)
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return int.from_bytes(payload[:2], "big") if payload else None


@contextmanager
def reached(farm: Farm) -> Iterator[Callable[[], None]]:
    """As `support.dialects` has it."""
    with Device(farm) as device:
        device.hello()
        channel, endpoint = device.register()
        versions = itertools.count(1)

        def check() -> None:
            version = next(versions)
            assert put(endpoint, version) == 200
            assert device.updates() == [(channel, version)]
            device.ack((channel, version))

        yield check
