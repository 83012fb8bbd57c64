"""How results of the bench stand in their files: `bench.figures.json_text`."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figures.json_text import WIDTH, laid_out, rounded

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(VALUES)
def test_it_is_the_same_document(value: Any) -> None:
    assert json.loads(laid_out(value)) == value


@given(st.recursive(st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=9), inner)))
def test_no_line_is_too_long_that_could_be_shorter(value: Any) -> None:
    for line in laid_out(value).splitlines():
        assert len(line) <= WIDTH + 1 or ", " not in line  # a comma may follow


def test_as_much_stands_on_a_line_as_fits() -> None:
    body = {"short": {"a": 1, "b": 2}, "long": list(range(100)), "text": "x"}
    lines = laid_out(body).splitlines()
    assert lines[0] == "{" and lines[-1] == "}" and len(lines) == 9
    assert lines[1] == '  "short": {"a": 1, "b": 2},'
    assert lines[2] == '  "long": [' and lines[3].startswith("    0, 1, 2, ") and lines[-2] == '  "text": "x"'
    assert laid_out([]) == "[]" and laid_out({}) == "{}"


@pytest.mark.parametrize(
    ("value", "same"),
    [(1.23456789, 1.23457), (123456789.5, 123457000.0), (123456789, 123456789), (0.0, 0.0), (1e-12 / 3, 3.33333e-13)],
)
def test_figures_have_six_digits_and_whole_numbers_all(value: float, same: float) -> None:
    assert rounded({"a": [value, "1.23456789", None, True]}) == {"a": [same, "1.23456789", None, True]}
