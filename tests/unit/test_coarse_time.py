"""Times of which many are one object."""

from farm.coarse_time import STRETCH_S, CoarseTime


def test_times_of_a_stretch_are_one_object_that_is_not_after_any_of_them() -> None:
    coarse = CoarseTime()
    times = [100.0 + number / 64 for number in range(640)]
    kept = [coarse.of(now) for now in times]
    assert all(now - STRETCH_S < before <= now for now, before in zip(times, kept, strict=True))
    assert len({id(one) for one in kept}) == 10 / STRETCH_S
    assert coarse.of(50.0) == 50.0  # a clock that went back
