"""How long the router waits for more before its next turn: a rule of times and numbers."""

from collections.abc import Callable
from itertools import pairwise

import pytest

from router.core.gathering import ENOUGH, LATELY_S, RATE_WINDOW_S, Gathering, Senders

MOST_S = 0.002
TURN_S = 0.0003
MANY = 1000


def turns(
    rate: float, seconds: float, free: Callable[[float], int] = lambda _: MANY, most: float = MOST_S
) -> list[tuple[float, int, float]]:
    """Turns of a router to which pushes come at even steps: (when it began, how many it found, what it rested then).
    It waits until there is one, as for an epoll."""
    gathering = Gathering(most)
    now, handled = 100.0, 0
    begun, found = now, []
    while now - begun < seconds:
        come = int((now - begun) * rate) + 1
        if come == handled:
            now = begun + handled / rate + 1e-9
            continue
        at, here = now, come - handled
        handled = come
        now += TURN_S
        rest = gathering.rest(now, handled, free(now))
        found.append((at, here, rest))
        now += rest
    return found


def test_a_single_push_is_not_waited_for() -> None:
    gathering = Gathering(MOST_S)
    for pushes, now in enumerate((100.0, 100.0004, 101.0, 150.0), 1):
        assert gathering.rest(now, pushes, MANY) == 0
        # Its result and its commit are turns, too.
        assert gathering.rest(now + 0.0003, pushes, MANY) == 0
        assert gathering.rest(now + 0.0012, pushes, MANY) == 0


@pytest.mark.parametrize("rate", [10, 100, 900])
def test_where_pushes_are_rare_nobody_waits(rate: int) -> None:
    assert all(rest == 0 for _, _, rest in turns(rate, 1.0))


@pytest.mark.parametrize("rate", [1500, 3000, 5000, 8000, 15_000])
def test_pushes_that_come_one_after_another_share_a_turn(rate: int) -> None:
    steady = [turn for turn in turns(rate, 0.5) if turn[0] > 100.0 + 2 * RATE_WINDOW_S]
    period = min(MOST_S, ENOUGH / rate)
    found = [here for _, here, _ in steady]
    assert sum(found) / len(found) == pytest.approx(rate * period, rel=0.15)
    begun = [at for at, _, _ in steady]
    assert max(b - a for a, b in pairwise(begun)) < period + TURN_S + 1 / rate


def test_the_wait_is_what_the_turn_has_left_of_it() -> None:
    gathering = Gathering(MOST_S)
    gathering.rest(100.0, 0, MANY)
    gathering.rest(100.02, 100, MANY)  # 5,000 a second
    assert gathering.rest(100.0215, 105, MANY) == pytest.approx(MOST_S - 0.0015)
    assert gathering.rest(100.0265, 130, MANY) == 0, "what was waited for in the epoll counts"


def test_who_waits_for_an_answer_sends_nothing() -> None:
    assert all(rest == 0 for _, _, rest in turns(5000, 0.2, free=lambda _: 0))
    assert all(rest == 0 for _, _, rest in turns(5000, 0.2, free=lambda _: 9))
    assert any(rest > 0 for _, _, rest in turns(5000, 0.2, free=lambda _: 10))
    assert all(rest == 0 for _, _, rest in turns(5000, 0.2, free=lambda _: -5))


def test_after_a_burst_a_single_push_is_answered_at_once() -> None:
    gathering = Gathering(MOST_S)
    now, pushes = 100.0, 0
    while now < 100.1:
        pushes += 10
        now += MOST_S
        last = gathering.rest(now, pushes, MANY)
    assert last == 0  # a turn of ten every 2 ms needs no wait; one that is early does:
    assert gathering.rest(now + 0.0005, pushes + 1, MANY) > 0
    assert gathering.rest(now + 1, pushes + 2, MANY) == 0
    assert gathering.rest(now + 1.0005, pushes + 2, MANY) == 0


def test_it_can_be_off() -> None:
    assert all(rest == 0 for _, _, rest in turns(5000, 0.2, most=0))


def test_senders_are_counted_once_and_forgotten_when_they_are_silent_or_gone() -> None:
    senders = Senders()
    assert senders.count(100.0) == 0
    for who in ("a", "b", "b", "c"):
        senders.sent(who)
    assert senders.count(100.01) == 3
    senders.gone("c")
    assert senders.count(100.02) == 2
    now = 100.0 + 1.5 * LATELY_S
    assert senders.count(now) == 2, "of the time before"
    senders.sent("b")
    assert senders.count(now) == 2
    now += 1.5 * LATELY_S
    assert senders.count(now) == 1, "a has been silent for the whole of it"
    senders.gone("b")
    assert senders.count(now) == 0
    senders.sent("d")
    assert senders.count(now + 10 * LATELY_S) == 0
