"""Positions and slices of a log: what is packed is read back as it was, and anything else is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.common.position import (
    LAST_TAG,
    LIVE,
    MAX_EVENT_ID,
    MAX_HEADERS,
    AfterId,
    AfterOffset,
    AfterTime,
    Last,
    LogEvent,
    LogSlice,
    Position,
    PositionError,
    log_event,
    log_slice,
    position,
)

_numbers = st.integers(0, 2**63 - 1)
_times = st.integers(0, 2**40)
_texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_positions: st.SearchStrategy[Position] = st.one_of(
    st.just(LIVE),
    st.builds(Last, st.integers(0, 2**31 - 1)),
    st.builds(AfterOffset, _numbers, _numbers),
    st.builds(AfterId, _texts, st.integers(-1, 2**40), _numbers),
    st.builds(AfterTime, _times, _numbers),
)
_events = st.builds(
    LogEvent, _numbers, _times, _numbers, _numbers, _texts, st.dictionaries(_texts, _texts, max_size=3), _texts
)
_slices = st.builds(LogSlice, _numbers, _numbers, st.booleans(), st.lists(_events, max_size=3), st.booleans())

EVENT = LogEvent(7, 1_700_000_000, 3, 1_700_000_060, "id", {"type": "news"}, "body")


def over_the_wire(value: Any) -> Any:
    return msgpack.unpackb(msgpack.packb(value, use_bin_type=True), raw=False, use_list=True)


@given(_positions)
def test_a_position_comes_back_with_its_type(one: Position) -> None:
    back = position(over_the_wire(one))
    assert back == one
    assert type(back) is type(one)


@given(_slices)
def test_a_slice_comes_back_as_it_was(part: LogSlice) -> None:
    back = log_slice(over_the_wire(part))
    assert back == part
    assert all(type(event) is LogEvent for event in back.events)
    newest = part.events[-1].offset if part.more and part.events else part.offset
    assert back.end == AfterOffset(part.epoch, newest)
    for event in part.events:
        assert log_event(over_the_wire(event)) == event


def test_positions_of_two_kinds_are_never_equal() -> None:
    assert len({AfterOffset(5, 6), AfterTime(5, 6), Last(5), AfterId("5", 5, 6), LIVE}) == 5


def test_the_wire_form_is_what_the_module_says() -> None:
    forms = [over_the_wire(one) for one in (LIVE, Last(9), AfterOffset(4, 8), AfterId("x"), AfterTime(6))]
    assert forms == [[0], [9, 1], [4, 8, 2], ["x", -1, LAST_TAG, 3], [6, LAST_TAG, 4]]


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        "",
        b"\x00",
        [],
        {},
        [5],
        [-1],
        [True],
        [0, 0],
        [None, 1],
        [-1, 1],
        [2**31, 1],
        [True, 1],
        [1.0, 1],
        [1, 1, 1],
        [1, 2],
        [-1, 1, 2],
        [1, 2**63, 2],
        ["1", 1, 2],
        ["x" * (MAX_EVENT_ID + 1), -1, 0, 3],
        [b"x", -1, 0, 3],
        ["x\0", -1, 0, 3],
        ["x", -2, 0, 3],
        ["x", 0, -1, 3],
        [-1, 0, 4],
        [2**40 + 1, 0, 4],
        [0, 0, 5],
    ],
)
def test_what_is_no_position_is_refused(value: Any) -> None:
    with pytest.raises(PositionError):
        position(value)


@pytest.mark.parametrize(
    "changed",
    [
        {"offset": -1},
        {"time": 2**40 + 1},
        {"tag": None},
        {"expires": "1"},
        {"id": 5},
        {"id": "x" * (MAX_EVENT_ID + 1)},
        {"headers": [["a", "b"]]},
        {"id": "\0\n"},
        {"headers": {"a": 1}},
        {"headers": {"a": "\0"}},
        {"headers": {"a": "x" * (MAX_EVENT_ID + 1)}},
        {"headers": {str(n): "" for n in range(MAX_HEADERS + 1)}},
        {"body": None},
    ],
)
def test_an_event_with_a_member_out_of_its_bounds_is_refused(changed: dict[str, Any]) -> None:
    assert log_event(over_the_wire(EVENT)) == EVENT
    event = over_the_wire(EVENT._replace(**changed))
    with pytest.raises(PositionError):
        log_event(event)
    with pytest.raises(PositionError):
        log_slice([1, 1, True, [event]])


@pytest.mark.parametrize("value", [None, [1, 1, True], [1, 1, 1, []], [1, -1, True, []], [1, 1, True, [[]]]])
def test_what_is_no_slice_is_refused(value: Any) -> None:
    with pytest.raises(PositionError):
        log_slice(value)
