"""A worker answers what is asked of its devices' connections; a search has its steps, and a limit."""

from __future__ import annotations

from typing import Any

from support.common import received_by_worker

from farm.dialects import DeviceSession
from farm.worker.connection import OPEN, Connection
from farm.worker.inspections import Inspections
from farm.worker.table import Table
from router.common import messages as m


class Talk(DeviceSession):
    """A device's session."""

    __slots__ = ("_key",)
    speaks = "talk"

    def __init__(self, key: bytes) -> None:
        self._key = key

    @property
    def key(self) -> bytes:
        return self._key


class Clock:
    now = 100.0


class Attached:
    """What is attached."""

    def __init__(self) -> None:
        self.devices: dict[bytes, Connection] = {}


class Bench:
    """So many devices, from addresses by descriptor."""

    def __init__(self, addresses: dict[int, str]) -> None:
        self.connections, attached = Table(), Attached()
        for fd in addresses:
            connection = Connection(fd, 0, 98.5, phase=OPEN, session=Talk(b"%16d" % fd))
            self.connections[fd] = attached.devices[b"%16d" % fd] = connection
        self.devices = attached.devices
        self.sent: list[Any] = []
        self.clock = Clock()
        self.inspections = Inspections(
            self.connections,
            attached,  # type: ignore[arg-type]
            self.clock,  # type: ignore[arg-type]
            self.sent.append,
            lambda fd: addresses.get(fd, ""),
        )

    def ask(self, number: int, device: bytes = b"", address: str = "", limit: int = 10) -> None:
        batch = received_by_worker(m.RouterBatch(0, [m.Inspect(number, device, address, limit)], []))
        self.inspections.inspect(batch.messages[0])

    def steps(self) -> int:
        done = 0
        while self.inspections.waiting:
            self.inspections.go_on()
            done += 1
        return done


def test_one_device_is_answered_at_once() -> None:
    bench = Bench({5: "192.0.2.1", 6: "192.0.2.2"})
    bench.connections[5].out = bytearray(b"seven..")
    bench.ask(1, b"%16d" % 5)
    bench.ask(2, b"?" * 16)
    known = m.Inspection(b"%16d" % 5, "talk", "192.0.2.1", 1.5, 7)
    assert bench.sent == [m.Inspected(1, [known], False), m.Inspected(2, [], False)]
    assert not bench.inspections.waiting


def test_a_search_goes_in_steps_and_finds_all_of_an_address() -> None:
    bench = Bench({fd: f"192.0.2.{fd % 2}" for fd in range(3, 1003)})
    bench.ask(1, address="192.0.2.1", limit=1000)
    assert bench.sent == []
    assert bench.steps() > 2
    (answer,) = bench.sent
    assert len(answer.found) == 500 and not answer.more
    assert {one.address for one in answer.found} == {"192.0.2.1"}


def test_a_search_ends_at_its_limit_and_says_whether_there_are_more() -> None:
    bench = Bench(dict.fromkeys(range(3, 8), "192.0.2.1"))
    for number, limit in ((1, 4), (2, 5), (3, 6)):
        bench.ask(number, address="192.0.2.1", limit=limit)
    bench.steps()
    assert [(len(one.found), one.more) for one in bench.sent] == [(4, True), (5, False), (5, False)]


def test_who_leaves_between_two_steps_is_not_found() -> None:
    bench = Bench(dict.fromkeys(range(3, 1003), "192.0.2.1"))
    bench.ask(1, address="192.0.2.1", limit=1000)
    bench.inspections.go_on()
    for fd in range(900, 1003):
        del bench.devices[b"%16d" % fd]
        del bench.connections[fd]
    bench.connections[950] = Connection(950, 0, 0.0)  # another, that is no device yet
    bench.steps()
    assert len(bench.sent[0].found) == 897


def test_more_searches_than_may_wait_are_answered_as_not_complete() -> None:
    bench = Bench({3: "192.0.2.1"})
    for number in range(20):
        bench.ask(number, address="192.0.2.1")
    refused = len(bench.sent)
    assert 0 < refused < 20 and all(one.more and not one.found for one in bench.sent)
    bench.steps()
    assert sorted(one.number for one in bench.sent) == list(range(20))


def test_a_search_for_which_nobody_waits_any_more_is_given_up() -> None:
    bench = Bench(dict.fromkeys(range(3, 1003), "192.0.2.1"))
    for number in range(3):
        bench.ask(number, address="192.0.2.1", limit=1000)
    bench.inspections.go_on()
    bench.clock.now += 60
    bench.ask(3, address="192.0.2.1", limit=1000)
    bench.steps()
    (answer,) = bench.sent
    assert (answer.number, len(answer.found)) == (3, 1000)
