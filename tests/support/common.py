"""What several tests share: the effective settings, clocks that stand still, and a hub with a real committer and store,
spoken to by workers in the messages of the link."""

import inspect
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import trio
import trio.testing

from farm.sections import all_sections
from router.common import messages as m
from router.common.client_address import Networks
from router.common.client_keys import ClientKeys
from router.common.limit_settings import LimitOptions
from router.common.options import Settings, defaults
from router.common.settings import LinkOptions, StoreOptions
from router.common.wire import NEWEST, VERSIONS, Wire
from router.core.committer import GroupCommitter
from router.core.hub import Hub
from router.core.push_limits import PushLimits
from router.core.push_watch import PushWatch
from router.core.sessions import WorkerSession
from router.store.base import Reads, Results, StoreError, Writes
from router.store.memory import MemoryStore

DELIVERY_TIMEOUT_S = 2.0
LIMIT = 2**20


class Clock:
    """Both clocks of the farm; they stand still until a test moves them."""

    def __init__(self) -> None:
        self.monotonic_s = 1000.0
        self.unix_s = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.monotonic_s

    def unix(self) -> float:
        return self.unix_s

    def pass_by(self, seconds: float) -> None:
        self.monotonic_s += seconds
        self.unix_s += seconds


def settings_with(*changes: tuple[type[Any], dict[str, Any]]) -> Settings:
    """All defaults, but for the options given as (section, {key: value})."""
    settings = defaults(all_sections())
    for section, values in changes:
        settings = settings.replace(section, **values)
    return settings


@contextmanager
def deaf_port() -> Iterator[int]:
    """A port of loopback where connections are refused, and that nobody else gets meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


def cuts(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Every way to have these bytes come in two reads."""
    for cut in range(1, len(data)):
        yield data[:cut], data[cut:]


def growth(act: Callable[[int], object], size: int) -> float:
    """How many times as long it takes with four times the size: 4 is linear, 16 quadratic. CPU time of the best of
    several runs, so that other processes do not count; in turns, so that what slows the machine down slows both."""

    def took(size: int) -> float:
        begun = time.thread_time()
        act(size)
        return time.thread_time() - begun

    runs = [(took(size), took(4 * size)) for _ in range(7)]
    return min(large for _, large in runs) / max(min(small for small, _ in runs), 3e-5)


class GatedStore(MemoryStore):
    """A memory store whose commits can be held back or made to fail, as a disk's can."""

    def __init__(self, options: StoreOptions, unix_time: Callable[[], float]) -> None:
        super().__init__(options, unix_time=unix_time)
        self.failing = False
        self.batches: list[Writes] = []
        self._open_gate = trio.Event()
        self._open_gate.set()

    def hold(self) -> None:
        """Commits begin, but do not end before `release`."""
        if self._open_gate.is_set():
            self._open_gate = trio.Event()

    def release(self) -> None:
        self._open_gate.set()

    async def apply(self, writes: Writes, reads: Reads, now: int) -> Results:
        await self._open_gate.wait()
        if self.failing:
            raise StoreError("the disk is full")
        self.batches.append(writes)
        return await super().apply(writes, reads, now)


class Rig:
    """A hub with its committer and store, and the clocks they go by."""

    def __init__(
        self,
        store: dict[str, Any] | None = None,
        link: dict[str, Any] | None = None,
        router: int = 0,
        routers: int = 1,
        clock: Clock | None = None,
        workers: int | None = 0,
        limits: dict[str, Any] | None = None,
        watch: PushWatch | None = None,
    ) -> None:
        """limits: for app servers. watch: wants to know of each push. router: its number, of so many that have this
        clock. workers: for how many it waits as it begins."""
        self._router, self._routers, self._workers, self._watch = router, routers, workers, watch
        settings = settings_with((StoreOptions, store or {}), (LinkOptions, link or {}))
        options = self._store_options = settings.get(StoreOptions)
        self.clock = clock or Clock()
        self.store = GatedStore(options, self.clock.unix)
        self.committer = GroupCommitter(self.store, options, self.clock.unix, self.clock.monotonic)
        self.link = settings.get(LinkOptions)
        self.versions = VERSIONS
        self._limits = LimitOptions(**(limits or {}))
        self._lives = 0
        self.hub = self._hub(self.committer)
        self.flush: Callable[[], None] = lambda: None
        """Called after each commit, as the router's shell has it."""

    def _hub(self, committer: GroupCommitter) -> Hub:
        clocks = self.clock.monotonic, self.clock.unix
        self._lives += 1
        return Hub(
            committer,
            self.link,
            DELIVERY_TIMEOUT_S,
            b"router-%d" % self._lives,
            *clocks,
            router=self._router,
            routers=self._routers,
            versions=self.versions,
            workers=self._workers,
            watch=self._watch,
        )

    @property
    def push_limits(self) -> PushLimits:
        """As a router makes them when it begins."""
        return PushLimits(self._limits, ClientKeys(Networks(())), self.hub.counters, self.clock.monotonic)

    def flushed(self) -> None:
        self.flush()

    def router_restarts(self, versions: range = VERSIONS) -> None:
        """Another hub on the same store: it knows nobody. versions: of the protocol that it speaks."""
        self.versions = versions
        self.hub = self._hub(self.committer)

    async def committer_restarts(self) -> None:
        """Another committer on the same store. It is opened, but nothing runs it."""
        options = self._store_options
        self.committer = GroupCommitter(self.store, options, self.clock.unix, self.clock.monotonic)
        await self.committer.open()

    def worker(self, shard: int = 0) -> "FakeWorker":
        """A worker that has joined."""
        worker = FakeWorker(self, shard)
        worker.join()
        return worker

    def direct(self, identity: bytes) -> list[bytes]:
        """What is sent to one outside of batches; what others would get is dropped."""
        return [data for to, data in self.hub.take_direct() if to == identity]

    def turn_ends(self) -> None:
        """As the link begins to send."""
        self.hub.outgoing()

    def push(self, device: bytes, slot: str, version: int, **more: Any) -> list[int]:
        """Push; the list gets the outcome when there is one."""
        outcomes: list[int] = []
        self.hub.messages.push(device, slot, version, outcomes.append, **{"ttl": 60, **more})
        return outcomes

    async def settle(self) -> None:
        """Until the committer has nothing left that it can do."""
        await trio.testing.wait_all_tasks_blocked()

    async def inbox(self, device: bytes) -> list[tuple[str, int]]:
        """What waits for a device: (slot, version) in order of arrival."""
        reads = Reads(inboxes={device: m.EVERYTHING})
        items = (await self.store.apply(Writes(), reads, int(self.clock.unix()))).inboxes.get(device, [])
        return [(item.slot, item.version) for item in sorted(items, key=lambda item: item.seq)]


class FakeWorker:
    """Speaks as a worker does on the link: packed messages, counted batches."""

    def __init__(self, rig: Rig, shard: int) -> None:
        self._rig = rig
        self._sequence = 0
        self.shard = shard
        self.identity = b"w%d" % shard
        self.incarnation = b"i%d" % shard
        self.host = ""  # its ID in a cluster

    def send(self, message: Any) -> None:
        """One message on the link."""
        if type(message) is m.Beat:
            message = m.Beat(message.snapshot, self._sequence)
        self._rig.hub.received(self.identity, NEWEST.encode(message))

    def join(self, confirmed: int = 0) -> None:
        """confirmed: its first batch has the next number."""
        self._sequence = confirmed
        self.send(m.Ready(m.PROTOCOL, self.shard, self.incarnation, 4711, m.LOWEST_PROTOCOL))
        self.send(m.Begin(self.host, confirmed))

    def say(self, *messages: Any) -> int:
        """One batch. Returns: its number."""
        self._sequence += 1
        self.send(m.WorkerBatch(self._sequence, list(messages)))
        return self._sequence

    def announces(self, *held: Any) -> None:
        """Announce this, and that it is all."""
        self.send(m.Announced(self.say(*held) if held else self._sequence))

    @property
    def session(self) -> WorkerSession:
        session = self._rig.hub.sessions.get(self.identity)
        assert session is not None
        return session

    def take(self) -> list[Any]:
        """The messages that the router has for us, taken as its link takes them."""
        session = self._rig.hub.sessions.dirty.get(self.identity)
        messages: list[Any] = []
        while session is not None:
            batch = session.wire.of_router(session.envelope(), LIMIT)
            assert isinstance(batch, m.RouterBatch)
            messages += batch.messages
            if session.sent():
                self._rig.hub.drained(session)
                session = None
        return messages

    def tell_counts(self, *late: Any) -> int:
        """Answer what was asked of counts, with these messages before it. Returns: how often that was."""
        session = self._rig.hub.sessions.get(self.identity)
        asked = [] if session is None else [one for one in session.outbox if isinstance(one, m.SendCounts)]
        for one in asked:
            assert session is not None
            session.outbox.remove(one)
            self.say(*late, m.CountsSent(one.number))
        return len(asked)

    def direct(self) -> list[Any]:
        """Envelopes other than batches: WELCOME, REJOIN, STATUS."""
        return [NEWEST.of_router(data, LIMIT) for data in self._rig.direct(self.identity)]


def received_by_worker(envelope: m.OfRouter, wire: Wire = NEWEST) -> Any:
    """What a worker makes of an envelope that has come over the link."""
    return wire.of_router(wire.encode(envelope), LIMIT)


def received_by_router(*messages: Any) -> Any:
    """What a router makes of a batch with these that has come over the link."""
    batch = NEWEST.of_worker(NEWEST.encode(m.WorkerBatch(1, list(messages))), LIMIT)
    assert isinstance(batch, m.WorkerBatch)
    return batch.messages


def array(kind: type[m.Envelope | m.Message], *fields: Any) -> list[Any]:
    """An envelope or a message as it is on the wire, with whatever fields."""
    return [kind.__struct_config__.tag, *fields]


def hold(*devices: bytes, since: int = 0) -> m.Announce:
    """The message that announces these, all held since then."""
    return m.Announce(list(devices), [(len(devices), since)])


def announced(devices: list[bytes]) -> Iterator[tuple[list[bytes], list[tuple[int, int]]]]:
    """What a worker gives its link to announce."""
    for at in range(0, len(devices), m.ANNOUNCE_CHUNK):
        part = devices[at : at + m.ANNOUNCE_CHUNK]
        yield part, [(len(part), 0)]


def in_rig(**options: Any) -> Callable[[Callable[..., Awaitable[None]]], Callable[..., None]]:
    """Make a test of a coroutine function: its first parameter is a `Rig` with these options, its committer running."""

    def decorate(scenario: Callable[..., Awaitable[None]]) -> Callable[..., None]:
        def test(**parameters: Any) -> None:
            async def main() -> None:
                rig = Rig(**options)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(rig.committer.run, rig.flushed)
                    await scenario(rig, **parameters)
                    nursery.cancel_scope.cancel()

            trio.run(main)

        signature = inspect.signature(scenario)
        test.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=list(signature.parameters.values())[1:]
        )
        test.__name__, test.__doc__, test.__module__ = scenario.__name__, scenario.__doc__, scenario.__module__
        return test

    return decorate


def during_each_commit(rig: Rig, act: Callable[[], None]) -> None:
    """Have something happen while the store is at work on a batch."""
    apply = rig.store.apply

    async def act_and_apply(writes: Writes, reads: Reads, now: int) -> Results:
        act()
        return await apply(writes, reads, now)

    rig.store.apply = act_and_apply  # type: ignore[method-assign]
