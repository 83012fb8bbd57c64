"""Whatever happens in whatever order, nothing accepted is lost."""

from collections.abc import Callable
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support.common import DELIVERY_TIMEOUT_S, FakeWorker, Rig, hold, in_rig
from support.hub_messages import (
    CHANNEL,
    DEVICE,
    OTHER,
    slots,
    subscribe,
)
from support.often import often

from router.common import messages as m
from router.core.pushes import DELIVERED, STORED


class Shard:
    """A worker as the device side is: it repeats what is not confirmed, and announces what it holds."""

    def __init__(self, rig: Rig, number: int) -> None:
        self.worker = FakeWorker(rig, number)
        self.held: dict[bytes, dict[str, int]] = {}  # device -> what it was told on this connection
        self.asking: dict[int, bytes] = {}
        self._rig = rig
        self._ask = 0
        self._unconfirmed: list[tuple[int, list[Any]]] = []
        self.worker.join()

    def say(self, word: Any) -> None:
        self._unconfirmed.append((self.worker.say(word), [word]))

    def attach(self, device: bytes) -> None:
        self._ask += 1
        self.asking[self._ask] = device
        self.say(m.Call(self._ask, m.Attach(device, "", m.EVERYTHING, 0)))

    def leave(self, device: bytes) -> None:
        if self.held.pop(device, None) is not None and device not in self.asking.values():
            self.say(m.Detach(device))

    def hear(self) -> None:
        """Take what the router has for us; if it has forgotten us, join again."""
        if self._rig.hub.sessions.get(self.worker.identity) is None:
            batches = self._unconfirmed
            self._unconfirmed = []
            self.worker.join()
            for _, messages in batches:
                self.say(messages[0])
            self.say(hold(*self.held))
        confirmed = self.worker.session.confirmed
        self._unconfirmed = [batch for batch in self._unconfirmed if batch[0] > confirmed]
        for word in self.worker.take():
            if isinstance(word, m.Reply):
                self._answered(word.number, word.status, word.payload)
            elif isinstance(word, m.Deliver):
                told = self.held.get(word.device)
                if told is not None:
                    told[word.slot] = word.version
                if word.number:
                    self.say(m.Result(word.number, m.NOT_HERE if told is None else m.WRITTEN))
            elif isinstance(word, m.DeliverStored) and word.device in self.held:
                self.held[word.device].update(slots(word.items))
            elif isinstance(word, m.Disconnect):
                self.held.pop(word.device, None)

    def _answered(self, ask: int, status: int, payload: Any) -> None:
        device = self.asking.pop(ask, None)
        if device is None:
            return
        if status == m.OK:
            self.held[device] = dict(slots(payload[0]))
        elif device not in self.held and device not in self.asking.values():
            self.say(m.Detach(device))


_devices = st.sampled_from([DEVICE, OTHER])
_shards = st.integers(0, 1)
_steps: st.SearchStrategy[tuple[str, Any, Any]] = st.one_of(
    st.tuples(st.sampled_from(["push", "push and do not wait"]), _devices, st.sampled_from("ab")),
    st.tuples(st.just("attach"), _devices, _shards),
    st.tuples(st.just("leave"), _devices, _shards),
    st.tuples(st.just("ack"), _devices, _shards),
    st.tuples(st.just("hear"), st.just(None), _shards),
    st.tuples(st.just("lose"), st.just(None), _shards),
    st.tuples(st.sampled_from(["hold", "release", "restart", "late"]), st.just(None), st.just(None)),
)


@settings(max_examples=often(100))
@given(st.lists(_steps, max_size=40))
def test_whatever_happens_nothing_accepted_is_lost_and_who_is_there_is_told(steps: list[tuple[str, Any, Any]]) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        shards = [Shard(rig, number) for number in range(2)]
        outcomes: list[tuple[tuple[bytes, str], int, list[int], bool]] = []
        acked: dict[tuple[bytes, str], int] = {}
        version = 0
        for step, one, other in steps:
            if step.startswith("push"):
                version += 1
                said = rig.push(one, other, version, ttl=10**6, wait=step == "push")
                outcomes.append(((one, other), version, said, True))
            elif step == "attach":
                shards[other].attach(one)
            elif step == "leave":
                shards[other].leave(one)
            elif step == "ack":
                told = shards[other].held.get(one)
                if told:
                    shards[other].say(m.Ack(one, list(told.items())))
                    for slot, upto in told.items():
                        acked[(one, slot)] = max(upto, acked.get((one, slot), 0))
                    told.clear()
            elif step == "hear":
                shards[other].hear()
            elif step == "lose":
                if rig.hub.sessions.get(shards[other].worker.identity) is not None:
                    rig.hub.lost(shards[other].worker.session, "test")
            elif step == "hold":
                rig.store.hold()
            elif step == "release":
                rig.store.release()
            elif step == "restart":
                # Pushes that the old router has not answered are the app servers' to repeat.
                outcomes = [(key, number, list(said), False) for key, number, said, _ in outcomes]
                rig.router_restarts()
            else:
                rig.clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)
                for shard in shards:
                    if rig.hub.sessions.get(shard.worker.identity) is not None:
                        shard.worker.send(m.Beat({}))
                rig.hub.tick()
            if not step.startswith("push"):
                await rig.settle()
        rig.store.release()
        for _ in range(4):
            await rig.settle()
            for shard in shards:
                shard.hear()
        rig.clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)
        rig.hub.tick()

        waiting = {(device, slot): at for device in (DEVICE, OTHER) for slot, at in await rig.inbox(device)}
        for key, number, said, answered_by_this_router in outcomes:
            assert len(said) == 1 if answered_by_this_router else len(said) <= 1
            assert set(said) <= {DELIVERED, STORED}
            if said and acked.get(key, 0) < number:
                assert waiting.get(key, 0) >= number
        for (device, slot), at in waiting.items():
            for shard in shards:
                if device in shard.held and rig.hub.map.device(device) is shard.worker.session.lease:
                    assert shard.held[device].get(slot, 0) >= at
        assert rig.hub.in_work == 0
        assert rig.committer.waiting == 0

    scenario()


def test_the_tests_own_worker_is_told_of_a_router_that_forgot_it() -> None:
    """What the property above stands on: without the announcement nothing would be told."""

    @in_rig()
    async def scenario(rig: Rig) -> None:
        shard = Shard(rig, 0)
        shard.attach(DEVICE)
        await rig.settle()
        shard.hear()
        rig.router_restarts()
        rig.push(DEVICE, "a", 1)
        await rig.settle()
        assert shard.held == {DEVICE: {}}
        shard.hear()
        await rig.settle()
        shard.hear()
        assert shard.held == {DEVICE: {"a": 1}}

    run: Callable[[], None] = scenario
    run()


@in_rig(link={"queue_limit": 4})
async def test_before_an_outbox_is_full_the_link_is_asked_to_take_some(rig: Rig) -> None:
    quick, stuck = rig.worker(0), rig.worker(1)
    for worker in (quick, stuck):
        worker.say(subscribe(0))
        worker.take()
    stuck.session.blocked = True  # the link has found that it does not take more
    taken: list[Any] = []
    for number in range(20):
        rig.hub.messages.publish(CHANNEL, str(number))
        if rig.hub.sessions.pressing:
            assert quick.session in rig.hub.outgoing()
            taken.extend(quick.take())
            assert not rig.hub.sessions.pressing
    assert len(taken) >= 15
    taken.extend(quick.take())
    assert [event.body for event in taken] == [str(number) for number in range(20)]
    assert list(rig.hub.sessions) == [quick.session]


@in_rig()
async def test_a_worker_that_owes_its_beats_is_spoken_to(rig: Rig) -> None:
    worker = rig.worker()
    worker.take()
    rig.clock.pass_by(rig.link.heartbeat)
    rig.hub.tick()
    assert worker.identity not in rig.hub.sessions.dirty
    rig.clock.pass_by(rig.link.heartbeat * 2)
    rig.hub.tick()
    assert worker.identity in rig.hub.sessions.dirty
    assert worker.take() == []
