"""Until when a router may answer by its lease."""

from __future__ import annotations

from math import inf

import pytest

from router.store.lease import MARGIN, MAX_OFFSET_S, Lease, apart, boottime
from router.store.redis_renewer import PATIENCE, RENEWALS

SECONDS = 3.0
END = SECONDS * (1 - MARGIN)


def test_nothing_is_owned_before_it_is_confirmed() -> None:
    assert Lease(SECONDS, shared=True).until == -inf


def test_it_ends_a_lease_after_the_last_renewal_was_sent_less_a_margin() -> None:
    lease = Lease(SECONDS, shared=True)
    lease.confirmed(100.0)
    assert lease.until == 100 + END < 100 + SECONDS
    lease.confirmed(101.0)
    assert lease.until == 101 + END


def test_an_answer_to_an_older_renewal_that_comes_late_takes_nothing_back() -> None:
    lease = Lease(SECONDS, shared=True)
    lease.confirmed(101.0)
    lease.confirmed(100.0)
    assert lease.until == 101 + END


def test_what_is_lost_stays_lost() -> None:
    for shared in (False, True):
        lease = Lease(SECONDS, shared)
        lease.confirmed(100.0)
        lease.lose()
        lease.confirmed(200.0)
        assert lease.until == -inf


def test_where_nobody_takes_over_it_has_no_end() -> None:
    lease = Lease(SECONDS, shared=False)
    assert lease.until == inf
    lease.compared({"server": 100.0})
    assert lease.clock_is_off
    assert lease.until == inf


def test_a_clock_that_is_off_ends_it_until_it_is_right() -> None:
    lease = Lease(SECONDS, shared=True)
    lease.confirmed(100.0)
    assert lease.compared({"one": 0.2, "two": -MAX_OFFSET_S}) == {}
    assert lease.until == 100 + END
    assert lease.compared({"one": 0.2, "two": -1.5}) == {"two": -1.5}
    assert lease.until == -inf
    assert lease.compared({"one": 0.2, "two": -0.5}) == {}
    assert lease.until == 100 + END


@pytest.mark.parametrize(
    ("there", "offset"),
    [(10.0, 0.0), (10.5, 0.0), (11.0, 0.0), (12.5, 1.5), (8.0, -2.0)],
)
def test_two_clocks_differ_by_what_the_time_between_question_and_answer_does_not_explain(
    there: float, offset: float
) -> None:
    assert apart(there, 10.0, 11.0) == offset


def test_there_is_time_for_another_connection_before_it_ends() -> None:
    """One renewal is not answered, and is given up; the next one is sent at once."""
    assert 1 / RENEWALS + 1 / PATIENCE < 1 - 2 * MARGIN


def test_its_clock_goes_on() -> None:
    assert 0 < boottime() <= boottime()
