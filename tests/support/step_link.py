"""A worker and a router in one process, with a link between them that a test carries step by step."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from farm.worker.routes import Routes
from router.common import messages as m
from support.common import FakeWorker, Rig
from support.shard import Shard


class StepLink:
    """The link between a worker and a router, which carries what it is told to, when it is told to. It keeps what is
    not confirmed, and repeats and announces as `farm.worker.link` does."""

    def __init__(self, shard: Shard, rig: Rig, router: int = 0, number: int = 0, life: int = 0) -> None:
        """number: the worker's, whose lives follow each other."""
        self.rig = rig
        self.router = router
        self.lapses = 0  # how often it was away
        self.messages: list[Any] = []  # that wait to go
        self._shard = shard
        self._worker = FakeWorker(rig, number)
        if life:
            self._worker.identity = self._worker.incarnation = b"i%d-%d" % (number, life)
        self._worker.join()
        self._worker.direct()
        self._worker.announces()
        self._unconfirmed: deque[tuple[int, list[Any]]] = deque()
        self._sequence = 0
        self._announced = 0  # the batch with the last announcement of devices
        self._down: deque[Any] = deque()

    def up(self) -> None:
        """What the worker has to say reaches the router."""
        if messages := self.messages:
            self.messages = []
            self._enqueue(messages)

    def beat(self) -> None:
        """The worker lives."""
        self._worker._sequence = self._sequence
        self._worker.send(m.Beat({}))

    def _enqueue(self, messages: list[Any]) -> None:
        self._sequence += 1
        self._unconfirmed.append((self._sequence, messages))
        self._send(self._sequence, messages)

    def _send(self, sequence: int, messages: list[Any]) -> None:
        self._worker.send(m.WorkerBatch(sequence, messages))

    def down(self, most: int) -> None:
        """Some of what the router has to say reaches the worker."""
        self._take()
        some: list[Any] = []
        while self._down and len(some) < most:
            one = self._down.popleft()
            if isinstance(one, int):
                self._confirm(one)
            else:
                some.append(one)
        if some:
            self._shard.sockets.received(some, self.router)

    def _take(self) -> None:
        worker = self._worker
        session = self.rig.hub.sessions.get(worker.identity)
        confirmed = 0 if session is None else session.confirmed
        self._down.extend(worker.take())
        self._down.append(confirmed)  # it is told with the last of them

    def _confirm(self, confirmed: int) -> None:
        while self._unconfirmed and self._unconfirmed[0][0] <= confirmed:
            self._unconfirmed.popleft()

    def lapse(self, arrives: bool, restarts: bool) -> None:
        """The lease ends, or the router does. arrives: what was on its way to the worker still gets there."""
        self.lapses += 1
        hub, worker = self.rig.hub, self._worker
        if arrives:
            self.down(1_000_000)
        self._down.clear()
        if restarts:
            self.rig.router_restarts()
        else:
            hub.lost(worker.session, "test")
        worker.direct()

    def rejoin(self) -> None:
        """As `farm.worker.link` does when it is welcome again."""
        self.lapses += 1
        repeated = list(self._unconfirmed)
        self._worker.join(repeated[0][0] - 1 if repeated else self._sequence)
        self._worker.direct()
        for sequence, messages in repeated:
            self._send(sequence, messages)
        self.up()
        sockets, router = self._shard.sockets, self.router
        held = sockets.welcomed(router)
        for channels in sockets.held_channels(router):
            self._enqueue([m.AnnounceChannels(channels)])
        for keys, runs in held:
            self._enqueue([m.Announce(keys, runs)])
            self._announced = self._sequence
        self._worker.send(m.Announced(self._unconfirmed[-1][0] if self._unconfirmed else 0))

    @property
    def reads(self) -> bool:
        """Whether the router looks up what waits for devices that were announced."""
        return bool(self._unconfirmed) and self._unconfirmed[0][0] <= self._announced

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way, as far as the worker knows."""
        return not self.messages and not self._unconfirmed

    @property
    def away(self) -> bool:
        return self.rig.hub.sessions.get(self._worker.identity) is None


def turn(shard: Shard, routes: Routes, links: Sequence[StepLink], slow: Iterable[int] = ()) -> None:
    """A turn of a worker with links to several routers, which take what it has to say. slow: routers that do not keep
    up with it, besides those whose links read what waits for devices."""
    sockets = shard.sockets
    sockets.keeps_up(frozenset(slow).union(link.router for link in links if link.reads))
    for fd, events in shard._poller.ready_now():
        if fd in sockets.connections:
            sockets.ready_where_routers_keep_up(fd, events)
    sockets.turn()
    for message in shard.said():
        links[routes.of(message)].messages.append(message)
