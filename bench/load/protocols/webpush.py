"""WebPush devices, as Firefox is one: hello, register their channels with the app server's key, acknowledge every
message with code 100.

The version of a message is the server's own. Which push it is, and when that was sent, stands in its body.
"""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import cache
from random import Random
from typing import Final

import msgspec

from bench.load.dialect import Dialect, Signer
from bench.load.frames import PeerError, client_frame
from bench.load.protocols.base import PONG, Received, Scenario
from bench.load.protocols.registering import Registering, object_of, uaid_of
from bench.load.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG
from bench.load.wires import Wire

ENCODING: Final = "aes128gcm"
TTL: Final = 86_400
STAMP_BYTES: Final = 9
"""What a WebPush body begins with: the version. Whole groups of base64, so that the first characters tell it."""
_STAMP_CHARS: Final = STAMP_BYTES // 3 * 4
_NOISE_SPAN: Final = 4096
_MOST_VERSION: Final = (1 << 63) - 1


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


# ---- app servers


class Post(Wire):
    """A farm's push port for WebPush: `POST` of a message that only the device can read. It answers 201 whether
    the message was delivered or stored."""

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._head = head_of_webpush(host, authorization)

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        return webpush_request(path, self._head, version, payload)


def head_of_webpush(host: str, authorization: str) -> bytes:
    """What stands after the path in every WebPush push, up to the Content-Length's value."""
    return (
        f" HTTP/1.1\r\nHost: {host}\r\nTTL: {TTL}\r\nContent-Encoding: {ENCODING}\r\n"
        f"Authorization: {authorization}\r\nContent-Type: application/octet-stream\r\nContent-Length: "
    ).encode()


def opaque_of(version: int, size: int) -> bytes:
    """The body of a WebPush push of this version: the version, and bytes as random as encrypted ones, which are of
    this version, too. A server can't look into either; a device of the bench can tell which push it is, and whether
    it is whole."""
    start = version % _NOISE_SPAN
    return version.to_bytes(STAMP_BYTES, "big") + _noise(size)[start : start + size - STAMP_BYTES]


@cache
def _noise(size: int) -> bytes:
    return Random(size).randbytes(size + _NOISE_SPAN)


def base64_of(body: bytes) -> str:
    """A body as a device gets it: base64url without padding."""
    return urlsafe_b64encode(body).rstrip(b"=").decode()


def version_in(data: str) -> int:
    """The version that such a text begins with; 0 if there is none."""
    if len(data) < _STAMP_CHARS:
        return 0
    try:
        version = int.from_bytes(urlsafe_b64decode(data[:_STAMP_CHARS]), "big")
    except ValueError:
        return 0
    return version if version <= _MOST_VERSION else 0


def webpush_request(path: bytes, head: bytes, version: int, payload: int) -> bytes:
    """One `POST` of a message of `payload` bytes, `STAMP_BYTES` at least. `head` is from `head_of_webpush`."""
    return b"POST %b%b%d\r\n\r\n%b" % (path, head, payload, opaque_of(version, payload))


def _signer() -> Signer:
    from bench.load.webpush_vapid import VapidSigner  # which imports what no load process needs

    return VapidSigner()


PROTOCOL: Final = WebPush
WIRES: Final = {"webpush": Post}
DIALECT: Final = Dialect(
    "webpush",
    "WebPush",
    wire="webpush",
    set_up="upgrade, hello, register a channel with the app server's key",
    push="POST of an encrypted message with a VAPID header; 201 once stored; the device acknowledges",
    payload=1024,
    most_payload="5630 (webpush.max_body_bytes)",
    least=STAMP_BYTES,
    ping_seconds=45.0,
    ping_setting="webpush.min_ping_interval",
    keeps_all=True,
    signer=_signer,
)
