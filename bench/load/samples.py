"""From raw samples to figures: how fast devices came up, and which push arrived. Pure."""

from array import array
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

STEADY: Final = (0.25, 0.75)
DELIVERED: Final = 200
TAKEN: Final = 201
"""Delivered or stored: the answer does not distinguish them."""
STORED: Final = 202
ACCEPTED: Final = frozenset({DELIVERED, TAKEN, STORED})
NO_ANSWER: Final = 0
DATA_RIGHT: Final = 0
DATA_MISSING: Final = 1
DATA_WRONG: Final = 2
_CHANNEL_BITS: Final = 32


def rates(completions: Iterable[float], start: float) -> tuple[float, float]:
    """Completions a second, overall since `start` and in the middle half of them; 0 where there are too few."""
    ordered = sorted(completions)
    if not ordered:
        return 0.0, 0.0
    low, high = (int(len(ordered) * part) for part in STEADY)
    overall = len(ordered) / (ordered[-1] - start) if ordered[-1] > start else 0.0
    span = ordered[high] - ordered[low] if high > low else 0.0
    return overall, (high - low) / span if span > 0 else 0.0


@dataclass(slots=True)
class Pushes:
    """Every push of a run, column by column; times in microseconds of CLOCK_MONOTONIC."""

    channels: "array[int]" = field(default_factory=lambda: array("I"))
    versions: "array[int]" = field(default_factory=lambda: array("q"))
    statuses: "array[int]" = field(default_factory=lambda: array("H"))
    times: "array[int]" = field(default_factory=lambda: array("I"))


@dataclass(slots=True)
class Arrivals:
    """Every update that a device received in a run, and the devices that lost their connection in it. `data`: a
    DATA_... for each update, empty where no device looked at it."""

    channels: "array[int]" = field(default_factory=lambda: array("I"))
    versions: "array[int]" = field(default_factory=lambda: array("q"))
    times: "array[int]" = field(default_factory=lambda: array("q"))
    gone: "array[int]" = field(default_factory=lambda: array("I"))
    data: "array[int]" = field(default_factory=lambda: array("B"))


@dataclass(slots=True)
class Account:
    """What became of the pushes of a run: sent = delivered + stored + superseded + undelivered + refused +
    unanswered + lost.

    `delivered`: accepted, and it arrived. `stored`: accepted for a device that is away, and the newest of its channel.
    `superseded`: it was stored, and a newer version of its channel took its place. `undelivered`: its device lost its
    connection in the run, so it waits in the store. `lost`: accepted, its device was connected all the time, and
    neither it nor (after a 202) a newer version of its channel arrived. `refused` had an answer other than 200, 201 or
    202, `unanswered` none; `refused_but_arrived` are those of the two that arrived all the same. `unexpected` arrived
    and were never sent. `wrong_data`: arrived with data that is not what was sent, or without it after a 200 or 201
    (what a 202 stored comes without).
    """

    sent: int
    statuses: dict[int, int]
    delivered: int
    stored: int
    lost: int
    superseded: int
    undelivered: int
    refused: int
    unanswered: int
    duplicates: int
    reordered: int
    unexpected: int
    refused_but_arrived: int
    wrong_data: int
    latencies: "array[int]"

    def fields(self) -> dict[str, Any]:
        """All but the samples, for JSON."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "latencies"}

    @property
    def clean(self) -> bool:
        return not (self.lost or self.duplicates or self.unexpected or self.wrong_data)


def account(
    pushes: Pushes,
    arrivals: Arrivals,
    *,
    channels: int = 1,
    away: range = range(0),
    gone: Collection[int] = (),
    keeps_all: bool = False,
) -> Account:
    """Match every push with its arrival by channel and version. `channels`: how many a device has, so that channel
    number // channels is the device's; `away`: the numbers of the devices that are not connected; `gone`: of those
    that lost their connection before the run, beside those that the arrivals name; `keeps_all`: no message takes the
    place of another."""
    sent = {
        version << _CHANNEL_BITS | channel: status
        for channel, version, status in zip(pushes.channels, pushes.versions, pushes.statuses, strict=True)
    }
    seen: set[int] = set()
    newest: dict[int, int] = {}
    delivered = duplicates = reordered = unexpected = refused = wrong = 0
    latencies = array("q")
    for index, (channel, version, time) in enumerate(
        zip(arrivals.channels, arrivals.versions, arrivals.times, strict=True)
    ):
        push = version << _CHANNEL_BITS | channel
        status = sent.get(push)
        if status is None:
            unexpected += 1
            continue
        if push in seen:
            duplicates += 1
            continue
        seen.add(push)
        if version < newest.get(channel, 0):
            reordered += 1
        else:
            newest[channel] = version
        if status in ACCEPTED:
            delivered += 1
        else:
            refused += 1
        latencies.append(time - version)
        if arrivals.data and (data := arrivals.data[index]) != DATA_RIGHT:
            wrong += data == DATA_WRONG or status in (DELIVERED, TAKEN)
    waiting = newest_accepted((pushes,), channels, away)
    gone = {*arrivals.gone, *gone}
    lost = stored = superseded = undelivered = 0
    for push, status in sent.items():
        if status not in ACCEPTED or push in seen:
            continue
        channel, version = push & (1 << _CHANNEL_BITS) - 1, push >> _CHANNEL_BITS
        device = channel // channels
        if device in away:
            waits = keeps_all or version == waiting[channel]
            stored += waits
            superseded += not waits
        elif status == STORED and newest.get(channel, 0) > version:
            superseded += 1
        elif device in gone:
            undelivered += 1
        else:
            lost += 1
    statuses = Counter(pushes.statuses)
    accepted = sum(statuses[status] for status in ACCEPTED)
    return Account(
        sent=len(pushes.statuses),
        statuses=dict(sorted(statuses.items())),
        delivered=delivered,
        stored=stored,
        lost=lost,
        superseded=superseded,
        undelivered=undelivered,
        refused=len(pushes.statuses) - accepted - statuses[NO_ANSWER],
        unanswered=statuses[NO_ANSWER],
        duplicates=duplicates,
        reordered=reordered,
        unexpected=unexpected,
        refused_but_arrived=refused,
        wrong_data=wrong,
        latencies=latencies,
    )


def newest_accepted(runs: Iterable[Pushes], channels: int, devices: range | frozenset[int]) -> dict[int, int]:
    """The newest version that was accepted for each channel of these devices."""
    newest: dict[int, int] = {}
    for pushes in runs:
        for channel, version, status in zip(pushes.channels, pushes.versions, pushes.statuses, strict=True):
            if status in ACCEPTED and channel // channels in devices and version > newest.get(channel, 0):
                newest[channel] = version
    return newest


def owed(
    runs: Iterable[Pushes], channels: int, devices: range | frozenset[int], keeps_all: bool = False
) -> set[tuple[int, int]]:
    """What these devices have to get when they come back, as (channel, version): the newest accepted version of each
    channel, or all that was accepted."""
    if not keeps_all:
        return set(newest_accepted(runs, channels, devices).items())
    return {
        (channel, version)
        for pushes in runs
        for channel, version, status in zip(pushes.channels, pushes.versions, pushes.statuses, strict=True)
        if status in ACCEPTED and channel // channels in devices
    }


@dataclass(slots=True)
class Returned:
    """What devices that had been away got when they came back. `expected`: what was owed to them (see `owed`);
    `arrived`: what of it came, or a newer version of its channel where that takes its place; `missing`: the rest;
    `older`: versions that came though a newer one had taken their place; `duplicates`: the same one twice;
    `unexpected`: never sent."""

    expected: int
    arrived: int
    missing: int
    older: int
    duplicates: int
    unexpected: int

    def fields(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def clean(self) -> bool:
        return not (self.missing or self.older or self.duplicates or self.unexpected)


def account_returned(
    runs: list[Pushes], arrivals: Arrivals, *, channels: int, devices: frozenset[int], keeps_all: bool = False
) -> Returned:
    """Match what was accepted for these devices while they were away with what they got. A push that was not
    answered, or refused, may have been stored all the same: newer than what was accepted is as good."""
    expected = owed(runs, channels, devices, keeps_all)
    least = {} if keeps_all else dict(expected)
    sent = {
        (channel, version)
        for pushes in runs
        for channel, version in zip(pushes.channels, pushes.versions, strict=True)
        if channel // channels in devices
    }
    seen: set[tuple[int, int]] = set()
    newest: dict[int, int] = {}
    older = duplicates = unexpected = 0
    for channel, version in zip(arrivals.channels, arrivals.versions, strict=True):
        if (channel, version) not in sent:
            unexpected += 1
        elif (channel, version) in seen:
            duplicates += 1
        else:
            older += version < least.get(channel, 0)
            newest[channel] = max(version, newest.get(channel, 0))
        seen.add((channel, version))
    if keeps_all:
        arrived = len(expected & seen)
    else:
        arrived = sum(newest.get(channel, 0) >= version for channel, version in expected)
    return Returned(len(expected), arrived, len(expected) - arrived, older, duplicates, unexpected)
