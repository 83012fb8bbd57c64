"""The device sockets of a worker, with a real device and a router that the test plays."""

import json
import threading
from collections.abc import Iterator

import pytest
from support.pager import CHANNEL, KEY
from support.shard import DEVICES, NAME, OTHER, ROOM, Shard

from farm.transports.frames import CLOSE
from router.common import messages as m
from router.common.poller import INPUT, WRITE


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = Shard(max_unacked=2)
    yield shard
    shard.close()


def test_a_delivery_without_a_number_has_no_result(shard: Shard) -> None:
    device = shard.device()
    shard.sockets.received([m.Deliver(0, KEY, CHANNEL, 1, None), m.Deliver(0, b"x" * 16, ":", 1, None)])
    assert json.loads(device.recv())["channelID"] == CHANNEL
    assert shard.said() == []


def test_a_delivery_with_a_number_has_one_also_where_the_device_cannot_take_it_now(shard: Shard) -> None:
    device = shard.device()
    shard.sockets.received([m.Deliver(number, KEY, CHANNEL, number, None) for number in (1, 2, 3)])
    shard.sockets.received([m.Deliver(4, b"x" * 16, ":", 1, None)])
    assert [json.loads(device.recv())["version"] for _ in range(2)] == [1, 2]
    assert shard.said() == [
        m.Result(1, m.WRITTEN),
        m.Result(2, m.WRITTEN),
        m.Result(3, m.NOT_HERE),
        m.Result(4, m.NOT_HERE),
    ]


def test_broadcasts_are_told_at_the_next_tick_and_compared_when_the_link_is_new(shard: Shard) -> None:
    device = shard.device()
    shard.sockets.received([m.Broadcast(DEVICES, "a", "2"), m.Broadcast("nobody's", "a", "3")])
    shard.sockets.tick()
    assert json.loads(device.recv()) == {"messageType": "broadcast", "broadcasts": {"a": "2"}}
    assert [keys for keys, _ in shard.sockets.welcomed()] == [[KEY]]
    shard.sockets.received([m.Broadcast(DEVICES, "a", "2")])
    shard.sockets.tick()
    shard.sockets.received([m.Broadcast(DEVICES, "a", "3"), m.BroadcastsSent()])
    shard.sockets.tick()
    assert json.loads(device.recv()) == {"messageType": "broadcast", "broadcasts": {"a": "3"}}
    assert shard.said() == []


def test_a_broadcasts_that_the_router_does_not_tell_again_is_no_more(shard: Shard) -> None:
    shard.sockets.received([m.Broadcast(DEVICES, "a", "2"), m.BroadcastsSent()])
    shard.sockets.welcomed()
    shard.sockets.received([m.BroadcastsSent()])
    device = shard.device()
    shard.sockets.received([m.Broadcast(DEVICES, "a", "2")])  # new again: so it is told, though the version is the same
    shard.sockets.tick()
    assert json.loads(device.recv()) == {"messageType": "broadcast", "broadcasts": {"a": "2"}}


# ---- channels


def test_a_path_may_have_a_part_that_is_any(shard: Shard) -> None:
    first, second = shard.talker(), shard.talker(path="/talk/y?protocol=7")
    assert first.socket_id != second.socket_id
    assert first.socket_id.split(".")[0] == second.socket_id.split(".")[0]
    assert all(part.isdecimal() for part in f"{first.socket_id}.{second.socket_id}".split("."))
    for path in ("/talk", "/talk/x/y", "/nothing/x"):
        with pytest.raises(ConnectionError, match="404"):
            shard.open(path)
    shard.open("/talk/exactly")


def test_a_session_may_begin_before_anything_is_said(shard: Shard) -> None:
    joining = shard.talker(path="/talk/join")
    shard.answer()
    assert joining.hear() == "joined 0 null"
    refused = shard.talker(path="/talk/refused")
    opcode, data = refused.frame()
    assert (opcode, data) == (CLOSE, (4001).to_bytes(2, "big") + b"no such application")


def test_events_reach_subscribers_once_they_have_been_answered(shard: Shard) -> None:
    first, second = shard.talker("join"), shard.talker("join")
    shard.event("too early")
    shard.answer()
    third = shard.talker("join")
    shard.event("h\u00e9llo")
    for talker in (first, second, third):
        assert [talker.hear(), talker.hear(), talker.hear()] == ["asked", "joined 0 null", "h\u00e9llo"]
    second.say("part")
    assert second.hear() == "parted"
    first.go()
    shard.event("again", exclude=second.socket_id)
    assert second.hears_nothing()
    assert third.hear() == "again"
    third.say("part")
    assert shard.said() == [m.Unsubscribe(ROOM)]
    shard.event("to nobody")
    assert third.hear() == "parted"
    assert third.hears_nothing()
    assert (shard.counters.events_heard, shard.counters.events_sent) == (3, 4)


def test_what_is_said_behind_a_join_waits_for_its_answer(shard: Shard) -> None:
    talker = shard.talker("join")
    assert talker.hear() == "asked"
    talker.say("one")
    shard.answer()
    shard.sockets.ready(talker.fd, INPUT)
    assert [talker.hear(), talker.hear()] == ["joined 0 null", "one"]


def test_an_event_leaves_out_the_one_it_came_from(shard: Shard) -> None:
    talkers = [shard.talker("join") for _ in range(3)]
    shard.answer()
    for talker in talkers:
        assert [talker.hear(), talker.hear()] == ["asked", "joined 0 null"]
    origin, number = talkers[1].socket_id.split(".")
    for wrong in (
        f"{origin}1.{number}",
        f"{origin}.{int(number) + (1 << 24)}",
        f"{origin}.",
        f"{origin}.1{'0' * 5000}",
    ):
        shard.event("to all", wrong)
        assert [talker.hear() for talker in talkers] == ["to all"] * 3
    shard.event("to two", talkers[1].socket_id)
    shard.event("to all", "junk")
    assert [talkers[0].hear(), talkers[2].hear()] == ["to two"] * 2
    assert [talker.hear() for talker in talkers] == ["to all"] * 3


def test_members_are_told_to_all_but_themselves(shard: Shard) -> None:
    ann = shard.talker("join ann")
    shard.answer({"ann": "A"})
    assert [ann.hear(), ann.hear()] == ["asked", 'joined 0 {"ann": "A"}']
    bob = shard.talker("join bob")
    (sent,) = shard.said()
    number = sent.number
    assert sent.request == m.PresenceJoin(ROOM, "bob", "info of bob", 2)
    shard.sockets.received(
        [
            m.Members(ROOM, False, [("bob", "B")], []),
            m.Reply(number, m.OK, {"ann": "A", "bob": "B"}),
        ]
    )
    assert ann.hear() == f"{NAME} + bob (B)"
    assert [bob.hear(), bob.hear()] == ["asked", 'joined 0 {"ann": "A", "bob": "B"}']
    twin = shard.talker("join bob")
    assert [twin.hear(), twin.hear()] == ["asked", 'joined 0 {"ann": "A", "bob": "B"}']
    shard.sockets.received([m.Members(ROOM, True, [("ann", "A"), ("bob", "B"), ("eve", "E")], [])])
    shard.sockets.received([m.Members(ROOM, True, [("ann", "A"), ("bob", "B")], [])])
    for talker in (ann, bob, twin):
        assert [talker.hear(), talker.hear()] == [f"{NAME} + eve (E)", f"{NAME} - eve"]
    bob.go()
    twin.go()
    assert shard.said() == [m.PresenceLeave(ROOM, "bob")]
    full = shard.talker("join joe")
    shard.answer(status=m.FULL)
    assert [full.hear(), full.hear()] == ["asked", "joined 3 null"]
    assert ann.hears_nothing()


def test_who_goes_while_it_waits_is_forgotten(shard: Shard) -> None:
    talker = shard.talker("join ann")
    _, sent = shard.said()
    number = sent.number
    talker.go()
    # It is read again only when the answer is here; but a reset is seen at once.
    if talker.here:
        shard.sockets.output.drop(shard.sockets.connections[talker.fd])
    assert shard.said() == [m.PresenceLeave(ROOM, "ann"), m.Unsubscribe(ROOM)]
    shard.sockets.received([m.Reply(number, m.OK, {"ann": "A"})])
    assert len(shard.sockets.subscriptions) == 0


def test_all_of_an_address_are_dismissed_those_in_sight_and_the_hidden(shard: Shard) -> None:
    hidden = shard.talker("hide")
    shard.answer()
    seen, other = shard.talker("join"), shard.talker()
    shard.event("not for the hidden")
    assert hidden.hear() == "joined 0 null"
    assert hidden.hears_nothing()
    assert [seen.hear(), seen.hear(), seen.hear()] == ["asked", "joined 0 null", "not for the hidden"]
    shard.said()
    shard.sockets.received([m.Terminate(ROOM, 4009, "terminated"), m.Terminate(OTHER, 4009, "nobody")])
    for talker in (hidden, seen):
        assert talker.frame() == (CLOSE, (4009).to_bytes(2, "big") + b"terminated")
    assert other.hears_nothing()
    assert shard.said() == [m.Unsubscribe(ROOM)]


def buffered(shard: Shard) -> int:
    return sum(len(c.out or b"") for c in shard.sockets.connections.values())


def test_a_slow_subscriber_is_dropped_and_the_others_hear_everything() -> None:
    shard = Shard({"write_buffer_bytes": 300_000}, send_buffer=65_536)
    try:
        slow = shard.talker("join", receive_buffer=4096)
        shard.answer()
        quick = shard.talker("join")
        assert [quick.hear(), quick.hear()] == ["asked", "joined 0 null"]
        body, events = "x" * 60_000, 0
        while slow.here:
            shard.event(body)
            events += 1
            assert quick.hear() == body
            assert buffered(shard) <= 300_000
            assert events < 1000
        shard.event("last")
        assert quick.hear() == "last"
        assert shard.counters.slow_closed == 1
        assert (buffered(shard), shard.sockets.output.budget.total) == (0, 0)
        channel = shard.sockets.subscriptions.get(ROOM)
        assert channel is not None
        assert len(channel.subscribers) == 1
    finally:
        shard.close()


def test_what_waits_for_all_slow_subscribers_together_is_bounded() -> None:
    shard = Shard({"write_buffer_bytes": 300_000, "max_buffered_bytes": 400_000})
    try:
        talkers = [shard.talker("join", receive_buffer=4096)]
        shard.answer()
        talkers += [shard.talker("join", receive_buffer=4096) for _ in range(4)]
        for _ in range(1000):
            shard.event("x" * 60_000)
            assert buffered(shard) == shard.sockets.output.budget.total <= 400_000
            if not any(talker.here for talker in talkers):
                break
        shard.sockets.tick()
        assert shard.counters.slow_closed == 5
        assert shard.counters.buffered == 0
        assert shard.said()[-1] == m.Unsubscribe(ROOM)
    finally:
        shard.close()


def test_who_makes_room_for_another_of_its_room_is_gone_and_leaves_nothing() -> None:
    shard = Shard({"write_buffer_bytes": 300_000, "max_buffered_bytes": 350_000})
    try:
        last = shard.talker("join", receive_buffer=4096)
        shard.answer()
        while buffered(shard) < 200_000:
            shard.event("x" * 50_000)
        last.say("part")
        first = shard.talker("join", receive_buffer=4096)
        shard.answer()
        last.say("join")
        while buffered(shard) < 310_000:
            shard.sockets.output.put(shard.sockets.connections[first.fd], b"x" * 10_000)
        while last.here:
            shard.event("y" * 50_000)
        assert first.here
        assert buffered(shard) == shard.sockets.output.budget.total
        assert [connection.fd for connection in shard.sockets.output._deadlines] == [first.fd]
    finally:
        shard.close()


def test_a_subscriber_that_reads_again_in_time_has_lost_nothing() -> None:
    shard = Shard({"write_buffer_bytes": 1_000_000}, send_buffer=65_536)
    try:
        talker = shard.talker("join", receive_buffer=4096)
        shard.answer()
        events = 0
        while not buffered(shard):
            shard.event(f"{events} " + "x" * 50_000)
            events += 1
        shard.event(f"{events} behind it")
        assert [talker.hear(), talker.hear()] == ["asked", "joined 0 null"]
        heard: list[str] = []
        listener = threading.Thread(target=lambda: heard.extend(talker.hear() for _ in range(events + 1)))
        listener.start()
        while listener.is_alive():
            shard.sockets.ready(talker.fd, WRITE)
        assert [text.split()[0] for text in heard] == [str(number) for number in range(events + 1)]
        assert (buffered(shard), shard.sockets.output.budget.total, shard.counters.slow_closed) == (0, 0, 0)
    finally:
        shard.close()


@pytest.mark.parametrize("command", ["break", "break later"])
def test_a_defect_of_a_dialect_costs_one_connection(shard: Shard, command: str) -> None:
    talker, other = shard.talker("join"), shard.talker("join")
    shard.answer()
    talker.say(command)
    assert [talker.hear(), talker.hear()] == ["asked", "joined 0 null"]
    assert talker.frame()[1][:2] == (1011).to_bytes(2, "big")
    shard.event("on it goes")
    assert [other.hear(), other.hear(), other.hear()] == ["asked", "joined 0 null", "on it goes"]


def test_an_ack_behind_a_call_waits_until_all_that_came_with_the_reply_is_handled(shard: Shard) -> None:
    """Else it crosses with the items that the router has read for a device that was announced, and they come twice."""
    device = shard.device()
    (fd,) = shard.sockets.connections
    device.send(json.dumps({"messageType": "register", "channelID": CHANNEL}))
    device.send(json.dumps({"messageType": "ack", "updates": [{"channelID": "a", "version": 1}]}))
    shard.sockets.ready(fd, INPUT)
    (call,) = shard.said()
    shard.sockets.received([m.Reply(call.number, m.OK, None), m.DeliverStored(KEY, [])])
    assert (shard.said(), shard.sockets.waiting) == ([], True)
    shard.sockets.turn()
    assert shard.said() == [m.Ack(KEY, [("a", 1)])]
    assert not shard.sockets.waiting
