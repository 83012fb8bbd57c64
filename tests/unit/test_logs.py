"""Log lines: their two forms, that no value can break out of its line, and the limiter."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.common import logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, farm = logging.getLogger(), logging.getLogger("farm")
    before = (list(root.handlers), root.level, farm.level, logging.raiseExceptions)
    yield
    root.handlers[:], farm.level = before[0], before[2]
    root.setLevel(before[1])
    farm.setLevel(before[2])
    logging.raiseExceptions = before[3]


def text_line(**fields: object) -> str:
    stream = io.StringIO()
    logs.setup("text", "info", stream=stream)
    logs.event("thing", **fields)
    return stream.getvalue()


def json_line(**fields: object) -> dict[str, Any]:
    stream = io.StringIO()
    logs.setup("json", "info", stream=stream)
    logs.event("thing", **fields)
    (line,) = stream.getvalue().splitlines()
    found: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)
    return found


def test_a_text_line() -> None:
    stream = io.StringIO()
    logs.setup("text", "info", stream=stream, process="worker", shard=0, host="a b")
    logs.event("drain", devices=12_000, seconds=1.5, soon=True, why=None)
    stamp, rest = stream.getvalue().split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", stamp)
    assert rest == 'info worker[0] drain host="a b" devices=12000 seconds=1.5 soon=True why=None\n'


def test_a_router_is_known_by_its_number_where_there_are_several() -> None:
    stream = io.StringIO()
    logs.setup("text", "info", stream=stream, process="router", router=1)
    logs.event("thing", shard=2)
    assert stream.getvalue().endswith(" info router[1] thing shard=2\n")


def test_a_json_line() -> None:
    stream = io.StringIO()
    logs.setup("json", "info", stream=stream, process="worker", shard=0)
    logs.warning("slow", seconds=1.5, event="x", why=None, ids=["a", 1, ["b"]], raw=b"\x01\xff", soon=True)
    found = json.loads(stream.getvalue())
    assert re.fullmatch(r".*T.*Z", found.pop("time"))
    assert found == {
        "level": "warning",
        "process": "worker",
        "shard": 0,
        "event": "slow",
        "seconds": 1.5,
        "event_": "x",
        "why": None,
        "ids": ["a", 1, "['b']"],
        "raw": "01ff",
        "soon": True,
    }


@pytest.mark.parametrize(
    ("level", "expected"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(level: str, expected: list[str]) -> None:
    stream = io.StringIO()
    logs.setup("text", level, stream=stream)
    for helper in (logs.debug, logs.event, logs.warning, logs.error):
        helper("thing")
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == expected


def test_unknown_formats_and_levels_are_refused() -> None:
    with pytest.raises(ValueError, match="xml"):
        logs.setup("xml", "info")
    with pytest.raises(KeyError):
        logs.setup("text", "loud")


def test_stderr_is_where_lines_go(capfd: pytest.CaptureFixture[str]) -> None:
    logs.setup("text", "info")
    logs.event("first")
    logs.setup("text", "info")
    logs.event("second")
    captured = capfd.readouterr()
    assert captured.out == ""
    assert [line.split()[-1] for line in captured.err.splitlines()] == ["first", "second"]


@pytest.fixture
def stderr() -> Iterator[Callable[[int], None]]:
    """Puts another descriptor in the place of stderr for the time of the test."""
    kept = os.dup(2)
    yield lambda fd: os.dup2(fd, 2) and None
    os.dup2(kept, 2)
    os.close(kept)


def test_a_reader_of_stderr_that_stands_still_costs_lines_and_no_time(stderr: Callable[[int], None]) -> None:
    reader, writer = os.pipe()
    stderr(writer)
    os.close(writer)
    logs.setup("json", "info")
    for number in range(1000):  # far more than a pipe holds; a write that waits would wait for ever
        logs.event("thing", number=number, filler="x" * 500)
    os.set_blocking(reader, False)
    with contextlib.suppress(BlockingIOError):
        lines = b""
        while part := os.read(reader, 65_536):
            lines += part
    logs.event("after")
    lines += os.read(reader, 65_536)
    os.close(reader)
    told = [json.loads(line) for line in lines.splitlines()]
    written = [line["number"] for line in told if line["event"] == "thing"]
    assert written == list(range(len(written)))
    assert 0 < len(written) < 1000
    assert [line["event"] for line in told[len(written) :]] == ["log.lines_lost", "after"]
    assert told[len(written)]["lines"] == 1000 - len(written)


def test_a_reader_of_stderr_that_has_gone_costs_nothing(stderr: Callable[[int], None]) -> None:
    reader, writer = os.pipe()
    stderr(writer)
    os.close(writer)
    os.close(reader)
    logs.setup("text", "info")
    logs.event("thing")
    logs.error("thing", ValueError("of some kind"))


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_under_stderr_costs_the_lines_that_it_has_no_room_for(
    stderr: Callable[[int], None], tmp_path: Path
) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    stderr(full)
    os.close(full)
    logs.setup("text", "info")
    logs.event("first")
    logs.event("second")
    with (tmp_path / "log").open("wb") as file:
        stderr(file.fileno())
    logs.event("third")
    assert [line.split()[3:] for line in (tmp_path / "log").read_text().splitlines()] == [
        ["log.lines_lost", "lines=2"],
        ["third"],
    ]


@pytest.mark.parametrize("form", ["text", "json"])
def test_an_exception_is_one_line(form: str) -> None:
    stream = io.StringIO()
    logs.setup(form, "info", stream=stream)
    try:
        raise ValueError("two\nlines")
    except ValueError as exc:
        logs.error("failed", exc, shard=1)
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: two\\nlines" in line
    assert "test_logs.py" in line


def test_lines_of_libraries_take_our_form() -> None:
    stream = io.StringIO()
    logs.setup("json", "debug", stream=stream)
    library = logging.getLogger("some.library")
    library.info("left out below warning")
    library.warning("took %d s\n", 3)
    library.warning("wrong %d", "format")
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["logger"], first["message"]) == ("library", "some.library", "took 3 s\n")
    assert second["message"] == "wrong %d"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("word", "word"),
        ("", '""'),
        ("a b", '"a b"'),
        ("a=b", '"a=b"'),
        ('"', '"\\""'),
        ("new\nline", '"new\\nline"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("\x85\u2028\u202e", '"\\u0085\\u2028\\u202e"'),
        ("\ud800", '"\\ud800"'),
        ("Grüße", "Grüße"),
        (b"\x00\x10", "0010"),
        ("x" * 5000, "x" * 4096 + "..."),
    ],
)
def test_values_in_text(value: object, shown: str) -> None:
    assert text_line(v=value).endswith(f" v={shown}\n")


class Spiteful:
    def __str__(self) -> str:
        raise RuntimeError("no")


def test_a_value_that_cannot_be_shown_does_not_cost_the_line() -> None:
    endless: list[object] = []
    endless.append(endless)
    assert "Spiteful: RuntimeError" in text_line(v=Spiteful())
    assert json_line(v=Spiteful(), w=endless)["w"] == ["[[...]]"]
    assert "ValueError" in json_line(v=10**5000)["v"]


def test_json_has_no_nan() -> None:
    found = json_line(a=float("nan"), b=float("-inf"), c=2**80)
    assert (found["a"], found["b"], found["c"]) == ("nan", "-inf", str(2**80))


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.binary(),
    st.text(),
    st.lists(st.text(), max_size=3),
)


@given(ANYTHING)
def test_any_value_is_one_printable_line(value: object) -> None:
    line = text_line(v=value)
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@given(ANYTHING)
def test_any_value_is_one_json_object(value: object) -> None:
    assert "v" in json_line(v=value)


def test_a_closed_stream_is_survived() -> None:
    stream = io.StringIO()
    logs.setup("text", "info", stream=stream)
    stream.close()
    logs.event("nobody", hears="this")


def test_the_limit_lets_one_through_in_its_interval_and_counts_the_rest() -> None:
    now = 100.0
    limit = logs.RateLimit(10.0, clock=lambda: now)
    stream = io.StringIO()
    logs.setup("text", "info", stream=stream)

    def flood(times: int, per: str = "") -> list[str]:
        stream.seek(0)
        stream.truncate()
        for _ in range(times):
            logs.limited("full", at="error", per=per, rate=limit, shard=1)
        return [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]

    assert flood(1000) == ["error farm full shard=1"]
    assert flood(1, per="other") == ["error farm full shard=1"]
    now = 109.9
    assert flood(1) == []
    now = 110.0
    assert flood(3) == ["error farm full shard=1 repeats=1000"]
    now = 120.0
    assert flood(1) == ["error farm full shard=1 repeats=2"]
    now = 130.0
    assert flood(1) == ["error farm full shard=1"]


def test_what_is_below_the_level_is_not_counted() -> None:
    limit = logs.RateLimit(10.0, clock=lambda: 0.0)
    stream = io.StringIO()
    logs.setup("text", "error", stream=stream)
    logs.limited("full", rate=limit)
    logs.setup("text", "info", stream=stream)
    logs.limited("full", rate=limit)
    assert "repeats" not in stream.getvalue()
    assert stream.getvalue().count("\n") == 1


def test_the_limit_remembers_a_bounded_number_of_keys() -> None:
    limit = logs.RateLimit(10.0, clock=lambda: 0.0)
    for number in range(logs.MAX_LIMITED_KEYS + 1):
        assert limit.admit(str(number)) == 0
    assert limit.admit("1") is None
    assert limit.admit("0") == 0  # the oldest was forgotten
