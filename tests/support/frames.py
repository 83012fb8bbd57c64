"""Frames that may be wrong in every way, and what our reader and wsproto make of them."""

from dataclasses import dataclass

from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from farm.transports.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, unmask

MAX_MESSAGE = 100_000
MAX_FRAGMENTS = 64
CONTINUATION = 0
MASK = b"\x11\x22\x33\x44"

Found = list[tuple[int, bytes]]


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0, form: int = 0, mask: bytes | None = MASK):
    """One frame, right or wrong. form: bytes of the extended length; 0 takes the shortest."""
    length = len(payload)
    form = form or (0 if length < 126 else 2 if length < 65_536 else 8)
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    masked = 0x80 if mask is not None else 0
    if form == 2:
        head += bytes((masked | 126,)) + length.to_bytes(2, "big")
    elif form == 8:
        head += bytes((masked | 127,)) + length.to_bytes(8, "big")
    else:
        head += bytes((masked | length,))
    return head + payload if mask is None else head + mask + unmask(payload, mask)


def read(*parts: bytes, max_message: int = MAX_MESSAGE, max_fragments: int = MAX_FRAGMENTS) -> tuple[Found, int | None]:
    """What a fresh reader makes of these reads: messages, and the close code of its error."""
    reader = FrameReader(max_message, max_fragments)
    found: Found = []
    for part in parts:
        found += reader.feed(part)
        if reader.error is not None:
            return found, reader.error.code
    return found, None


@dataclass
class Raw:
    """A frame of which everything may be wrong."""

    opcode: int
    payload: bytes
    fin: bool
    rsv: int
    form: int
    mask: bytes | None

    def encode(self) -> bytes:
        form = self.form
        if form == 0 and len(self.payload) > 125:
            form = 2
        return frame(self.opcode, self.payload, self.fin, self.rsv, form, self.mask)


def rarely(usual: object, otherwise: st.SearchStrategy) -> st.SearchStrategy:
    return st.integers(0, 15).flatmap(lambda roll: otherwise if roll == 0 else st.just(usual))


_payloads = st.binary(max_size=8) | st.text(max_size=40).map(str.encode) | st.binary(min_size=126, max_size=130)
_close_payloads = st.builds(
    lambda code, reason: code.to_bytes(2, "big") + reason,
    st.integers(0, 5001) | st.integers(0, 65_535),
    st.text(max_size=8).map(str.encode) | st.binary(max_size=4),
)
raws = st.builds(
    Raw,
    opcode=st.sampled_from([TEXT, TEXT, BINARY, CONTINUATION, CONTINUATION, PING, PONG, CLOSE]) | st.integers(0, 15),
    payload=_payloads | _close_payloads,
    fin=st.booleans(),
    rsv=rarely(0, st.integers(0, 7)),
    form=rarely(0, st.sampled_from([2, 8])),
    mask=rarely(MASK, st.none() | st.binary(min_size=4, max_size=4)),
)


def by_oracle(data: bytes) -> tuple[Found, int | None]:
    """What wsproto makes of the whole stream, up to a close or an error."""
    server = FrameProtocol(client=False, extensions=[])
    server.receive_bytes(data)
    found: Found = []
    parts = b""
    try:
        for part in server.received_frames():
            payload = part.payload
            if isinstance(payload, tuple):
                code, reason = int(payload[0]), (payload[1] or "").encode()
                found.append((CLOSE, b"" if code == 1005 else code.to_bytes(2, "big") + reason))
                break
            payload = payload.encode() if isinstance(payload, str) else bytes(payload)
            if part.opcode.iscontrol():
                found.append((int(part.opcode), payload))
                continue
            parts += payload
            if part.frame_finished and part.message_finished:
                found.append((int(part.opcode), parts))
                parts = b""
    except ParseFailed as error:
        return found, int(error.code)
    return found, None
