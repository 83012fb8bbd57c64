"""Records that list ids: bytes in, bytes out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.common.id_set import HEAD_BYTES, ID_BYTES, added, count, has, ids, removed

HEAD, LATER = b"day1", b"day2"
ONE, TWO, THREE = b"1" * 16, b"2" * 16, b"3" * 16


def test_members_come_and_go() -> None:
    value = added(None, HEAD, ONE)
    assert value == HEAD + ONE
    value = added(value, LATER, TWO)
    assert value == LATER + ONE + TWO
    assert added(value, HEAD, ONE) == HEAD + ONE + TWO
    assert (ids(value), count(value)) == ([ONE, TWO], 2)
    assert (has(value, ONE), has(value, TWO), has(value, THREE)) == (True, True, False)
    assert removed(value, THREE) == value
    assert removed(value, ONE) == LATER + TWO
    assert removed(removed(value, ONE), TWO) == LATER
    assert (ids(LATER), count(LATER), has(LATER, ONE)) == ([], 0, False)


def test_the_end_of_one_and_the_beginning_of_the_next_are_no_member() -> None:
    value = HEAD + ONE + TWO
    between = b"1" * 8 + b"2" * 8
    assert between in value
    assert not has(value, between)
    assert removed(value, between) == value
    assert added(value, HEAD, between) == value + between
    inside_the_head = HEAD[1:] + ONE[:13]
    assert not has(value, inside_the_head)
    assert has(value + between, between)


@pytest.mark.parametrize("value", [b"", b"d", HEAD, HEAD + ONE[:15]])
def test_a_record_that_was_cut_has_no_ids(value: bytes) -> None:
    assert (ids(value), count(value)) == ([], 0)
    assert not has(value, ONE)
    assert removed(value, ONE) == value
    assert added(value, LATER, ONE) == LATER + ONE


@pytest.mark.parametrize(("head", "one"), [(b"", ONE), (b"12345", ONE), (HEAD, b""), (HEAD, b"1" * 15)])
def test_what_has_the_wrong_length_is_not_added(head: bytes, one: bytes) -> None:
    with pytest.raises(ValueError, match="an id of"):
        added(None, head, one)
    assert not has(HEAD + ONE, one) or len(one) == ID_BYTES


# IDs that overlap each other in every way.
_ids = st.sampled_from([bytes([0] * n + [1] + [0] * (15 - n)) for n in range(16)] + [bytes(16)])
_heads = st.binary(min_size=HEAD_BYTES, max_size=HEAD_BYTES)


@given(st.lists(st.tuples(st.booleans(), _ids, _heads), max_size=40))
def test_it_is_a_list_without_duplicates(steps: list[tuple[bool, bytes, bytes]]) -> None:
    value: bytes | None = None
    model: list[bytes] = []
    for adds, one, head in steps:
        if adds:
            value = added(value, head, one)
            model += [] if one in model else [one]
            assert value[:HEAD_BYTES] == head
        elif value is not None:
            value = removed(value, one)
            model = [other for other in model if other != one]
        if value is not None:
            assert (ids(value), count(value)) == (model, len(model))
            assert has(value, one) is (one in model)
