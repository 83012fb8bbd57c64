"""A router that may have lost its part: what it knows stays with it until it is certain that it has not."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from support.common import Clock, Rig, settings_with
from support.farm_fixture import until
from support.http1 import answers

from router.common import health
from router.common import messages as m
from router.common.link_address import address
from router.common.metrics import RouterCounters
from router.common.poller import Poller
from router.common.settings import EndpointOptions, LinkOptions
from router.common.wire import NEWEST
from router.gate import Gate
from router.http.http_port import HttpPort
from router.http.message import Request, Response
from router.http.routes import Reply, Route, Router
from router.http.turns import Turns
from router.link import RouterLink
from router.store.lease import MARGIN, Lease

SECONDS = 10.0
END = SECONDS * (1 - MARGIN)


class Leased:
    """A lease that was confirmed at 0, and its gate; the test moves the clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.lease = Lease(SECONDS, shared=True)
        self.lease.confirmed(0.0)
        self.gate = Gate(self.lease, lambda: self.now)
        assert not self.gate.look()

    def is_over(self) -> None:
        self.now = self.lease.until

    def is_renewed(self) -> None:
        self.lease.confirmed(self.now)


@pytest.fixture
def leased() -> Leased:
    return Leased()


def test_it_is_shut_from_the_end_on_and_until_a_renewal(leased: Leased, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    leased.now = END - 0.001
    assert not leased.gate.look()
    assert leased.gate.why == ""
    leased.is_over()
    assert leased.gate.look()
    assert leased.gate.why == health.NOT_OWNED
    leased.lease.confirmed(0.0)  # one that had been sent long ago
    assert leased.gate.look()
    leased.is_renewed()
    assert not leased.gate.look()
    assert [record.message for record in caplog.records] == ["lease.over", "lease.renewed"]


def test_it_is_shut_before_anything_is_owned() -> None:
    gate = Gate(Lease(SECONDS, shared=True), lambda: 0.0)
    assert gate.shut
    assert gate.look()


def test_it_says_that_a_clock_is_off(leased: Leased) -> None:
    leased.lease.compared({"server": 5.0})
    assert leased.gate.look()
    assert leased.gate.why == health.CLOCK_OFF
    leased.lease.compared({"server": 0.0})
    assert not leased.gate.look()
    leased.lease.lag = 0.25
    leased.lease.compared({"one": 0.5, "two": -0.75})
    state = {"renewal_seconds": 0.25, "clock_offset_seconds": -0.75}
    assert Gate(Lease(SECONDS, shared=False), lambda: 0.0).state().keys() == state.keys()
    assert leased.gate.state() == state | {"lease_left_seconds": END}


# ---------------------------------------------------------------------- app servers

GET = b"GET %s HTTP/1.1\r\nHost: push\r\n\r\n"


class Port:
    """The port of app servers with a client; the test takes the turns."""

    def __init__(self, leased: Leased) -> None:
        self.poller = Poller()
        self.counters = RouterCounters()
        self.asked = 0
        self.later: list[Reply] = []
        listener = socket.create_server(("127.0.0.1", 0))
        here = listener.getsockname()
        routes = Router([Route(b"/now", self._now), Route(b"/later", self._later), Route(b"/ready", self._now)])
        options = settings_with((EndpointOptions, {})).get(EndpointOptions)
        self.port = HttpPort(listener, self.poller, routes, options, self.counters, Clock().monotonic, Turns())
        self.port.gate = leased.gate
        self.client = socket.create_connection(here)
        self.client.setblocking(False)
        until(self._accepted, "it is accepted")
        self._got = b""

    def _accepted(self) -> bool:
        self.events()
        return self.counters.http_connections == 1

    def _now(self, request: Request, reply: Reply) -> None:
        self.asked += 1
        reply(Response(200))

    def _later(self, request: Request, reply: Reply) -> None:
        self.later.append(reply)

    def events(self) -> None:
        for fd, mask in self.poller.ready_now():
            self.port.ready(fd, mask)

    def send(self, *paths: bytes) -> None:
        """Requests that have been read by then."""
        wanted = self.counters.http_requests + len(paths)
        self.client.sendall(b"".join(GET % path for path in paths))

        def read() -> bool:
            self.events()
            return self.counters.http_requests == wanted

        until(read, "they are read")

    def at_end(self) -> bool:
        """Whether the port has closed the connection."""
        self.events()
        with suppress(BlockingIOError):
            return self.client.recv(1) == b""
        return False

    def answered(self, number: int, closed: bool = False) -> list[int]:
        """The statuses of the next so many answers, once the turn has ended; there is none besides. closed: the last
        of them says that it is."""
        self.port.flush()

        def come() -> bool:
            with suppress(BlockingIOError):
                self._got += self.client.recv(65_536)
            return self._got.count(b"HTTP/1.1 ") >= number

        until(come, "they are answered")
        got, self._got = self._got, b""
        says = [b"Connection: close" in one for one in got.split(b"HTTP/1.1 ")[1:]]
        assert says == [False] * (number - 1) + [closed]
        assert all(b"Retry-After: 2" in one for one in got.split(b"HTTP/1.1 ") if one.startswith(b"503"))
        return [status for status, _ in answers(got, *["GET"] * number)]

    def close(self) -> None:
        self.client.close()
        self.port.close()
        self.poller.close()


@pytest.fixture
def port(leased: Leased) -> Iterator[Port]:
    port = Port(leased)
    yield port
    port.close()


def test_what_comes_while_it_is_shut_is_not_begun(leased: Leased, port: Port) -> None:
    leased.is_over()
    leased.gate.look()  # as at the beginning of each turn
    port.send(b"/now", b"/later", b"/none")
    assert port.answered(3) == [503, 503, 503]
    assert (port.asked, port.later) == (0, [])
    assert port.counters.http_unowned == 3
    leased.is_renewed()
    leased.gate.look()
    port.send(b"/now")
    assert port.answered(1) == [200]


def test_who_stays_connected_while_it_is_shut_for_long_is_sent_elsewhere(leased: Leased, port: Port) -> None:
    leased.is_over()
    leased.gate.look()
    port.send(b"/now")
    assert port.answered(1) == [503]
    assert not leased.gate.for_long
    leased.now += SECONDS
    assert leased.gate.for_long
    port.send(b"/now", b"/later", b"/now")  # each has its answer
    assert port.answered(3, closed=True) == [503, 503, 503]
    until(port.at_end, "the connection is closed")
    leased.is_renewed()
    leased.gate.look()
    assert not leased.gate.for_long


def test_who_stays_connected_while_the_router_leaves_is_sent_elsewhere_with_an_answer(port: Port) -> None:
    port.send(b"/now")
    assert port.answered(1) == [200]
    port.port.leaving = True
    port.send(b"/now", b"/now")
    assert port.answered(2, closed=True) == [200, 200]
    until(port.at_end, "the connection is closed")


def test_what_was_answered_before_it_slept_is_not_sent_after_it(leased: Leased, port: Port) -> None:
    port.send(b"/now", b"/now")
    leased.is_over()  # within the turn
    assert port.answered(2) == [503, 503]
    assert port.asked == 2
    assert port.counters.http_unowned == 2


def test_what_is_answered_meanwhile_is_not_sent_and_what_is_answered_later_is(leased: Leased, port: Port) -> None:
    port.send(b"/later", b"/later", b"/later")
    first, second, third = port.later
    leased.is_over()
    first(Response(200))
    assert port.answered(1) == [503]
    third(Response(200))
    leased.is_renewed()
    second(Response(200))
    assert port.answered(2) == [200, 200]  # nobody else had it meanwhile: what it knew was right


def test_a_balancer_is_answered_all_the_same(leased: Leased, port: Port) -> None:
    leased.is_over()
    leased.gate.look()
    port.send(b"/now", b"/ready", b"/now")
    assert port.answered(3) == [503, 200, 503]


# ---------------------------------------------------------------------- workers


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_workers_are_heard_and_told_nothing_until_it_opens(
    leased: Leased, tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    rig = Rig()
    link = RouterLink(context, address(tmp_path, 0), rig.hub, LinkOptions())
    link.gate = leased.gate
    worker = context.socket(zmq.DEALER)
    worker.setsockopt(zmq.ROUTING_ID, b"wworker-1")
    worker.connect(address(tmp_path, 0))

    def asked(envelope: m.OfWorker) -> m.OfRouter:
        """What comes back at last."""
        worker.send(NEWEST.encode(envelope))

        def come() -> int:
            link.pump()
            return worker.poll(10)

        until(come, "it is answered")
        return NEWEST.of_router(worker.recv(), 1 << 20)

    version = NEWEST.version
    assert isinstance(asked(m.Ready(version, 0, b"worker-1", 1, version)), m.Welcome)
    (session,) = rig.hub.sessions
    worker.send(NEWEST.encode(m.Begin("", 0)))
    leased.is_over()
    session.send(m.StoreState("full"))
    assert isinstance(asked(m.AskStatus(1)), m.Status)  # the supervisor's, who would take it for one that hangs
    worker.send(NEWEST.encode(m.Beat({"connections": 5.0})))

    def heard() -> bool:
        link.pump()
        return session.snapshot == {"connections": 5.0}

    until(heard, "its beat is received")
    assert not worker.poll(0)
    leased.is_renewed()
    link.pump()
    assert worker.poll(20_000)
    batch = NEWEST.of_router(worker.recv(), 1 << 20)
    assert isinstance(batch, m.RouterBatch)
    assert list(batch.messages) == [m.StoreState("full")]
    assert session.lease.alive
    link.close()
    worker.close()
