"""The timing wheel: what fires, and when."""

from hypothesis import given
from hypothesis import strategies as st

from farm.worker.wheel import Bucket, Wheel

SLOTS = 16
TICK_S = 0.25


class Owners:
    """Descriptors and the buckets they point at, as a worker's connections do."""

    def __init__(self) -> None:
        self.wheel = Wheel(SLOTS, TICK_S)
        self.buckets: dict[int, Bucket | None] = {}
        self.fired: list[int] = []

    def arm(self, fd: int, seconds: float) -> None:
        self.buckets[fd] = self.wheel.arm(fd, seconds)

    def advance(self, ticks: int = 1) -> list[int]:
        """What fires in so many ticks."""
        self.fired = []
        for _ in range(ticks):
            self.wheel.advance(self._fire)
        return self.fired

    def _fire(self, fd: int, bucket: Bucket) -> None:
        if self.buckets.get(fd) is bucket:
            self.buckets[fd] = None
            self.fired.append(fd)


def test_a_deadline_fires_once_and_never_before_its_time() -> None:
    """The tick during which it is armed has begun already, so it does not count."""
    owners = Owners()
    owners.arm(7, 1.0)
    assert owners.advance(4) == []
    assert owners.advance() == [7]
    assert owners.advance(3 * SLOTS) == []


def test_a_deadline_is_rounded_up_and_never_this_tick() -> None:
    owners = Owners()
    for fd, seconds in ((1, -5.0), (2, 0.0), (3, 0.01), (4, TICK_S), (5, TICK_S + 0.001)):
        owners.arm(fd, seconds)
    assert owners.advance() == [1, 2]
    assert owners.advance() == [3, 4]
    assert owners.advance() == [5]


def test_beyond_one_turn_it_fires_early() -> None:
    owners = Owners()
    owners.arm(1, SLOTS * TICK_S * 10)
    assert owners.advance(SLOTS - 2) == []
    assert owners.advance() == [1]


def test_an_entry_whose_owner_has_another_bucket_is_stale() -> None:
    owners = Owners()
    owners.arm(1, 0.5)
    owners.arm(1, 1.0)
    owners.arm(2, 0.5)
    owners.buckets[2] = None
    assert owners.advance(4) == []
    assert owners.advance() == [1]


def test_a_bucket_of_the_next_turn_is_another_one() -> None:
    """An entry armed while its own slot fires must wait a whole turn, not fire again at once."""
    owners = Owners()
    rearmed: list[int] = []

    def again(fd: int, bucket: Bucket) -> None:
        if owners.buckets[fd] is bucket and not rearmed:
            rearmed.append(fd)
            owners.arm(fd, TICK_S * (SLOTS - 1))

    owners.arm(1, TICK_S)
    owners.wheel.advance(again)
    owners.wheel.advance(again)
    assert rearmed == [1]
    assert owners.advance(SLOTS - 2) == []
    assert owners.advance() == [1]


def test_an_entry_is_passed_on_once_whether_stale_or_not() -> None:
    wheel = Wheel(SLOTS, TICK_S)
    passed: list[int] = []
    for fd in (1, 2, 1):
        wheel.arm(fd, TICK_S)
    for _ in range(3 * SLOTS):
        wheel.advance(lambda fd, bucket: passed.append(fd))
    assert passed == [1, 2, 1]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("arm"), st.integers(0, 5), st.integers(0, SLOTS - 1)),
            st.tuples(st.just("disarm"), st.integers(0, 5), st.just(0)),
            st.tuples(st.just("advance"), st.integers(1, 5), st.just(0)),
        ),
        max_size=60,
    )
)
def test_like_a_table_of_deadlines(steps: list[tuple[str, int, int]]) -> None:
    owners = Owners()
    deadlines: dict[int, int] = {}
    now = 0
    for step, number, ticks in steps:
        if step == "arm":
            owners.arm(number, ticks * TICK_S)
            deadlines[number] = now + min(ticks + 1, SLOTS - 1)
        elif step == "disarm":
            owners.buckets[number] = None
            deadlines.pop(number, None)
        else:
            for _ in range(number):
                now += 1
                due = {fd for fd, deadline in deadlines.items() if deadline == now}
                assert set(owners.advance()) == due
                for fd in due:
                    del deadlines[fd]
