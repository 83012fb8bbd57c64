"""The last log events of a farm: what is kept of them, how many, and how they come from other processes."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import trio

from farm.supervisor.log_socket import LogSocket, copy_events
from farm.supervisor.recent_events import RecentEvents
from router.common import logs


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    root, farm = logging.getLogger(), logging.getLogger("farm")
    before = (list(root.handlers), root.level, farm.level, logging.raiseExceptions)
    yield
    logs._copied.clear()
    root.handlers[:], farm.level = before[0], before[2]
    root.setLevel(before[1])
    logging.raiseExceptions = before[3]


def line(event: str, level: str = "info", **fields: object) -> bytes:
    return msgspec.json.encode({"time": "2026-01-31T12:00:00.250Z", "level": level, "event": event, **fields})


def names(found: Any) -> list[str]:
    return [event["event"] for event in found["events"]]


def test_an_event_as_it_is_shown() -> None:
    events = RecentEvents()
    events.add(line("worker.joined", process="router", router=2, shard=1, links=["a", 1]))
    events.add(line("farm.ready", process="farm", workers=2))
    first, second = events.after()["events"]
    assert first == {
        "number": 1,
        "time": "2026-01-31T12:00:00.250Z",
        "level": "info",
        "event": "worker.joined",
        "process": "router 2",
        "fields": {"shard": 1, "links": "a 1"},
    }
    assert (second["number"], second["process"], second["fields"]) == (2, "supervisor", {"workers": 2})


def test_only_what_has_come_since_and_the_newest_of_it() -> None:
    events = RecentEvents()
    for number in range(10):
        events.add(line(f"e{number}", "warning" if number % 2 else "info"))
    assert names(events.after(7)) == ["e7", "e8", "e9"]
    assert names(events.after(2, limit=2)) == ["e8", "e9"]
    assert names(events.after(0, levels=frozenset(("warning", "error")))) == ["e1", "e3", "e5", "e7", "e9"]
    assert events.after(10) == {"last": 10, "events": []}
    assert events.after(500)["last"] == 10
    assert names(events.after(limit=0)) == []


def test_a_flood_of_info_does_not_push_out_what_went_wrong() -> None:
    events = RecentEvents(kept=5)
    events.add(line("process.died", "error"))
    for number in range(100):
        events.add(line(f"e{number}"))
    assert names(events.after()) == ["process.died", "e95", "e96", "e97", "e98", "e99"]
    assert events.after()["last"] == 101


def test_an_event_has_a_bounded_size() -> None:
    events = RecentEvents()
    events.add(line("e", text="x" * 50_000, **{f"f{number}": number for number in range(1000)}))
    assert len(msgspec.json.encode(events.after())) < 3000


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"1", b'{"time":', b"null"])
def test_what_is_no_event_is_passed_over(data: bytes) -> None:
    events = RecentEvents()
    events.add(data)
    assert events.after() == {"last": 0, "events": []}


def test_events_of_another_process_come_through_the_socket_whatever_the_log_shows(
    capfd: pytest.CaptureFixture[str],
) -> None:
    events, pair = RecentEvents(), LogSocket()
    copy_events(os.dup(pair.theirs.fileno()))
    logs.setup("text", "warning", process="worker", shard=3)
    logs.debug("quiet")
    logs.event("listening", text="a\nb")
    logging.getLogger("a.library").info("nothing")
    logs.error("broken", ValueError("<b>"))

    async def receive() -> None:
        with trio.move_on_after(20) as scope:

            def take(data: bytes) -> None:
                events.add(data)
                if events.after()["last"] == 2:
                    scope.cancel()

            await pair.run(take)

    trio.run(receive)
    pair.close()
    first, second = events.after()["events"]
    assert (first["event"], first["process"], first["fields"]) == ("listening", "worker 3", {"text": "a\nb"})
    assert (second["event"], second["level"], second["fields"]["error"]) == ("broken", "error", "ValueError: <b>")
    written = capfd.readouterr().err
    assert "broken" in written
    assert "listening" not in written


def test_of_a_flood_of_info_events_a_few_come_and_every_warning() -> None:
    taken: list[str] = []
    logs.copy_to(lambda line: taken.append(msgspec.json.decode(line)["event"]))
    logs.setup("text", "error")
    for _ in range(1000):
        logs.event("device.ended")
    for _ in range(100):
        logs.warning("odd")
    assert 50 <= taken.count("device.ended") < 1000
    assert taken.count("odd") == 100


def test_a_supervisor_that_does_not_read_holds_nobody_up() -> None:
    pair = LogSocket()
    copy_events(os.dup(pair.theirs.fileno()))
    logs.setup("text", "error", process="worker", shard=3)
    for _ in range(5000):
        logs.event("listening", text="x" * 1000)
    pair.close()
    logs.event("listening")
