"""What holds for a transport wherever its bytes are cut, and for events that are said to several transports."""

from collections.abc import Sequence

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plain_dialect import CHUNKS, POLLS
from wsproto.connection import Connection as WsConnection
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping, TextMessage

from farm.transports import HTTP, Finder, Transport
from farm.transports.frames import BINARY, CLOSE, PING, TEXT
from farm.transports.request import Request, header_lines, response_head
from farm.transports.websocket import WEBSOCKET, WebSocket
from farm.worker.connection import Connection
from farm.worker.encoded import Encoded, Joined, by_transport, join
from farm.worker.fanout import FanOuts
from router.common.poller import READ
from router.common.position import LogEvent

MAX_MESSAGE = 500
MAX_FRAGMENTS = 8

_messages = st.lists(
    st.one_of(
        st.text(max_size=200).map(lambda text: (TEXT, text.encode())),
        st.binary(max_size=200).map(lambda data: (BINARY, data)),
        st.binary(max_size=20).map(lambda data: (PING, data)),
    ),
    max_size=6,
)
_cuts = st.lists(st.integers(1, 60), max_size=20)


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """The bytes in reads of these sizes, and one of what is left."""
    found, at = [], 0
    for cut in cuts:
        found.append(data[at : at + cut])
        at += cut
    return [piece for piece in (*found, data[at:]) if piece]


def heard(transport: Transport, reads: Sequence[bytes], most: int) -> list[tuple[int, bytes]]:
    """What a worker makes of these reads: the short way first, then a reader for as long as it keeps something."""
    found: list[tuple[int, bytes]] = []
    reader = None
    for data in reads:
        if reader is None:
            short = transport.texts(data, MAX_MESSAGE, most)
            if short is not None:
                texts, end = short
                assert len(texts) <= most
                found += [(TEXT, text) for text in texts]
                if end == len(data):
                    continue
                data = data[end:]
            reader = transport.reader(MAX_MESSAGE, MAX_FRAGMENTS)
            assert reader is not None
        found += reader.feed(data, most)
        while reader.more:
            found += reader.feed(b"", most)
            assert reader.taken <= most
        assert reader.error is None
        if reader.idle:
            reader = None
    return found


@given(_messages, _cuts, st.integers(1, 4))
def test_websocket_hears_what_a_client_says_wherever_it_is_cut(
    messages: list[tuple[int, bytes]], cuts: list[int], most: int
) -> None:
    client = WsConnection(ConnectionType.CLIENT)
    data = b""
    for kind, payload in messages:
        event: Message | Ping = (
            Ping(payload) if kind == PING else TextMessage(payload.decode()) if kind == TEXT else BytesMessage(payload)
        )
        data += client.send(event)
    assert heard(WEBSOCKET, pieces(data, cuts), most) == messages


@given(_messages, _cuts, st.text(max_size=30))
def test_what_websocket_says_a_client_hears(messages: list[tuple[int, bytes]], cuts: list[int], reason: str) -> None:
    said = {TEXT: WEBSOCKET.text, BINARY: WEBSOCKET.binary, PING: WEBSOCKET.ping}
    data = b"".join(said[kind](payload) for kind, payload in messages)
    data += WEBSOCKET.event(b"event", None) + WEBSOCKET.close(4001, reason)
    client = WsConnection(ConnectionType.CLIENT)
    found: list[tuple[int, bytes]] = []
    closes, partial = [], b""
    for piece in pieces(data, cuts):
        client.receive_data(piece)
        for event in client.events():
            if isinstance(event, CloseConnection):
                closes.append((event.code, event.reason))
            elif isinstance(event, Ping):
                found.append((PING, bytes(event.payload)))
            else:
                assert isinstance(event, TextMessage | BytesMessage)
                is_text = isinstance(event, TextMessage)
                partial += event.data.encode() if is_text else bytes(event.data)
                if event.message_finished:
                    found.append((TEXT if is_text else BINARY, partial))
                    partial = b""
    assert found == [*messages, (TEXT, b"event")]
    assert closes == [(4001, reason)]


@given(st.lists(st.binary(max_size=50), max_size=6), _cuts)
def test_what_a_stream_says_a_client_hears(messages: list[bytes], cuts: list[int]) -> None:
    request = Request(b"GET", "/", "", {}, (1, 1))
    data = CHUNKS.head(request, None, ()) + b"".join(map(CHUNKS.text, messages)) + CHUNKS.close(1000, "")
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    client.send(h11.EndOfMessage())
    body, ended = b"", False
    for piece in pieces(data, cuts):
        client.receive_data(piece)
        while not ended and (event := client.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Data):
                body += event.data
            ended = ended or isinstance(event, h11.EndOfMessage)
    assert ended
    assert body == b"".join(messages) + b"closed 1000 "


def test_a_close_of_the_peer_that_has_come_is_not_looked_for() -> None:
    close = b"\x88\x80\0\0\0\0"
    reader = WEBSOCKET.reader(MAX_MESSAGE, MAX_FRAGMENTS)
    assert reader is not None
    assert isinstance(WEBSOCKET.finder(reader, ()), Finder)
    assert WEBSOCKET.finder(None, [(TEXT, b"x"), (CLOSE, b"")]) is None
    reader.feed(close + close, 0)
    assert WEBSOCKET.finder(reader, ()) is None


def test_a_plain_answer_hears_nothing_and_says_nothing_of_its_own() -> None:
    assert HTTP.texts(b"x", MAX_MESSAGE, 1) is None
    assert HTTP.reader(MAX_MESSAGE, MAX_FRAGMENTS) is None
    assert (HTTP.ping(b""), HTTP.pong(b""), HTTP.close(1000, ""), HTTP.close_reply(b"")) == (b"",) * 4
    assert HTTP.respond(200, ()) is None
    assert HTTP.finder(None, ()) is None


# ---- headers of an answer


@pytest.mark.parametrize(
    "header",
    [
        ("X", "a\r\nB: c"),
        ("X", "a\nb"),
        ("X", "a\0"),
        ("X", "\u20ac"),
        ("X\r\nY", "a"),
        ("", "a"),
        ("X Y", "a"),
        ("X:", "a"),
    ],
)
def test_a_header_is_one_line(header: tuple[str, str]) -> None:
    for encode in (lambda: header_lines((header,)), lambda: response_head(200, (header,))):
        with pytest.raises(ValueError, match="is no header"):
            encode()


# ---- events for several transports


class Counting(WebSocket):
    """Counts what it encodes, and tells what it was told of."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events: list[tuple[bytes, LogEvent | None]] = []

    def event(self, text: bytes, logged: LogEvent | None) -> bytes:
        self.events.append((text, logged))
        return b"<" + text + b">"


def test_an_event_is_encoded_once_a_transport_and_only_where_it_is_needed() -> None:
    first, second, third = Counting(), Counting(), Counting()
    logged = LogEvent(1, 2, 3, 4, "id", {}, "body")
    event = Encoded(b"text", True, logged)
    for _ in range(3):
        assert event.by(first) == event.by(second) == b"<text>"
    assert (first.events, second.events, third.events) == ([(b"text", logged)], [(b"text", logged)], [])
    members = Encoded(b"members", False, None)
    assert members.by(first) == WEBSOCKET.text(b"members")
    several = join([b"before", event, members])
    assert isinstance(several, Joined)
    assert several.by(third) == b"before<text>" + WEBSOCKET.text(b"members")
    assert len(third.events) == 1
    assert join([b"a", b"b"]) == b"ab"
    assert event.by(POLLS[True]).endswith(b"\r\n\r\ntext\n")
    assert join([event, event]).by(POLLS[True]).endswith(b"\r\n\r\ntext\ntext\n")  # type: ignore[union-attr]


_steps = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(0, 99)),
        st.tuples(st.just("join"), st.integers(0, 11)),
        st.tuples(st.just("leave"), st.integers(0, 11)),
        st.tuples(st.just("due"), st.integers(0, 11)),
        st.tuples(st.just("turn"), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(_steps)
def test_each_hears_in_its_own_way_what_was_said_while_it_was_in(steps: list[tuple[str, int]]) -> None:
    transports = (WEBSOCKET, CHUNKS, Counting())
    connections = [Connection(number, READ, 0.0) for number in range(12)]
    for connection in connections:
        connection.transport = transports[connection.fd % 3]
    there: dict[Connection, None] = {}
    told: dict[int, bytes] = dict.fromkeys(range(12), b"")
    expected: dict[int, bytes] = dict.fromkeys(range(12), b"")
    fan_outs: FanOuts[str, Connection] = FanOuts(40, join)

    def turn(most: int) -> None:
        if not fan_outs.going:
            return
        _, fan_out = fan_outs.next()
        batch, _ = fan_out.take(most)
        if batch is not None:
            for transport, group in by_transport(batch.subscribers).items():
                data = batch.data if isinstance(batch.data, bytes) else batch.data.by(transport)
                for connection in group:
                    told[connection.fd] += data
        fan_outs.took_turn(0.0)

    for step, number in steps:
        if step == "say" and there:
            if fan_outs.get("channel") is None:
                fan_outs.begin("channel", there)
            frame = Encoded(b"%d" % number, number % 2 == 0, None)
            fan_outs.append("channel", frame, 0.0)
            for connection in there:
                expected[connection.fd] += frame.by(connection.transport)
        elif step == "join" and connections[number] not in there:
            there[connections[number]] = None
            fan_outs.join("channel", connections[number])
        elif step == "leave" and connections[number] in there:
            if (fan_out := fan_outs.get("channel")) is not None:
                data, frames = fan_out.due(connections[number])
                told[number] += data.by(connections[number].transport) if frames else b""
            del there[connections[number]]
            fan_outs.leave("channel", connections[number])
        elif step == "due" and (fan_out := fan_outs.get("channel")) is not None:
            data, frames = fan_out.due(connections[number])
            told[number] += data.by(connections[number].transport) if frames else b""
        elif step == "turn":
            turn(number)
    while fan_outs.going:
        turn(100)
    assert told == expected
