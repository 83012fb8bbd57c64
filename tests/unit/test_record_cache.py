"""The cache of records, by a clock that the tests move."""

from hypothesis import given
from hypothesis import strategies as st

from router.core.record_cache import MAX_AGE_S, RecordCache

NAME, OTHER = ("space", b"k" * 16), ("space", b"o" * 16)


class Now:
    def __init__(self) -> None:
        self.s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.s


def name(number: int) -> tuple[str, bytes]:
    return ("space", number.to_bytes(16, "big"))


def test_what_was_put_is_known_and_nothing_else() -> None:
    cache = RecordCache(10, Now())
    assert cache.get(NAME) is None
    cache.put(NAME, b"")
    assert cache.get(NAME) == b""
    cache.put(NAME, b"new")
    assert cache.get(NAME) == b"new"
    assert cache.get(("elsewhere", NAME[1])) is None
    cache.drop(NAME)
    cache.drop(NAME)
    assert cache.get(NAME) is None


def test_only_what_is_held_follows_a_write() -> None:
    cache = RecordCache(10, Now())
    cache.put(NAME, b"old")
    cache.written(NAME, b"new")
    cache.written(OTHER, b"never asked for")
    assert (cache.get(NAME), cache.get(OTHER)) == (b"new", None)
    cache.written(NAME, None)
    assert cache.get(NAME) is None
    cache.written(NAME, b"again")
    assert cache.get(NAME) is None


def test_it_never_holds_more_than_its_limit_and_forgets_the_oldest() -> None:
    cache = RecordCache(10, Now())
    for number in range(1000):
        cache.put(name(number), b"x")
        assert len(cache) <= 10
        assert cache.get(name(number)) == b"x"
    assert [number for number in range(1000) if cache.get(name(number))] == list(range(1000 - len(cache), 1000))
    assert len(cache) >= 5


def test_a_long_value_counts_as_several_and_one_that_is_too_long_is_not_kept() -> None:
    cache = RecordCache(10, Now())
    for number in range(100):
        cache.put(name(number), b"x" * 600)  # as three
        assert len(cache) <= 3
    cache.put(name(99), b"x" * 256 * 5)
    assert cache.get(name(99)) is None
    assert cache.get(name(98)) is not None


def test_without_a_limit_it_holds_nothing() -> None:
    cache = RecordCache(0, Now())
    cache.put(NAME, b"x")
    assert cache.get(NAME) is None
    assert len(cache) == 0


def test_a_change_of_what_the_old_generation_holds_is_seen() -> None:
    now = Now()
    cache = RecordCache(100, now)
    cache.put(NAME, b"old")
    now.s += MAX_AGE_S / 3
    cache.put(OTHER, b"turns")
    cache.written(NAME, b"new")
    assert cache.get(NAME) == b"new"
    cache.written(NAME, None)
    assert cache.get(NAME) is None


def test_using_an_entry_does_not_keep_it() -> None:
    now = Now()
    cache = RecordCache(10, now)
    cache.put(NAME, b"x")
    seconds = 0
    while cache.get(NAME) is not None:
        now.s += 1
        seconds += 1
    assert MAX_AGE_S / 3 <= seconds <= MAX_AGE_S


def test_a_clock_that_goes_back_empties_it() -> None:
    now = Now()
    cache = RecordCache(10, now)
    cache.put(NAME, b"x")
    now.s -= 3600
    assert cache.get(NAME) is None
    cache.put(NAME, b"y")
    assert cache.get(NAME) == b"y"


_steps = st.lists(st.tuples(st.sampled_from(["put", "pass", "get"]), st.integers(0, 6), st.integers(0, 50)))


@given(_steps, st.integers(0, 8))
def test_nothing_is_given_that_is_older_than_a_minute(steps: list[tuple[str, int, int]], limit: int) -> None:
    now = Now()
    cache = RecordCache(limit, now)
    put: dict[int, float] = {}
    for step, number, seconds in steps:
        if step == "pass":
            now.s += seconds
        elif step == "put":
            cache.put(name(number), b"%d" % int(now.s))
            put[number] = now.s
        else:
            value = cache.get(name(number))
            if value is not None:
                assert int(value) == int(put[number])
                assert now.s - put[number] <= MAX_AGE_S
        assert len(cache) <= limit
