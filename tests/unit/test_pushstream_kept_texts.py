"""Push stream keeps the texts of events that many read from a log: each is that of the event, and only so many."""

import json
import sys

from support.pushstream_shard import logged, made


def test_no_event_has_the_text_of_another() -> None:
    dialect = made()
    first = logged(1, "first")
    others = (first._replace(body="2nd"), first._replace(tag=7), first._replace(id="x"), first._replace(time=5))
    for event in (first, *others, first, first._replace(headers={"id": "9"}), first._replace(headers={"type": "t"})):
        said = json.loads(dialect.event_text("a", event))
        assert said["text"] == event.body and said["tag"] == str(event.tag) and said["eventid"] == event.id
        assert said["id"] == int(event.headers.get("id", 1)) and said["channel"] == "a"
    assert json.loads(dialect.event_text("b", first))["channel"] == "b"


def test_an_equal_event_is_not_written_again() -> None:
    dialect = made()
    once = dialect.event_text("a", logged(1, "x"))
    assert dialect.event_text("a", logged(1, "x")) is once


def test_what_is_kept_has_a_limit() -> None:
    dialect = made()
    for number in range(5_000):
        dialect.event_text("a", logged(number + 1, "x" * 1_000))
        dialect.event_text("b", logged(number + 1, "x" * 5_000))  # too long to be kept
    kept = [text for _, text in dialect._texts.values()]
    assert 0 < len(kept) <= 256 and sum(map(sys.getsizeof, kept)) < 600_000
