"""Since when the devices of a worker are attached, which costs nothing for each."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farm.dialects import Attach
from farm.worker import ages
from farm.worker.ages import MAX_MARKS, REMEMBER_MS, STRETCH_MS, Ages
from farm.worker.attachments import Attachments
from farm.worker.backpressure import Backpressure
from farm.worker.connection import OPEN, Connection
from farm.worker.routes import Routes
from router.common import messages as m
from router.common.histogram import Histogram


def key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def held(table: Ages) -> dict[bytes, int]:
    """What it announces: each key's time, in order."""
    found = {}
    for keys, runs in table.held():
        assert 0 < len(keys) <= m.ANNOUNCE_CHUNK
        assert sum(several for several, _ in runs) == len(keys)
        times = [since for several, since in runs for _ in range(several)]
        found.update(zip(keys, times, strict=True))
    return found


def connection() -> Connection:
    return Connection(7, 0, 0.0)


@given(
    st.lists(st.tuples(st.integers(0, 8), st.one_of(st.none(), st.integers(-STRETCH_MS, 4 * STRETCH_MS))), max_size=40)
)
def test_each_device_is_announced_with_its_time_in_the_order_in_which_they_came(
    steps: list[tuple[int, int | None]],
) -> None:
    table = Ages()
    model: dict[bytes, tuple[Connection, int]] = {}
    now = 1_000_000
    for number, later in steps:
        if later is None:
            table.devices.pop(key(number), None)
            model.pop(key(number), None)
            continue
        now += later
        comes = connection()
        before = table.put(key(number), comes, now)
        assert before is model.pop(key(number), (None, 0))[0]
        model[key(number)] = (comes, now)
    assert len(table) == len(model)
    found = held(table)
    assert list(found) == list(model)
    for name, (who, since) in model.items():
        assert table.devices[name] is who
        assert 0 <= since - found[name] < STRETCH_MS


def test_many_are_announced_in_parts_and_their_times_stay_with_them() -> None:
    table = Ages()
    for number in range(2 * m.ANNOUNCE_CHUNK + 10):
        table.put(key(number), connection(), 10_000 + number // 100 * STRETCH_MS)
    assert [len(keys) for keys, _ in table.held()] == [m.ANNOUNCE_CHUNK, m.ANNOUNCE_CHUNK, 10]
    assert held(table) == {
        key(number): 10_000 + number // 100 * STRETCH_MS for number in range(2 * m.ANNOUNCE_CHUNK + 10)
    }


def test_what_came_long_ago_is_announced_so_and_has_no_marks() -> None:
    table = Ages()
    for number in range(10):
        table.put(key(number), connection(), 1000 + number * STRETCH_MS)
    late = 1000 + 4 * STRETCH_MS + REMEMBER_MS
    table.put(key(10), connection(), late)
    found = held(table)
    assert [found[key(number)] for number in range(11)] == [0] * 4 + [1000 + n * STRETCH_MS for n in range(4, 10)] + [
        late
    ]
    assert len(table.devices) - len(table) == 7
    for number in range(MAX_MARKS + 100):
        table.put(key(11), connection(), late + number * STRETCH_MS % REMEMBER_MS)
    assert len(table.devices) - len(table) <= MAX_MARKS
    assert ages._MARK not in [table.devices[name] for name in held(table)]


def opened() -> Connection:
    made = connection()
    made.phase = OPEN
    return made


def test_in_a_cluster_times_are_those_of_a_clock_that_hosts_have_in_common() -> None:
    times = [1_700_000_000.25, 1_699_999_999.5, 1_699_999_999.6]  # it may be set back
    sent: list[m.Call] = []
    waiting = Backpressure(Routes(), lambda connection: None)
    took = Histogram()
    attachments = Attachments(sent.append, lambda: times[len(sent)], waiting, took)
    for number in range(2):
        attachments.call(opened(), Attach(key(number), "", 0, None))
        attachments.replied(sent[-1].number, m.OK)
    requests = [one.request for one in sent]
    assert [one.since for one in requests if isinstance(one, m.Attach)] == [1_700_000_000_250, 1_699_999_999_500]
    ((keys, runs),) = attachments.held(0)
    assert (keys, runs) == ([key(0), key(1)], [(1, 1_700_000_000_250), (1, 1_699_999_999_500)])
    assert took.counts[0] == 1 and took.sum == pytest.approx(0.1)  # a sum that falls is a restart to Prometheus
