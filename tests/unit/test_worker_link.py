"""Both ends of the link over a real socket: a worker's end, and the router's end with its hub and store."""

import time
from pathlib import Path
from typing import Any

import pytest
import trio
import zmq
from support.common import Rig, announced, array, in_rig
from support.link_ends import DEVICE, HANG_S, linked

from farm.worker.link import WorkerLink
from router.common import messages as m
from router.common.link_address import LinkError, address
from router.common.places import Place
from router.common.settings import LinkOptions
from router.common.wire import NEWEST
from router.link import RouterLink
from router.store.base import Reads, Results, StoreError, Writes


@in_rig()
async def test_a_worker_joins_and_is_heard_and_told(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        (session,) = rig.hub.sessions
        assert (session.lease.shard, session.lease.incarnation, session.pid) == (3, b"incarnat", 4711)
        await ends.until(lambda: session.snapshot == {"connections": 0})
        ends.say(m.Call(1, m.Attach(DEVICE, "", m.EVERYTHING, 0)))
        await ends.until(lambda: ends.heard)
        assert ends.heard == [m.Reply(1, m.OK, [[], None])]
        outcome = rig.push(DEVICE, "a", 1, body="\N{PUSHPIN}\0")
        await ends.until(lambda: len(ends.heard) == 2)
        number = ends.heard[1].number
        assert ends.heard[1] == m.Deliver(number, DEVICE, "a", 1, "\N{PUSHPIN}\0")
        ends.say(m.Result(number, m.WRITTEN))
        await ends.until(lambda: outcome)
        await ends.until(lambda: ends.worker.unconfirmed == 0)


@in_rig()
async def test_what_is_not_durable_is_said_again_to_another_router(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        ends.say(m.Ack(DEVICE, [["confirmed", 1]]))
        await ends.until(lambda: ends.worker.unconfirmed == 0)
        rig.store.hold()
        ends.say(m.Ack(DEVICE, [["heard", 1]]))
        await ends.until(lambda: rig.hub.counters.acks == 2)
        ends.router_goes()
        ends.say(m.Ack(DEVICE, [["never heard", 1]]))
        ends.held = [bytes([number]) * 16 for number in range(5)]
        assert ends.worker.unconfirmed == 2
        assert ends.worker.lag > 0
        rig.store.release()
        await rig.settle()
        assert ends.worker.unconfirmed == 2
        ends.router_comes()
        await ends.until(lambda: rig.hub.counters.acks == 2 and ends.worker.unconfirmed == 0)
        assert ends.worker.lag == 0
        (session,) = rig.hub.sessions
        assert [rig.hub.map.device(key) for key in ends.held] == [session.lease] * 5
        assert ends.worker.joined


@in_rig()
async def test_who_lost_its_lease_joins_again_at_its_next_beat(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        (session,) = rig.hub.sessions
        ends.held = [DEVICE]
        rig.hub.lost(session, "test")
        rig.push(DEVICE, "missed", 1)
        await ends.until(lambda: ends.heard)
        assert {(type(one), one.device) for one in ends.heard} == {(m.DeliverStored, DEVICE)}
        assert rig.hub.map.device(DEVICE) is not None
        assert rig.hub.map.device(DEVICE) is not session.lease


@in_rig()
async def test_very_many_devices_are_announced_in_parts(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        ends.held = [number.to_bytes(16, "big") for number in range(2 * m.ANNOUNCE_CHUNK + 1)]
        (session,) = rig.hub.sessions
        rig.hub.lost(session, "test")
        await ends.until(lambda: len(rig.hub.map) == len(ends.held))
        await ends.until(lambda: ends.worker.unconfirmed == 0)
        (session,) = rig.hub.sessions
        assert session.lease.devices == 2 * m.ANNOUNCE_CHUNK + 1
        assert session.seen >= 3


@in_rig()
async def test_channels_are_announced_with_their_members_to_who_does_not_know_them(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        label = m.channel_label("pusher", "app", "presence-room")
        ends.channels = [[m.HeldChannel(DEVICE, label, 2, [one])] for one in (("ann", "{}"), ("bob", ""))]
        ends.held = [b"e" * 16]
        (session,) = rig.hub.sessions
        rig.hub.lost(session, "test")
        await ends.until(lambda: rig.hub.map.device(b"e" * 16) is not None)
        assert rig.hub.channels.count(DEVICE) == 2
        assert rig.hub.channels.members(DEVICE) == {"ann": "{}", "bob": ""}
        rig.hub.messages.publish(DEVICE, "event")
        ends.pump()
        await ends.until(lambda: ends.heard)
        assert ends.heard == [m.Event(DEVICE, "event", "")]


@in_rig()
async def test_a_router_that_says_much_is_heard_a_part_at_a_time(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with linked(rig, tmp_path) as ends:
        monkeypatch.setattr("farm.worker.link._PUMP_S", 0.0)
        (session,) = rig.hub.sessions
        for number in range(20):  # a message each
            session.outbox.append(m.Terminate(DEVICE, number, ""))
            rig.hub.sessions.dirty[session.identity] = session
            assert ends.router is not None
            ends.router.pump()
        with trio.fail_after(HANG_S):
            while len(ends.heard) < 20:
                before = len(ends.heard)
                ends.worker.pump()
                assert len(ends.heard) <= before + 1
                # An envelope without a message may come, too: one that only confirms.
                assert ends.worker.behind or len(ends.heard) == before
                await trio.lowlevel.checkpoint()
        assert [one.code for one in ends.heard] == list(range(20))


@in_rig(link={"max_unconfirmed": 3})
async def test_a_worker_is_saturated_until_what_it_said_is_durable(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        rig.store.hold()
        for number in range(3):
            assert not ends.worker.saturated
            ends.say(m.Ack(DEVICE, [["a", number]]))
        assert ends.worker.saturated
        rig.store.release()
        await ends.until(lambda: not ends.worker.saturated)
        await ends.until(lambda: ends.worker.unconfirmed == 0)


@in_rig()
async def test_a_worker_that_has_gone_is_found_out_by_what_is_said_to_it(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        other = WorkerLink(
            ends.zmq, Place(ends.where), ends.options, 9, b"shortliv", 1, ends.heard.extend, lambda: announced([DEVICE])
        )
        ends.held = []
        with trio.fail_after(HANG_S):
            while rig.hub.map.device(DEVICE) is None:
                other.pump()
                await trio.lowlevel.wait_readable(other.fileno)
        other.close()
        outcomes: list[list[int]] = []

        def gone() -> bool:
            if rig.hub.map.device(DEVICE) is not None:
                outcomes.append(rig.push(DEVICE, "a", 1))
            return len(rig.hub.sessions) == 1

        await ends.until(gone)
        assert rig.hub.map.device(DEVICE) is None
        (left,) = rig.hub.sessions
        assert left.lease.shard == 3


async def hear(socket: zmq.Socket[bytes]) -> Any:
    """The next message of the router on a bare socket."""
    with trio.fail_after(HANG_S):
        while not socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            await trio.lowlevel.wait_readable(socket.getsockopt(zmq.FD))
    return NEWEST.of_router(socket.recv(), 10_000)


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        NEWEST.encode([99]),
        NEWEST.encode(array(m.Ready)),
        NEWEST.encode(m.Ready(99, 0, b"", 0, 99)),
        NEWEST.encode(array(m.AskStatus)),
        NEWEST.encode({"a": 1}),
        b"\x91\x81\x90\x01",
        b"\x91" * 100_000,
        [b"", NEWEST.encode(m.AskStatus(6))],
        [NEWEST.encode(m.AskStatus(6)), b"one part", b"too many"],
    ],
)
@in_rig()
async def test_nonsense_on_the_link_harms_nobody_else(rig: Rig, tmp_path: Path, message: bytes | list[bytes]) -> None:
    async with linked(rig, tmp_path) as ends:
        stranger = ends.zmq.socket(zmq.DEALER)
        stranger.connect(ends.where)
        stranger.send_multipart(message if isinstance(message, list) else [message])
        stranger.send(NEWEST.encode(m.AskStatus(7)))
        answers = [await hear(stranger)]
        if answers[0] == m.Rejoin():  # it spoke before it joined
            answers.append(await hear(stranger))
        assert answers[-1] == m.Status(7, {})
        stranger.close(linger=0)
        ends.say(m.Ack(DEVICE, [["a", 1]]))
        await ends.until(lambda: ends.worker.unconfirmed == 0)
        assert len(rig.hub.sessions) == 1
        assert rig.hub.counters.acks == 1


def test_an_address_that_no_unix_socket_can_have_is_told(tmp_path: Path) -> None:
    assert address(tmp_path, 0) == f"ipc://{tmp_path}/router.sock"
    assert address(tmp_path, 1) == f"ipc://{tmp_path}/router-1.sock"
    with pytest.raises(LinkError, match=r"data\.dir"):
        address(tmp_path / ("x" * 100), 0)


@in_rig(link={"max_message_bytes": 65_536})
async def test_more_than_one_message_may_hold_goes_in_several(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        ends.say(m.Call(1, m.Attach(DEVICE, "", m.EVERYTHING, 0)))
        await ends.until(lambda: ends.heard)
        ends.heard.clear()
        for number in range(40):
            rig.push(DEVICE, f"slot-{number}", 1, body="x" * 5000, wait=False)
        rig.push(DEVICE, "longer than any message", 1, body="x" * 70_000, wait=False)
        rig.push(DEVICE, "last", 1, wait=False)
        await ends.until(lambda: len(ends.heard) == 41)
        assert [one.slot for one in ends.heard] == [*(f"slot-{number}" for number in range(40)), "last"]
        assert rig.hub.counters.messages_too_long == 1
        assert rig.hub.counters.leases_lost == 0
        assert ends.worker.joined


@in_rig(link={"max_message_bytes": 65_536})
async def test_what_is_confirmed_is_said_with_the_last_part(rig: Rig, tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    link = RouterLink(context, address(tmp_path, 0), rig.hub, rig.link)
    worker = context.socket(zmq.DEALER)
    worker.setsockopt(zmq.ROUTING_ID, b"w0")
    worker.connect(address(tmp_path, 0))
    heard: list[Any] = []

    async def hears(count: int) -> None:
        with trio.fail_after(HANG_S):
            while len(heard) < count:
                link.pump()
                while worker.poll(0):
                    heard.append(NEWEST.of_router(worker.recv(), 65_536))
                await trio.sleep(0.001)

    try:
        worker.send(NEWEST.encode(m.Ready(m.PROTOCOL, 0, b"incarnat", 1, m.PROTOCOL)))
        worker.send(NEWEST.encode(m.Begin("", 0)))
        await hears(1)
        rig.hub.received(b"w0", NEWEST.encode(m.WorkerBatch(1, [m.Call(1, m.Attach(DEVICE, "", 0, 0))])))
        await rig.settle()
        await hears(2)
        heard.clear()
        for number in range(40):
            rig.push(DEVICE, f"slot-{number}", 1, body="x" * 5000, wait=False)
        rig.hub.received(b"w0", NEWEST.encode(m.WorkerBatch(2, [m.Ack(DEVICE, [["slot-0", 1]])])))
        await rig.settle()
        while sum(len(batch.messages) for batch in heard) < 40:
            await hears(len(heard) + 1)
        assert len(heard) > 3
        assert [batch.confirmed for batch in heard] == [1] * (len(heard) - 1) + [2]
    finally:
        link.close()
        worker.close(linger=0)
        context.destroy(linger=0)


def test_until_it_is_welcome_a_worker_says_nothing_but_join(tmp_path: Path) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(address(tmp_path, 0))
    worker = WorkerLink(
        context, Place(address(tmp_path, 0)), LinkOptions(), 3, b"incarnat", 4711, lambda messages: None, tuple
    )

    def next_envelope() -> tuple[bytes, m.OfWorker]:
        assert router.poll(HANG_S * 1000)
        identity, data = router.recv_multipart()
        return identity, NEWEST.of_worker(data, 1000)

    try:
        for number in range(2):
            worker.messages.append(m.Detach(bytes([number]) * 16))
            worker.pump()
            worker.beat({})  # READY once more: the first may have gone with a router
        worker.pump()
        identity, first = next_envelope()
        assert [type(first), type(next_envelope()[1])] == [m.Ready, m.Ready]
        while router.poll(100):
            assert type(next_envelope()[1]) is m.Ready
        assert worker.unconfirmed == 2
        router.send_multipart([identity, NEWEST.encode(m.Welcome(b"router-1", m.PROTOCOL))])
        deadline = time.monotonic() + HANG_S
        while not worker.joined and time.monotonic() < deadline:
            worker.pump()
            time.sleep(0.01)
        worker.pump()
        assert next_envelope()[1] == m.Begin("", 0)
        assert [next_envelope()[1] for _ in range(3)] == [
            *(m.WorkerBatch(number + 1, [m.Detach(bytes([number]) * 16)]) for number in range(2)),
            m.Announced(2),
        ]
    finally:
        worker.close()
        context.destroy(linger=0)


@in_rig()
async def test_what_cannot_be_packed_is_dropped_and_the_rest_is_said(rig: Rig, tmp_path: Path) -> None:
    async with linked(rig, tmp_path) as ends:
        ends.say(m.Call(1, m.Attach(DEVICE, "", m.EVERYTHING, 0)))
        await ends.until(lambda: ends.heard)
        ends.heard.clear()
        for number, body in enumerate(("first", "half a character: \ud83d", "last")):
            rig.push(DEVICE, f"slot-{number}", 1, body=body, wait=False, ttl=0)
        rig.push(DEVICE, "version", 2**64, wait=False, ttl=0)
        rig.hub.on_status(lambda host: {"well": object()})
        rig.hub.received(b"supervisor", NEWEST.encode(m.AskStatus(1)))
        await ends.until(lambda: len(ends.heard) == 2)
        assert [one.body for one in ends.heard] == ["first", "last"]
        assert rig.hub.counters.messages_dropped == 2
        assert rig.hub.counters.leases_lost == 0


@in_rig()
async def test_what_was_acknowledged_while_the_disk_was_full_does_not_come_again_from_another_router(
    rig: Rig, tmp_path: Path
) -> None:
    full = False
    apply = rig.store.apply

    async def apply_unless_full(writes: Writes, reads: Reads, now: int) -> Results:
        if full and len(writes):
            raise StoreError("the disk is full")
        return await apply(writes, reads, now)

    rig.store.apply = apply_unless_full  # type: ignore[method-assign]
    async with linked(rig, tmp_path) as ends:
        ends.say(m.Call(1, m.Attach(DEVICE, "", m.EVERYTHING, 0)))
        await ends.until(lambda: bool(ends.heard))
        for slot in "abc":
            rig.push(DEVICE, slot, 1, wait=False)
        await ends.until(lambda: len(ends.heard) == 4)
        await rig.settle()
        full = True
        ends.say(m.Ack(DEVICE, [["a", 1], ["b", 1]]))
        await ends.until(lambda: ends.worker.unconfirmed == 0)
        ends.router_goes()
        rig.committer._unremoved.clear()  # it died with its router
        ends.heard.clear()
        ends.held = [DEVICE]
        ends.router_comes()
        await ends.until(lambda: rig.hub.tick() is None and ends.heard)  # a read that failed is made once more
        assert [[item.slot for item in one.items] for one in ends.heard] == [["c"]]
        rig.committer._unremoved.clear()
        full = False
        await ends.until(lambda: not ends.worker._unkept)
        assert await rig.inbox(DEVICE) == [("c", 1)]
        assert ends.worker.unconfirmed == 0
