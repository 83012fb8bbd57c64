"""After a standstill an empty link does not mean that workers were silent."""

from __future__ import annotations

from router.core.hearing import Hearing


def asked(hearing: Hearing, begin: float, end: float) -> float:
    """Ask ten times a second, of a link that is always empty."""
    now, found = begin, 0.0
    while now < end:
        found = hearing.until(now, now)
        now += 0.1
    return found


def test_an_empty_link_has_been_heard_to_its_end() -> None:
    hearing = Hearing(4.0, 0.0)
    assert hearing.until(0.1, 0.05) == 0.05
    assert hearing.until(0.9, 0.8) == 0.8


def test_what_came_during_a_standstill_has_time_to_be_read() -> None:
    hearing = Hearing(4.0, 0.0)
    before = asked(hearing, 0.1, 2.0)
    assert asked(hearing, 10.0, 10.95) == before > 1.8
    assert asked(hearing, 11.0, 11.5) > 11.3


def test_a_short_lease_does_not_make_every_pause_a_standstill() -> None:
    hearing = Hearing(0.2, 0.0)
    assert asked(hearing, 0.1, 1.0) > 0.8
    before = hearing.until(1.2, 1.2)
    assert hearing.until(1.5, 1.5) == before
    assert hearing.until(1.74, 1.74) == before
    assert hearing.until(1.76, 1.76) == 1.76
