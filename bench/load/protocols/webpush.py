"""WebPush devices, as Firefox is one: hello, register their channels with the app server's key, acknowledge every
message with code 100.

The version of a message is the server's own. Which push it is, and when that was sent, stands in its body.
"""

from typing import Final

import msgspec

from bench.load.frames import PeerError, client_frame
from bench.load.http_bytes import ENCODING, base64_of, opaque_of, version_in
from bench.load.protocols.base import PONG, Received, Scenario
from bench.load.protocols.registering import Registering, object_of, uaid_of
from bench.load.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG


class Message(msgspec.Struct, frozen=True, gc=False):
    """What a device reads of a message to it: a notification has a channel and a version."""

    messageType: str = ""
    channelID: str = ""
    version: str = ""
    data: str | None = None
    headers: dict[str, str] | None = None


_decode: Final = msgspec.json.Decoder(Message).decode
_encode: Final = msgspec.json.Encoder().encode


class WebPush(Registering):
    """A WebPush device.

    Args:
      key: of the app server, in base64url; empty: anybody may push.
    """

    first_hello = b'{"messageType":"hello","broadcasts":{},"use_webpush":true}'

    def __init__(self, scenario: Scenario, *, key: str = "") -> None:
        super().__init__(scenario)
        self._key = f',"key":"{key}"'.encode() if key else b""

    def hello(self, device: int, uaid: bytes) -> bytes:
        return b'{"messageType":"hello","broadcasts":{},"use_webpush":true,"uaid":"%b"}' % uaid

    def registration(self, channel: bytes) -> bytes:
        return b'{"channelID":"%b","messageType":"register"%b}' % (channel, self._key)

    def welcomed(self, payload: bytes) -> bytes | None:
        uaid = uaid_of(payload)
        if (
            uaid is not None
            and b'"use_webpush":true' not in payload
            and object_of(payload).get("use_webpush") is not True
        ):
            raise PeerError("not WebPush")
        return uaid

    def received(self, device: int, payload: bytes) -> Received | None:
        if payload == b"{}":
            return PONG
        message = message_of(payload)
        if message.messageType != "notification":
            return PONG if message.messageType == "ping" else None
        number = self.number_of(message.channelID.encode())
        if number // self.channels != device:
            return Received(strays=1)
        version = version_in(message.data or "")
        update = number, version, self._judged(version, message) if self.payload else DATA_RIGHT
        return Received((update,), ack(message.channelID, message.version))

    def _judged(self, version: int, message: Message) -> int:
        if not message.data:
            return DATA_MISSING
        whole = message.data == base64_of(opaque_of(version, self.payload))
        return DATA_RIGHT if whole and message.headers == {"encoding": ENCODING} else DATA_WRONG


def ack(channel: str, version: str) -> bytes:
    """The frame that says that a message was delivered."""
    update = b'{"channelID":"%b","version":%b,"code":100}' % (channel.encode(), _encode(version))
    return client_frame(b'{"messageType":"ack","updates":[%b]}' % update)


def message_of(payload: bytes) -> Message:
    """A message of the server.

    Raises:
      PeerError: not JSON, or not the message that it says it is.
    """
    try:
        message = _decode(payload)
    except msgspec.ValidationError:
        raise PeerError("bad message") from None
    except (msgspec.DecodeError, ValueError):
        raise PeerError("not JSON") from None
    if message.messageType == "notification" and not (message.channelID and message.version):
        raise PeerError("bad notification")
    return message
