"""Frames, with wsproto as the oracle: its client end writes what we read and reads what we write, and its server end
says what must be refused."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.common import cuts
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage
from wsproto.frame_protocol import FrameProtocol, ParseFailed

from farm.worker.frames import (
    BINARY,
    CLOSE,
    INVALID_PAYLOAD,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    TOO_BIG,
    CloseFinder,
    FrameReader,
    encode_close,
    encode_frame,
    encode_text,
    short_texts,
    unmask,
)

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


# ---- what a client writes, we read

_pings = st.builds(Ping, payload=st.binary(max_size=125))
_pongs = st.builds(Pong, payload=st.binary(max_size=125))


@st.composite
def conversations(draw: st.DrawFn) -> list[Event]:
    """Messages in fragments, with control frames between messages and between fragments."""
    events: list[Event] = []
    for _ in range(draw(st.integers(1, 4))):
        text = draw(st.booleans())
        parts = draw(st.lists(st.text(max_size=200) if text else st.binary(max_size=200), min_size=1, max_size=4))
        for number, part in enumerate(parts, 1):
            events += draw(st.lists(_pings | _pongs, max_size=2))
            last = number == len(parts)
            events.append(
                TextMessage(part, message_finished=last) if text else BytesMessage(part, message_finished=last)
            )
    return events


def expected(events: list[Event]) -> Found:
    found: Found = []
    parts = b""
    for event in events:
        if isinstance(event, Ping):
            found.append((PING, bytes(event.payload)))
        elif isinstance(event, Pong):
            found.append((PONG, bytes(event.payload)))
        elif isinstance(event, (TextMessage, BytesMessage)):
            text = isinstance(event, TextMessage)
            parts += event.data.encode() if isinstance(event.data, str) else bytes(event.data)
            if event.message_finished:
                found.append((TEXT if text else BINARY, parts))
                parts = b""
    return found


@given(conversations(), st.lists(st.integers(0, 3000), max_size=8))
def test_all_that_a_client_writes_is_read_however_it_is_cut(events: list[Event], places: list[int]) -> None:
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(client.send(event) for event in events)
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    parts = [data[a:b] for a, b in pairwise(edges)]
    assert read(*parts) == (expected(events), None)


def test_a_conversation_is_read_at_every_cut_and_byte_by_byte() -> None:
    events: list[Event] = [
        TextMessage("gr\N{LATIN SMALL LETTER U WITH DIAERESIS}\N{LATIN SMALL LETTER SHARP S}", message_finished=False),
        Ping(payload=b"between"),
        TextMessage("", message_finished=False),
        TextMessage("\N{PUSHPIN} the end"),
        BytesMessage(bytes(range(200))),
        Pong(),
    ]
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(client.send(event) for event in events)
    for first, second in cuts(data):
        assert read(first, second) == (expected(events), None)
    assert read(*(data[i : i + 1] for i in range(len(data)))) == (expected(events), None)


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65_535, 65_536, MAX_MESSAGE])
def test_every_form_of_length_is_read(length: int) -> None:
    payload = bytes(i % 251 for i in range(length))
    assert read(Connection(ConnectionType.CLIENT).send(BytesMessage(payload))) == ([(BINARY, payload)], None)


def test_a_reader_is_idle_only_between_messages() -> None:
    reader = FrameReader(MAX_MESSAGE, MAX_FRAGMENTS)
    assert reader.idle
    reader.feed(frame(TEXT, b"a", fin=False))
    assert not reader.idle
    reader.feed(frame(PING))
    assert not reader.idle
    last = frame(CONTINUATION, b"b")
    reader.feed(last[:3])
    assert not reader.idle
    assert reader.feed(last[3:]) == [(TEXT, b"ab")]
    assert reader.idle
    reader.feed(b"\xff")
    reader.feed(b"\xff")
    assert not reader.idle


# ---- what must be refused: wsproto's server end decides


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
                found.append((CLOSE, b"" if payload[0] == 1005 else int(payload[0]).to_bytes(2, "big")))
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


@given(st.lists(raws, min_size=1, max_size=5))
@example([Raw(CONTINUATION, b"x", True, 0, 0, MASK)])
@example([Raw(TEXT, b"x", False, 0, 0, MASK), Raw(TEXT, b"y", True, 0, 0, MASK)])
@example([Raw(CLOSE, b"\x03", True, 0, 0, MASK)])
def test_wsproto_and_we_refuse_the_same(frames: list[Raw]) -> None:
    data = b"".join(raw.encode() for raw in frames)
    found, code = read(data)
    after_close = next((i for i, (opcode, _) in enumerate(found) if opcode == CLOSE), None)
    if after_close is not None:  # nothing behind a close frame matters
        found, code = found[: after_close + 1], None
    assert (found, code) == by_oracle(data)


@given(st.binary(max_size=40) | st.lists(raws, max_size=3).map(lambda frames: b"".join(r.encode() for r in frames)))
def test_the_fast_path_decides_nothing_else_than_the_reader(data: bytes) -> None:
    found = short_texts(data, MAX_MESSAGE, 1000)
    if found is not None:
        texts, end = found
        assert end == len(data)
        assert ([(TEXT, text) for text in texts], None) == read(data)


@given(st.lists(st.text(max_size=300).map(str.encode), min_size=1, max_size=4))
def test_the_fast_path_takes_what_devices_send(texts: list[bytes]) -> None:
    client = Connection(ConnectionType.CLIENT)
    data = b"".join(client.send(TextMessage(text.decode())) for text in texts)
    assert short_texts(data, MAX_MESSAGE, 1000) == (texts, len(data))
    found = short_texts(data, MAX_MESSAGE, 1)
    assert found is not None
    assert found[0] == texts[:1]
    assert read(data[found[1] :]) == ([(TEXT, text) for text in texts[1:]], None)


def test_a_cut_within_a_frame_leaves_it_to_the_reader() -> None:
    data = frame(TEXT, b"one") + frame(TEXT, b"two" * 60)
    for first, _ in cuts(data):
        assert short_texts(first, MAX_MESSAGE, 1000) == (([b"one"], 9) if len(first) == 9 else None)


def test_the_fast_path_knows_the_limit_too() -> None:
    assert short_texts(frame(TEXT, b"a" * 200), 200, 1000) == ([b"a" * 200], 208)
    assert short_texts(frame(TEXT, b"a" * 201), 200, 1000) is None


@pytest.mark.parametrize(
    "data",
    [
        frame(TEXT, b"a", mask=None),
        frame(TEXT, b"a", fin=False),
        frame(TEXT, b"a", rsv=4),
        frame(BINARY, b"a"),
        frame(PING),
        frame(TEXT, b"\xff"),
        frame(TEXT, b"a" * 125, form=2),
        frame(TEXT, b"a", form=8),
        frame(TEXT, b"a" * 65_536),
        frame(TEXT, b"abc")[:-1],
        frame(TEXT, b"abc") + b"\x81",
        frame(TEXT, b"a" * 126)[:3],
    ],
)
def test_the_fast_path_leaves_the_rest_undecided(data: bytes) -> None:
    assert short_texts(data, MAX_MESSAGE, 1000) is None


@pytest.mark.parametrize(
    "data",
    [pytest.param(bytes((0x81 | rsv << 4, 0x80)), id=f"reserved bits {rsv}") for rsv in range(1, 8)]
    + [pytest.param(bytes((0x80 | opcode, 0x80)), id=f"opcode {opcode}") for opcode in (3, 4, 5, 6, 7, 11, 15)]
    + [
        pytest.param(b"\x81\x00", id="not masked"),
        pytest.param(b"\x09\x80", id="ping in fragments"),
        pytest.param(b"\x88\xfe", id="close of more than 125 bytes"),
        pytest.param(b"\x81\xfe\x00\x7d", id="two bytes for 125"),
        pytest.param(b"\x82\xff" + (65_535).to_bytes(8, "big"), id="eight bytes for 65535"),
        pytest.param(b"\x82\xff" + (2**63).to_bytes(8, "big"), id="topmost bit of the length"),
    ],
)
def test_a_bad_header_is_refused_before_its_payload_comes(data: bytes) -> None:
    assert read(data) == ([], PROTOCOL_ERROR)
    assert read(*(data[i : i + 1] for i in range(len(data)))) == ([], PROTOCOL_ERROR)


def test_what_came_before_an_error_counts_and_nothing_after_it() -> None:
    data = frame(TEXT, b"good") + frame(PING, b"p") + frame(3) + frame(TEXT, b"never")
    assert read(data) == ([(TEXT, b"good"), (PING, b"p")], PROTOCOL_ERROR)
    for first, second in cuts(data):
        assert read(first, second) == ([(TEXT, b"good"), (PING, b"p")], PROTOCOL_ERROR)


# ---- fragments and UTF-8


@given(st.text(min_size=1, max_size=30), st.data())
def test_a_code_point_may_be_split_between_fragments(text: str, data: st.DataObject) -> None:
    whole = text.encode()
    edges = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    parts = [whole[a:b] for a, b in zip([0, *edges], [*edges, len(whole)], strict=True)]
    frames = [
        frame(TEXT if number == 0 else CONTINUATION, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]
    assert read(b"".join(frames)) == ([(TEXT, whole)], None)


@pytest.mark.parametrize(
    "parts",
    [
        [b"\xff"],
        [b"\xc0\x80"],
        [b"\xed\xa0\x80"],
        [b"\xf4\x90\x80\x80"],
        [b"ok", b"\xe2\x82", b"no"],
        [b"\xe2\x82"],
        [b"\xe2", b"\x82"],
        [b"\xe2\x82", b""],
    ],
)
def test_text_that_is_not_utf8_is_refused(parts: list[bytes]) -> None:
    frames = [
        frame(TEXT if number == 0 else CONTINUATION, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]
    assert read(b"".join(frames)) == ([], INVALID_PAYLOAD)
    assert short_texts(frames[0], MAX_MESSAGE, 1000) is None


def test_binary_may_hold_anything() -> None:
    assert read(frame(BINARY, b"\xff", fin=False) + frame(CONTINUATION, b"\xc0")) == ([(BINARY, b"\xff\xc0")], None)


# ---- limits


def test_a_message_of_exactly_the_limit_is_read_and_one_more_byte_is_not() -> None:
    assert read(frame(TEXT, b"a" * 200), max_message=200) == ([(TEXT, b"a" * 200)], None)
    assert read(frame(TEXT, b"a" * 201), max_message=200) == ([], TOO_BIG)


def test_a_message_over_the_limit_is_refused_by_its_header_alone() -> None:
    header = b"\x82\xff" + (MAX_MESSAGE + 1).to_bytes(8, "big")
    assert read(header[:9]) == ([], None)
    assert read(header) == ([], TOO_BIG)


@given(st.lists(st.integers(0, 90), min_size=1, max_size=6))
def test_the_limit_counts_all_fragments_together(sizes: list[int]) -> None:
    frames = b"".join(
        frame(BINARY if number == 0 else CONTINUATION, b"x" * size, fin=number == len(sizes) - 1)
        for number, size in enumerate(sizes)
    )
    total = sum(sizes)
    over = ([], TOO_BIG)
    assert read(frames, max_message=200) == (over if total > 200 else ([(BINARY, b"x" * total)], None))


def test_the_limit_counts_half_a_character_too() -> None:
    euro = "\N{EURO SIGN}".encode()
    frames = frame(TEXT, b"a" * 198 + euro[:2], fin=False) + frame(CONTINUATION, euro[2:])
    assert read(frames, max_message=200) == ([], TOO_BIG)


def test_control_frames_count_for_no_limit() -> None:
    pings = frame(PING, b"p" * 125) * 10
    data = frame(TEXT, b"a" * 100, fin=False) + pings + frame(CONTINUATION, b"b" * 100)
    found, code = read(data, max_message=200, max_fragments=2)
    assert code is None
    assert found[-1] == (TEXT, b"a" * 100 + b"b" * 100)
    assert found[:-1] == [(PING, b"p" * 125)] * 10


def test_empty_fragments_without_end_are_refused() -> None:
    start, empty = frame(TEXT, b"", fin=False), frame(CONTINUATION, b"", fin=False)
    assert read(start + empty * (MAX_FRAGMENTS - 1)) == ([], None)
    assert read(start + empty * MAX_FRAGMENTS) == ([], TOO_BIG)
    full = start + empty * (MAX_FRAGMENTS - 2) + frame(CONTINUATION, b"end")
    assert read(full + full) == ([(TEXT, b"end")] * 2, None)


# ---- close


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_code(code: int) -> None:
    data = Connection(ConnectionType.CLIENT).send(CloseConnection(code=code, reason="bye"))
    assert read(data) == ([(CLOSE, code.to_bytes(2, "big"))], None)


def test_a_close_without_code_is_answered_without_code() -> None:
    assert read(frame(CLOSE)) == ([(CLOSE, b"")], None)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_a_close_code_that_nobody_may_send_is_refused(code: int) -> None:
    assert read(frame(CLOSE, code.to_bytes(2, "big"))) == ([], PROTOCOL_ERROR)


def test_a_close_with_half_a_code_or_a_bad_reason_is_refused() -> None:
    assert read(frame(CLOSE, b"\x03")) == ([], PROTOCOL_ERROR)
    assert read(frame(CLOSE, b"\x03\xe8\xff")) == ([], INVALID_PAYLOAD)


# ---- what we write, a client reads


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


# ---- the peer's close frame, once ours is out


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
