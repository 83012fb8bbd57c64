"""Pings of devices of the bench, and what becomes of them: `bench.load.pings`."""

from bench.load.pings import Pings


def test_each_device_has_its_turn_once_an_interval() -> None:
    pings = Pings(10.0, 5.0, 0.0)
    assert list(pings.turns(0, 3.0)) == []
    assert list(pings.turns(4, 3.0)) == [], "the time begins with the first device"
    turns = [number for now in range(4, 14) for number in pings.turns(4, float(now))]
    assert sorted(turns) == [0, 1, 2, 3]
    assert len(list(pings.turns(4, 1000.0))) == 4, "what was missed is not made up for"


def test_what_becomes_of_pings() -> None:
    pings = Pings(1.0, 5.0, 0.0)
    for device in range(5):
        pings.ping(device, float(device))
    pings.pong(0)
    pings.pong(0)  # nobody asked
    pings.gone(1, cut=True)
    pings.gone(2, cut=False)
    pings.expire(8.0)
    assert pings.since_last() == {"sent": 5, "answered": 1, "overdue": 2, "cut": 1, "outstanding": 1}
    assert set(pings.turns(5, 100.0)) == {0, 1, 2, 3}, "4 still owes an answer"
    pings.pong(4)
    assert pings.since_last() == {"sent": 0, "answered": 1, "overdue": 0, "cut": 0, "outstanding": 0}
