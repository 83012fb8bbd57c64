"""SimplePush devices: hello, register their channels, acknowledge every update.

The shapes that a server sends nearly always are read by fixed offsets; anything else goes through a JSON parser, so
that a server that writes its JSON in another way is measured all the same.

A channel's ID is made of the process's seed and the channel's number, so that nothing is kept for it.
"""

import json
from typing import Any, Final, NamedTuple

from bench.frames import PeerError, client_frame
from bench.http_bytes import payload_of
from bench.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG
from bench.speech.base import DONE, PONG, Heard, Manner, Speech, Step

HELLO: Final = client_frame(b'{"messageType":"hello","uaid":"","channelIDs":[]}')

_NOTE_HEAD: Final = b'{"messageType":"notification","updates":[{"channelID":"'
_NOTE_CHANNEL: Final = len(_NOTE_HEAD)
_NOTE_MIDDLE: Final = _NOTE_CHANNEL + 36
_NOTE_VERSION: Final = _NOTE_MIDDLE + len(b'","version":')
_NOTE_DATA: Final = b',"data":"'
_UAID: Final = b'"uaid":"'
_PREFIX_CHARS: Final = 24

_HELLO: Final = 0
_REGISTER: Final = 1


class Update(NamedTuple):
    """One update of a notification; `data` is None where there is none."""

    channel: bytes
    version: int
    data: bytes | None = None


class SimplePush(Speech):
    """A SimplePush device. It comes back with its uaid and its channel IDs, and then has nothing to register."""

    steps = ("hello", "register")
    ping = client_frame(b"{}")

    def __init__(self, manner: Manner) -> None:
        super().__init__(manner)
        self._channels = manner.channels
        self._payload = manner.payload
        digits = manner.seed.hex()
        self._prefix = f"{digits[:8]}-{digits[8:12]}-4{digits[12:15]}-8{digits[15:18]}-".encode()
        self._hyphens = False  # a server gives all its uaids one spelling

    def opened(self, device: int, identity: bytes) -> Step:
        if not identity:
            return Step(HELLO, _HELLO)
        first = device * self._channels
        channels = b'","'.join(map(self.channel_id, range(first, first + self._channels)))
        hello = b'{"messageType":"hello","uaid":"%b","channelIDs":["%b"]}' % (self._spelled(identity), channels)
        return Step(client_frame(hello), _HELLO)

    def answered(self, device: int, step: int, payload: bytes, identity: bytes) -> Step | None:
        if step == _HELLO:
            uaid = uaid_of(payload)
            if uaid is None:
                return None
            self._hyphens = b"-" in uaid
            mine = _key(uaid)
            if mine and mine == identity:
                return Step(b"", DONE, identity=mine)
            return Step(self._register(device, 0), _REGISTER, identity=mine)
        endpoint = endpoint_of(payload)
        if endpoint is None:
            return None
        number = step - _REGISTER
        channel = device * self._channels + number
        if number + 1 == self._channels:
            return Step(b"", DONE, channel, endpoint)
        return Step(self._register(device, number + 1), step + 1, channel, endpoint)

    def heard(self, device: int, payload: bytes) -> Heard | None:
        if payload == b"{}":
            return PONG
        updates = updates_of(payload)
        if updates is None:
            return PONG if _object(payload).get("messageType") == "ping" else None
        mine = []
        reply = b""
        for channel, version, data in updates:
            number = self._number(channel)
            if number // self._channels != device:
                continue
            mine.append((number, version, self._judged(version, data) if self._payload else DATA_RIGHT))
            reply += ack(channel, version)
        return Heard(tuple(mine), reply, len(updates) - len(mine))

    def channel_id(self, number: int) -> bytes:
        """A UUIDv4, lower case, with hyphens."""
        return self._prefix + b"%012x" % number

    def _number(self, channel: bytes) -> int:
        """The number of a channel, negative for an ID that is none of this process."""
        if len(channel) != 36 or channel[:_PREFIX_CHARS] != self._prefix:
            return -1
        try:
            return int(channel[_PREFIX_CHARS:], 16)
        except ValueError:
            return -1

    def _register(self, device: int, number: int) -> bytes:
        channel = self.channel_id(device * self._channels + number)
        return client_frame(b'{"messageType":"register","channelID":"%b"}' % channel)

    def _judged(self, version: int, data: bytes | None) -> int:
        if not data:
            return DATA_MISSING
        return DATA_RIGHT if data == payload_of(version, self._payload) else DATA_WRONG

    def _spelled(self, identity: bytes) -> bytes:
        digits = identity.hex().encode()
        if not self._hyphens:
            return digits
        return b"-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


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
    message = _object(payload)
    if message.get("messageType") != "notification":
        return None
    try:
        return [_update(update) for update in message.get("updates", ())]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PeerError("bad notification") from None


def _update(update: dict[str, Any]) -> Update:
    data = update.get("data")
    return Update(update["channelID"].encode(), int(update["version"]), None if data is None else data.encode())


def uaid_of(payload: bytes) -> bytes | None:
    """The uaid in an accepted hello, empty if there is none in it; None for a message that is not the answer (a ping).

    Raises:
      PeerError: refused; the text is `status N`.
    """
    if b'"hello"' in payload and b'"status":200' in payload:
        start = payload.find(_UAID) + len(_UAID)
        return payload[start : payload.find(b'"', start)] if start >= len(_UAID) else b""
    answer = _answer(payload, "hello")
    return None if answer is None else str(answer.get("uaid") or "").encode()


def _key(uaid: bytes) -> bytes:
    """The 16 bytes of a uaid, empty for one that is no UUID: its device can only come back as a new one."""
    try:
        key = bytes.fromhex(uaid.decode("ascii", "replace").replace("-", ""))
    except ValueError:
        return b""
    return key if len(key) == 16 else b""


def endpoint_of(payload: bytes) -> bytes | None:
    """The push endpoint in the answer to a register, None for a message that is not the answer.

    Raises:
      PeerError: refused (`status N`), or no endpoint in it.
    """
    if b'"status":200' in payload:
        start = payload.find(b'"pushEndpoint":"') + 16
        endpoint = payload[start : payload.find(b'"', start)] if start >= 16 else b""
        if endpoint and b"\\" not in endpoint:
            return endpoint
    answer = _answer(payload, "register")
    if answer is None:
        return None
    endpoint_text = answer.get("pushEndpoint")
    if not isinstance(endpoint_text, str):
        raise PeerError("no endpoint")
    return endpoint_text.encode()


def _answer(payload: bytes, kind: str) -> dict[str, Any] | None:
    message = _object(payload)
    status = message.get("status")
    if status is not None and status != 200:
        raise PeerError(f"status {status}")
    return message if message.get("messageType") == kind and status == 200 else None


def _object(payload: bytes) -> dict[str, Any]:
    try:
        message = json.loads(payload)
    except ValueError:
        raise PeerError("not JSON") from None
    if not isinstance(message, dict):
        raise PeerError("not a JSON object")
    return message
