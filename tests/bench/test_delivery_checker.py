"""The check of pushes to devices that come and go: `bench.runs.delivery_checker`."""

import pytest
from support.bench import SECOND, absences, arrivals, pushes

from bench.load.samples import DATA_MISSING, DATA_RIGHT, DATA_WRONG
from bench.runs.delivery_checker import MEMORY_SECONDS, DeliveryChecker


@pytest.mark.parametrize(
    ("sent", "came", "away", "counts"),
    [
        ([(1, 10, 200)], [(1, 10, 11)], [], {"delivered": 1}),
        ([(1, 10, 200)], [], [], {"lost": 1}),
        ([(1, 10, 202)], [], [], {"lost": 1}),
        ([(1, 10, 202)], [], [(1, 9, None)], {"stored": 1}),
        ([(1, 10, 202)], [(1, 10, 21)], [(1, 9, 20)], {"delivered": 1}),
        ([(1, 10, 202)], [], [(1, 9, 20)], {"lost": 1}),
        # the newest of a channel stands for those before it, if the device was away
        ([(1, 10, 202), (1, 11, 202)], [(1, 11, 21)], [(1, 9, 20)], {"delivered": 1, "superseded": 1}),
        ([(1, 10, 200), (1, 12, 202)], [(1, 12, 21)], [(1, 11, 20)], {"delivered": 1, "superseded": 1}),
        ([(1, 10, 200), (1, 12, 200)], [(1, 12, 13)], [], {"delivered": 1, "lost": 1}),
        ([(1, 10, 202), (1, 12, 200)], [(1, 12, 13)], [], {"delivered": 1, "superseded": 1}),
        # twice is right only when the device was away in between
        ([(1, 10, 200)], [(1, 10, 11), (1, 10, 21)], [(1, 12, 20)], {"delivered": 1, "resent": 1}),
        ([(1, 10, 200)], [(1, 10, 11), (1, 10, 12)], [], {"delivered": 1, "duplicates": 1}),
        ([(1, 10, 200)], [(1, 10, 21), (1, 10, 22)], [(1, 9, 20)], {"delivered": 1, "duplicates": 1}),
        ([(1, 10, 503), (2, 11, 0)], [], [], {"refused": 1, "unanswered": 1}),
        ([(1, 10, 0)], [(1, 10, 11)], [], {"unanswered": 1, "refused_but_arrived": 1}),
        ([], [(1, 10, 11)], [], {"unexpected": 1}),
        ([], [(1, 3, 11)], [], {"resent": 1}),  # from before the check began
    ],
)
def test_the_checker_judges_devices_that_come_back(
    sent: list[tuple[int, int, int]],
    came: list[tuple[int, int, int]],
    away: list[tuple[int, int, int | None]],
    counts: dict[str, int],
) -> None:
    checker = DeliveryChecker(grace=5, since=5 * SECOND)
    checker.absences(absences(*away))
    checker.pushed(pushes(*sent))
    checker.arrived(arrivals(*came))
    checker.settle(100 * SECOND)
    fields = checker.fields()
    assert fields.pop("statuses") == {str(status): [row[2] for row in sent].count(status) for _, _, status in sent}
    bad = {"lost", "duplicates", "unexpected", "wrong_data"}
    assert fields.pop("clean") == (not bad & counts.keys())
    assert fields == {**dict.fromkeys(fields, 0), "sent": len(sent), **counts}
    total = sum(fields[name] for name in ("delivered", "superseded", "refused", "unanswered", "lost", "stored"))
    assert total == fields["sent"]


def test_the_checker_waits_for_the_time_of_grace() -> None:
    checker = DeliveryChecker(channels=2, grace=5)
    checker.absences(absences((1, 10, 30)))
    checker.pushed(pushes((3, 20, 202)))
    checker.settle(34 * SECOND)
    assert checker.open == 1 and checker.owed() == {1} and checker.clean
    checker.settle(36 * SECOND)
    assert checker.counts["lost"] == 1 and checker.owed() == {1} and not checker.clean


def test_the_checker_tells_missed_messages_from_live_ones() -> None:
    checker = DeliveryChecker()
    checker.absences(absences((1, 10, 30)))
    checker.pushed(pushes((1, 9, 200), (1, 20, 202), (2, 20, 200), (1, 31, 200)))
    checker.arrived(arrivals((1, 9, 9), (2, 20, 21), (1, 20, 33), (1, 31, 33)))
    assert list(checker.live) == [0, 1 * SECOND, 2 * SECOND]
    assert list(checker.waited) == [3 * SECOND] and checker.complete == {1: 33 * SECOND}


def test_the_checker_forgets_what_is_old() -> None:
    checker = DeliveryChecker()
    for second in range(1, 4000, 10):
        checker.absences(absences((1, second, second + 1)))
        checker.pushed(pushes((1, second + 2, 200), (2, second + 2, 503)))
        checker.arrived(arrivals((1, second + 2, second + 3)))
        checker.settle((second + 5) * SECOND)
    kept = 2 * MEMORY_SECONDS // 10 + 2
    assert len(checker._arrived) <= kept and len(checker._refused) <= kept and len(checker._backs[1]) <= kept
    checker.arrived(arrivals((1, 3, 5000)))
    assert checker.counts["resent"] == 1 and checker.clean


def test_wrong_data_is_wrong_unless_it_was_stored() -> None:
    checker = DeliveryChecker()
    checker.absences(absences((2, 5, 20)))
    checker.pushed(pushes((1, 10, 200), (1, 11, 200), (2, 10, 202), (1, 12, 200)))
    came = arrivals((1, 10, 11), (1, 11, 12), (2, 10, 21), (1, 12, 13))
    came.data.extend([DATA_WRONG, DATA_MISSING, DATA_MISSING, DATA_RIGHT])
    checker.arrived(came)
    assert checker.counts["wrong_data"] == 2 and checker.counts["delivered"] == 4
