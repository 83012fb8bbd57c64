"""The frames and upgrades of the bench's devices: `bench.load.frames`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    Request,
    TextMessage,
)

from bench.load import frames
from bench.load.frames import Message, PeerError


def server_frame(payload: bytes, opcode: int = 1, final: bool = True) -> bytes:
    size = len(payload)
    length = bytes((size,)) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes((opcode | (0x80 if final else 0),)) + length + payload


STREAM = (
    server_frame(b"{}")
    + server_frame(b"a" * 200)
    + server_frame(b"one ", final=False)
    + server_frame(b"?", frames.PING)
    + server_frame(b"two", 0)
    + server_frame(b"")
    + server_frame(b"\x03\xe8", frames.CLOSE)
)
MESSAGES = [
    Message(1, b"{}"),
    Message(1, b"a" * 200),
    Message(frames.PING, b"?"),
    Message(1, b"one two"),
    Message(1, b""),
    Message(frames.CLOSE, b"\x03\xe8"),
]


def split_all(pieces: list[bytes]) -> list[Message]:
    found: list[Message] = []
    parts: list[bytes] = []
    rest = b""
    for piece in pieces:
        messages, rest = frames.split_frames(rest + piece, parts)
        found += messages
    assert not rest and not parts
    return found


@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 65_535, 65_536])
def test_client_frames_are_what_wsproto_reads(size: int) -> None:
    server = WSConnection(ConnectionType.SERVER)
    server.receive_data(frames.upgrade_request("farm:8080", "/"))
    (request,) = server.events()
    assert isinstance(request, Request)
    assert (request.host, request.target, request.subprotocols) == ("farm:8080", "/", ["push-notification"])
    answer = server.send(AcceptConnection(subprotocol="push-notification"))
    assert frames.upgrade_end(answer) == len(answer)
    server.receive_data(frames.client_frame(b"x" * size))
    received = "".join(event.data for event in server.events() if isinstance(event, TextMessage))
    assert received == "x" * size


def test_frames_split_at_every_boundary() -> None:
    for cut in range(len(STREAM) + 1):
        assert split_all([STREAM[:cut], STREAM[cut:]]) == MESSAGES
    assert split_all([bytes((byte,)) for byte in STREAM]) == MESSAGES


@given(st.binary(max_size=400))
def test_the_fast_path_agrees_with_the_parser(payload: bytes) -> None:
    data = server_frame(payload)
    fast = frames.single_text(data)
    assert fast in (payload, None)
    assert frames.split_frames(data, []) == ([Message(1, payload)], b"")
    assert frames.single_text(data[:-1]) is None
    assert frames.single_text(data + b"\x81\x00") is None


@pytest.mark.parametrize("data", [b"\x81\x80\0\0\0\0", b"\xc1\x00", b"\x80\x00", b"\x01\x00\x81\x00"])
def test_bad_frames_are_refused(data: bytes) -> None:
    with pytest.raises(PeerError):
        frames.split_frames(data, [])


def test_request_response_at_every_boundary() -> None:
    answer = b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: " + frames.UPGRADE_ACCEPT + b"\r\n\r\n"
    for cut in range(len(answer)):
        assert frames.upgrade_end(answer[:cut]) == 0
    assert frames.upgrade_end(answer + b"\x81") == len(answer)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"HTTP/1.1 503 Full\r\n\r\n", "HTTP 503"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 101 Go\r\nSec-WebSocket-Accept: wrong\r\n\r\n", "wrong accept key"),
        (b"x" * 70_000, "response head without end"),
    ],
)
def test_refused_upgrades(answer: bytes, kind: str) -> None:
    with pytest.raises(PeerError, match=kind):
        frames.upgrade_end(answer)


@given(st.binary(max_size=300), st.binary(max_size=9), st.sampled_from([frames.TEXT, frames.BINARY]))
def test_where_a_message_ends(payload: bytes, before: bytes, opcode: int) -> None:
    size = bytes((len(payload),)) if len(payload) < 126 else b"\x7e" + len(payload).to_bytes(2, "big")
    frame = bytes((0x80 | opcode,)) + size + payload
    for cut in range(len(frame)):
        assert frames.message_end(before + frame[:cut], len(before)) == 0
    end = frames.message_end(before + frame + b"\x81", len(before))
    assert end == len(before) + len(frame)
    assert frames.payload_of(frame) == payload


@pytest.mark.parametrize(
    "data", [b"", b"\x81", b"\x89\x00", b"\x01\x01x", b"\x80\x01x", b"\xc1\x01x", b"\x81\x80\0\0\0\0"]
)
def test_what_is_not_a_whole_message(data: bytes) -> None:
    assert frames.message_end(data) == 0


def test_a_message_too_long_for_the_short_way() -> None:
    assert frames.message_end(b"\x81\x7f" + (5).to_bytes(8, "big") + b"12345") == 0
