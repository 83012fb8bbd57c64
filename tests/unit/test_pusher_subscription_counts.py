"""Counts of subscribers: told soon, the newest, not too often, and none lost however many channels there are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.dialects.pusher.protocol import PusherOptions
from router.dialects.pusher.subscription_counts import Name, SubscriptionCounts


class World:
    """Counts with what they have told."""

    def __init__(self, most: int = 1000) -> None:
        options = PusherOptions(subscription_count_queue=most, subscription_count_many=10)
        self.told: list[tuple[str, int]] = []
        self.counts = SubscriptionCounts(options, self._tell)
        self.now = 100.0

    def _tell(self, name: Name, subscribers: int) -> None:
        self.told.append((name[1], subscribers))

    def counted(self, channel: str, subscribers: int) -> None:
        self.counts.counted(("1", channel), subscribers, self.now)

    def after(self, seconds: float) -> list[tuple[str, int]]:
        """What has been told since this was last asked, once so much time has passed."""
        self.now += seconds
        self.counts.tick(self.now)
        told, self.told = self.told, []
        return told


def test_for_one_channel_too_many_the_oldest_is_forgotten_and_its_count_told() -> None:
    world = World(most=2)
    world.counted("a", 1)
    world.counted("b", 2)
    world.counted("a", 3)
    assert world.told == []
    world.counted("c", 4)
    assert (world.told, len(world.counts)) == ([("a", 3)], 2)
    assert sorted(world.after(0.1)) == [("a", 3), ("b", 2), ("c", 4)]
    assert world.after(60) == [] and len(world.counts) == 0


def test_those_that_were_told_go_before_those_that_wait_to_be() -> None:
    world = World(most=3)
    world.counted("small", 1)
    world.counted("large", 20)
    assert world.after(0.1) == [("small", 1), ("large", 20)]
    world.counted("new", 1)
    world.counted("newer", 1)
    world.counted("newest", 1)
    assert world.told == []  # nothing of the first two waits
    world.counted("one more", 1)
    assert world.told == [("new", 1)]
    world.counted("large", 21)  # forgotten, so that it is told again before its five seconds are over
    assert ("large", 21) in world.after(0.1)


def test_who_is_told_of_a_channel_that_has_gone() -> None:
    world = World(most=1)
    world.counted("a", 1)
    world.counts.vacated(("1", "a"))
    world.counted("b", 1)
    assert world.told == []
    assert world.after(0.1) == [("b", 1)]


_STEPS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "d", "e"]), st.integers(1, 30), st.sampled_from([0.0, 0.04, 0.7, 3.0]))
)


@given(_STEPS, st.integers(1, 4))
def test_the_newest_count_of_every_channel_is_told_and_no_more_are_known_than_may_be(
    steps: list[tuple[str, int, float]], most: int
) -> None:
    world = World(most)
    newest: dict[str, int] = {}
    told: dict[str, int] = {}
    for channel, subscribers, seconds in steps:
        newest[channel] = subscribers
        world.counted(channel, subscribers)
        assert len(world.counts) <= most
        told.update(world.after(seconds))
    told.update(world.after(60))
    assert told == newest
    world.after(60)
    assert len(world.counts) == 0
