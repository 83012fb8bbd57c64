"""The app servers' port in one process: real sockets and a real epoll; the test takes the turns and moves the clock."""

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from support.farm_fixture import PATIENCE_S, until
from support.router_port import BAD, GET, LARGE, LATER, PAGE, POST, WORSE, Rig

from router.http.message import Response
from router.http.turns import Turns


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    rig = Rig(**getattr(request, "param", {}))
    yield rig
    rig.close()


def limits(**endpoint: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("rig", [endpoint], indirect=True)


def open_(client: socket.socket) -> bool:
    """Whether the connection is open and nothing has come."""
    client.setblocking(False)
    try:
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except ConnectionResetError:
        return False
    finally:
        client.settimeout(PATIENCE_S)


# ---- whatever goes wrong with a connection is its own end


def test_a_route_that_fails_costs_one_request(rig: Rig) -> None:
    client = rig.client()
    failed = rig.ask(client, BAD)
    assert failed.startswith(b"HTTP/1.1 500 ") and b"\r\nX-Request-Id: " in failed  # the log names it
    assert rig.ask(client).startswith(b"HTTP/1.1 200 ")
    assert rig.counters.http_failed == 0


def test_an_event_that_fails_costs_one_connection(rig: Rig) -> None:
    other, unfinished = rig.client(), rig.client(GET[:9])
    for data in (WORSE, GET * 40 + WORSE):  # at once, and in a later turn
        client = rig.client(data)
        while client.recv(65_536):
            pass
    assert rig.counters.http_failed == 2
    assert rig.counters.http_connections == 2
    assert rig.ask(other).startswith(b"HTTP/1.1 200 ")
    assert rig.ask(unfinished, GET[9:]).startswith(b"HTTP/1.1 200 ")


def test_a_job_that_fails_costs_no_other_job() -> None:
    turns = Turns()
    done: list[int] = []

    def fails() -> bool:
        raise ZeroDivisionError

    def counts() -> bool:
        done.append(len(done))
        return len(done) < 3

    for job in (fails, counts, fails):
        turns.add(job)
    while turns.waiting:
        turns.run()
    assert done == [0, 1, 2]


# ---- shares of a turn


@limits(requests_a_turn=5)
def test_one_connection_has_so_many_requests_in_a_turn(rig: Rig) -> None:
    greedy, modest = rig.client(), rig.client()
    greedy.sendall(b"".join(GET.replace(b"echo", b"echo?g%d" % i) for i in range(100)))
    modest.sendall(GET.replace(b"echo", b"echo?modest"))
    counts = []
    while len(rig.asked) < 101:
        before = len(rig.asked)
        rig.turn()
        counts.append(len(rig.asked) - before)
    assert max(counts) <= 11  # two shares of the first turn, read and gone on with, and the other's request
    assert rig.asked.index(b"modest") <= 10
    assert [query for query in rig.asked if query != b"modest"] == [b"g%d" % i for i in range(100)]
    answers = b""
    while answers.count(b"HTTP/1.1 200 ") < 100:
        rig.turn()
        answers += greedy.recv(65_536)


@limits(requests_a_turn=8)
def test_where_many_are_at_work_each_has_less_of_a_turn(rig: Rig) -> None:
    clients = [rig.client() for _ in range(128)]
    for client in clients:
        client.sendall(GET * 20)
    handled = []
    while rig.poller.ready_now() or rig.turns.waiting:
        before = len(rig.asked)
        rig.turn()
        handled.append(len(rig.asked) - before)
    assert sum(handled) == 128 * 20
    assert handled[0] >= 128 * 8  # it was not known how many there are
    assert max(handled[1:]) <= 128 * 2


@limits(max_pipelined=3, requests_a_turn=2)
def test_what_is_behind_as_many_as_may_be_in_work_waits(rig: Rig) -> None:
    client = rig.client(LATER * 8)
    assert len(rig.later) == 3
    rig.clock.pass_by(60)
    rig.port.tick()
    rig.settle()
    assert open_(client)  # it waits for us, not we for it
    answered = 0
    while answered < 8:
        rig.later[answered](Response(200))
        answered += 1
        rig.port.flush()
        rig.settle()
        assert len(rig.later) == min(8, answered + 3)
    assert client.recv(65_536).count(b"HTTP/1.1 200 ") == 8
    assert rig.ask(client).startswith(b"HTTP/1.1 200 ")


# ---- time


@limits(request_timeout=10.0, idle_timeout=30.0)
def test_a_byte_now_and_then_keeps_nothing_open(rig: Rig) -> None:
    head, body, blank = rig.client(GET[:5]), rig.client(POST % 100), rig.client()
    slow = {head: b"a", body: b"b", blank: b"\r\n"}
    for _ in range(11):
        for client, byte in slow.items():
            client.sendall(byte)
        rig.settle()
        rig.clock.pass_by(1)
        rig.port.tick()
        rig.port.flush()
    assert head.recv(100).startswith(b"HTTP/1.1 408 ") and body.recv(100).startswith(b"HTTP/1.1 408 ")
    for _ in range(20):
        blank.sendall(b"\r\n")
        rig.settle()
        rig.clock.pass_by(1)
        rig.port.tick()
    assert not open_(blank)


@limits(request_timeout=10.0)
def test_each_request_has_its_own_time(rig: Rig) -> None:
    """A client that always has begun its next request with the end of the last one is not slow."""
    client = rig.client(GET[:5])
    for _ in range(5):
        rig.clock.pass_by(8)
        rig.port.tick()
        rig.port.flush()
        assert rig.ask(client, GET[5:] + GET[:5]).startswith(b"HTTP/1.1 200 ")


# ---- too many


@limits(max_connections=3)
def test_the_one_that_is_idle_for_longest_makes_room(rig: Rig) -> None:
    clients = []
    for _ in range(3):
        rig.clock.pass_by(1)
        rig.turn()
        clients.append(rig.client())
        assert rig.ask(clients[-1]).startswith(b"HTTP/1.1 200 ")
    rig.clock.pass_by(1)
    rig.turn()
    assert rig.ask(clients[0]).startswith(b"HTTP/1.1 200 ")  # and is the youngest now
    new = rig.client()
    assert rig.ask(new).startswith(b"HTTP/1.1 200 ")
    assert [open_(client) for client in clients] == [True, False, True]
    assert (rig.counters.http_evicted, rig.counters.http_connections) == (1, 3)


@limits(max_connections=2, max_refusals=2)
def test_who_has_said_something_or_waits_for_something_is_not_idle(rig: Rig) -> None:
    waits, begun = rig.client(LATER), rig.client(GET[:9])
    refused = [rig.client(POST % 100_000 + b"x" * 1000) for _ in range(4)]
    answers = [client.recv(65_536) for client in refused[:2]]
    assert all(answer.startswith(b"HTTP/1.1 503 ") and b"\r\nRetry-After: " in answer for answer in answers)
    assert all(client.recv(10) == b"" for client in refused[:2])  # it is over, but no reset
    assert open_(refused[2]) and open_(refused[3])  # these wait to be accepted
    assert rig.counters.http_connections == 4
    refused[0].close()
    refused[1].close()
    rig.settle()
    assert [client.recv(12) for client in refused[2:]] == [b"HTTP/1.1 503"] * 2
    rig.later[0](Response(200))
    rig.port.flush()
    assert waits.recv(65_536).startswith(b"HTTP/1.1 200 ")
    assert rig.ask(begun, GET[9:]).startswith(b"HTTP/1.1 200 ")
    assert (rig.counters.http_refused, rig.counters.http_bad_requests) == (4, 0)


@limits(max_connections=2)
def test_who_does_not_finish_a_request_makes_room_where_nobody_is_idle(rig: Rig) -> None:
    slow = rig.client(GET[:9])
    rig.clock.pass_by(1.5)
    rig.turn()
    quick = rig.client(GET[:9])
    rig.clock.pass_by(0.5)
    rig.turn()
    assert rig.ask(rig.client()).startswith(b"HTTP/1.1 200 ")
    assert slow.recv(65_536).startswith(b"HTTP/1.1 408 ")
    assert slow.recv(10) == b""
    assert rig.ask(quick, GET[9:]).startswith(b"HTTP/1.1 200 ")


@limits(max_connections=3)
def test_who_has_been_told_all_makes_room_before_anybody_else(rig: Rig) -> None:
    idle, begun = rig.client(), rig.client(GET[:9])
    for _ in range(5):
        told = rig.client(b"no request\r\n")
        assert told.recv(65_536).startswith(b"HTTP/1.1 400 ")
    assert rig.counters.http_connections == 3
    assert rig.ask(rig.client()).startswith(b"HTTP/1.1 200 ")
    assert open_(idle)
    assert rig.ask(begun, GET[9:]).startswith(b"HTTP/1.1 200 ")


@limits(max_connections=1)
def test_the_end_of_one_that_has_made_room_is_not_that_of_the_new_one(rig: Rig) -> None:
    """Which has its descriptor."""
    told = rig.client(b"no request\r\n")
    assert told.recv(65_536).startswith(b"HTTP/1.1 400 ") and told.recv(10) == b""
    come = [socket.create_connection(rig.address, PATIENCE_S) for _ in range(2)]
    rig.clients += come
    for client in come:
        client.sendall(GET)
    told.close()  # reported with them, and last
    rig.settle()
    assert [client.recv(12) for client in come] == [b"HTTP/1.1 200", b"HTTP/1.1 503"]


@limits(max_connections=2)
def test_a_request_that_has_not_been_read_yet_is_not_idle(rig: Rig) -> None:
    first, second = rig.client(), rig.client()
    first.sendall(GET)  # before the next turn
    second.sendall(GET)
    refused = socket.create_connection(rig.address, PATIENCE_S)
    rig.clients.append(refused)
    rig.turn()
    rig.settle()
    assert first.recv(100).startswith(b"HTTP/1.1 200 ") and second.recv(100).startswith(b"HTTP/1.1 200 ")


def test_it_takes_no_more_connections_than_there_are_descriptors() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 200, hard))
    try:
        rig = Rig()
        clients = [rig.client(GET[:9]) for _ in range(3)]
        assert rig.port.limit < 4096
        for client in clients:
            assert rig.ask(client, GET[9:]).startswith(b"HTTP/1.1 200 ")
        rig.close()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# ---- too much


@limits(max_buffered_bytes=1_048_576, max_connections=100)
def test_the_largest_of_all_that_waits_is_given_up(rig: Rig) -> None:
    clients = []
    for size in (300_000, 400_000, 200_000, 100_000):
        client = rig.client(POST % 500_000 + b"x" * size)
        clients.append(client)
    assert 1_000_000 <= rig.counters.http_buffered < 1_001_000
    small = rig.client(POST % 5 + b"abc")
    clients[2].sendall(b"x" * 100_000)
    rig.settle()
    assert rig.counters.http_given_up == 1
    assert clients[1].recv(65_536).startswith(b"HTTP/1.1 503 ")
    assert rig.counters.http_buffered < 720_000
    assert rig.ask(small, b"de").endswith(b"abcde")
    assert rig.ask(clients[0], b"x" * 200_000).startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.close()
    small.close()
    rig.settle()
    assert (rig.counters.http_buffered, rig.counters.http_connections) == (0, 0)


@limits(max_buffered_bytes=20_000_000, max_body_bytes=10_000_000, max_write_bytes=1024, idle_timeout=10)
def test_an_answer_of_any_size_is_sent_as_it_is_read(rig: Rig) -> None:
    client = rig.client()
    client.setblocking(False)
    body = b"x" * 9_000_000
    unsent = POST % len(body) + body + GET * 3
    got = bytearray()
    while got.count(b"HTTP/1.1 200 ") < 4:
        if unsent:
            with suppress(BlockingIOError):
                unsent = unsent[client.send(unsent) :]
        rig.clock.pass_by(0.1 if got else 0)  # to read it takes longer than idle_timeout
        rig.turn()
        rig.port.tick()
        with suppress(BlockingIOError):
            part = client.recv(65_536)
            assert part
            got += part
        assert len(rig.asked) <= 1 or len(got) > 1_000_000  # the next ones wait until it is nearly sent
    assert len(got) > len(body)
    assert rig.counters.http_buffered == 0


@limits(max_buffered_bytes=1_048_576, max_body_bytes=1_000_000, max_write_bytes=100_000_000)
def test_answers_that_nobody_takes_are_counted_too(rig: Rig) -> None:
    deaf = []
    while rig.counters.http_given_up == 0:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(PATIENCE_S)
        client.connect(rig.address)
        rig.clients.append(client)
        deaf.append(client)
        client.setblocking(False)
        body = b"x" * 900_000
        requests = (POST % len(body) + body) * 10
        stuck = False
        while requests and not stuck:
            rig.settle()
            try:
                requests = requests[client.send(requests) :]
            except BlockingIOError:
                stuck = rig.port.waiting  # it does not read on before it is read from
            except OSError:
                break
            assert rig.counters.http_buffered <= 1_048_576
        assert len(deaf) < 100
    assert rig.ask(rig.client()).startswith(b"HTTP/1.1 200 ")


def pages(rig: Rig, client: socket.socket, count: int) -> list[int]:
    """Read so many large answers. Returns: the numbers in their requests."""
    client.setblocking(False)
    data = bytearray()
    numbers: list[int] = []
    until = time.monotonic() + PATIENCE_S
    while len(numbers) < count:
        assert time.monotonic() < until, f"only {numbers} came"
        rig.turn()
        # One that is sent, one that is made, and endpoint.max_write_bytes.
        assert rig.counters.http_buffered < 2 * LARGE + (4 << 20)
        with suppress(BlockingIOError):
            part = client.recv(1 << 20)
            assert part, "it was cut off"
            data += part
        head, end, body = data.partition(b"\r\n\r\n")
        if end and len(body) >= 7 + LARGE:
            assert head.startswith(b"HTTP/1.1 200 ")
            numbers.append(int(body[:7]))
            del data[: len(head) + len(end) + 7 + LARGE]
    return numbers


def test_of_many_large_answers_the_next_is_made_when_there_is_room_for_it(rig: Rig) -> None:
    client = rig.client(b"".join(PAGE % number for number in range(20)))
    assert rig.made < 10  # some are in the kernel's buffers
    assert rig.ask(rig.client()).startswith(b"HTTP/1.1 200")  # no other connection waits for that
    assert pages(rig, client, 20) == list(range(20))
    assert rig.counters.http_given_up == 0
    assert rig.ask(client).startswith(b"HTTP/1.1 200")


def test_large_answers_wait_for_one_that_comes_before_them(rig: Rig) -> None:
    client = rig.client(LATER + b"".join(PAGE % number for number in range(6)))
    until(lambda: rig.settle() or rig.made, "the first of them")
    assert rig.made == 1  # which is more than may wait behind it
    rig.later[0](Response(200, b"%7d" % 9 + bytes(LARGE)))
    assert pages(rig, client, 7) == [9, 0, 1, 2, 3, 4, 5]
    assert rig.counters.http_given_up == 0


def test_a_connection_that_goes_leaves_no_large_answer_to_be_made(rig: Rig) -> None:
    client = rig.client(3 * (PAGE % 1))
    client.close()
    rig.settle()
    made = rig.made
    assert pages(rig, rig.client(PAGE % 2), 1) == [2]
    assert rig.made == made + 1
    assert rig.counters.http_connections == 1
