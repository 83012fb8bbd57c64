"""HTTP streaming beside WebSocket: another transport, which sessions and channels know nothing of."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import h11
import pytest
from support.plain_dialect import LINES, Plain
from support.plain_http import Client, get
from support.shard import PATIENCE_S, ROOM, Shard

from router.common import messages as m
from router.common.poller import READ


@pytest.fixture
def dialect() -> Plain:
    return Plain()


@pytest.fixture
def shard(dialect: Plain) -> Iterator[Shard]:
    shard = Shard(more={"/plain/**": dialect})
    yield shard
    shard.close()


class Stream(Client):
    """A client of a stream, that has read its head."""

    def __init__(self, shard: Shard, path: str = "/plain/stream", **options: int) -> None:
        super().__init__(shard, get(path), **options)
        self.http = h11.Connection(h11.CLIENT)
        self.http.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
        self.http.send(h11.EndOfMessage())
        self.http.receive_data(self.until(b"\r\n\r\n"))
        response = self.http.next_event()
        assert isinstance(response, h11.Response)
        assert response.status_code == 200

    def hear(self) -> str:
        """The next message; "" at the end of the answer."""
        found = b""
        while True:
            event = self.http.next_event()
            if event is h11.NEED_DATA:
                self.http.receive_data(self.socket.recv(65536))
            elif isinstance(event, h11.Data):
                found += event.data
                if event.chunk_end:
                    return found.decode()
            else:
                assert isinstance(event, h11.EndOfMessage)
                return ""


def joined(shard: Shard, path: str = "/plain/stream/join", **options: int) -> Stream:
    """A stream that events reach."""
    stream = Stream(shard, path, **options)
    for word in shard.said():
        if isinstance(word, m.Call):
            shard.sockets.received([m.Reply(word.number, m.OK, None)])
    return stream


@contextmanager
def served(shard: Shard) -> Iterator[Callable[[Callable[[], bool]], None]]:
    """The worker's loop runs meanwhile, in a thread. Gives: has something done in it, again until it says True."""
    stop = threading.Event()
    lock = threading.Lock()

    def serve() -> None:
        while not stop.is_set():
            with lock:
                for fd, events in shard._poller.ready_now():
                    shard.sockets.ready(fd, events)
                shard.sockets.turn()
                shard.sockets.speak()
            time.sleep(0.001)

    def do(act: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with lock:
                if act():
                    return
            assert time.monotonic() < deadline
            time.sleep(0.001)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield do
    finally:
        stop.set()
        thread.join()


def test_curl_hears_each_message_and_the_end(shard: Shard) -> None:
    curl = shutil.which("curl")
    assert curl is not None

    def subscribed() -> bool:
        calls = [word.number for word in shard.said() if isinstance(word, m.Call)]
        shard.sockets.received([m.Reply(number, m.OK, None) for number in calls])
        return bool(calls)

    def ended() -> bool:
        shard.event("an event")
        shard.sockets.close(shard.sockets.open_connections()[0], 1000, "end")
        return True

    with served(shard) as do:
        url = f"http://127.0.0.1:{shard._port}/plain/stream/join?hello&you"
        with subprocess.Popen([curl, "-sSiN", url], stdout=subprocess.PIPE, text=True) as process:
            do(subscribed)
            do(ended)
            output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    head, _, body = output.partition("\n\n")
    assert head.startswith("HTTP/1.1 200 ")
    assert "transfer-encoding: chunked" in head.lower()
    assert body == "helloyouevent an eventclosed 1000 end"


def test_each_message_of_the_session_is_a_chunk(shard: Shard) -> None:
    stream = Stream(shard, "/plain/stream?one&two")
    assert [stream.hear(), stream.hear()] == ["one", "two"]
    for _ in range(125):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    assert stream.hear() == "tick"


def test_what_the_client_sends_is_thrown_away_at_a_rate() -> None:
    shard = Shard(limits={"commands_per_second": 5, "burst_seconds": 1}, more={"/plain/**": Plain()})
    try:
        stream = Stream(shard)
        connection = shard.sockets.connections[stream.fd]
        for _ in range(12):
            stream.send(get("/plain/stream?again"))
        assert not connection.mask & READ
        assert (connection.reader, shard.sockets.output.budget.total) == (None, 0)
        assert shard.counters.limited_commands_per_second == 1
        for _ in range(12):
            shard.sockets.tick()
            shard.sockets.turn()
        assert connection.mask & READ
        assert stream.nothing()
    finally:
        shard.close()


def test_one_channel_has_streams_and_websockets(shard: Shard) -> None:
    stream, other = joined(shard), joined(shard)
    talkers = [shard.talker("join") for _ in range(2)]
    for talker in talkers:
        assert [talker.hear(), talker.hear()] == ["asked", "joined 0 null"]
    for number in range(3):
        shard.event(f"h\u00e9llo {number}", talkers[0].socket_id if number == 1 else "")
    assert [stream.hear() for _ in range(3)] == [f"event h\u00e9llo {number}" for number in range(3)]
    assert [other.hear() for _ in range(3)] == [f"event h\u00e9llo {number}" for number in range(3)]
    assert [talkers[0].hear() for _ in range(2)] == ["h\u00e9llo 0", "h\u00e9llo 2"]
    assert [talkers[1].hear() for _ in range(3)] == [f"h\u00e9llo {number}" for number in range(3)]
    assert shard.counters.events_sent == 11


def test_events_for_many_of_both_kinds_go_out_in_slices_and_in_order() -> None:
    shard = Shard({"fanout_slice": 3}, more={"/plain/**": Plain()})
    try:
        streams = [joined(shard) for _ in range(8)]
        talkers = [shard.talker("join") for _ in range(8)]
        for talker in talkers:
            assert [talker.hear(), talker.hear()] == ["asked", "joined 0 null"]
        excluded = talkers[3].socket_id
        shard.sockets.received([m.Event(ROOM, str(number), excluded if number == 2 else "") for number in range(4)])
        late = joined(shard)
        talkers[0].say("part")
        turns = 0
        while shard.sockets.speaking:
            shard.sockets.speak()
            turns += 1
        assert turns >= 5
        for stream in streams:
            assert [stream.hear() for _ in range(4)] == [f"event {number}" for number in range(4)]
        for talker in talkers[1:]:
            heard = ["0", "1", "3"] if talker.socket_id == excluded else ["0", "1", "2", "3"]
            assert [talker.hear() for _ in heard] == heard
        assert [talkers[0].hear() for _ in range(5)] == ["0", "1", "2", "3", "parted"]
        assert late.nothing()
        shard.event("all")
        while shard.sockets.speaking:
            shard.sockets.speak()
        assert {stream.hear() for stream in (*streams, late)} == {"event all"}
    finally:
        shard.close()


def test_a_reader_that_is_too_slow_is_dropped_by_the_limit_of_its_transport(shard: Shard) -> None:
    slow, quick = joined(shard, receive_buffer=4096), joined(shard)
    body, events = "x" * 50_000, 0
    connection = shard.sockets.connections[slow.fd]
    while slow.here:
        shard.event(body)
        events += 1
        assert quick.hear() == "event " + body
        assert len(connection.out or b"") <= 200_000
        assert events < 1000
    assert shard.counters.slow_closed == 1
    shard.event("last")
    assert quick.hear() == "event last"


def test_a_drain_ends_the_answer(shard: Shard, dialect: Plain) -> None:
    stream = joined(shard)
    shard.event("one")
    for connection in shard.sockets.open_connections():
        shard.sockets.let_go(connection)
    assert stream.hear() == "event one"
    assert stream.hear().startswith("closed 1001 ")
    assert stream.hear() == ""
    assert stream.rest() == b""
    assert dialect.sessions[0].closes == 1
    stream.socket.close()
    stream.look()
    assert not stream.here
    assert shard.said() == [m.Unsubscribe(ROOM)]


def test_who_goes_is_forgotten(shard: Shard, dialect: Plain) -> None:
    stream = joined(shard)
    stream.socket.close()
    stream.look()
    assert not stream.here
    assert shard.said()[-1] == m.Unsubscribe(ROOM)
    assert dialect.sessions[0].closes == 1


def test_silence_is_pinged_in_the_transport_s_own_way() -> None:
    shard = Shard({"keepalive": 60}, more={"/plain/**": Plain()})
    try:
        stream, talker = Stream(shard, "/plain/stream/quiet"), shard.talker()
        for _ in range(100):
            shard.clock.pass_by(1)
            shard.sockets.tick()
        assert stream.hear() == "tick"
        assert stream.hear() == "ping"
        assert talker.frame() == (9, b"")
    finally:
        shard.close()


def test_a_session_pings_and_closes_without_a_code(shard: Shard) -> None:
    fd, client = shard.open("/plain/ws")
    client.send("ping")
    client.send("leave")
    shard.sockets.ready(fd, READ)
    frames = [client.recv_frame() for _ in range(3)]
    assert [(frame.opcode, frame.data) for frame in frames] == [(9, b"anyone?"), (1, b"going"), (8, b"")]


# ---- a listener whose first bytes are no HTTP


def test_a_transport_may_read_the_first_bytes_of_a_listener(shard: Shard, dialect: Plain) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    shard.sockets.listen(listener, LINES)
    client = Client(shard, b"/plain/lines/join", listener=listener)
    assert client.nothing()
    client.send(b"\r\nhel")
    for word in shard.said():
        shard.sockets.received([m.Reply(word.number, m.OK, None)])
    shard.sockets.turn()
    client.look()
    client.send(b"lo\r\nyou\r\n")
    shard.event("to all")
    assert client.until(b"all\r\n") == b"welcome\r\nhello\r\nyou\r\nto all\r\n"
    client.send(b"leave\r\n")
    assert client.rest() == b"going\r\nbye 1005\r\n"
    assert Client(shard, b"/nowhere\r\n", listener=listener).until(b"\r\n") == b"refused 404\r\n"
    client = Client(shard, b"/plain/lines\r\n", listener=listener)
    client.send(b"x" * 200)
    assert client.rest() == b"welcome\r\nbye 1009\r\n"
    fd = listener.fileno()
    shard.sockets.stop_listening()
    shard.sockets.ready(fd, READ)
    assert [request.path for request in dialect.requests] == ["/plain/lines/join", "/plain/lines"]


def test_a_transport_may_want_the_first_bytes_sooner_than_others(shard: Shard) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    shard.sockets.listen(listener, LINES)
    clients = [Client(shard, sent, listener=one) for sent, one in ((b"GET /plain", None), (b"/plain", listener))]
    for _ in range(9):
        shard.clock.pass_by(0.5)
        shard.sockets.tick()
    assert all(client.nothing() for client in clients)
    for _ in range(4):
        shard.clock.pass_by(0.5)
        shard.sockets.tick()
    assert clients[1].rest() == b"refused 408\r\n"
    assert clients[0].nothing()


def test_origins_are_of_pages_alone(dialect: Plain) -> None:
    shard = Shard({"origins": ("https://a",)}, more={"/plain/**": dialect})
    try:
        listener = socket.create_server(("127.0.0.1", 0))
        shard.sockets.listen(listener, LINES)
        assert Client(shard, b"/plain/lines\r\n", listener=listener).until(b"\r\n") == b"welcome\r\n"
        assert Client(shard, get("/plain/stream")).rest().startswith(b"HTTP/1.1 403 ")
    finally:
        shard.close()
