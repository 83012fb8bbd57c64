"""When devices of the bench come back, and as whom: `bench.load.reconnect`."""

import pytest

from bench.load.reconnect import JITTER, Backoff, Reconnects

ONE, OTHER = bytes(range(16)), bytes(range(16, 32))
PLAIN = Backoff(5, 30)


def returns(reconnects: Reconnects, now: float) -> list[int]:
    return list(reconnects.due(now, 100))


def test_a_backoff_doubles_up_to_its_cap() -> None:
    assert [PLAIN.delay(failed) for failed in range(5)] == [5, 10, 20, 30, 30]
    assert Backoff(5, 1800).delay(10_000) == 1800
    delays = [Backoff(4, 30, jitter=True).delay(1) for _ in range(300)]
    assert min(delays) >= 8 * (1 - JITTER) and max(delays) <= 8 * (1 + JITTER)
    assert max(delays) - min(delays) > 4


def test_a_device_comes_back_later_after_each_attempt_that_failed() -> None:
    reconnects = Reconnects(PLAIN)
    reconnects.grow(3)
    assert not reconnects.failed(1, 0), "it was never there"
    reconnects.left(1, 100)
    reconnects.left(2, 101)
    assert reconnects.next_due == 105 and returns(reconnects, 104) == []
    assert returns(reconnects, 105) == [1] and returns(reconnects, 200) == [2]
    assert reconnects.failed(1, 106) and reconnects.next_due == 116
    assert returns(reconnects, 116) == [1] and reconnects.failed(1, 117) and reconnects.next_due == 137
    assert set(reconnects.away) == {1, 2}
    assert (reconnects.back(1), reconnects.back(2), reconnects.back(0)) == (3, 1, None)
    assert not reconnects.away


def test_no_more_return_at_once_than_may() -> None:
    reconnects = Reconnects(PLAIN)
    for number in range(5):
        reconnects.left(number, 0)
    assert len(list(reconnects.due(9, 3))) == 3 and len(returns(reconnects, 9)) == 2


def test_a_device_is_known_again_by_its_identity() -> None:
    reconnects = Reconnects(PLAIN)
    reconnects.grow(2)
    assert not reconnects.identify(1, ONE) and reconnects.identity(1) == b"", "it is connected"
    reconnects.left(1, 0)
    reconnects.left(0, 0)
    assert reconnects.identity(1) == ONE and reconnects.identity(0) == b"", "it was never set up"
    assert not reconnects.identify(1, ONE)
    assert reconnects.identify(1, OTHER) and reconnects.identity(1) == OTHER


def test_only_those_that_are_chosen_come_back() -> None:
    reconnects = Reconnects(Backoff(1e9, 1e9))
    for number in range(4):
        reconnects.left(number, 0)
    reconnects.only([3, 9, 1], 10, 2.0, PLAIN)
    assert returns(reconnects, 10) == [3] and returns(reconnects, 13) == [] and returns(reconnects, 14) == [1]
    assert reconnects.next_due is None and len(reconnects.away) == 4
    assert reconnects.failed(1, 20) and reconnects.next_due == 30, "by the new backoff"


@pytest.mark.parametrize("number", [0, 7])
def test_without_a_backoff_nothing_is_kept(number: int) -> None:
    reconnects = Reconnects(None)
    reconnects.grow(8)
    assert not reconnects.identify(number, ONE)
    reconnects.left(number, 0)
    assert not reconnects.away and reconnects.next_due is None and not reconnects.failed(number, 0)
