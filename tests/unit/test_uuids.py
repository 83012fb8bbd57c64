"""Identifiers: two spellings of a UUID, each its own."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.common.uuids import device_key, is_id, new_uaid

cased = st.uuids().flatmap(lambda u: st.sampled_from([str(u), u.hex, str(u).upper(), u.hex.upper()]))
mixed = st.builds(
    lambda text, flips: "".join(c.upper() if flip else c for c, flip in zip(text, flips, strict=False)),
    cased.map(str.lower),
    st.lists(st.booleans(), min_size=36, max_size=36),
)
ids = cased | mixed


@given(ids)
def test_both_spellings_in_any_case_are_ids(text: str) -> None:
    assert is_id(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "g" * 32,
        "0" * 31,
        "0" * 33,
        "0" * 36,
        "0" * 32 + "\n",
        "{" + str(uuid.UUID(int=1)) + "}",
        "urn:uuid:" + str(uuid.UUID(int=1)),
        " " + "0" * 32,
        "-" + "0" * 35,
        "000000000-000-0000-0000-000000000000",
        "00000000-0000-0000-00000000000000000",
        "\N{FULLWIDTH DIGIT ZERO}" * 32,
        "\N{ARABIC-INDIC DIGIT ZERO}" * 32,
    ],
)
def test_everything_else_is_none(text: str) -> None:
    assert not is_id(text)


@given(st.text(max_size=40))
def test_what_is_an_id_is_a_uuid(text: str) -> None:
    if is_id(text):
        assert uuid.UUID(text).hex == text.replace("-", "").lower()


@given(ids, ids)
def test_two_spellings_are_two_ids(one: str, other: str) -> None:
    assert (device_key(one) == device_key(other)) is (one == other)


@given(st.uuids())
def test_spellings_of_one_uuid_have_keys_of_their_own(value: uuid.UUID) -> None:
    spellings = {str(value), value.hex, str(value).upper(), value.hex.upper()}
    keys = {device_key(spelling) for spelling in spellings}
    assert len(keys) == len(spellings)
    assert {len(key) for key in keys} == {16}
    assert device_key(value.hex) == value.bytes


def test_a_fresh_uaid_is_a_random_uuid_as_digits() -> None:
    made = {new_uaid() for _ in range(100)}
    assert len(made) == 100
    for uaid in made:
        assert len(uaid) == 32
        assert uuid.UUID(uaid).version == 4
        assert device_key(uaid).hex() == uaid
