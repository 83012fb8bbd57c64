"""What became of events to many subscribers: `bench.runs.deliveries`."""

from array import array

import pytest

from bench.load.shared_counts import SharedCounts, numbers_in
from bench.machine.usage import Usage, Use
from bench.runs.app_servers import Outcome
from bench.runs.deliveries import cpu_a_million, deliveries_of
from bench.runs.subscribers import Tally


def outcome(*rows: tuple[int, int, int]) -> Outcome:
    """Events as (channel, version, status)."""
    found = Outcome(start=1)
    for channel, version, status in rows:
        found.pushes.channels.append(channel)
        found.pushes.versions.append(version)
        found.pushes.statuses.append(status)
        found.pushes.times.append(3)
    return found


def tally(*rows: tuple[int, int, int, int, int], gone: tuple[tuple[int, int], ...] = ()) -> Tally:
    """Arrivals as (channel, version, count, first, last)."""
    columns = (
        [array(code, column) for code, column in zip("IqIqq", zip(*rows, strict=True), strict=True)] if rows else []
    )
    columns = columns or [array(code) for code in "IqIqq"]
    columns += [array("I", [0, 0]), array("I", [channel for channel, _ in gone])]
    columns.append(array("q", [version for _, version in gone]))
    found = Tally(array("I", [0, 0]))
    found.add([column.tobytes() for column in columns], {"duplicates": 0})
    return found


def test_the_deliveries_of_events() -> None:
    sent = outcome((0, 10, 200), (1, 20, 200), (0, 30, 200), (0, 40, 401), (1, 50, 0), (0, 60, 200))
    got = tally((0, 10, 3, 12, 15), (1, 20, 1, 22, 23), (0, 30, 2, 33, 36), (1, 50, 2, 51, 52), (0, 99, 3, 100, 101))
    deliveries = deliveries_of(sent, [3, 2], got)
    assert (deliveries.events, deliveries.expected, deliveries.delivered, deliveries.lost) == (6, 11, 6, 5)
    assert (deliveries.refused, deliveries.unanswered) == (1, 1)
    assert (deliveries.refused_but_arrived, deliveries.unexpected) == (2, 3)
    assert list(deliveries.to_first) == [2] and list(deliveries.to_last) == [5] and deliveries.last == 36
    assert deliveries.fields()["statuses"] == {200: 4, 401: 1, 0: 1}


def test_what_went_to_those_who_left_is_not_lost() -> None:
    sent = outcome((0, 10, 200), (0, 20, 200), (1, 25, 200), (0, 30, 200))
    # of three subscribers one left after the first event, and one before
    got = tally((0, 10, 2, 11, 12), (0, 20, 1, 21, 22), (1, 25, 2, 26, 27), (0, 30, 1, 31, 32), gone=((0, 10), (0, 0)))
    deliveries = deliveries_of(sent, [3, 2], got)
    assert (deliveries.expected, deliveries.delivered, deliveries.undelivered, deliveries.lost) == (11, 6, 5, 0)


def test_the_tallies_of_several_processes_are_one() -> None:
    both = tally((0, 10, 2, 12, 15))
    other = tally((0, 10, 1, 11, 14), (0, 20, 1, 21, 21))
    columns = [array(code) for code in "IqIqqIIq"]
    for (channel, version), arrived in other.events.items():
        for column, value in zip(columns, (channel, version, arrived.count, arrived.first, arrived.last), strict=False):
            column.append(value)
    columns[5].extend([1, 2])
    both.add([column.tobytes() for column in columns], {"duplicates": 2, "reordered": 1})
    first = both.events[0, 10]
    assert (first.count, first.first, first.last) == (3, 11, 15)
    assert both.events[0, 20].count == 1 and list(both.listening) == [1, 2]
    assert both.faults == {"duplicates": 2, "reordered": 1}


def test_cpu_of_a_million() -> None:
    uses = [Use("router", 1, 0.5, 0, 0), Use("workers", 2, 3.0, 0, 0), Use("workers", 3, 4.0, 0, 0)]
    uses.append(Use("load subscribers", 4, 5.0, 0, 0))
    costs = cpu_a_million(Usage(10.0, uses, 1.0), 500_000)
    assert costs == {"router": 1, "workers": 14, "load subscribers": 10, "server": 15, "load": 10, "all": 25}
    assert set(cpu_a_million(Usage(10.0, uses, 1.0), 0).values()) == {None}


def test_counts_that_processes_share() -> None:
    with SharedCounts(3) as counts:
        theirs = numbers_in(counts.path)
        theirs[1] = 7
        assert list(counts.numbers)[:3] == [0, 7, 0]
        theirs.release()
        path = counts.path
    with pytest.raises(OSError):
        numbers_in(path)
