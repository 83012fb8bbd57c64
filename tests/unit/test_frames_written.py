"""Frames that we write, which wsproto's client end reads, and the peer's close frame once ours is out."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frames import MAX_FRAGMENTS, MAX_MESSAGE, Raw, by_oracle, frame, raws
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from farm.transports.frames import (
    BINARY,
    CLOSE,
    PING,
    PONG,
    TEXT,
    CloseFinder,
    FrameReader,
    encode_close,
    encode_frame,
    encode_text,
    unmask,
)


def read_by_client(data: bytes) -> list[Event]:
    client = Connection(ConnectionType.CLIENT)
    client.receive_data(data)
    return list(client.events())


@pytest.mark.parametrize("length", [0, 1, 125, 126, 65_535, 65_536])
def test_text_of_every_form_of_length(length: int) -> None:
    events = read_by_client(encode_text(b"x" * length))
    assert "".join(str(event.data) for event in events if isinstance(event, TextMessage)) == "x" * length
    assert events[-1].message_finished  # type: ignore[attr-defined]


@given(st.binary(max_size=125), st.binary(max_size=400))
def test_control_and_binary_frames(control: bytes, binary: bytes) -> None:
    data = encode_frame(PONG, control) + encode_frame(BINARY, binary) + encode_frame(PING, control)
    pong, message, ping = read_by_client(data)
    assert isinstance(pong, Pong)
    assert isinstance(message, BytesMessage)
    assert isinstance(ping, Ping)
    assert (bytes(pong.payload), bytes(message.data), bytes(ping.payload)) == (control, binary, control)


@given(st.sampled_from([1000, 1001, 1002, 1007, 1009, 1011, 1013]), st.text(max_size=150))
def test_a_close_reason_is_cut_at_a_character(code: int, reason: str) -> None:
    (event,) = read_by_client(encode_close(code, reason))
    assert isinstance(event, CloseConnection)
    assert event.code == code
    assert reason.startswith(event.reason or "")
    if len(reason.encode()) <= 123:
        assert (event.reason or "") == reason
    else:
        assert len((event.reason or "").encode()) > 119


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_unmask_is_the_byte_by_byte_xor(payload: bytes, mask: bytes) -> None:
    assert unmask(payload, mask) == bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def close_found(*reads: bytes) -> int | None:
    """After how many reads the close frame was found."""
    finder = CloseFinder()
    return next((number for number, part in enumerate(reads, 1) if finder.feed(part)), None)


@given(st.lists(raws, max_size=4), st.binary(max_size=125), st.lists(st.integers(0, 3000), max_size=8))
def test_the_close_frame_is_found_behind_whatever_comes_before_it_and_however_it_is_cut(
    frames: list[Raw], payload: bytes, places: list[int]
) -> None:
    close = frame(CLOSE, payload)
    good = b"".join(raw.encode() for raw in frames if raw.opcode != CLOSE and by_oracle(raw.encode())[1] is None)
    data = good + close
    edges = [0, *sorted(place % len(data) for place in places), len(data)]
    reads = [data[a:b] for a, b in pairwise(edges)]
    assert close_found(*reads) == next(number for number, edge in enumerate(edges[1:], 1) if edge == len(data))
    assert close_found(data[:-1]) is None


def test_all_of_a_message_that_was_too_long_is_passed_over() -> None:
    data = frame(BINARY, b"x" * 300_000) + frame(CLOSE)
    reads = [data[at : at + 8192] for at in range(0, len(data), 8192)]
    assert close_found(*reads) == len(reads)


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x81\x00", b"\x83\x80", b"\x89\xfe", b"GET / HTTP/1.1\r\n"])
def test_where_no_frame_comes_there_is_no_close_frame_to_wait_for(data: bytes) -> None:
    assert close_found(frame(TEXT, b"x"), data) == 2
    assert close_found(frame(TEXT, b"x")) is None


def test_what_the_reader_has_not_taken_is_there_for_who_looks_for_the_close_frame() -> None:
    long = frame(BINARY, b"x" * (MAX_MESSAGE + 1))
    data = frame(TEXT, b"first") + long + frame(CLOSE)
    for cut in (1, 5, 12, 20, len(data) - len(long), len(data) - 3):
        reader = FrameReader(MAX_MESSAGE, MAX_FRAGMENTS)
        reader.feed(data[:cut])
        finder = CloseFinder()
        assert not finder.feed(reader.rest)
        assert finder.feed(data[cut:])


def test_a_reader_stops_after_so_many_frames_and_goes_on_where_it_was() -> None:
    data = b"".join(frame(PING, bytes([n])) for n in range(5)) + frame(TEXT, b"a", fin=False) + frame(0, b"b")
    reader = FrameReader(MAX_MESSAGE, 10)
    found = [reader.feed(data, 2)]
    while reader.more:
        assert reader.kept > 0
        found.append(reader.feed(b"", 2))
    assert [len(part) for part in found] == [2, 2, 1, 1]
    assert [one for part in found for one in part] == [*((PING, bytes([n])) for n in range(5)), (TEXT, b"ab")]
    assert reader.idle
