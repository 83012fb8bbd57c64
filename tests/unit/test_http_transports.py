"""Transports over plain HTTP: what clients that are not ours read of streams, server-sent events and long polls."""

from collections.abc import Sequence
from email.utils import parsedate_to_datetime

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.transports import Transport
from farm.transports.event_stream import EventStream
from farm.transports.http_stream import HttpStream
from farm.transports.long_poll import JsonpPoll, LongPoll
from farm.transports.request import Request
from farm.transports.retry import spread
from router.common.position import LogEvent

REQUEST = Request(b"GET", "/x", "", {}, (1, 1))
ORIGIN = (("Access-Control-Allow-Origin", "*"),)
_lines = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), min_size=1, max_size=20)


def logged(offset: int = 1, time: int = 1_700_000_000, tag: int = 7, name: str = "", kind: str = "") -> LogEvent:
    return LogEvent(offset, time, tag, time + 60, name, {"type": kind} if kind else {}, "body")


def read(*data: bytes) -> tuple[h11.Response, bytes, bool]:
    """What a client makes of an answer: the head, the body, and whether that has ended."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/x", headers=[("Host", "push")]))
    client.send(h11.EndOfMessage())
    client.receive_data(b"".join(data))
    response, body = None, b""
    while True:
        event = client.next_event()
        if isinstance(event, h11.Response):
            response = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        else:
            assert response is not None
            return response, body, isinstance(event, h11.EndOfMessage)


def headers(response: h11.Response) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in response.headers}


class EventSource:
    """The parser of the HTML standard, section 9.2.6."""

    def __init__(self, body: str) -> None:
        self.events: list[tuple[str, str, str]] = []  # type, data, and the ID that the page sees
        self.last_id = ""
        self.retry: int | None = None
        kind, name = "", ""
        data: list[str] = []
        for line in body.replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
            field, colon, value = line.partition(":")
            value = value.removeprefix(" ")
            if not line:
                self.last_id = name
                if data:
                    self.events.append((kind or "message", "\n".join(data), name))
                kind, data = "", []
            elif line.startswith(":"):
                continue
            elif field == "event":
                kind = value
            elif field == "data":
                data.append(value)
            elif field == "id" and "\0" not in value:
                name = value
            elif field == "retry" and value.isdecimal():
                self.retry = int(value)
            else:
                raise AssertionError(line, colon)


@given(st.lists(_lines, max_size=4))
def test_a_stream_is_an_answer_with_a_line_for_each_message(texts: list[str]) -> None:
    stream = HttpStream("text/plain", headers=ORIGIN, opening=b"begin\r\n", closing=b"end", beat=b"beat\r\n")
    said = [stream.text(text.encode()) for text in texts]
    response, body, ended = read(stream.head(REQUEST, None, (("X-More", "1"),)), *said)
    assert (response.status_code, ended) == (200, False)
    assert (
        headers(response).items()
        >= {
            "content-type": "text/plain",
            "access-control-allow-origin": "*",
            "x-more": "1",
            "x-accel-buffering": "no",
        }.items()
    )
    assert body.decode() == "".join(("begin\r\n", *(f"{text}\r\n" for text in texts)))
    _, body, ended = read(stream.head(REQUEST, None, ()), stream.ping(b""), stream.close(1000, "x"))
    assert (body, ended) == (b"begin\r\nbeat\r\nend", True)


def test_a_client_that_speaks_http_1_0_reads_to_the_end_of_the_connection() -> None:
    stream = HttpStream("text/plain", chunked=False, opening=b"begin ", closing=b"end")
    head, _, body = stream.head(REQUEST, None, ()).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body + stream.text(b"hi") + stream.ping(b"") + stream.close(1000, "") == b"begin hi\r\nend"


@given(st.lists(st.tuples(st.text(max_size=20), _lines | st.just(""), _lines | st.just("")), max_size=4))
def test_an_event_source_reads_what_was_said_and_comes_again_with_the_place(
    messages: list[tuple[str, str, str]],
) -> None:
    stream = EventStream(headers=ORIGIN, opening=b"two\nlines", beat=b"-1", closing=b"end")
    parts, expected, place = [stream.head(REQUEST, None, ())], [], ""
    for number, (text, name, kind) in enumerate(messages):
        event = logged(tag=number, name=name, kind=kind)
        parts += [stream.event(text.encode(), event), stream.ping(b"")]
        place = f"1700000000:{number}"
        data = text.replace("\r\n", "\n").replace("\r", "\n")
        expected.append((kind or "message", data, name or place))
    response, body, ended = read(*parts, stream.close(1000, ""))
    assert headers(response)["content-type"] == "text/event-stream; charset=utf-8"
    assert ended
    found = EventSource(body.decode())
    assert found.events == expected
    assert found.last_id == place


@pytest.mark.parametrize(
    ("code", "status"), [(1000, 200), (1005, 200), (1001, 503), (1008, 403), (1011, 500), (1013, 503)]
)
def test_a_stream_that_is_closed_before_it_has_begun_is_an_answer_all_the_same(code: int, status: int) -> None:
    stream = EventStream(headers=ORIGIN, opening=b"begin", closing=b"end", late=True, retry_after=7)
    assert stream.head(REQUEST, None, ()) == b""
    response, body, ended = read(stream.close(code, "x"))
    told = headers(response)
    assert (response.status_code, ended, body != b"") == (status, True, status == 200)
    assert told["access-control-allow-origin"] == "*"
    assert (int(told.get("retry-after", 0)) in range(4, 11)) == (status == 503)
    head = stream.respond(200, (("X-More", "1"),))
    assert head is not None
    begun = stream.responded
    assert begun.respond(403, ()) is None
    _, body, ended = read(head, begun.event(b"a", logged()), begun.close(code, "x"))
    assert ended
    assert EventSource(body.decode()).events == [("message", "a", "1700000000:7")]
    assert stream.responded is begun


def test_those_that_are_sent_away_come_back_at_other_times() -> None:
    stream = EventStream(closing=b"end")
    begun = stream.head(REQUEST, None, ())
    for code in (1001, 1013):
        waits = []
        for _ in range(50):
            _, body, ended = read(begun, stream.event(b"a", logged()), stream.close(code, "x"))
            found = EventSource(body.decode())
            assert (ended, found.events) == (True, [("message", "a", "1700000000:7")])
            assert found.retry is not None
            waits.append(found.retry)
        assert len(set(waits)) > 10
        assert 1000 <= min(waits) <= max(waits) <= 5000
    assert b"retry" not in stream.close(1000, "") + stream.close(1008, "")
    assert {spread(1) for _ in range(50)} == {"1"}
    assert {spread(4) for _ in range(200)} == {"2", "3", "4", "5", "6"}


def test_what_no_log_holds_changes_no_position() -> None:
    stream = EventStream()
    _, body, _ = read(stream.head(REQUEST, None, ()), stream.event(b"a", logged()), stream.event(b"live", None))
    found = EventSource(body.decode())
    assert [data for _, data, _ in found.events] == ["a", "live"]
    assert found.last_id == "1700000000:7"


def polled(transport: Transport, parts: Sequence[bytes], code: int = 0) -> tuple[int, dict[str, str], bytes]:
    response, body, ended = read(transport.answer(parts, code, ""))
    assert ended
    return response.status_code, headers(response), body


def test_a_long_poll_says_where_its_answer_ends() -> None:
    poll = LongPoll(True, headers=ORIGIN, opening=b"<", closing=b">")
    parts = [poll.event(b"a", logged(time=5, tag=9)), poll.event(b"b", logged(time=6, tag=2)), poll.text(b"c")]
    status, told, body = polled(poll, parts)
    assert (status, body, told["etag"]) == (200, b"<abc>", "W/2")
    assert parsedate_to_datetime(told["last-modified"]).timestamp() == 6
    assert told["access-control-allow-origin"] == "*"
    assert "connection" not in told
    assert "etag" not in polled(poll, [poll.event(b"live", None)])[1]


@pytest.mark.parametrize(
    ("code", "status"), [(0, 304), (1000, 304), (1001, 304), (1005, 304), (1008, 403), (1011, 500), (1013, 503)]
)
def test_a_long_poll_for_which_nothing_came(code: int, status: int) -> None:
    found, told, body = polled(LongPoll(False, retry_after=7), [], code)
    assert (found, body, told["connection"]) == (status, b"", "close")
    assert (int(told.get("retry-after", 0)) in range(4, 11)) == (status == 503)


def test_a_long_poll_that_the_server_ends_is_the_last_of_its_connection() -> None:
    poll = LongPoll(True)
    for parts, status in (([], 304), ([poll.text(b"a")], 200), ([poll.respond(200, ()), b"a"], 200)):
        assert (found := polled(poll, parts, 1001))[0] == status
        assert found[1]["connection"] == "close"
        assert "connection" not in polled(poll, parts, 1000)[1]
    _, _, head = LongPoll(False).answer([], 1001, "").partition(b"\r\n")
    assert head.count(b"Connection: close\r\n") == 1


def test_a_session_gives_the_answer_another_status() -> None:
    poll = LongPoll(True)
    head = poll.respond(200, (("Etag", "W/3"),))
    assert polled(poll, [head, b"timed out"], 1000)[2] == b"timed out"
    status, told, body = polled(poll, [poll.respond(304, (("Etag", "W/3"),))], 1000)
    assert (status, told["etag"], body) == (304, "W/3", b"")


def test_jsonp_calls_a_function_with_all_messages() -> None:
    poll = JsonpPoll("page.took", True, ORIGIN)
    status, told, body = polled(poll, [b'{"a":1}', poll.event(b'{"b":2}', logged())])
    assert (status, body) == (200, b'page.took([{"a":1},{"b":2}]);\r\n')
    assert told["content-type"] == "application/javascript; charset=utf-8"
    assert told["x-content-type-options"] == "nosniff"
    assert told["etag"] == "W/7"
