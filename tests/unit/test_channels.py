"""The registry of channels: what is counted, listed and present, and what is sent, with leases that begin and end."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.common import Clock
from support.often import often
from support.watcher import Watcher

from router.common import messages as m
from router.core.address_map import Lease
from router.core.channels import Channels

GRACE_S = 1.0
LEASE_S = 5.0
LABEL = m.channel_label("pusher", "app", "presence-room")
KEY = m.channel_key("pusher", "app", "presence-room")


class Registry:
    """Channels with a clock, and what each lease was sent."""

    def __init__(self, settled: bool = True) -> None:
        self.clock = Clock()
        self.told: list[tuple[int, Any]] = []
        self.channels = Channels(
            lambda lease, word: self.told.append((lease.shard, word)),
            GRACE_S,
            self.clock.monotonic() + LEASE_S + GRACE_S,
            self.clock.monotonic,
        )
        self.watcher = Watcher()
        self.channels.observe("pusher", self.watcher)
        if settled:
            self.pass_by(LEASE_S + GRACE_S)

    def pass_by(self, seconds: float) -> None:
        self.clock.pass_by(seconds)
        self.channels.tick()

    def kill(self, lease: Lease) -> None:
        lease.alive = False
        self.channels.lost(lease)

    def take(self) -> list[tuple[int, Any]]:
        told, self.told = self.told, []
        return told

    def room(self, *shards: int) -> list[Lease]:
        """Leases with a subscriber each; nothing of it is left to be taken."""
        leases = [Lease(shard, b"i%d" % shard) for shard in shards]
        for lease in leases:
            self.channels.subscribe(KEY, LABEL, lease)
        self.take()
        self.watcher.take()
        return leases


def joined(*users: str) -> tuple[Any, ...]:
    return m.Members(KEY, False, [(user, f'"{user}"') for user in users], [])


def left(*users: str) -> tuple[Any, ...]:
    return m.Members(KEY, False, [], list(users))


def whole(*users: str) -> tuple[Any, ...]:
    return m.Members(KEY, True, [(user, f'"{user}"') for user in users], [])


def enter(registry: Registry, lease: Lease, *users: str, most: int = 100) -> list[dict[str, str] | None]:
    return [registry.channels.join(KEY, user, f'"{user}"', most, lease) for user in users]


# ---- names and counts


def test_only_occupied_channels_of_the_application_are_listed_by_prefix() -> None:
    registry = Registry()
    lease = Lease(0, b"i")
    for application, name in (("app", "a-1"), ("app", "a-2"), ("app", "b"), ("other", "a-3"), ("app", "a\0odd")):
        key = m.channel_key("pusher", application, name)
        registry.channels.subscribe(key, m.channel_label("pusher", application, name), lease)
    assert sorted(registry.channels.names("pusher", "app", "a")) == ["a\0odd", "a-1", "a-2"]
    assert list(registry.channels.names("pusher", "other")) == ["a-3"]
    assert list(registry.channels.names("pusher", "nobody's")) == list(registry.channels.names("x", "app")) == []
    registry.channels.unsubscribe(m.channel_key("pusher", "app", "a-1"), lease)
    assert sorted(registry.channels.names("pusher", "app", "a-")) == ["a-2"]
    assert len(registry.channels) == 4


def test_subscribers_are_the_sum_over_living_leases() -> None:
    registry = Registry()
    one, two = registry.room(1, 2)
    assert registry.channels.count(KEY) == 2
    registry.channels.counted(KEY, 70, one)
    registry.channels.counted(KEY, 5, two)
    registry.channels.counted(KEY, 5, two)
    assert registry.channels.count(KEY) == 75
    registry.kill(one)
    assert registry.channels.count(KEY) == 5
    registry.pass_by(GRACE_S)
    assert registry.channels.count(KEY) == 5
    registry.channels.counted(KEY, 0, two)
    assert registry.channels.count(KEY) == len(registry.channels) == 0
    assert registry.watcher.take() == [
        ("counted", "presence-room", 71),
        ("counted", "presence-room", 75),
        ("counted", "presence-room", 5),
        ("vacated", "presence-room"),
    ]
    registry.channels.counted(KEY, 3, two)  # not announced: not there
    assert registry.channels.count(KEY) == 0


def test_an_observer_hears_of_the_first_and_the_last_subscriber_of_the_farm() -> None:
    registry = Registry()
    one, two = Lease(1, b"1"), Lease(2, b"2")
    for lease in (one, one, two):
        registry.channels.subscribe(KEY, LABEL, lease)
    registry.channels.unsubscribe(KEY, one)
    registry.channels.unsubscribe(KEY, one)
    registry.channels.unsubscribe(KEY, two)
    name = "presence-room"
    assert registry.watcher.take() == [
        ("occupied", name),
        ("counted", name, 1),
        ("counted", name, 2),
        ("counted", name, 1),
        ("vacated", name),
    ]
    registry.channels.subscribe(m.channel_key("x", "app", "c"), m.channel_label("x", "app", "c"), one)
    assert registry.watcher.take() == []
    assert registry.channels.observer(LABEL) is registry.watcher
    assert registry.channels.observer("x\0app\0c") is None


def test_a_text_that_is_no_label_is_refused_and_leaves_nothing() -> None:
    registry = Registry()
    for text in ("pusher", "pusher\0app", "pusher\0app\0" + "x" * m.MAX_LABEL):
        with pytest.raises(m.MessageError):
            registry.channels.subscribe(KEY, text, Lease(1, b"1"))
    assert len(registry.channels) == 0


# ---- presence


def test_a_user_is_told_to_every_shard_once_however_many_shards_he_is_on() -> None:
    registry = Registry()
    one, two = registry.room(1, 2)
    assert enter(registry, one, "ann") == [{"ann": '"ann"'}]
    assert registry.take() == [(1, joined("ann")), (2, joined("ann"))]
    assert enter(registry, two, "ann", "bob") == [{"ann": '"ann"'}, {"bob": '"bob"'}]
    assert registry.take() == [(1, joined("bob")), (2, joined("bob"))]
    registry.channels.leave(KEY, "ann", one)
    registry.channels.leave(KEY, "ann", one)
    registry.channels.leave(KEY, "nobody", one)
    assert registry.take() == []
    registry.channels.leave(KEY, "ann", two)
    assert registry.take() == [(1, left("ann")), (2, left("ann"))]
    assert registry.channels.members(KEY) == {"bob": '"bob"'}
    assert registry.watcher.take() == [("entered", "ann"), ("entered", "bob"), ("left", "ann")]
    assert registry.channels.member_count == 1


def test_a_shard_is_given_all_members_once_for_as_long_as_it_holds_the_channel() -> None:
    registry = Registry()
    one, two = registry.room(1, 2)
    all_three = {"ann": '"ann"', "bob": '"bob"', "eve": '"eve"'}
    enter(registry, one, "ann", "bob")
    assert enter(registry, two, "eve", "joe") == [all_three, {"joe": '"joe"'}]
    registry.channels.leave(KEY, "joe", two)
    registry.channels.unsubscribe(KEY, two)
    registry.channels.subscribe(KEY, LABEL, two)
    assert enter(registry, two, "eve") == [all_three]
    assert enter(registry, two, "eve") == [{"eve": '"eve"'}]


def test_a_full_channel_takes_no_more_users_but_more_shards_of_those_it_has() -> None:
    registry = Registry()
    one, two = registry.room(1, 2)
    assert enter(registry, one, "ann", "bob", "eve", most=2)[2] is None
    assert enter(registry, two, "ann", most=2) == [{"ann": '"ann"', "bob": '"bob"'}]
    registry.channels.leave(KEY, "bob", one)
    assert enter(registry, two, "eve", most=2) != [None]


def test_members_of_a_dead_shard_leave_once_and_only_if_no_living_one_has_them() -> None:
    registry = Registry()
    one, two = registry.room(1, 2)
    enter(registry, one, "ann", "bob")
    enter(registry, two, "bob", "eve")
    registry.take()
    registry.watcher.take()
    registry.kill(one)
    registry.pass_by(GRACE_S * 0.9)
    assert registry.take() == []
    registry.pass_by(GRACE_S * 0.2)
    assert registry.take() == [(2, left("ann"))]
    assert sorted(registry.channels.members(KEY)) == ["bob", "eve"]
    registry.pass_by(10)
    assert registry.take() == []
    assert registry.watcher.take() == [("left", "ann"), ("counted", "presence-room", 1)]
    registry.kill(two)
    registry.pass_by(GRACE_S)
    assert registry.take() == []
    assert registry.watcher.take() == [("left", "bob"), ("left", "eve"), ("vacated", "presence-room")]
    assert (len(registry.channels), registry.channels.member_count, registry.channels._held) == (0, 0, {})


def test_who_is_back_within_the_grace_has_never_gone() -> None:
    registry = Registry()
    one, two = registry.room(1, 2)
    enter(registry, one, "ann", "bob")
    registry.take()
    registry.watcher.take()
    registry.kill(one)
    enter(registry, two, "ann")  # her browser came back by another shard
    again = Lease(1, b"again")  # and bob's worker was only silent
    registry.channels.hold(KEY, LABEL, 1, [("bob", '"bob"')], again)
    registry.pass_by(GRACE_S)
    assert registry.take() == [(1, whole("ann", "bob"))]
    registry.pass_by(10)
    assert registry.take() == []
    assert [seen for seen in registry.watcher.take() if seen[0] != "counted"] == []


def test_a_shard_that_was_lost_and_comes_back_is_told_what_it_missed() -> None:
    registry = Registry()
    one, two = registry.room(1, 2)
    enter(registry, one, "ann")
    enter(registry, two, "bob", "eve")
    registry.kill(one)
    registry.pass_by(GRACE_S)
    registry.channels.leave(KEY, "bob", two)
    registry.take()
    again = Lease(1, b"again")
    registry.channels.hold(KEY, LABEL, 1, [("ann", '"ann"')], again)
    assert registry.take() == [(2, joined("ann")), (1, joined("ann"))]
    registry.pass_by(0)
    assert registry.take() == [(1, whole("eve", "ann"))]


def test_a_dead_shard_is_cleared_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.core.channels._REAP_STEP", 10)
    registry = Registry()
    lease, other = Lease(1, b"1"), Lease(2, b"2")
    for number in range(25):
        name = f"c{number}"
        registry.channels.subscribe(m.channel_key("p", "a", name), m.channel_label("p", "a", name), lease)
    registry.channels.subscribe(KEY, LABEL, other)
    registry.kill(lease)
    registry.kill(other)
    assert list(registry.channels.names("p", "a")) == []
    lengths = []
    for _ in range(5):
        registry.pass_by(GRACE_S)
        lengths.append(len(registry.channels))
    assert lengths == [16, 6, 0, 0, 0]


# ---- after a restart


def test_what_a_shard_subscribed_to_again_and_then_announces_was_occupied_once() -> None:
    """As it joins anew: what was not confirmed is repeated first."""
    registry = Registry()
    lease = Lease(1, b"1")
    registry.channels.subscribe(KEY, LABEL, lease)
    registry.channels.hold(KEY, LABEL, 3, [], lease)
    assert registry.watcher.take() == [
        ("occupied", "presence-room"),
        ("counted", "presence-room", 1),
        ("counted", "presence-room", 3),
    ]


def test_after_a_restart_nobody_is_said_to_leave_before_all_have_announced() -> None:
    registry = Registry(settled=False)
    one, two = Lease(1, b"1"), Lease(2, b"2")
    registry.channels.hold(KEY, LABEL, 3, [("ann", '"ann"'), ("bob", '"bob"'), ("eve", '"eve"')], one)
    for user in ("ann", "bob", "eve"):
        registry.channels.leave(KEY, user, one)
    enter(registry, one, "eve")  # who has come back
    registry.pass_by(LEASE_S)
    assert registry.take() == []
    registry.channels.hold(KEY, LABEL, 2, [("bob", '"bob"')], two)
    registry.pass_by(GRACE_S)
    assert registry.take() == [(1, whole("eve", "bob")), (2, whole("eve", "bob"))]
    assert (registry.watcher.take(), registry.watcher.settles) == ([("left", "ann")], 1)
    registry.channels.leave(KEY, "bob", two)
    assert registry.take() == [(1, left("bob")), (2, left("bob"))]


def test_a_channel_that_nobody_had_before_needs_no_such_care() -> None:
    registry = Registry(settled=False)
    one, _ = registry.room(1, 2)
    enter(registry, one, "ann")
    registry.channels.leave(KEY, "ann", one)
    assert registry.take() == [(1, joined("ann")), (2, joined("ann")), (1, left("ann")), (2, left("ann"))]
    registry.pass_by(LEASE_S + GRACE_S)
    assert registry.take() == []


def test_who_enters_after_a_restart_is_told_at_once() -> None:
    registry = Registry(settled=False)
    one, two = Lease(1, b"1"), Lease(2, b"2")
    registry.channels.hold(KEY, LABEL, 1, [("ann", '"ann"')], one)
    registry.channels.subscribe(KEY, LABEL, two)
    assert enter(registry, two, "bob") == [{"ann": '"ann"', "bob": '"bob"'}]
    assert registry.take() == [(1, joined("bob")), (2, joined("bob"))]


def test_a_question_that_is_repeated_before_its_channel_is_announced() -> None:
    registry = Registry(settled=False)
    lease = Lease(1, b"1")
    assert enter(registry, lease, "ann") == [{"ann": '"ann"'}]
    assert list(registry.channels.names("pusher", "app")) == []
    registry.channels.hold(KEY, LABEL, 2, [("ann", '"ann"')], lease)
    assert list(registry.channels.names("pusher", "app")) == ["presence-room"]
    assert registry.channels.count(KEY) == 2


def test_a_channel_with_very_many_members_is_announced_in_parts_and_told_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.core.channels._WHOLE_STEP", 10)
    registry = Registry(settled=False)
    lease = Lease(1, b"1")
    for number in range(40):
        name = f"presence-{number}"
        key, label = m.channel_key("pusher", "app", name), m.channel_label("pusher", "app", name)
        registry.channels.hold(key, label, 9, [(f"a{i}", "") for i in range(4)], lease)
        registry.channels.hold(key, label, 9, [(f"b{i}", "") for i in range(5)], lease)
    parts = []
    registry.pass_by(LEASE_S + GRACE_S)
    while told := registry.take():
        assert all(len(word.added) == 9 for _, word in told)
        parts.append(len(told))
        registry.pass_by(0.1)
    assert parts == [1] * 40
    assert registry.channels.member_count == 360


# ---- anything at all


class Farm(RuleBasedStateMachine):
    """Shards that say what they hold, die, and come back; members and counts against a plain model."""

    def __init__(self) -> None:
        super().__init__()
        self.registry = Registry()
        self.leases: dict[int, Lease] = {}
        self.held: dict[int, dict[str, set[str]]] = {}  # shard -> channel -> users
        self.lost: dict[int, dict[str, set[str]]] = {}  # the same of those that live, but have lost their lease
        self.views: dict[tuple[int, str], set[str]] = {}  # what the shard has been told

    @staticmethod
    def key(name: str) -> bytes:
        return m.channel_key("pusher", "app", name)

    shards = st.integers(0, 2)
    names = st.sampled_from(["presence-a", "presence-b"])
    users = st.sampled_from(["ann", "bob", "eve"])

    def lease(self, shard: int) -> Lease:
        if shard not in self.leases:
            lease = self.leases[shard] = Lease(shard, b"i")
            self.held[shard] = self.lost.pop(shard, {})
            for name, users in self.held[shard].items():
                label = m.channel_label("pusher", "app", name)
                self.registry.channels.hold(self.key(name), label, 1, [(user, "") for user in users], lease)
            self.hear()
        return self.leases[shard]

    @rule(shard=shards, name=names, user=users)
    def enters(self, shard: int, name: str, user: str) -> None:
        lease = self.lease(shard)
        if name not in self.held[shard]:
            self.registry.channels.subscribe(self.key(name), m.channel_label("pusher", "app", name), lease)
            self.held[shard][name] = set()
            self.views[shard, name] = set()
        answer = self.registry.channels.join(self.key(name), user, "", 100, lease)
        assert answer is not None
        self.held[shard][name].add(user)
        self.hear()
        self.views[shard, name].update(answer)

    @rule(shard=shards, name=names, user=users)
    def exits(self, shard: int, name: str, user: str) -> None:
        lease = self.lease(shard)
        self.registry.channels.leave(self.key(name), user, lease)
        if name in self.held[shard]:
            self.held[shard][name].discard(user)
        self.hear()

    @rule(shard=shards, name=names)
    def unsubscribes(self, shard: int, name: str) -> None:
        self.registry.channels.unsubscribe(self.key(name), self.lease(shard))
        self.held[shard].pop(name, None)
        self.views.pop((shard, name), None)
        self.hear()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), lives=st.booleans(), at_once=st.booleans())
    def is_lost(self, data: st.DataObject, lives: bool, at_once: bool) -> None:
        shard = data.draw(st.sampled_from(sorted(self.leases)))
        self.registry.kill(self.leases.pop(shard))
        held = self.held.pop(shard)
        if lives:
            self.lost[shard] = held
            if at_once:
                self.lease(shard)
        else:
            self.views = {place: view for place, view in self.views.items() if place[0] != shard}
        self.hear()

    @rule()
    def time_passes(self) -> None:
        self.registry.pass_by(GRACE_S)
        self.hear()
        for name in ("presence-a", "presence-b"):
            there = set().union(*(held.get(name, set()) for held in self.held.values()))
            assert set(self.registry.channels.members(self.key(name))) == there
            occupied = sum(name in held for held in self.held.values())
            assert self.registry.channels.count(self.key(name)) == occupied
            for shard, held in self.held.items():
                if name in held:
                    assert self.views[shard, name] == there

    @invariant()
    def nobody_is_missing(self) -> None:
        for held in self.held.values():
            for name, users in held.items():
                assert users <= set(self.registry.channels.members(self.key(name)))

    def hear(self) -> None:
        """As a worker receives MEMBERS: what it has already changes nothing, and its own members stay."""
        for shard, sent in self.registry.take():
            key, everyone, added, removed = sent.channel, sent.whole, sent.added, sent.removed
            for name in ("presence-a", "presence-b"):
                if key == self.key(name) and (shard, name) in self.views:
                    view = self.views[shard, name]
                    gone = view - {user for user, _ in added} if everyone else set(removed)
                    view -= gone - self.held[shard][name]
                    view.update(user for user, _ in added)


TestFarm = Farm.TestCase
TestFarm.settings = settings(max_examples=often(40), stateful_step_count=30, deadline=None)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), max_size=40))
def test_counts_are_what_was_said_last(said: list[tuple[int, int]]) -> None:
    registry = Registry()
    leases = registry.room(0, 1, 2, 3)
    now = dict.fromkeys(range(4), 1)
    for shard, count in said:
        if now[shard]:
            registry.channels.counted(KEY, count, leases[shard])
            now[shard] = count
    assert registry.channels.count(KEY) == sum(now.values())
    assert list(registry.channels.names("pusher", "app")) == (["presence-room"] if any(now.values()) else [])
