"""Links over TCP with CURVE, on real sockets: who is let in, routers that move, and connections that break."""

from __future__ import annotations

import random
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import trio
import zmq
from support.common import Clock, Rig
from support.cutter import Cutter

from bench.machine.ports import free_ports
from farm.worker.link import WorkerLink
from farm.worker.links import Links
from farm.worker.routes import Routes
from router.common import curve, places
from router.common import messages as m
from router.common.cluster_settings import ClusterOptions
from router.common.directory import Placement
from router.common.link_address import address
from router.common.places import Place, Places
from router.common.settings import LinkOptions
from router.common.wire import NEWEST
from router.gatekeeper import Gatekeeper
from router.link import RouterLink

KEY, OTHER_KEY = curve.derive(b"k" * 32), curve.derive(b"o" * 32)
LEASE_S = 3.0
HANG_S = 10
BEAT_S = 0.01


class Router:
    """A router with its hub, and the gate in front of it."""

    def __init__(self, folder: Path, port: int, keys: list[curve.ClusterKey], rig: Rig | None = None) -> None:
        self.rig = rig or Rig(clock=Clock())
        self.place = Place(f"tcp://127.0.0.1:{port}", keys[0], LEASE_S)
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.gatekeeper = Gatekeeper(self.context, keys)
        self.link = RouterLink(self.context, address(folder, port), self.rig.hub, LinkOptions(), self.place)
        self.gatekeeper.watch(self.link.server)
        self.running = trio.CancelScope()

    async def run(self) -> None:
        with self.running:
            await self.gatekeeper.run()

    def close(self) -> None:
        self.gatekeeper.close()
        self.link.close()
        self.context.destroy(linger=0)


class Ends:
    """Routers and a worker, pumped a hundred times a second."""

    nursery: trio.Nursery

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.routers: list[Router] = []
        self.stopped: set[Router] = set()
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.heard: list[Any] = []
        self.workers: list[WorkerLink] = []

    def router(self, keys: list[curve.ClusterKey] | None = None, rig: Rig | None = None) -> Router:
        made = Router(self.folder, free_ports(1)[0], keys or [KEY], rig)
        self.routers.append(made)
        self.nursery.start_soon(made.run)
        self.nursery.start_soon(made.rig.committer.run, made.rig.flushed)
        return made

    def worker(self, place: Place | None, number: int = 3) -> WorkerLink:
        link = WorkerLink(
            self.context, place, LinkOptions(), number, b"incarna%d" % number, 4711, self.heard.extend, tuple
        )
        self.workers.append(link)
        return link

    def pump(self) -> None:
        for router in self.routers:
            if router not in self.stopped:
                router.link.pump()
        for worker in self.workers:
            worker.beat({})
            worker.pump()

    async def until(self, condition: Callable[[], object]) -> None:
        with trio.fail_after(HANG_S):
            while not condition():
                self.pump()
                await trio.sleep(BEAT_S)

    async def beats(self, count: int) -> None:
        for _ in range(count):
            self.pump()
            await trio.sleep(BEAT_S)


@asynccontextmanager
async def ends_in(folder: Path) -> AsyncIterator[Ends]:
    ends = Ends(folder)
    try:
        async with trio.open_nursery() as ends.nursery:
            yield ends
            ends.nursery.cancel_scope.cancel()
    finally:  # when none of the gatekeepers runs any more, which would read what is closed
        for worker in ends.workers:
            worker.close()
        for router in ends.routers:
            router.close()
        ends.context.destroy(linger=0)


def scenario(body: Callable[[Ends], Any]) -> Callable[[Path], None]:
    def test(tmp_path: Path) -> None:
        async def main() -> None:
            async with ends_in(tmp_path) as ends:
                await body(ends)

        trio.run(main)

    test.__name__ = body.__name__
    return test


def acks(first: int, count: int) -> list[m.Ack]:
    return [m.Ack(b"d" * 16, [(f"slot-{number}", 1)]) for number in range(first, first + count)]


@scenario
async def test_workers_of_this_host_and_of_another_are_at_one_router(ends: Ends) -> None:
    router = ends.router()
    near = ends.worker(Place(address(ends.folder, int(router.place.address.rpartition(":")[2]))), 1)
    far = ends.worker(router.place, 2)
    await ends.until(lambda: near.joined and far.joined)
    assert {session.lease.shard for session in router.rig.hub.sessions} == {1, 2}


@pytest.mark.parametrize("kind", ["no key", "another key", "a client's key that is not known"])
def test_who_has_no_key_is_not_let_in_and_disturbs_nobody(tmp_path: Path, kind: str) -> None:
    async def main() -> None:
        async with ends_in(tmp_path) as ends:
            router = ends.router()
            mixed = curve.ClusterKey("mixed", KEY.server_public, b"", OTHER_KEY.client_public, OTHER_KEY.client_secret)
            key = {"no key": None, "another key": OTHER_KEY, "a client's key that is not known": mixed}[kind]
            stranger = ends.worker(Place(router.place.address, key, LEASE_S), 1)
            await ends.until(lambda: router.gatekeeper.refused)
            ours = ends.worker(router.place, 2)
            await ends.until(lambda: ours.joined)
            await ends.beats(20)
            assert not stranger.joined
            assert [session.lease.shard for session in router.rig.hub.sessions] == [2]

    trio.run(main)


def test_before_there_is_a_gatekeeper_nobody_is_let_in(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    place = Place(f"tcp://127.0.0.1:{free_ports(1)[0]}", KEY, LEASE_S)
    link = RouterLink(context, address(tmp_path, 0), Rig().hub, LinkOptions(), place)
    client = context.socket(zmq.DEALER)
    place.connect(client)
    client.send(NEWEST.encode(m.AskStatus(1)))
    for _ in range(20):
        link.pump()
        assert not client.poll(10)
    link.close()
    context.destroy(linger=0)


@scenario
async def test_during_a_rotation_either_key_is_let_in(ends: Ends) -> None:
    new = ends.router([OTHER_KEY, KEY])
    old = ends.router([KEY, OTHER_KEY])
    links = [ends.worker(router.place, number) for number, router in enumerate((new, old))]
    await ends.until(lambda: all(link.joined for link in links))
    # A client may use either pair of its own.
    other = curve.ClusterKey("", OTHER_KEY.server_public, b"", KEY.client_public, KEY.client_secret)
    link = ends.worker(Place(new.place.address, other, LEASE_S), 5)
    await ends.until(lambda: link.joined)


@scenario
async def test_what_was_not_confirmed_goes_to_where_the_router_has_moved(ends: Ends) -> None:
    before, after = ends.router(), ends.router()
    link = ends.worker(None)
    link.messages.extend(acks(0, 2))
    await ends.beats(3)
    assert (link.joined, link.unconfirmed) == (False, 1)
    link.move(before.place)
    await ends.until(lambda: not link.unconfirmed)
    assert before.rig.hub.counters.acks == 2
    ends.stopped.add(before)  # what it is sent is not confirmed any more
    for number in range(5):
        link.messages.extend(acks(10 * number, 10))
        link.pump()
    link.move(after.place)
    assert not link.joined
    await ends.until(lambda: not link.unconfirmed)
    assert after.rig.hub.counters.acks == 50
    assert before.rig.hub.counters.acks == 2
    link.move(None)
    link.messages.extend(acks(0, 1))
    await ends.beats(3)
    assert link.unconfirmed == 1


@scenario
async def test_what_a_router_has_sent_before_it_moved_is_received(ends: Ends) -> None:
    before, after = ends.router(), ends.router()
    link = ends.worker(before.place)
    await ends.until(lambda: link.joined)
    await ends.beats(5)  # READY may have been sent more than once
    session = next(iter(before.rig.hub.sessions))
    for number in range(50):
        session.send(m.Disconnect(number.to_bytes(16, "big")))
        before.link.pump()
    before.running.cancel()
    await trio.sleep(0.1)
    before.close()
    ends.routers.remove(before)
    ends.heard.clear()
    link.move(after.place)
    assert len(ends.heard) == 50


NOWHERE = "127.0.0.1"
"""An address without a port."""


@scenario
async def test_a_link_that_cannot_move_stays_where_it_is(ends: Ends) -> None:
    router = ends.router()
    link = ends.worker(router.place)
    await ends.until(lambda: link.joined)
    with pytest.raises(ValueError, match=NOWHERE):
        link.move(Place(f"tcp://{NOWHERE}", KEY, LEASE_S))
    assert (link.joined, link.place) == (True, router.place)
    link.messages.extend(acks(0, 2))
    await ends.until(lambda: router.rig.hub.counters.acks == 2)


def test_where_one_link_cannot_follow_the_others_do(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    known = Places(tmp_path, ClusterOptions(enabled=True), [KEY], LEASE_S)
    links = Links(context, known, LinkOptions(), Routes(2), 3, b"incarnat", 4711, lambda: pytest.fail("none has come"))
    where = [f"127.0.0.1:{port}" for port in free_ports(2)]

    def placed(number: int, epoch: int, address: str) -> list[str | None]:
        links.placed([Placement(number, epoch, "another", address, address, KEY.id)])
        links.look()
        links.pump()
        return [link.place and link.place.address for link in links.each]

    try:
        assert placed(0, 1, NOWHERE) == [None, None]
        assert placed(1, 1, where[1]) == [None, f"tcp://{where[1]}"]
        assert placed(0, 2, where[0]) == [f"tcp://{address}" for address in where]
    finally:
        links.close()
        context.destroy(linger=0)


GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00"
STRANGERS = {
    "says nothing": b"",
    "garbage": b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 20,
    "half a greeting": GREETING,
    "a greeting, and then nothing": GREETING + b"CURVE".ljust(52, b"\0"),
    "another mechanism": GREETING + b"NULL".ljust(52, b"\0") + b"\x04\x1a\x05READY\x0bSocket-Type\0\0\0\x06DEALER",
    "a handshake that is none": GREETING + b"CURVE".ljust(52, b"\0") + b"\x04\xc8\x05HELLO\x01\0" + bytes(192),
    "a frame that never ends": GREETING
    + b"CURVE".ljust(52, b"\0")
    + b"\x06"
    + (60 * 2**20).to_bytes(8, "big")
    + b"x" * 5000,
}


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_thousand_strangers_cost_nothing_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_HANDSHAKE_MS", 500)

    async def main() -> None:
        async with ends_in(tmp_path) as ends:
            router = ends.router()
            link = ends.worker(router.place)
            await ends.until(lambda: link.joined)
            await ends.beats(20)
            session, before = next(iter(router.rig.hub.sessions)), descriptors()
            port = int(router.place.address.rpartition(":")[2])
            strangers: list[socket.socket] = []
            for kind in STRANGERS.values():
                for _ in range(1000 // len(STRANGERS)):
                    stranger = socket.create_connection(("127.0.0.1", port))
                    with suppress(OSError):  # it has been dropped already
                        stranger.sendall(kind)
                    strangers.append(stranger)
                link.messages.extend(acks(0, 1))
                await ends.until(lambda: not link.unconfirmed)  # which goes on as if there were none
            await ends.until(lambda: router.gatekeeper.refused >= 100)
            for stranger in strangers:
                stranger.close()
            await ends.until(lambda: descriptors() <= before)
            assert list(router.rig.hub.sessions) == [session]
            assert router.rig.hub.counters.link_refused == 0

    trio.run(main)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_where_the_connection_breaks_many_times(tmp_path: Path, seed: int) -> None:
    """Acks are counted once or more, each call is replied to, and each client event is published once."""
    chance = random.Random(seed)

    async def main() -> None:
        async with ends_in(tmp_path) as ends:
            router = ends.router()
            cutter = Cutter(int(router.place.address.rpartition(":")[2]))
            link = ends.worker(Place(f"tcp://127.0.0.1:{cutter.port}", KEY, LEASE_S))
            watcher = ends.worker(router.place, 4)
            seen: list[Any] = []
            watcher._received = seen.extend
            channel = b"c" * 16
            watcher.messages.append(m.Subscribe(channel, m.channel_label("talk", "app", "room")))
            await ends.until(lambda: link.joined and watcher.joined and not watcher.unconfirmed)
            sent = 0
            for _ in range(10):
                hold_at, batches = chance.randrange(20), chance.randrange(1, 20)
                for number in range(batches):
                    if number == hold_at:
                        cutter.hold()
                    for _ in range(chance.randrange(1, 20)):
                        sent += 1
                        link.messages.append(
                            m.Call(sent, m.Publish(channel, f"{sent} {'x' * chance.randrange(3000)}", 0, ""))
                        )
                    if chance.random() < 0.3:
                        ends.pump()
                    else:
                        link.pump()
                connections = cutter.connections
                cutter.cut()
                if chance.random() < 0.5:  # the connection is there again before the ends look
                    with trio.fail_after(HANG_S):
                        while cutter.connections == connections:
                            await trio.sleep(0.01)
                    await trio.sleep(0.02)
                await ends.beats(chance.randrange(8))
            await ends.until(lambda: link.joined and not link.unconfirmed)
            replies = {one.number: one.status for one in ends.heard if isinstance(one, m.Reply)}
            assert replies == dict.fromkeys(range(1, sent + 1), m.OK)
            await ends.until(lambda: len(seen) >= sent)
            await ends.beats(5)
            events = [int(one.body.partition(" ")[0]) for one in seen if isinstance(one, m.Event)]
            assert events == [*range(1, sent + 1)]
            assert cutter.connections > 5
            cutter.close()

    trio.run(main)


@scenario
async def test_a_connection_over_which_nothing_comes_is_closed_and_made_anew(ends: Ends) -> None:
    router = ends.router()
    cutter = Cutter(int(router.place.address.rpartition(":")[2]))
    link = ends.worker(Place(f"tcp://127.0.0.1:{cutter.port}", KEY, lease=0.4))
    await ends.until(lambda: link.joined)
    connections = cutter.connections
    cutter.hold()  # as a cable that was pulled: neither end is told
    link.messages.extend(acks(0, 1))
    await ends.until(lambda: cutter.connections > connections)
    cutter.cut()
    await ends.until(lambda: link.joined and not link.unconfirmed)
    cutter.close()
