"""A worker's links to several routers over real sockets, each router with its hub and store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import zmq
from support.common import Clock, Rig, announced
from support.link_ends import HANG_S

from farm.worker.links import Links
from farm.worker.routes import Routes
from router.common import messages as m
from router.common.link_address import address
from router.common.places import Places
from router.common.settings import LinkOptions
from router.link import RouterLink

ROUTERS = 3
ROUTES = Routes(ROUTERS)
DEVICES = [bytes([number]) * 16 for number in range(40)]
OF = [[key for key in DEVICES if ROUTES.owner(key) == router] for router in range(ROUTERS)]
BEAT_S = 0.02


class Held:
    """What the worker holds: these devices. It writes down what it is sent."""

    def __init__(self) -> None:
        self.devices: list[bytes] = []
        self.heard: list[tuple[int, Any]] = []
        self.shut: list[frozenset[int]] = []
        self.welcomes: list[int] = []

    def received(self, messages: list[m.ToWorker], router: int = 0) -> None:
        self.heard += [(router, message) for message in messages if not isinstance(message, m.BroadcastsSent)]

    def welcomed(self, router: int = 0) -> Iterable[tuple[list[bytes], list[tuple[int, int]]]]:
        self.welcomes.append(router)
        return announced([key for key in self.devices if ROUTES.owner(key) == router])

    def held_channels(self, router: int = 0) -> Iterable[list[m.HeldChannel]]:
        return ()

    def keeps_up(self, shut: frozenset[int]) -> None:
        self.shut.append(shut)


class Farm:
    """The routers of a host and a worker, each driven as its process drives it."""

    def __init__(self, folder: Path, **options: int) -> None:
        self._folder = folder
        clock = Clock()
        self.rigs = [Rig(link=options, router=router, routers=ROUTERS, clock=clock) for router in range(ROUTERS)]
        self.options: LinkOptions = self.rigs[0].link
        self.zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.routers: list[RouterLink | None] = [None] * ROUTERS
        self.held = Held()
        self.links = Links(self.zmq, Places(folder), self.options, ROUTES, 3, b"incarnat", 4711, lambda: self.held)
        self.stopped: set[int] = set()
        """Routers that receive and send nothing."""

    def start(self, router: int) -> None:
        self.routers[router] = RouterLink(self.zmq, address(self._folder, router), self.rigs[router].hub, self.options)

    def kill(self, router: int) -> None:
        link = self.routers[router]
        assert link is not None
        link.close()
        self.routers[router] = None
        self.rigs[router].router_restarts()

    def pump(self) -> None:
        for router, link in enumerate(self.routers):
            if link is not None and router not in self.stopped:
                link.pump()
        self.links.pump()

    async def until(self, condition: Callable[[], object], beats: bool = True) -> None:
        """Wait for the condition; a hang is a failure."""
        with trio.fail_after(HANG_S):
            while not condition():
                if beats:
                    self.links.beat({})
                self.pump()
                await trio.sleep(BEAT_S)

    def send(self, *messages: Any) -> None:
        for message in messages:
            self.links.send(message)
        self.links.pump()

    def acks(self, router: int) -> int:
        return self.rigs[router].hub.counters.acks

    @property
    def unconfirmed(self) -> list[int]:
        return [link.unconfirmed for link in self.links.each]


@asynccontextmanager
async def farm_in(folder: Path, **options: int) -> AsyncIterator[Farm]:
    farm = Farm(folder, **options)
    try:
        async with trio.open_nursery() as nursery:
            for router, rig in enumerate(farm.rigs):
                nursery.start_soon(rig.committer.run, rig.flushed)
                farm.start(router)
            await farm.until(lambda: all(link.joined for link in farm.links.each), beats=False)  # so it joins once
            yield farm
            nursery.cancel_scope.cancel()
    finally:
        farm.links.close()
        for link in farm.routers:
            if link is not None:
                link.close()
        farm.zmq.destroy(linger=0)


def ack(key: bytes) -> m.Ack:
    return m.Ack(key, [("a", 1)])


def test_each_message_reaches_its_router_and_what_that_sends_comes_with_its_number(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm_in(tmp_path) as farm:
            held, links = farm.held, farm.links
            farm.send(*(m.Call(number, m.Attach(key, "", 1, 5)) for number, key in enumerate(DEVICES)))
            await farm.until(lambda: len(held.heard) == len(DEVICES))
            assert {(router, one.number) for router, one in held.heard} == {
                (ROUTES.owner(key), number) for number, key in enumerate(DEVICES)
            }
            for rig, keys in zip(farm.rigs, OF, strict=True):
                assert [key for key in DEVICES if rig.hub.map.device(key) is not None] == keys
            await farm.until(lambda: not links.unconfirmed)
            assert (links.joined, links.saturated, links.behind, links.shut) == (True, False, False, frozenset())
            assert (links.refused, links.dropped) == (0, 0)

    trio.run(main)


def test_a_router_that_does_not_keep_up_is_shut_and_the_others_are_not(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm_in(tmp_path, max_unconfirmed=4) as farm:
            held, links = farm.held, farm.links
            farm.stopped.add(1)
            for _ in range(6):
                farm.send(*map(ack, DEVICES))
                await farm.until(lambda: farm.unconfirmed[::2] == [0, 0])
            assert (farm.unconfirmed, held.shut, links.shut) == ([0, 6, 0], [frozenset((1,))], frozenset((1,)))
            assert [farm.acks(router) for router in range(ROUTERS)] == [6 * len(OF[0]), 0, 6 * len(OF[2])]
            assert not links.saturated
            farm.stopped.clear()
            await farm.until(lambda: not links.unconfirmed)
            assert held.shut == [frozenset((1,)), frozenset()]
            assert farm.acks(1) == 6 * len(OF[1])
            farm.stopped.update(range(ROUTERS))
            for _ in range(4):
                farm.send(*map(ack, DEVICES))
            assert links.saturated

    trio.run(main)


def test_a_router_that_was_replaced_is_told_what_is_its_own_and_no_other_notices(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm_in(tmp_path) as farm:
            held, links = farm.held, farm.links
            held.devices = DEVICES[:]
            sessions = [next(iter(rig.hub.sessions)) for rig in farm.rigs]
            held.welcomes.clear()
            farm.kill(2)
            farm.send(*map(ack, DEVICES))
            await farm.until(lambda: farm.unconfirmed[:2] == [0, 0])
            assert farm.unconfirmed[2] == 1
            farm.start(2)
            await farm.until(lambda: not links.unconfirmed)
            assert held.welcomes == [2]
            assert farm.acks(2) == len(OF[2])
            assert [key for key in DEVICES if farm.rigs[2].hub.map.device(key) is not None] == OF[2]
            for rig, session in list(zip(farm.rigs, sessions, strict=True))[:2]:
                assert list(rig.hub.sessions) == [session]

    trio.run(main)


def test_the_descriptor_reports_whichever_router_has_sent_something(tmp_path: Path) -> None:
    async def main() -> None:
        async with farm_in(tmp_path) as farm:
            for router in range(ROUTERS):
                await farm.until(lambda: not farm.links.unconfirmed)
                farm.send(m.Call(router, m.Attach(OF[router][0], "", 1, 5)))
                heard = len(farm.held.heard)
                with trio.fail_after(HANG_S):
                    while len(farm.held.heard) == heard:
                        for link in farm.routers:
                            assert link is not None
                            link.pump()
                        await farm.rigs[router].settle()
                        with trio.move_on_after(BEAT_S):
                            await trio.lowlevel.wait_readable(farm.links.fileno)
                            farm.links.pump()

    trio.run(main)


def test_with_one_router_what_takes_messages_is_its_link_s_list(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    links = Links(context, Places(tmp_path), LinkOptions(), Routes(), 3, b"incarnat", 4711, Held)
    try:
        (link,) = links.each
        assert links.send == link.messages.append
        assert links.fileno == link.fileno
        for _ in range(LinkOptions().max_unconfirmed):
            links.send(ack(DEVICES[0]))
            links.pump()
        assert (links.saturated, links.shut) == (True, frozenset())  # then the worker reads no device at all
    finally:
        links.close()
        context.destroy(linger=0)


@pytest.mark.parametrize("kind", [m.Publish, m.Happened])
def test_what_is_not_awaited_is_dropped_where_very_much_waits_for_a_router(tmp_path: Path, kind: type) -> None:
    """Devices that come and go may send a message each, without an end."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    options = Rig(link={"max_unconfirmed_messages": 10}).link
    links = Links(context, Places(tmp_path), options, Routes(), 3, b"incarnat", 4711, Held)
    one = m.Publish(DEVICES[0], "", 0, "") if kind is m.Publish else m.Happened("", "", "")
    try:
        (link,) = links.each
        for _ in range(50):
            links.send(one)
            links.pump()
        assert (link.unconfirmed, links.dropped) == (20, 30)
        for message in (ack(DEVICES[0]), m.Call(1, m.Publish(DEVICES[0], "", 0, ""))):  # what is awaited is not
            links.send(message)
            links.pump()
        assert (link.unconfirmed, links.dropped) == (22, 30)
    finally:
        links.close()
        context.destroy(linger=0)
