"""How devices that speak no WebSocket read what a server sends: `bench.load.transports`."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.frames import CLOSE, TEXT, Message, PeerError
from bench.load.transports import WEBSOCKET, Transport
from bench.load.transports.answers import LONG_POLL
from bench.load.transports.chunks import BARE_EVENT_STREAM, EVENT_STREAM, STREAM, fields_of

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
ANSWERS = (
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nEtag: W/1\r\n\r\nhello",
    b"HTTP/1.1 304 Not Modified\r\nEtag: W/1\r\n\r\n",
)


def chunk(contents: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(contents), contents)


CHUNKS = chunk(b"one") + chunk(b"x" * 300) + chunk(b"")
EVENTS = chunk(b": \n\n") + chunk(b"id: 1:2\ndata: a\n\nda") + chunk(b"ta: b\n\ndata: c\n") + chunk(b"\n")
EVENTS += chunk(b"id: 1:3\r\ndata: d\r\n\r\n: -1\r\n\r") + chunk(b"\n") + chunk(b"")
READ = [
    (STREAM, CHUNKS, [(TEXT, b"one"), (TEXT, b"x" * 300), (CLOSE, b"")]),
    (
        EVENT_STREAM,
        EVENTS,
        [
            *((TEXT, b": \n\n"), (TEXT, b"id: 1:2\ndata: a\n\n"), (TEXT, b"data: b\n\n"), (TEXT, b"data: c\n\n")),
            *((TEXT, b"id: 1:3\r\ndata: d\r\n\r\n"), (TEXT, b": -1\r\n\r\n")),
            (CLOSE, b""),
        ],
    ),
    (
        BARE_EVENT_STREAM,
        b": hi\n\nid: 1:2\ndata: a\n\ndata: b\r\n\r\n",
        [(TEXT, b": hi\n\n"), (TEXT, b"id: 1:2\ndata: a\n\n"), (TEXT, b"data: b\r\n\r\n")],
    ),
    (LONG_POLL, b"".join(ANSWERS), [(TEXT, answer) for answer in ANSWERS]),
]


@given(st.data())
@pytest.mark.parametrize(("transport", "data", "messages"), READ, ids=["stream", "events", "bare", "long poll"])
def test_messages_are_the_same_however_they_are_cut(
    transport: Transport, data: bytes, messages: list[Message], st_data: st.DataObject
) -> None:
    cuts = sorted(st_data.draw(st.lists(st.integers(0, len(data)))))
    found: list[Message] = []
    parts: list[bytes] = []
    rest = b""
    for start, end in pairwise([0, *cuts, len(data)]):
        more, rest = transport.split(rest + data[start:end], parts)
        found += more
    assert found == messages and not rest and not parts


@pytest.mark.parametrize(
    ("transport", "message", "payload"),
    [
        (STREAM, chunk(b"one"), b"one"),
        (EVENT_STREAM, chunk(b"data: a\n\n"), b"data: a\n\n"),
        (EVENT_STREAM, chunk(b"id: 4\r\ndata: a\r\n\r\n"), b"id: 4\r\ndata: a\r\n\r\n"),
        (BARE_EVENT_STREAM, b"data: a\n\n", b"data: a\n\n"),
        (LONG_POLL, ANSWERS[0], ANSWERS[0]),
        (WEBSOCKET, b"\x81\x03one", b"one"),
    ],
)
def test_one_whole_message(transport: Transport, message: bytes, payload: bytes) -> None:
    assert transport.single(message) == payload
    assert transport.end(b"?" + message + message, 1) == 1 + len(message)
    assert transport.payload(message) == payload
    assert transport.single(message + message) is None
    for cut in range(1, len(message)):
        assert transport.single(message[:cut]) is None and not transport.end(message[:cut], 0)


def test_what_stands_in_an_event() -> None:
    assert fields_of(b"id: 7:1\r\nevent: x\r\ndata: a: b\r\n\r\n") == (b"a: b", b"7:1")
    assert fields_of(b"data: a\ndata: b\n\n") == (b"b", b"")
    assert fields_of(b": -1\r\n\r\n") == (b"", b"")


def test_what_is_not_one_message_of_a_stream() -> None:
    for data in (chunk(b"data: a\n"), chunk(b"data: a\n\ndata: b\n\n"), chunk(b"\n\ndata: a\n\n")):
        assert EVENT_STREAM.single(data) is None and not EVENT_STREAM.end(data, 0)
    for transport in (STREAM, EVENT_STREAM):
        assert transport.single(chunk(b"")) is None
        assert transport.pong(b"!") == b"" and transport.closing(b"") == (b"", "the stream ended")
        for bad in (b"no size\r\n", b"123456789\r\n", b"3\r\noneXX"):
            with pytest.raises(PeerError, match="bad chunk"):
                transport.split(bad, [])


def test_the_answer_to_the_request_of_a_stream() -> None:
    assert STREAM.head_end is not None and LONG_POLL.head_end is None
    assert BARE_EVENT_STREAM.head_end is not None
    assert BARE_EVENT_STREAM.head_end(b"HTTP/1.1 200 OK\r\n\r\ndata: a\n\n") == 19
    with pytest.raises(PeerError, match="in chunks"):
        BARE_EVENT_STREAM.head_end(HEAD)
    for cut in range(len(HEAD)):
        assert STREAM.head_end(HEAD[:cut]) == 0
    assert STREAM.head_end(HEAD + CHUNKS) == len(HEAD)
    for data, text in (
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", "HTTP 403"),
        (b"SSH-2.0\r\n\r\n", "not HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "without chunks"),
        (b"x" * 70_000, "without end"),
    ):
        with pytest.raises(PeerError, match=text):
            STREAM.head_end(data)


def test_an_answer_of_unknown_length_is_refused() -> None:
    with pytest.raises(PeerError, match="without Content-Length"):
        LONG_POLL.split(b"HTTP/1.1 200 OK\r\n\r\n", [])
