"""Events and members of a channel with many subscribers on one worker: slices, with everything else in between."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.common import received_by_worker
from support.often import often
from support.shard import NAME, ROOM, Shard, Talker

from farm.transports.frames import CLOSE
from router.common import messages as m
from router.common.poller import INPUT
from router.core.address_map import Lease
from router.core.channels import Channels


class Router:
    """The router's side of the channel, with its own table of who is in."""

    def __init__(self, shard: Shard) -> None:
        self.shard = shard
        self.lease = Lease(1, b"i" * 8)
        self.messages: list[Any] = []
        self.channels = Channels(lambda _, message: self.messages.append(message), 0.0, 0.0, lambda: 1.0)
        self.channels.tick()
        self.events = 0

    def hear(self) -> None:
        """Hear what the worker has said; what comes of it waits until `tell`."""
        for one in self.shard.said():
            request = one.request if isinstance(one, m.Call) else one
            if isinstance(request, m.Subscribe):
                self.channels.subscribe(request.channel, request.label, self.lease)
                if isinstance(one, m.Call):
                    self.messages.append(m.Reply(one.number, m.OK, None))
            elif isinstance(request, m.Unsubscribe):
                self.channels.unsubscribe(request.channel, self.lease)
            elif isinstance(request, m.PresenceJoin):
                joins = request.channel, request.user, request.info, request.most
                members = self.channels.join(*joins, self.lease)
                self.messages.append(m.Reply(one.number, m.FULL if members is None else m.OK, members))
            elif isinstance(request, m.PresenceLeave):
                self.channels.leave(request.channel, request.user, self.lease)
            else:
                assert isinstance(request, m.Counted)

    def tell(self) -> None:
        messages, self.messages = self.messages, []
        # As the link has it: nothing is shared with the worker.
        self.shard.sockets.received(received_by_worker(m.RouterBatch(0, messages, [])).messages)

    def event(self, exclude: str = "") -> None:
        self.messages.append(m.Event(ROOM, f"event {self.events}", exclude))
        self.events += 1


class Device:
    """What a subscriber knows by what it has heard, and checks at once."""

    def __init__(self, talker: Talker, user: str | None) -> None:
        self.talker = talker
        self.user = user
        self.members: dict[str, str] | None = None
        self.events: list[int] = []
        self.excluded: list[int] = []
        self.parted = False

    def hear(self, text: str) -> None:
        if text.startswith("joined "):
            _, status, members = text.split(" ", 2)
            assert status == str(m.OK)
            assert self.members is None
            self.members = json.loads(members) or {}
            if self.user is not None:
                assert self.user in self.members
        elif text.startswith("event "):
            assert self.members is not None
            self.events.append(int(text.split()[1]))
        elif text.startswith(NAME):
            assert self.members is not None
            _, sign, user, *_ = text.split(" ")
            assert user != self.user
            assert (user in self.members) == (sign == "-"), "nobody is told twice"
            if sign == "-":
                del self.members[user]
            else:
                self.members[user] = f"info of {user}"
        elif text == "parted":
            self.parted = True
        else:
            assert text in ("asked", "end")

    def hear_all(self) -> None:
        """Everything up to the end."""
        self.talker.say("end")
        while (text := self.talker.hear()) != "end":
            assert not (self.parted and text.startswith(("event", NAME))), "nothing is heard after that"
            self.hear(text)

    def check_events(self) -> None:
        if self.events:
            run = range(self.events[0], self.events[-1] + 1)
            assert self.events == [number for number in run if number not in self.excluded]


@pytest.fixture
def shard() -> Iterator[Shard]:
    shard = Shard({"fanout_slice": 2})
    yield shard
    shard.close()


def subscribed(shard: Shard, many: int) -> list[Talker]:
    talkers = [shard.talker("join")]
    shard.answer()
    talkers += [shard.talker("join") for _ in range(many - 1)]
    for talker in talkers:
        assert [talker.hear(), talker.hear()] == ["asked", "joined 0 null"]
    shard.sockets.speak()
    return talkers


def events(shard: Shard, *bodies: str) -> None:
    shard.sockets.received([m.Event(ROOM, body, "") for body in bodies])


def run(shard: Shard) -> int:
    turns = 0
    while shard.sockets.speaking:
        shard.sockets.speak()
        turns += 1
    return turns


who = st.integers(0, 5)
step = st.one_of(
    st.tuples(st.just("join"), who, st.none() | st.sampled_from("abc")),
    st.tuples(st.just("part"), who),
    st.tuples(st.just("go"), who),
    st.tuples(st.just("echo"), who),
    st.tuples(st.just("event"), st.none() | who),
    st.tuples(st.just("hear")),
    st.tuples(st.just("tell")),
    st.tuples(st.just("speak")),
)


@settings(max_examples=often(40), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(step, max_size=50), st.integers(1, 3), st.booleans())
def test_whatever_comes_between_each_hears_every_event_once_and_knows_the_members(
    steps: list[tuple[Any, ...]], size: int, presence: bool
) -> None:
    shard = Shard({"fanout_slice": size}, members=100)
    try:
        router = Router(shard)
        devices: dict[int, Device] = {}
        for name, *what in steps:
            device = devices.get(what[0]) if what else None
            if name == "join" and device is None:
                user = (what[1] or "d") if presence else None
                devices[what[0]] = Device(shard.talker(f"join {user or ''}".strip()), user)
            elif name == "part" and device is not None:
                device.talker.say("part")
            elif name == "go" and device is not None:
                device.talker.go()
                del devices[what[0]]
            elif name == "echo" and device is not None:
                device.talker.say("asked")
            elif name == "event":
                if device is not None:
                    device.excluded.append(router.events)
                router.event(device.talker.socket_id if device is not None else "")
            elif not what:
                {"hear": router.hear, "tell": router.tell, "speak": shard.sockets.speak}[name]()
        for _ in range(4):
            router.hear()
            router.tell()
            run(shard)
        last = router.events
        router.event()
        router.tell()
        run(shard)
        members = router.channels.members(ROOM)
        for device in devices.values():
            device.hear_all()
            device.check_events()
            if not device.parted:
                assert device.events[-1] == last
                assert device.members == (members if presence else {})
        assert shard.counters.connections_failed == shard.counters.messages_failed == 0
        assert shard.sockets.events._fan_outs.memory == 0
    finally:
        shard.close()


def test_a_slice_at_a_time_with_what_waits_in_one_write(shard: Shard) -> None:
    talkers = subscribed(shard, 7)
    events(shard, "one", "two")
    assert shard.sockets.speaking
    assert run(shard) == 4
    for talker in talkers:
        assert [talker.hear(), talker.hear()] == ["one", "two"]
    assert (shard.counters.events_heard, shard.counters.events_sent) == (2, 14)


def test_what_a_subscriber_is_told_comes_behind_the_events_before_it(shard: Shard) -> None:
    talkers = subscribed(shard, 7)
    events(shard, "one")
    talkers[6].say("hello")
    talkers[5].say("part")
    events(shard, "two")
    assert [talkers[6].hear(), talkers[6].hear()] == ["one", "hello"]
    assert [talkers[5].hear(), talkers[5].hear()] == ["one", "parted"]
    late = shard.talker("join")
    events(shard, "three")
    run(shard)
    assert [talkers[6].hear(), talkers[6].hear()] == ["two", "three"]
    assert talkers[5].hears_nothing()
    assert [late.hear() for _ in range(3)] == ["asked", "joined 0 null", "three"]


def test_who_is_closed_has_heard_what_was_said_before(shard: Shard) -> None:
    talkers = subscribed(shard, 7)
    events(shard, "one")
    for talker in talkers:
        shard.sockets.let_go(shard.sockets.connections[talker.fd])
    assert not run(shard) or not shard.sockets.speaking
    for talker in talkers:
        assert talker.hear() == "one"
        opcode, data = talker.frame()
        assert (opcode, data) == (CLOSE, (4100).to_bytes(2, "big") + b"come back later")


def test_a_descriptor_that_is_used_again_hears_nothing_of_its_former_owner(shard: Shard) -> None:
    talkers = subscribed(shard, 7)
    events(shard, "one")
    freed = talkers[6].fd
    talkers[6].go()
    stranger = shard.talker()
    assert stranger.fd == freed
    run(shard)
    assert stranger.hears_nothing()
    assert [talker.hear() for talker in talkers[:6]] == ["one"] * 6


def test_many_that_join_at_once_share_turns_and_hear_what_came_meanwhile(shard: Shard) -> None:
    talkers = [shard.talker("join") for _ in range(9)]
    (call,) = [one.number for one in shard.said()]
    shard.sockets.received([m.Reply(call, m.OK, None), m.Event(ROOM, "one", "")])
    assert sum(connection.call != 0 for connection in shard.sockets.connections.values()) == 7
    talkers[8].say("hello")
    assert run(shard) >= 4
    for talker in talkers:
        assert [talker.hear() for _ in range(3)] == ["asked", "joined 0 null", "one"]
    shard.sockets.ready(talkers[8].fd, INPUT)
    assert talkers[8].hear() == "hello"


@pytest.mark.parametrize("options", [{"max_fanout_bytes": 65_536}, {"write_buffer_bytes": 20_000}])
def test_more_than_may_wait_is_written_at_once(options: dict[str, Any]) -> None:
    shard = Shard({"fanout_slice": 2, **options})
    try:
        talkers = subscribed(shard, 7)
        body = "x" * 6_000
        for number in range(30):
            events(shard, f"{number} {body}")
            assert shard.sockets.events._fan_outs.memory < 80_000
            if shard.counters.fanouts_hurried:
                for talker in talkers:
                    talker._client.sock.settimeout(0.001)
        assert shard.counters.fanouts_hurried > 0
        run(shard)
        for talker in talkers:
            talker._client.sock.settimeout(20)
            assert [talker.hear().split()[0] for _ in range(30)] == [str(number) for number in range(30)]
    finally:
        shard.close()
