"""What a worker and a router of the version before understand of messages that are new or have another form."""

import msgspec
import pytest

from router.common import messages as m
from router.common.position import LogEvent
from router.common.wire import WIRES

OLD = WIRES[4]
KEY, OTHER = b"k" * 16, b"o" * 16
EVENT = LogEvent(3, 1_700_000_000, 1, 1_700_003_600, "id", {"type": "t"}, "body")


def on_the_wire(envelope: m.Envelope) -> list[object]:
    (message,) = msgspec.msgpack.decode(OLD.encode(envelope))[2]
    found: list[object] = message
    return found


@pytest.mark.parametrize(
    ("message", "raw", "understood"),
    [
        (m.Subscribe(KEY, "a\0b\0c"), [23, 0, KEY, -1, "a\0b\0c"], m.Subscribe(KEY, "a\0b\0c")),
        (m.Call(7, m.Subscribe(KEY, "")), [23, 7, KEY, -1, ""], m.Call(7, m.Subscribe(KEY, ""))),
        (m.Call(8, m.ReadLog(KEY, (1, 1))), [23, 8, KEY, -1, ""], m.Call(8, m.Subscribe(KEY, ""))),
        (m.Call(9, m.Take("s", KEY, OTHER)), [23, 9, KEY, -1, ""], m.Call(9, m.Subscribe(KEY, ""))),
        (m.Call(9, m.Invoke("talk", KEY, b"a")), [23, 9, KEY, -1, ""], m.Call(9, m.Subscribe(KEY, ""))),
    ],
)
def test_of_a_worker(message: m.ToRouter, raw: list[object], understood: m.Message) -> None:
    batch = m.WorkerBatch(1, [message])
    assert on_the_wire(batch) == raw
    found = OLD.of_worker(OLD.encode(batch), 10_000)
    assert found == m.WorkerBatch(1, [understood])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("message", "raw", "understood"),
    [
        (m.Event(KEY, "body", "1.2"), [44, KEY, 0, "body", "1.2"], m.Event(KEY, "body", "1.2")),
        (m.LoggedEvent(KEY, 5, EVENT, ""), [44, KEY, 0, "body", ""], m.Event(KEY, "body", "")),
        (m.Terminate(KEY, 4009, "x"), [47, KEY, 4009, "x"], m.Terminate(KEY, 4009, "x")),
    ],
)
def test_of_a_router(message: m.ToWorker, raw: list[object], understood: m.Message) -> None:
    batch = m.RouterBatch(1, [message], [2])
    assert on_the_wire(batch) == raw
    assert OLD.of_router(OLD.encode(batch), 10_000) == m.RouterBatch(1, [understood], [2])  # type: ignore[list-item]


def test_a_read_of_the_version_before_is_a_call_that_fails() -> None:
    batch = OLD.of_worker(msgspec.msgpack.encode([2, 1, [[37, 5, "pusher.cache", KEY]]]), 10_000)
    assert isinstance(batch, m.WorkerBatch)
    (found,) = batch.messages
    assert isinstance(found, m.Malformed)
    assert found.number == 5
