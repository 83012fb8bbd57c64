"""What a process measures of its own memory."""

import os
import resource

from router.common.memory import Bursts, give_back, resident_bytes


def test_without_a_descriptor_left_the_last_figure_stands() -> None:
    before = resident_bytes()
    assert before > 1_000_000
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = os.open(os.devnull, os.O_RDONLY)
    os.close(taken)  # the lowest free one, and so the first that may not be had
    resource.setrlimit(resource.RLIMIT_NOFILE, (taken, limits[1]))
    try:
        assert resident_bytes() == before
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert resident_bytes() > 1_000_000


def test_a_burst_is_over_once_there_was_much_and_then_nearly_nothing() -> None:
    bursts = Bursts()
    assert not bursts.over(60)
    assert [bursts.over(number) for number in (60, 60)] == [True, False]  # that of the start
    bursts = Bursts()
    assert bursts.over(0)
    done = [0, 40, 80, 500, 1500, 1560, 1600, 1640, 1640, 2640, 2640, 2640]
    assert [bursts.over(number) for number in done] == [False] * 6 + [True] + [False] * 3 + [True, False]
    give_back()
