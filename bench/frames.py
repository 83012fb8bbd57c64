"""The WebSocket and SimplePush bytes of a device: what it sends, and how it reads what a server answers.

Pure: bytes in, bytes out. The shapes that a server sends nearly always are read by fixed offsets; anything
else goes through a JSON parser, so that a server that writes its JSON in another way is measured all the
same.
"""

import json
from typing import Any, Final, NamedTuple

MASK_KEY: Final = b"\x37\xfa\x21\x3d"
"""One key for all frames. A browser takes a fresh one each time; a server cannot tell, and still has to
unmask for real."""

UPGRADE_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE_ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MAX_RESPONSE_HEAD_BYTES: Final = 65_536

TEXT: Final = 0x1
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_WHOLE_TEXT: Final = 0x81
_MASKS: Final = [int.from_bytes((MASK_KEY * 32)[:n], "big") for n in range(126)]

_NOTE_HEAD: Final = b'{"messageType":"notification","updates":[{"channelID":"'
_NOTE_CHANNEL: Final = len(_NOTE_HEAD)
_NOTE_MIDDLE: Final = _NOTE_CHANNEL + 36
_NOTE_VERSION: Final = _NOTE_MIDDLE + len(b'","version":')


class PeerError(Exception):
    """The server broke the protocol, or refused; the text is the kind of failure that a report counts."""


class Message(NamedTuple):
    """A whole message or control frame from the server."""

    opcode: int
    payload: bytes


class Update(NamedTuple):
    """One update of a notification."""

    channel: bytes
    version: int


# ---- what a device sends


def client_frame(payload: bytes, opcode: int = TEXT) -> bytes:
    """One whole frame, masked as a client must."""
    size = len(payload)
    first = 0x80 | opcode
    if size < 126:
        masked = (int.from_bytes(payload, "big") ^ _MASKS[size]).to_bytes(size, "big")
        return bytes((first, 0x80 | size)) + MASK_KEY + masked
    head = (
        bytes((first, 0xFE)) + size.to_bytes(2, "big")
        if size < 65_536
        else bytes((first, 0xFF)) + size.to_bytes(8, "big")
    )
    mask = int.from_bytes((MASK_KEY * (size // 4 + 1))[:size], "big")
    return head + MASK_KEY + (int.from_bytes(payload, "big") ^ mask).to_bytes(size, "big")


def upgrade_request(host: str, path: str) -> bytes:
    """The upgrade of a SimplePush device. `host` is the Host header's value."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {UPGRADE_KEY}\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: push-notification\r\n\r\n"
    ).encode()


HELLO: Final = client_frame(b'{"messageType":"hello","uaid":"","channelIDs":[]}')


def register(channel: bytes) -> bytes:
    """The frame that registers a channel."""
    return client_frame(b'{"messageType":"register","channelID":"%b"}' % channel)


def ack(channel: bytes, version: int) -> bytes:
    """The frame that acknowledges one update."""
    return client_frame(b'{"messageType":"ack","updates":[{"channelID":"%b","version":%d}]}' % (channel, version))


# ---- what a server answers


def upgrade_end(data: bytes) -> int:
    """Where the frames begin after an accepted upgrade; 0 while the response is incomplete.

    Raises:
      PeerError: the server answered something else than 101 with the right accept key.
    """
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > MAX_RESPONSE_HEAD_BYTES:
            raise PeerError("response head without end")
        return 0
    if not data.startswith(b"HTTP/1.1 101"):
        raise PeerError(f"HTTP {data[9:12].decode('ascii', 'replace')}" if data.startswith(b"HTTP/") else "not HTTP")
    if UPGRADE_ACCEPT not in data[:end]:
        raise PeerError("wrong accept key")
    return end + 4


def split_frames(data: bytes, parts: list[bytes]) -> tuple[list[Message], bytes]:
    """The whole messages and control frames in `data`, and the bytes of the frame that is not complete yet.

    `parts` carries the pieces of a fragmented message from call to call, opcode first; the caller keeps it
    for the connection.

    Raises:
      PeerError: a masked frame, a reserved bit, or fragments out of order.
    """
    found: list[Message] = []
    at, total = 0, len(data)
    while total - at >= 2:
        first, size = data[at], data[at + 1]
        start = at + 2
        if first & 0x70 or size & 0x80:
            raise PeerError("bad frame")
        if size >= 126:
            width = 2 if size == 126 else 8
            start += width
            if total < start:
                break
            size = int.from_bytes(data[at + 2 : start], "big")
        end = start + size
        if total < end:
            break
        payload = data[start:end]
        at = end
        opcode, final = first & 0x0F, first & 0x80
        if opcode >= 0x8:
            found.append(Message(opcode, payload))
            continue
        if bool(parts) != (opcode == 0):
            raise PeerError("bad fragment")
        if final and not parts:
            found.append(Message(opcode, payload))
            continue
        if not parts:
            parts.append(bytes((opcode,)))
        parts.append(payload)
        if final:
            found.append(Message(parts[0][0], b"".join(parts[1:])))
            parts.clear()
    return found, data[at:]


def single_text(data: bytes) -> bytes | None:
    """The payload, if `data` is exactly one whole unfragmented text frame under 64 KiB; else None (ask
    `split_frames`)."""
    size = len(data)
    if size < 2 or data[0] != _WHOLE_TEXT:
        return None
    if data[1] == size - 2 and size < 128:
        return data[2:]
    if data[1] == 126 and size > 4 and (data[2] << 8) | data[3] == size - 4:
        return data[4:]
    return None


def updates_of(payload: bytes) -> list[Update] | None:
    """The updates of a notification; None for any other message (a `{}` ping, a reply).

    Raises:
      PeerError: not JSON, or a notification whose updates are malformed.
    """
    if (
        payload.startswith(_NOTE_HEAD)
        and payload[_NOTE_MIDDLE:_NOTE_VERSION] == b'","version":'
        and payload.endswith(b"}]}")
        and (digits := payload[_NOTE_VERSION:-3]).isdigit()
    ):
        return [Update(payload[_NOTE_CHANNEL:_NOTE_MIDDLE], int(digits))]
    message = _object(payload)
    if message.get("messageType") != "notification":
        return None
    try:
        return [Update(update["channelID"].encode(), int(update["version"])) for update in message.get("updates", ())]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise PeerError("bad notification") from None


def check_hello(payload: bytes) -> bool:
    """True for an accepted hello, False for a message that is not the answer (a ping).

    Raises:
      PeerError: refused; the text is `status N`.
    """
    return (b'"hello"' in payload and b'"status":200' in payload) or _answer(payload, "hello") is not None


def endpoint_of(payload: bytes) -> bytes | None:
    """The push endpoint in the answer to a register, None for a message that is not the answer.

    Raises:
      PeerError: refused (`status N`), or no endpoint in it.
    """
    if b'"status":200' in payload:
        start = payload.find(b'"pushEndpoint":"') + 16
        endpoint = payload[start : payload.find(b'"', start)] if start > 16 else b""
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
