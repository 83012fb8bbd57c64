"""The WebSocket bytes of a device: its upgrade and its frames, and how it reads a server's. Pure: bytes in, bytes
out. What stands in the frames is the business of `bench.load.protocols`."""

from typing import Final, NamedTuple

MASK_KEY: Final = b"\x37\xfa\x21\x3d"
"""One key for all frames. A browser takes a fresh one each time; a server cannot tell, and still has to
unmask for real."""

UPGRADE_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE_ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MAX_RESPONSE_HEAD_BYTES: Final = 65_536

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_WHOLE_TEXT: Final = 0x81
_WHOLE: Final = (0x81, 0x82)
_MASKS: Final = [int.from_bytes((MASK_KEY * 32)[:n], "big") for n in range(126)]


class PeerError(Exception):
    """The server broke the protocol, or refused; the text is the kind of failure that a report counts."""


class Message(NamedTuple):
    """A whole message or control frame from the server."""

    opcode: int
    payload: bytes


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


def upgrade_request(host: str, path: str, subprotocol: str = "push-notification") -> bytes:
    """The upgrade of a device. `host` is the Host header's value; no subprotocol is offered if it is empty."""
    offer = f"Sec-WebSocket-Protocol: {subprotocol}\r\n" if subprotocol else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {UPGRADE_KEY}\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
    ).encode()


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


def message_end(data: bytes, start: int = 0) -> int:
    """Where the frame that begins at `start` ends, if it is a whole and unfragmented message under 64 KiB and all of it
    is there; otherwise 0 (ask `split_frames`)."""
    size = len(data) - start
    if size < 2 or data[start] not in _WHOLE:
        return 0
    length = data[start + 1]
    if length < 126:
        end = start + 2 + length
    elif length == 126 and size >= 4:
        end = start + 4 + (data[start + 2] << 8 | data[start + 3])
    else:
        return 0
    return end if end <= len(data) else 0


def payload_of(frame: bytes) -> bytes:
    """What stands in a frame of which `message_end` knew the end."""
    return frame[4:] if frame[1] == 126 else frame[2:]


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
