"""RFC 6455 frames of the server side, without I/O.

What devices send is nearly always one whole, masked, short text frame in one read: `short_texts` takes those apart
with a handful of byte operations. Everything else (fragments, control frames, long or partial frames) goes through a
`FrameReader`, which finds the frame boundaries, checks headers and limits before a frame's payload has even come, and
leaves masking, UTF-8 and the order of fragments to wsproto. It is kept only until the message is complete.
"""

from __future__ import annotations

from typing import Final

from wsproto.frame_protocol import CloseReason, FrameProtocol, Opcode, ParseFailed

from farm.transports import Finder, PeerError, Reader
from router.common.close_codes import NO_STATUS, PROTOCOL_ERROR, TOO_BIG

TEXT: Final = 0x1
BINARY: Final = 0x2
CLOSE: Final = 0x8
PING: Final = 0x9
PONG: Final = 0xA

_FIN_TEXT: Final = 0x81
_FIN: Final = 0x80
_RESERVED: Final = 0x70
_MASKED: Final = 0x80
_MAX_CONTROL: Final = 125  # RFC 6455 section 5.5
_HEAD_BYTES: Final = {126: 8, 127: 14}  # of a masked frame by its 7-bit length; else 6
_DATA_OPCODES: Final = (0x0, TEXT, BINARY)
_CONTROL_OPCODES: Final = (CLOSE, PING, PONG)
_OPCODES: Final = (*_DATA_OPCODES, *_CONTROL_OPCODES)
_TEXT_HEADS: Final = [bytes((_FIN_TEXT, length)) for length in range(126)]
_NO_MASK: Final = b"\0\0\0\0"
_READER_BYTES: Final = 1024  # of a reader with its parser
_PART_BYTES: Final = 60  # of a fragment, beside its payload


def unmask(payload: bytes, mask: bytes) -> bytes:
    """Payload XOR the repeated 4-byte mask (section 5.3), as one operation on big integers."""
    if mask == _NO_MASK:
        return payload
    length = len(payload)
    repeated = (mask * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(repeated, "little")).to_bytes(length, "little")


def short_texts(data: bytes, max_message: int, most: int) -> tuple[list[bytes], int] | None:
    """The payloads, if `data` is nothing but whole, final, masked text frames of less than 64 KiB, none over the limit,
    with valid UTF-8; not more than so many, and where the rest of `data` begins.

    Returns: None otherwise; then nothing has been decided about `data`.
    """
    texts: list[bytes] = []
    position, end = 0, len(data)
    while position < end and len(texts) < most:
        if end - position < 6 or data[position] != _FIN_TEXT:
            return None
        length = data[position + 1] - _MASKED
        start = position + 2
        if length == 126:
            length = int.from_bytes(data[start : start + 2], "big")
            start += 2
            if length < 126:
                return None
        elif not 0 <= length < 126:
            return None
        position = start + 4 + length
        if position > end or length > max_message:
            return None
        payload = unmask(data[start + 4 : position], data[start : start + 4])
        if not payload.isascii():
            try:
                payload.decode()
            except UnicodeDecodeError:
                return None
        texts.append(payload)
    return texts, position


class FrameError(PeerError):
    """The peer broke RFC 6455 or a limit; `code` is the close code it gets."""


class FrameReader(Reader):
    """Takes any bytes of one connection and gives whole messages and control frames, as (opcode, payload)."""

    __slots__ = (
        "_buffer",
        "_fragments",
        "_max_fragments",
        "_max_message",
        "_parts",
        "_protocol",
        "_size",
        "error",
        "more",
        "taken",
    )

    def __init__(self, max_message: int, max_fragments: int) -> None:
        self._max_message = max_message
        self._max_fragments = max_fragments
        self._buffer = bytearray()
        self._protocol: FrameProtocol | None = None
        self._parts: list[bytes] = []
        self._size = 0
        self._fragments = 0
        self.error: PeerError | None = None
        self.more = False
        """Whether `feed` has stopped at its limit: call it again, perhaps with nothing."""
        self.taken = 0
        """Frames that the last `feed` took."""

    @property
    def idle(self) -> bool:
        """Whether nothing of a message is kept: the reader may be thrown away."""
        return not self._buffer and not self._fragments and self.error is None

    @property
    def fragmented(self) -> bool:
        """Whether a part of a message has come, and not its end."""
        return self._fragments > 0

    @property
    def kept(self) -> int:
        """Bytes of memory, about."""
        return _READER_BYTES + len(self._buffer) + self._size + _PART_BYTES * self._fragments

    @property
    def rest(self) -> bytes:
        """What has come and is not taken: the beginning of a frame, or the frame that is an error and what follows."""
        return bytes(self._buffer)

    def keep(self, data: bytes) -> None:
        """Take bytes that are looked at by the next `feed`."""
        self._buffer += data
        self.more = True

    def feed(self, data: bytes, most: int = 1 << 30) -> list[tuple[int, bytes]]:
        """What became whole by these bytes, in order, looking at no more than so many frames; `more` says whether there
        may be others. If the bytes hold an error, it is in `error` afterwards, and what came before it is returned;
        nothing after it is looked at."""
        messages: list[tuple[int, bytes]] = []
        self._buffer += data
        self.more = False
        left = most
        try:
            while (length := self._whole_frame()) is not None:
                if not left:
                    self.more = True
                    break
                left -= 1
                frame = bytes(self._buffer[:length])
                del self._buffer[:length]
                self._take(frame, messages)
        except FrameError as error:
            # A copy: the trace of the first refers to this reader and its callers, which would not be freed.
            self.error = FrameError(error.code, error.reason)
        self.taken = most - left
        return messages

    def _whole_frame(self) -> int | None:
        """Length of the first frame if it is whole. The header is checked as soon as it is here."""
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        first, second = buffer[0], buffer[1]
        opcode = first & 0x0F
        if first & _RESERVED:
            raise FrameError(PROTOCOL_ERROR, "reserved bit is set")
        if not second & _MASKED:
            raise FrameError(PROTOCOL_ERROR, "frame of a client is not masked")
        length = second & 0x7F
        if opcode in _CONTROL_OPCODES:
            if length > _MAX_CONTROL or not first & _FIN:
                raise FrameError(PROTOCOL_ERROR, "control frame is long or fragmented")
        elif opcode not in _DATA_OPCODES:
            raise FrameError(PROTOCOL_ERROR, "opcode is reserved")
        start = 2
        if length == 126:
            start = 4
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:4], "big")
            if length < 126:
                raise FrameError(PROTOCOL_ERROR, "length is not in its shortest form")
        elif length == 127:
            start = 10
            if len(buffer) < start:
                return None
            length = int.from_bytes(buffer[2:10], "big")
            if length < 65_536 or length >> 63:
                raise FrameError(PROTOCOL_ERROR, "length is not in its shortest form")
        if opcode in _DATA_OPCODES:
            # Before the payload has come: what will be refused is not to be buffered.
            if self._size + length > self._max_message:
                raise FrameError(TOO_BIG, f"message is longer than {self._max_message} bytes")
            if self._fragments >= self._max_fragments:
                raise FrameError(TOO_BIG, f"message has more than {self._max_fragments} fragments")
        total = start + 4 + length
        return total if len(buffer) >= total else None

    def _take(self, frame: bytes, messages: list[tuple[int, bytes]]) -> None:
        if self._protocol is None:
            self._protocol = FrameProtocol(client=False, extensions=[])
        try:
            self._protocol.receive_bytes(frame)
            for part in self._protocol.received_frames():
                payload = part.payload
                if part.opcode is Opcode.CLOSE:
                    messages.append((CLOSE, _close_payload(payload)))
                elif part.opcode.iscontrol():
                    assert isinstance(payload, (bytes, bytearray))
                    messages.append((int(part.opcode), bytes(payload)))
                else:
                    size = len(frame) - _HEAD_BYTES.get(frame[1] & 0x7F, 6)
                    self._add(part.opcode, payload, size, part.message_finished, messages)
        except ParseFailed as error:
            raise FrameError(int(error.code), str(error)) from None

    def _add(
        self, opcode: Opcode, payload: object, size: int, finished: bool, messages: list[tuple[int, bytes]]
    ) -> None:
        assert isinstance(payload, (bytes, bytearray, str))
        data = payload.encode() if isinstance(payload, str) else bytes(payload)
        self._parts.append(data)
        self._size += size  # not len(data): wsproto keeps back a character that goes on in the next fragment
        self._fragments += 1
        if finished:
            messages.append((int(opcode), b"".join(self._parts)))
            self._parts.clear()
            self._size = self._fragments = 0


class CloseFinder(Finder):
    """Looks for the close frame in what a peer still sends after ours. It keeps no payload, and less than a frame's
    header between two reads."""

    __slots__ = ("_found", "_head", "_skip")

    def __init__(self) -> None:
        super().__init__()
        self._head = b""
        self._skip = 0  # bytes of the current frame's payload that have not come
        self._found = False

    @property
    def skips(self) -> int:
        """Bytes of payload that are known to come and do not matter."""
        return self._skip

    def feed(self, data: bytes) -> bool:
        """Returns: whether the close frame is whole, or what comes is no frame, so that there is no use in waiting."""
        data = self._head + data
        self._head = b""
        position, end = 0, len(data)
        while True:
            if self._skip > end - position:
                self._skip -= end - position
                return False
            position += self._skip
            self._skip = 0
            if self._found:
                return True
            if end - position < 2:
                break
            first, second = data[position], data[position + 1]
            opcode, length, start = first & 0x0F, second & 0x7F, position + 2
            if first & _RESERVED or not second & _MASKED or opcode not in _OPCODES:
                return True
            if length > _MAX_CONTROL:
                if opcode in _CONTROL_OPCODES:
                    return True
                start += 2 if length == 126 else 8
                length = int.from_bytes(data[position + 2 : start], "big")
            if start > end:
                break
            position = start
            self.frames += 1
            self._skip = 4 + length
            self._found = opcode == CLOSE
        self._head = data[position:]
        return False


def _close_payload(payload: object) -> bytes:
    """wsproto gives a close as (code, reason): back to bytes."""
    code, reason = payload if isinstance(payload, tuple) else (CloseReason.NO_STATUS_RCVD, "")
    return b"" if code == CloseReason.NO_STATUS_RCVD else int(code).to_bytes(2, "big") + (reason or "").encode()


def encode_text(payload: bytes) -> bytes:
    """One unmasked, final text frame."""
    length = len(payload)
    if length < 126:
        return _TEXT_HEADS[length] + payload
    return _head(_FIN_TEXT, length) + payload


def encode_frame(opcode: int, payload: bytes) -> bytes:
    """One unmasked, final frame of any kind."""
    return _head(_FIN | opcode, len(payload)) + payload


def _head(first: int, length: int) -> bytes:
    if length < 126:
        return bytes((first, length))
    if length < 65_536:
        return bytes((first, 126)) + length.to_bytes(2, "big")
    return bytes((first, 127)) + length.to_bytes(8, "big")


def encode_close(code: int, reason: str = "") -> bytes:
    """A close frame, an empty one for the code NO_STATUS; a reason that does not fit is cut at a character."""
    if code == NO_STATUS:
        return encode_frame(CLOSE, b"")
    text = reason.encode()[: _MAX_CONTROL - 2].decode(errors="ignore").encode()
    return encode_frame(CLOSE, code.to_bytes(2, "big") + text)
