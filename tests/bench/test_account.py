"""What became of pushes: `bench.load.samples`."""

from array import array

from bench.load.samples import (
    DATA_MISSING,
    DATA_RIGHT,
    DATA_WRONG,
    Account,
    Arrivals,
    Pushes,
    account,
    account_returned,
    newest_accepted,
)


def accounted(pushes: list[tuple[int, int, int]], arrivals: list[tuple[int, int]], gone: list[int]) -> Account:
    """Pushes as (channel, version, status), arrivals as (channel, version); all take 5 microseconds."""
    sent, got = Pushes(), Arrivals(gone=array("I", gone))
    for channel, version, status in pushes:
        sent.channels.append(channel)
        sent.versions.append(version)
        sent.statuses.append(status)
    for channel, version in arrivals:
        got.channels.append(channel)
        got.versions.append(version)
        got.times.append(version + 5)
    return account(sent, got)


def pushed(*rows: tuple[int, int, int]) -> Pushes:
    """Pushes as (channel, version, status)."""
    channels, versions, statuses = (
        array(code, column) for code, column in zip("IqH", zip(*rows, strict=True), strict=True)
    )
    return Pushes(channels, versions, statuses, array("I", [5] * len(rows)))


def arrived(*rows: tuple[int, int, int]) -> Arrivals:
    """Arrivals as (channel, version, DATA_...)."""
    result = Arrivals()
    for channel, version, data in rows:
        result.channels.append(channel)
        result.versions.append(version)
        result.times.append(version + 7)
        result.data.append(data)
    return result


def test_every_push_is_accounted_for() -> None:
    pushes = [(1, 10, 200), (1, 11, 202), (1, 12, 200), (2, 13, 200), (3, 14, 202), (4, 15, 503), (5, 16, 0)]
    arrivals = [(1, 12), (1, 10), (1, 10), (4, 15), (9, 99)]
    result = accounted(pushes, arrivals, gone=[3])
    assert result.fields() == {
        "sent": 7,
        "statuses": {0: 1, 200: 3, 202: 2, 503: 1},
        "delivered": 2,
        "stored": 0,
        "lost": 1,  # channel 2
        "superseded": 1,  # version 11
        "undelivered": 1,  # channel 3
        "duplicates": 1,
        "reordered": 1,
        "unexpected": 1,
        "refused": 1,
        "unanswered": 1,
        "refused_but_arrived": 1,
        "wrong_data": 0,
    }
    assert list(result.latencies) == [5, 5, 5]
    assert not result.clean
    assert accounted([(1, 10, 200)], [(1, 10)], gone=[]).clean


def test_an_accepted_push_that_was_never_overtaken_is_lost() -> None:
    assert accounted([(1, 10, 200), (1, 11, 200)], [(1, 11)], gone=[]).lost == 1
    assert accounted([(1, 10, 202)], [], gone=[]).lost == 1


def test_what_is_stored_for_devices_that_are_away() -> None:
    # two channels a device; devices 2 and 3 (channels 4 to 7) are away
    pushes = pushed((0, 10, 200), (5, 11, 202), (5, 12, 202), (5, 13, 503), (6, 14, 200), (7, 15, 0), (3, 16, 202))
    found = account(pushes, arrived((0, 10, DATA_RIGHT), (3, 16, DATA_MISSING)), channels=2, away=range(2, 4))
    assert (found.sent, found.delivered, found.stored, found.superseded) == (7, 2, 2, 1)
    assert (found.refused, found.unanswered, found.lost, found.undelivered) == (1, 1, 0, 0)
    assert found.clean


def test_a_device_that_is_gone_has_all_its_channels_gone() -> None:
    pushes = pushed((4, 10, 200), (5, 11, 200), (6, 12, 200))
    arrivals = arrived()
    arrivals.gone.append(2)
    found = account(pushes, arrivals, channels=2)
    assert (found.undelivered, found.lost) == (2, 1)


def test_data_that_is_wrong_or_not_there() -> None:
    pushes = pushed((0, 10, 200), (1, 11, 200), (2, 12, 202), (3, 13, 202), (4, 14, 200))
    arrivals = arrived(
        (0, 10, DATA_RIGHT), (1, 11, DATA_MISSING), (2, 12, DATA_MISSING), (3, 13, DATA_WRONG), (4, 14, DATA_WRONG)
    )
    found = account(pushes, arrivals)
    assert found.wrong_data == 3 and found.delivered == 5 and not found.clean


def test_what_devices_get_when_they_come_back() -> None:
    runs = [
        pushed((0, 10, 202), (1, 11, 202), (2, 12, 202), (9, 13, 202)),
        pushed((0, 20, 202), (1, 21, 0), (3, 22, 503), (2, 23, 202)),
    ]
    devices = frozenset(range(4))
    assert newest_accepted(runs, 1, devices) == {0: 20, 1: 11, 2: 23}

    def back(*arrivals: tuple[int, int]) -> dict[str, int]:
        got = arrived(*((channel, version, DATA_RIGHT) for channel, version in arrivals))
        returned = account_returned(runs, got, channels=1, devices=devices)
        fields = returned.fields()
        assert returned.clean == (fields == {**fields, "missing": 0, "older": 0, "duplicates": 0, "unexpected": 0})
        return {name: count for name, count in fields.items() if count}

    assert back((0, 20), (1, 11), (2, 23)) == {"expected": 3, "arrived": 3}
    # not answered, or refused, but stored all the same
    assert back((0, 20), (1, 21), (2, 23), (3, 22)) == {"expected": 3, "arrived": 3}
    assert back((0, 20), (1, 11)) == {"expected": 3, "arrived": 2, "missing": 1}
    assert back((0, 10), (1, 11), (2, 23)) == {"expected": 3, "arrived": 2, "missing": 1, "older": 1}
    assert back((0, 10), (0, 20), (1, 11), (2, 23)) == {"expected": 3, "arrived": 3, "older": 1}
    assert back((0, 20), (0, 20), (1, 11), (2, 23)) == {"expected": 3, "arrived": 3, "duplicates": 1}
    assert back((0, 20), (1, 11), (2, 23), (2, 99)) == {"expected": 3, "arrived": 3, "unexpected": 1}


def test_webpush_keeps_every_message() -> None:
    # devices 2 and 3 are away; 201 says only that a message was taken
    pushes = pushed((0, 10, 201), (0, 11, 201), (2, 12, 201), (2, 13, 201), (3, 14, 503), (1, 15, 201))
    arrivals = arrived((0, 11, DATA_RIGHT), (1, 15, DATA_MISSING))
    found = account(pushes, arrivals, away=range(2, 4), keeps_all=True)
    assert (found.sent, found.delivered, found.stored, found.superseded) == (6, 2, 2, 0)
    assert (found.lost, found.refused, found.wrong_data) == (1, 1, 1)
    devices = frozenset({2, 3})

    def back(*arrivals: tuple[int, int]) -> dict[str, int]:
        got = arrived(*((channel, version, DATA_RIGHT) for channel, version in arrivals))
        fields = account_returned([pushes], got, channels=1, devices=devices, keeps_all=True).fields()
        return {name: count for name, count in fields.items() if count}

    assert back((2, 12), (2, 13)) == back((2, 13), (2, 12)) == {"expected": 2, "arrived": 2}
    assert back((2, 13), (3, 14)) == {"expected": 2, "arrived": 1, "missing": 1}
    assert back((2, 12), (2, 13), (2, 12)) == {"expected": 2, "arrived": 2, "duplicates": 1}
    assert back((2, 12), (2, 13), (2, 99)) == {"expected": 2, "arrived": 2, "unexpected": 1}
