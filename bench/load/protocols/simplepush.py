"""SimplePush devices: hello, register their channels, acknowledge every update."""

from typing import Any, Final, NamedTuple

from bench.load.frames import PeerError, client_frame
from bench.load.http_bytes import payload_of
from bench.load.protocols.base import PONG, Received
from bench.load.protocols.registering import Registering, object_of
from bench.load.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG

_NOTE_HEAD: Final = b'{"messageType":"notification","updates":[{"channelID":"'
_NOTE_CHANNEL: Final = len(_NOTE_HEAD)
_NOTE_MIDDLE: Final = _NOTE_CHANNEL + 36
_NOTE_VERSION: Final = _NOTE_MIDDLE + len(b'","version":')
_NOTE_DATA: Final = b',"data":"'


class Update(NamedTuple):
    """One update of a notification; `data` is None where there is none."""

    channel: bytes
    version: int
    data: bytes | None = None


class SimplePush(Registering):
    """A SimplePush device. Its hello names its channels."""

    first_hello = b'{"messageType":"hello","uaid":"","channelIDs":[]}'

    def hello(self, device: int, uaid: bytes) -> bytes:
        channels = b'","'.join(self.channel_ids(device))
        return b'{"messageType":"hello","uaid":"%b","channelIDs":["%b"]}' % (uaid, channels)

    def registration(self, channel: bytes) -> bytes:
        return b'{"messageType":"register","channelID":"%b"}' % channel

    def received(self, device: int, payload: bytes) -> Received | None:
        if payload == b"{}":
            return PONG
        updates = updates_of(payload)
        if updates is None:
            return PONG if object_of(payload).get("messageType") == "ping" else None
        mine = []
        reply = b""
        for channel, version, data in updates:
            number = self.number_of(channel)
            if number // self.channels != device:
                continue
            mine.append((number, version, self._judged(version, data) if self.payload else DATA_RIGHT))
            reply += ack(channel, version)
        return Received(tuple(mine), reply, len(updates) - len(mine))

    def _judged(self, version: int, data: bytes | None) -> int:
        if not data:
            return DATA_MISSING
        return DATA_RIGHT if data == payload_of(version, self.payload) else DATA_WRONG


def ack(channel: bytes, version: int) -> bytes:
    """The frame that acknowledges one update."""
    return client_frame(b'{"messageType":"ack","updates":[{"channelID":"%b","version":%d}]}' % (channel, version))


def updates_of(payload: bytes) -> list[Update] | None:
    """The updates of a notification; None for any other message (a `{}` ping, a reply).

    Raises:
      PeerError: not JSON, or a notification whose updates are malformed.
    """
    if (
        payload.startswith(_NOTE_HEAD)
        and payload[_NOTE_MIDDLE:_NOTE_VERSION] == b'","version":'
        and payload.endswith(b"}]}")
    ):
        rest = payload[_NOTE_VERSION:-3]
        if rest.isdigit():
            return [Update(payload[_NOTE_CHANNEL:_NOTE_MIDDLE], int(rest))]
        digits, _, data = rest.partition(_NOTE_DATA)
        if digits.isdigit() and data.find(b'"') == len(data) - 1 and b"\\" not in data and data:
            return [Update(payload[_NOTE_CHANNEL:_NOTE_MIDDLE], int(digits), data[:-1])]
    message = object_of(payload)
    if message.get("messageType") != "notification":
        return None
    try:
        return [_update(update) for update in message.get("updates", ())]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PeerError("bad notification") from None


def _update(update: dict[str, Any]) -> Update:
    data = update.get("data")
    return Update(update["channelID"].encode(), int(update["version"]), None if data is None else data.encode())
