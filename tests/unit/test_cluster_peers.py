"""The link between two routers over TCP: it follows one that moves, and whatever breaks each operation ends once."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio
import zmq
from support.common import Clock, Rig
from support.cutter import Cutter

from bench.machine.ports import free_ports
from router.common import curve, directory
from router.common import messages as m
from router.common.cluster_settings import ClusterOptions
from router.common.directory import Directory, Placement
from router.common.operation import Operation
from router.common.places import Places
from router.core.operations import Done
from router.gatekeeper import Gatekeeper
from router.peers import Peers

KEY = curve.derive(b"k" * 32)
LEASE_S = 2.0
HANG_S = 20


class Double(Operation, tag=1):
    REPLY = bytes

    text: bytes


class Host:
    """A host with one router of two, in a data folder of its own."""

    def __init__(self, folder: Path, name: str, number: int, clock: Clock, life: int = 0) -> None:
        self.name, self.number = name, number
        self.folder = folder / name
        self.folder.mkdir()
        port = free_ports(1)[0] - 2 * number - 1
        self.where = f"127.0.0.1:{port + 2 * number + 1}"
        options = ClusterOptions(enabled=True, bind=f"127.0.0.1:{port}")
        self.places = Places(self.folder, options, [KEY], LEASE_S)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gatekeeper = Gatekeeper(self.context, [KEY])
        self.rig = Rig(router=number, routers=2, clock=clock)
        if life:
            self.rig.router_restarts()
        self.performed: Counter[bytes] = Counter()
        self.holding = False

        def double(key: bytes, asked: Double, done: Done) -> None:
            self.performed[asked.text] += 1
            if not self.holding:
                done(m.OK, 2 * asked.text)

        self.rig.hub.core.operations.register("talk", {Double: double})
        self.peers = Peers(self.context, self.places, number, self.rig.hub, self.rig.link)

    def know(self, *placed: Placement) -> None:
        """As its supervisor writes it."""
        directory.write(self.folder, Directory(self.name, list(placed), []))
        self.peers.follow([one.number for one in self.places.look()])

    def close(self) -> None:
        self.gatekeeper.close()
        self.peers.close()
        self.context.destroy(linger=0)


class Hosts:
    """Some, pumped together while time passes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._clock = Clock()
        self.each: list[Host] = []

    def host(self, name: str, number: int, life: int = 0) -> Host:
        made = Host(self._folder, name, number, self._clock, life)
        self.each.append(made)
        return made

    def until(self, condition: Callable[[], object]) -> None:
        async def main() -> None:
            async with trio.open_nursery() as nursery:
                for host in self.each:
                    nursery.start_soon(host.gatekeeper.run)
                begun = time.monotonic()
                while not condition():
                    assert time.monotonic() < begun + HANG_S
                    self.pump()
                    await trio.sleep(0.002)
                nursery.cancel_scope.cancel()

        trio.run(main)

    def pump(self) -> None:
        for host in self.each:
            host.peers.pump()
            host.rig.hub.tick()
        self._clock.pass_by(0.002)

    def ask(self, asker: Host, owner: int, text: bytes) -> list[tuple[int, bytes | None]]:
        """Returns: a list that gets status and reply."""
        found: list[tuple[int, bytes | None]] = []
        operations = asker.rig.hub.core.operations
        keys = (m.channel_key("talk", "", str(number)) for number in range(100))
        key = next(key for key in keys if operations.owner(key) == owner)
        operations.at(key, Double(text), lambda status, reply=None: found.append((status, reply)))
        return found


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    made = Hosts(tmp_path)
    yield made
    for host in made.each:
        host.close()


def placed(host: Host, epoch: int, where: str = "") -> Placement:
    return Placement(host.number, epoch, host.name, "", where or host.where, KEY.id)


def test_what_is_asked_follows_a_router_that_moves(hosts: Hosts) -> None:
    a, b = hosts.host("a", 0), hosts.host("b", 1)
    early = hosts.ask(a, 1, b"early")  # it waits: where the owner is is not known yet
    hosts.pump()
    a.know(placed(a, 1), placed(b, 1))
    b.know(placed(a, 1), placed(b, 1))
    hosts.until(lambda: early)
    assert early == [(m.OK, b"earlyearly")]
    b.holding = True
    lost = hosts.ask(a, 1, b"lost")
    hosts.until(lambda: b.performed[b"lost"])
    c = hosts.host("c", 1, life=1)
    a.know(placed(a, 1), placed(c, 2))
    c.know(placed(a, 1), placed(c, 2))
    late = hosts.ask(a, 1, b"late")
    hosts.until(lambda: late and lost)
    assert (late, lost) == ([(m.OK, b"latelate")], [(m.UNREACHED, None)])
    assert (b.performed[b"late"], c.performed[b"lost"]) == (0, 0)
    back = hosts.ask(c, 0, b"back")
    hosts.until(lambda: back)
    assert back == [(m.OK, b"backback")]


@pytest.mark.parametrize("seed", range(3))
def test_each_operation_ends_once_where_the_connection_breaks_many_times(hosts: Hosts, seed: int) -> None:
    """It was performed, or it is answered that it may have been; and never is it performed twice."""
    chance = random.Random(seed)
    a, b = hosts.host("a", 0), hosts.host("b", 1)
    cutter = Cutter(int(b.where.rpartition(":")[2]))
    a.know(placed(a, 1), placed(b, 1, f"127.0.0.1:{cutter.port}"))
    b.know(placed(a, 1), placed(b, 1))
    answers: list[list[tuple[int, bytes | None]]] = []
    first = hosts.ask(a, 1, b"first")
    hosts.until(lambda: first)
    for _ in range(10):
        for _ in range(chance.randrange(1, 20)):
            text = b"%d %s" % (len(answers), b"x" * chance.randrange(3000))
            answers.append(hosts.ask(a, 1, text))
            if chance.random() < 0.5:
                hosts.pump()
            if chance.random() < 0.1:
                cutter.hold()
        cutter.cut()
        end = chance.randrange(len(answers))
        hosts.until(lambda end=end: answers[end])
    hosts.until(lambda: all(answers))
    last = hosts.ask(a, 1, b"last")
    hosts.until(lambda: last)
    cutter.close()
    assert all(len(each) == 1 for each in answers)
    assert set(b.performed.values()) == {1}
    done = set(b.performed)
    for number, ((status, reply),) in enumerate(answers):
        assert status in (m.OK, m.UNREACHED)
        if status == m.OK:
            assert reply is not None and reply[: len(reply) // 2] in done and reply.startswith(b"%d " % number)
    assert cutter.connections > 2
    assert last == [(m.OK, b"lastlast")]
