"""SimplePush: devices say hello, register their channels and acknowledge every update; app servers `PUT` a version."""

import re
from typing import Any, Final, NamedTuple

from bench.load.dialect import Dialect
from bench.load.frames import PeerError, client_frame
from bench.load.http_bytes import Response, payload_of, response_of
from bench.load.protocols.base import PONG, Received
from bench.load.protocols.registering import Registering, object_of
from bench.load.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG
from bench.load.wires import BatchWire, Wire

_LINE_STATUS: Final = re.compile(rb'^\{"status":(\d{3})', re.MULTILINE)
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


# ---- app servers


class Put(Wire):
    """A farm's push port: `PUT` of a form with the version."""

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._head = head_of_push(host)

    def request(self, path: bytes, version: int, payload: int) -> bytes:
        return push_request(path, self._head, version, payload)


class Batch(BatchWire):
    """A farm's push port for many pushes in one request: `POST /v1/push`."""

    def __init__(self, host: str, authorization: str = "") -> None:
        super().__init__(host)
        self._head = head_of_batch(host)

    def requests(self, paths: list[bytes], versions: list[int], payload: int) -> bytes:
        return batch_request(paths, self._head, versions, payload)

    def response(self, data: bytes) -> Response | None:
        response = response_of(data)
        if response is None or response.status != 200:
            return response
        return response._replace(statuses=statuses_of(data))


def head_of_push(host: str) -> bytes:
    """What stands after the path in every push, up to the Content-Length's value."""
    return (
        f" HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: "
    ).encode()


def push_request(path: bytes, head: bytes, version: int, payload: int = 0) -> bytes:
    """One `PUT` of a version, with `payload` bytes of data if not 0. `head` is from `head_of_push`."""
    body = b"version=%d" % version
    if payload:
        body += b"&data=" + payload_of(version, payload)
    return b"PUT %b%b%d\r\n\r\n%b" % (path, head, len(body), body)


def head_of_batch(host: str) -> bytes:
    """A request of many pushes, up to the Content-Length's value."""
    return (
        f"POST /v1/push HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-ndjson\r\nContent-Length: "
    ).encode()


def batch_request(paths: list[bytes], head: bytes, versions: list[int], payload: int = 0) -> bytes:
    """One `POST` of many pushes, a line each, with `payload` bytes of data if not 0. `head` is from `head_of_batch`."""
    lines = [
        b'{"token":"%b","version":%d%b}\n'
        % (path.rpartition(b"/")[2], version, b',"data":"%b"' % payload_of(version, payload) if payload else b"")
        for path, version in zip(paths, versions, strict=True)
    ]
    body = b"".join(lines)
    return b"%b%d\r\n\r\n%b" % (head, len(body), body)


def statuses_of(data: bytes) -> tuple[int, ...]:
    """What each line of the answer to such a request says."""
    return tuple(int(status) for status in _LINE_STATUS.findall(data))


PROTOCOL: Final = SimplePush
WIRES: Final = {"simplepush": Put, "simplepush batch": Batch}
DIALECT: Final = Dialect(
    "simplepush",
    "SimplePush",
    wire="simplepush",
    batch_wire="simplepush batch",
    set_up="upgrade, hello, register a channel",
    push="PUT of a SimplePush endpoint; 200 once stored and written to the socket; the device acknowledges",
    most_payload="4096 (simplepush.max_data_bytes)",
    ping_seconds=20.0,
    ping_setting="simplepush.min_ping_interval",
    reference=True,
)
