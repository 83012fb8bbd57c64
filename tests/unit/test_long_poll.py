"""A transport that answers once: what is said first is the answer, and the next request may follow."""

import re
from collections.abc import Iterator

import pytest
from support.plain_dialect import Plain
from support.plain_http import Client, get
from support.shard import OTHER, ROOM, Shard

from farm.worker.connection import IDLE, OPEN
from router.common import messages as m
from router.common.poller import READ

ASK = get("/plain/poll/join")
LENGTH = re.compile(rb"Content-Length: (\d+)\r\n")


@pytest.fixture
def dialect() -> Plain:
    return Plain()


@pytest.fixture
def shard(dialect: Plain) -> Iterator[Shard]:
    shard = Shard({"next_request_timeout": 60}, more={"/plain/**": dialect})
    yield shard
    shard.close()


class Poller(Client):
    """A client that polls."""

    def answer(self) -> tuple[int, bytes, bytes]:
        """The next answer: its status, head and body."""
        head = self.until(b"\r\n\r\n")
        body, found = b"", LENGTH.search(head)
        assert found is not None
        while len(body) < int(found[1]):
            body += self.socket.recv(int(found[1]) - len(body))
        return int(head[9:12]), head, body

    def subscribed(self) -> "Poller":
        for word in self.shard.said():
            if isinstance(word, m.Call):
                self.shard.sockets.received([m.Reply(word.number, m.OK, None)])
        return self

    @property
    def phase(self) -> int:
        return self.shard.sockets.connections[self.fd].phase


def test_an_event_is_the_answer_and_the_next_request_may_follow(shard: Shard, dialect: Plain) -> None:
    poller = Poller(shard, ASK).subscribed()
    for body in ("one", "two"):
        assert poller.nothing()
        shard.event(body)
        status, head, found = poller.answer()
        assert (status, found) == (200, body.encode() + b"\n")
        assert b"\r\nEtag: 1\r\n" in head
        assert b"close" not in head
        assert poller.phase == IDLE
        assert shard.said()[-1] == m.Unsubscribe(ROOM)
        shard.event("nobody waits for this")
        poller.send(ASK)
        poller.subscribed()
    assert [session.closes for session in dialect.sessions] == [1, 1, 0]
    assert [request.address for request in dialect.requests] == ["127.0.0.1"] * 3
    poller.socket.close()
    poller.look()
    assert not poller.here
    assert shard.said() == [m.Unsubscribe(ROOM)]


def test_all_that_a_session_says_at_once_is_one_answer(shard: Shard) -> None:
    poller = Poller(shard, get("/plain/poll?one&two&three"))
    assert poller.answer()[2] == b"one\ntwo\nthree\n"
    poller.send(get("/plain/poll/nothing"))
    status, head, _ = poller.answer()
    assert status == 304
    assert b"\r\nEtag: none\r\n" in head
    assert poller.phase == IDLE


def test_a_session_answers_at_its_deadline(shard: Shard) -> None:
    poller = Poller(shard, get("/plain/poll/join/tick")).subscribed()
    for _ in range(125):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    status, head, body = poller.answer()
    assert (status, body) == (200, b"timed out\n")
    assert b"\r\nX-Why: timeout\r\n" in head


def test_who_cannot_keep_its_connection_is_told_that_it_ends(shard: Shard) -> None:
    poller = Poller(shard, get("/plain/poll/join", "Connection: close")).subscribed()
    shard.event("one")
    _, head, body = poller.answer()
    assert body == b"one\n"
    assert b"\r\nConnection: close\r\n" in head
    assert poller.rest() == b""


def test_events_for_many_pollers_and_websockets_go_out_in_slices(dialect: Plain) -> None:
    shard = Shard({"fanout_slice": 3}, more={"/plain/**": dialect})
    try:
        pollers = [Poller(shard, ASK).subscribed() for _ in range(8)]
        talkers = [shard.talker("join") for _ in range(4)]
        for talker in talkers:
            assert [talker.hear(), talker.hear()] == ["asked", "joined 0 null"]
        shard.sockets.received([m.Event(ROOM, str(number), "") for number in range(3)])
        gone = pollers[7]  # its turn is not yet; the deadline of its session comes first
        shard.sockets.close(shard.sockets.connections[gone.fd], 1000, "timed out")
        while shard.sockets.speaking:
            shard.sockets.speak()
        for talker in talkers:
            assert [talker.hear() for _ in range(3)] == ["0", "1", "2"]
        for poller in pollers:
            status, head, body = poller.answer()
            events = body.split()
            assert status == 200
            assert events == [b"0", b"1", b"2"][: len(events)] != []  # the others it asks for by position
            assert b"\r\nEtag: %d\r\n" % len(events) in head
            assert poller.nothing()
            assert poller.phase == IDLE
        assert [session.closes for session in dialect.sessions] == [1] * 8
    finally:
        shard.close()


def test_what_waits_in_another_channel_is_in_the_answer_too(dialect: Plain) -> None:
    """A client goes on behind the newest event that it has had, in all of its channels."""
    shard = Shard({"fanout_slice": 2}, more={"/plain/**": dialect})
    try:
        others = [Poller(shard, ASK).subscribed() for _ in range(6)]
        poller = Poller(shard, get("/plain/poll/both")).subscribed()
        shard.sockets.received([m.Event(ROOM, "to many", ""), m.Event(OTHER, "to one", "")])
        while shard.sockets.speaking:
            shard.sockets.speak()
        _, head, body = poller.answer()
        assert sorted(body.split(b"\n")) == [b"", b"to many", b"to one"]
        assert b"\r\nEtag: 2\r\n" in head
        assert poller.nothing()
        assert [other.answer()[2] for other in others] == [b"to many\n"] * 6
    finally:
        shard.close()


def test_what_was_held_while_it_subscribed_is_one_answer(shard: Shard) -> None:
    poller = Poller(shard, get("/plain/poll/both"))
    first, second = (word.number for word in shard.said())
    shard.sockets.received([m.Reply(first, m.OK, None)])
    shard.event("one")
    shard.event("two")
    assert poller.nothing()
    shard.sockets.received([m.Reply(second, m.OK, None)])
    assert poller.answer()[2] == b"one\ntwo\n"
    assert poller.phase == IDLE


# ---- more than one request


def test_pipelined_requests_are_answered_in_order_one_a_turn(shard: Shard) -> None:
    poller = Poller(shard, get("/plain/poll?1") + get("/plain/poll?2") + get("/plain/poll?3") + ASK[:20])
    turns = 0
    while shard.sockets.waiting:
        shard.sockets.turn()
        turns += 1
    assert turns == 3
    assert [poller.answer()[2] for _ in range(3)] == [b"1\n", b"2\n", b"3\n"]
    poller.send(ASK[20:])
    poller.subscribed()
    shard.event("x")
    assert poller.answer()[2] == b"x\n"
    assert shard.sockets.output.budget.total == 0


def test_what_is_pipelined_behind_a_waiting_request_is_bounded() -> None:
    shard = Shard({"max_request_bytes": 1000}, more={"/plain/**": Plain()})
    try:
        poller = Poller(shard, ASK).subscribed()
        connection = shard.sockets.connections[poller.fd]
        for _ in range(100):
            poller.send(get("/plain/poll?next", "X-Fill: " + "x" * 40))
        assert not connection.mask & READ
        assert isinstance(connection.reader, bytearray)
        assert 1000 <= len(connection.reader) == shard.sockets.output.budget.total < 1200
        shard.event("first")
        assert poller.answer()[2] == b"first\n"
        answers = 0
        while answers < 100:
            poller.look()
            shard.sockets.turn()
            if not poller.nothing():
                assert poller.answer()[2] == b"next\n"
                answers += 1
        assert poller.nothing()
        assert shard.sockets.output.budget.total == 0
    finally:
        shard.close()


def test_requests_have_a_rate() -> None:
    shard = Shard(limits={"commands_per_second": 5, "burst_seconds": 1}, more={"/plain/**": Plain()})
    try:
        poller = Poller(shard, get("/plain/poll?x") * 50)
        while shard.sockets.waiting:
            shard.sockets.turn()
        first = poller.socket.recv(1 << 20).count(b"HTTP/1.1 200 ")
        assert 10 <= first <= 14
        assert shard.counters.limited_commands_per_second == 1
        for _ in range(5):
            shard.clock.pass_by(0.25)
            shard.sockets.tick()
        while shard.sockets.waiting:
            shard.sockets.turn()
        assert 4 <= poller.socket.recv(1 << 20).count(b"HTTP/1.1 200 ") <= 8
    finally:
        shard.close()


def test_another_request_may_be_another_transport_or_none(shard: Shard) -> None:
    poller = Poller(shard, get("/plain/poll?1"))
    assert poller.answer()[2] == b"1\n"
    poller.send(get("/plain/stream?2"))
    poller.until(b"\r\n\r\n1\r\n2\r\n")
    assert poller.phase == OPEN
    other = Poller(shard, get("/plain/poll?1"))
    assert other.answer()[2] == b"1\n"
    other.send(get("/nowhere"))
    assert b"404" in other.rest()


# ---- ends


def test_a_connection_between_two_requests_is_closed_in_time_or_when_the_worker_goes(shard: Shard) -> None:
    pollers = [Poller(shard, get("/plain/poll?1")) for _ in range(2)]
    for poller in pollers:
        poller.answer()
    shard.sockets.let_go(shard.sockets.connections[pollers[0].fd])
    assert [poller.here for poller in pollers] == [False, True]
    for _ in range(245):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    assert not pollers[1].here
    assert [poller.rest() for poller in pollers] == [b"", b""]
    assert shard.counters.timeouts == 0


def test_a_request_that_begins_and_does_not_end_is_late(shard: Shard) -> None:
    poller = Poller(shard, get("/plain/poll?1"))
    poller.answer()
    poller.send(ASK[:10])
    for _ in range(45):
        shard.clock.pass_by(0.25)
        shard.sockets.tick()
    assert poller.answer()[0] == 408
    assert shard.counters.timeouts == 1


def test_a_drain_answers_who_waits(shard: Shard) -> None:
    poller = Poller(shard, ASK).subscribed()
    shard.sockets.let_go(shard.sockets.connections[poller.fd])
    assert poller.answer()[0] == 304
    assert poller.rest() == b""
    poller.socket.close()
    poller.look()
    assert not poller.here


def test_a_reader_that_is_too_slow_for_its_answer_is_dropped(shard: Shard) -> None:
    poller = Poller(shard, ASK, receive_buffer=2048).subscribed()
    shard.event("x" * 240_000)
    connection = shard.sockets.connections[poller.fd]
    assert connection.phase == IDLE
    if connection.out is not None:
        shard.event("nothing more is said to it")
        for _ in range(50):
            shard.clock.pass_by(0.25)
            shard.sockets.tick()
        assert not poller.here
        assert shard.counters.slow_closed == 1


def test_a_terminated_channel_answers_its_pollers(shard: Shard) -> None:
    poller = Poller(shard, ASK).subscribed()
    shard.sockets.received([m.Terminate(ROOM, 4009, "terminated")])
    assert poller.answer()[0] == 304
    assert poller.phase == IDLE


def test_a_worker_that_stops_has_sessions_answer(shard: Shard, dialect: Plain) -> None:
    pollers = [Poller(shard, get(f"/plain/poll/join{more}")).subscribed() for more in ("/stops", "")]
    for connection in shard.sockets.open_connections():
        shard.sockets.let_go(connection)
    assert [poller.answer()[::2] for poller in pollers] == [(200, b"come again\n"), (304, b"")]
    assert [poller.rest() for poller in pollers] == [b"", b""]
    assert [session.closes for session in dialect.sessions] == [1, 1]
