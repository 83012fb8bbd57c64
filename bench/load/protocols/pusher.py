"""Devices of the Pusher dialect, as pusher-js is one: each subscribes to one public channel and listens."""

import hashlib
import hmac
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from bench.load import frames
from bench.load.dialect import Events, FanOut
from bench.load.frames import PeerError, client_frame
from bench.load.http_bytes import judged
from bench.load.protocols.base import DONE, PONG, Protocol, Received, Scenario, Step
from bench.load.samples import DATA_WRONG
from bench.load.wires import Wire, body_of

CONNECTED: Final = "pusher:connection_established"
SUBSCRIBED: Final = "pusher_internal:subscription_succeeded"
SUBSCRIBE_ERROR: Final = "pusher:subscription_error"
EVENT: Final = b"bench"
"""The name of the events that are pushed to Pusher channels."""
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


# ---- app servers


class Post(Wire):
    """The HTTP API of Pusher Channels: a signed `POST` of an event to one channel. The path of a push is that of the
    application's events, a question mark and the channel's name; `authorization` is the application's key, a colon and
    its secret."""

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._key, _, secret = authorization.partition(":")
        self._secret = secret.encode()
        self._between = f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: ".encode()

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        path, _, channel = path.partition(b"?")
        data = body_of(version, payload)
        body = b'{"name":"%b","channels":["%b"],"data":"%b"}' % (EVENT, channel, data)
        # the parameters stand in the order in which they are signed
        query = (
            f"auth_key={self._key}&auth_timestamp={int(time.time())}&auth_version=1.0"
            f"&body_md5={hashlib.md5(body, usedforsecurity=False).hexdigest()}"
        ).encode()
        signature = hmac.digest(self._secret, b"POST\n%b\n%b" % (path, query), "sha256").hex().encode()
        return b"POST %b?%b&auth_signature=%b%b%d\r\n\r\n%b" % (path, query, signature, self._between, len(body), body)


@dataclass(frozen=True, slots=True)
class Application:
    """An application of the Pusher dialect."""

    id: str
    key: str
    secret: str = field(repr=False)


OURS: Final = Application("1", "bench-key", "bench-secret")
"""What a farm that is started here has."""


def application_in(path: str) -> Application:
    """The first application of a file as `pusher.apps` names it.

    Raises:
      ValueError: there is none.
    """
    try:
        first = json.loads(Path(path).read_bytes())["applications"][0]
        return Application(str(first.get("id") or first["name"]), str(first["key"]), str(first["secret"]))
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ValueError(f"{path}: no application with id or name, key and secret") from None


class PusherFanOut(FanOut):
    """Signed `POST`s to the HTTP API, for subscribers of public channels."""

    name = wire = "pusher"
    title = "Pusher"
    set_up = "upgrade, connection established, subscribe to one channel"
    most_payload = "pusher.max_data_bytes"
    apps_setting = "pusher.apps"
    reference = True

    def settings(self, folder: Path, stored: int = 0) -> tuple[str, ...]:
        file = folder / "apps.json"
        ours = {"id": OURS.id, "name": "bench", "key": OURS.key, "secret": OURS.secret}
        file.write_text(json.dumps({"applications": [ours]}))
        return (f"pusher.apps={file}",)

    def events(self, prefix: str, apps: str = "") -> Events:
        application = application_in(apps) if apps else OURS
        path = f"/apps/{application.id}/events?{prefix}{{channel}}"
        arguments = {"key": application.key, "channel": prefix}
        return Events(arguments, path, f"{application.key}:{application.secret}")


PROTOCOL: Final = Pusher
WIRES: Final = {"pusher": Post}
FAN_OUT: Final = PusherFanOut()
