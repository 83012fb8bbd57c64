"""Frames that we read, with wsproto as the oracle: its client end writes them, its server end says what is refused."""

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.common import cuts
from support.frames import CONTINUATION, MASK, MAX_FRAGMENTS, MAX_MESSAGE, Found, Raw, by_oracle, frame, raws, read
from wsproto import ConnectionType
from wsproto.connection import Connection
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from farm.transports.frames import BINARY, CLOSE, PING, PONG, TEXT, FrameReader, short_texts
from farm.transports.websocket import WEBSOCKET
from router.common.close_codes import INVALID_PAYLOAD, PROTOCOL_ERROR, TOO_BIG

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


@pytest.mark.parametrize("code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999])
def test_a_close_is_answered_with_its_code(code: int) -> None:
    data = Connection(ConnectionType.CLIENT).send(CloseConnection(code=code, reason="bye"))
    payload = code.to_bytes(2, "big") + b"bye"
    assert read(data) == ([(CLOSE, payload)], None)
    assert WEBSOCKET.close_reply(payload) == b"\x88\x02" + payload[:2]


def test_a_close_without_code_is_answered_without_code() -> None:
    assert read(frame(CLOSE)) == ([(CLOSE, b"")], None)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_a_close_code_that_nobody_may_send_is_refused(code: int) -> None:
    assert read(frame(CLOSE, code.to_bytes(2, "big"))) == ([], PROTOCOL_ERROR)


def test_a_close_with_half_a_code_or_a_bad_reason_is_refused() -> None:
    assert read(frame(CLOSE, b"\x03")) == ([], PROTOCOL_ERROR)
    assert read(frame(CLOSE, b"\x03\xe8\xff")) == ([], INVALID_PAYLOAD)
