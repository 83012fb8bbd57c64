"""Devices of the Pusher dialect, as pusher-js is one: each subscribes to one public channel and listens."""

import json
from typing import Any, Final

from bench.load import frames
from bench.load.frames import PeerError, client_frame
from bench.load.http_bytes import judged
from bench.load.protocols.base import DONE, PONG, Protocol, Received, Scenario, Step
from bench.load.samples import DATA_WRONG
from bench.load.wires import EVENT

CONNECTED: Final = "pusher:connection_established"
SUBSCRIBED: Final = "pusher_internal:subscription_succeeded"
SUBSCRIBE_ERROR: Final = "pusher:subscription_error"
_EVENT: Final = EVENT.decode()
_PONG: Final = client_frame(b'{"event":"pusher:pong","data":{}}')
_CONNECT: Final = 0
_SUBSCRIBE: Final = 1


class Pusher(Protocol):
    """Upgrade, wait for the socket's ID, subscribe; set up when the subscription has succeeded.

    Args:
      key: of the application.
      channel: name of a channel: this, and its number.
    """

    steps = ("connection_established", "subscription_succeeded")
    ping = client_frame(b'{"event":"pusher:ping","data":{}}')

    def __init__(self, scenario: Scenario, *, key: str = "", channel: str = "fanout-") -> None:
        super().__init__(scenario)
        if scenario.channels != 1:
            raise ValueError("such a device has one channel")
        self._channel = channel
        path = f"/app/{key}?protocol=7&client=bench&version=1.0&flash=false"
        self._request = frames.upgrade_request(scenario.host, path, "")

    def request(self, device: int) -> bytes:
        return self._request

    def opened(self, device: int, identity: bytes) -> Step:
        return Step(b"", _CONNECT)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        message = message_of(payload)
        event = message.get("event")
        if event == "pusher:ping":
            return Step(_PONG, step)
        if event == CONNECTED and step == _CONNECT:
            name = self.channel_name(device)
            subscribe = {"event": "pusher:subscribe", "data": {"auth": "", "channel": name}}
            return Step(client_frame(json.dumps(subscribe, separators=(",", ":")).encode()), _SUBSCRIBE)
        if event == SUBSCRIBED and step == _SUBSCRIBE and message.get("channel") == self.channel_name(device):
            return Step(b"", DONE)
        return None

    def received(self, device: int, payload: bytes) -> Received | None:
        message = message_of(payload)
        event = message.get("event")
        if event == "pusher:ping":
            return Received(reply=_PONG)
        if event == "pusher:pong":
            return PONG
        if event != _EVENT:
            return None
        if message.get("channel") != self.channel_name(device):
            return Received(strays=1)
        size = self.scenario.payload
        data = message.get("data")
        version, state = judged(data.encode() if isinstance(data, str) else b"", size)
        # an event of an app server has these three members and no other
        return Received(((self.scenario.channel_of(device), version, state if len(message) == 3 else DATA_WRONG),))

    def channel_name(self, device: int) -> str:
        """The channel that a device subscribes to."""
        return f"{self._channel}{self.scenario.channel_of(device)}"


def message_of(payload: bytes) -> dict[str, Any]:
    """A message of the server.

    Raises:
      PeerError: not a JSON object, or the server reports an error; with its code.
    """
    try:
        message = json.loads(payload)
    except ValueError:
        raise PeerError("not JSON") from None
    if not isinstance(message, dict):
        raise PeerError("not a JSON object")
    event = message.get("event")
    if event in ("pusher:error", SUBSCRIBE_ERROR):
        raise PeerError(f"{event} {_code_of(message.get('data'))}")
    return message


def _code_of(data: Any) -> str:
    """What an error's data, or the JSON text in it, has for a code."""
    try:
        told = json.loads(data) if isinstance(data, str) else data
    except ValueError:
        return "without a code"
    if not isinstance(told, dict):
        return "without a code"
    return str(told.get("code") or told.get("status") or "without a code")
