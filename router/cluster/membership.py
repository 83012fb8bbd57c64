"""Which host has which router: decided by each host for itself, from the same snapshot of what is in Redis. Pure.

Rules
-----
- A router has a number below `Snapshot.routers`, and is on one host at a time. Each time that it is placed anew, that
  placement has a higher epoch. The highest epoch counts, whoever tells it.
- A placement lives as long as the record of its host, which the host renews several times in a lease. When that has run
  out the number is free; its host resumes it if it comes back before somebody has taken it.
- Free numbers go to the hosts with the fewest. Every host computes for all hosts who takes what, and takes what falls
  to it. Two whose snapshots differ may try to take the same number: Redis gives it to the first.
- A host that has at least two more than another gives one to it, and only while every number is ready: so one router
  moves at a time in the whole farm, and a difference of one moves nothing.
- A host that leaves gives all that it has, one after another. One that is not fit gives up all at once, and so does one
  that has been isolated for a lease: by then all hosts have said whom they do not reach.
- A host that has not beaten for a lease, or found another Redis than before, takes nobody's number for a lease: Redis
  may have been away, and the others resume their own first. What only a server has that is cut off from its replicas is
  no beat: the others may have another primary by now.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta

MAX_HOSTS: Final = 64
FREE: Final = ""
"""As the ID of a host: none."""
_ID_BYTES: Final = 8

Id = Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
_Text = Annotated[str, Meta(max_length=300, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
_Count = Annotated[int, Meta(ge=0, le=2**31 - 1)]
_Values = Annotated[tuple[_Text, ...], Meta(max_length=256)]


def new_id() -> str:
    """An ID for a host, another one with each start."""
    return secrets.token_hex(_ID_BYTES)


class Check(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """Something in which hosts have to agree: each accepts one of the values that the other offers."""

    offers: _Values
    accepts: _Values

    def agrees(self, other: Check) -> bool:
        """Whether they do."""
        return not (set(self.offers).isdisjoint(other.accepts) or set(other.offers).isdisjoint(self.accepts))


class Host(msgspec.Struct, frozen=True, gc=False):
    """What a host says of itself. A field that is not known is passed over, so that later releases may add some."""

    id: Id
    name: _Text
    address: _Text
    """host:port by which others reach its router 0, if that is there; those of all others follow."""
    key: _Text
    """Fingerprint of the cluster's key that it serves."""
    version: _Text = ""
    workers: _Count = 0
    devices: _Count = 0
    cut: Annotated[frozenset[Id], Meta(max_length=MAX_HOSTS)] = frozenset()
    """IDs of hosts to whose routers it has had no link for a lease, though it tried."""
    leaving: bool = False
    fit: bool = True
    """False: routers cannot run on it for now."""
    steady: bool = True
    """False: it was out of touch, and only resumes its own for now."""
    clock_offset: float = 0.0
    """Seconds by which Redis' clock is ahead of its own."""
    checks: Annotated[dict[_Text, Check], Meta(max_length=64)] = {}
    """By the name of a setting."""


class Member(msgspec.Struct, frozen=True, gc=False):
    """A host that lives."""

    host: Host
    age: float
    """Seconds since it was heard of last."""
    last: int
    """When that was, in milliseconds of the leases' clock."""
    since: int
    """Grows with each host that joins."""


class State(StrEnum):
    """Of a placement."""

    STARTING = "starting"
    READY = "ready"
    GIVING = "giving"


class Placement(msgspec.Struct, frozen=True, gc=False):
    """Where a router is, or was last."""

    number: int
    epoch: int
    host: str
    """An ID, or FREE."""
    state: State = State.STARTING
    to: str = FREE
    """The next host, while it is given; FREE: whoever takes it."""


class Snapshot(msgspec.Struct, frozen=True):
    """What is in Redis at one moment."""

    time: float
    """Unix seconds of Redis' clock."""
    routers: int
    """How many there are."""
    members: dict[str, Member]
    """Hosts that live, by ID."""
    placements: dict[int, Placement]
    """By number; one that is not in it was never placed."""
    steady: bool = True
    """Whether the host that asked may take what is free: see the rules."""
    cut_off: bool = False
    """Whether it has been isolated for a lease."""


class Take(NamedTuple):
    """This number is free and falls to this host."""

    number: int


class Give(NamedTuple):
    """This host is to give this number to another one."""

    number: int
    to: str
    """An ID; FREE: to whoever takes it, without waiting for other moves."""


class Mine(NamedTuple):
    """A router that runs on this host."""

    epoch: int
    ready: bool


class Duties(NamedTuple):
    """What is to be done with the processes of one host."""

    start: list[Placement]
    """They are here and do not run."""
    stop: list[int]
    """They run and are not here any more: to be ended at once."""
    hand_over: list[int]
    """They are being given: to be ended as in a reload, and reported as given when they have ended (or do not run)."""


def decide(snapshot: Snapshot, me: str) -> list[Take | Give]:
    """What the host with this ID should do now; nothing, most of the time. Each is a wish that Redis may refuse."""
    own = snapshot.members.get(me)
    able = serving(snapshot)
    if own is None or not able:
        return []
    mine = [one for one in _in_order(snapshot) if one.host == me and one.state is not State.GIVING]
    if me not in able and not own.host.leaving:
        gives = snapshot.steady and (snapshot.cut_off or not own.host.fit)
        return [Give(one.number, FREE) for one in mine] if gives else []
    counts = _counts(snapshot, able)
    free = [number for number in range(snapshot.routers) if _is_free(snapshot, number)]
    if free:
        return [Take(number) for number in _share(free, counts, me)] if me in able and snapshot.steady else []
    moving = [one for one in snapshot.placements.values() if one.state is not State.READY]
    if not mine or not snapshot.steady or any(one.state is State.GIVING or one.host != me for one in moving):
        return []
    heirs = {name: count for name, count in counts.items() if snapshot.members[name].host.steady}
    if not heirs:
        return []
    emptiest = _least(heirs)
    leaving = [one.host for one in _in_order(snapshot) if _leaves(snapshot, one.host)]
    if leaving:
        giver = min(leaving)
    else:
        giver = min(counts, key=lambda host: (-counts[host], host))
        if moving or counts[giver] - counts[emptiest] < 2:
            return []
    return [Give(mine[0].number, emptiest)] if giver == me else []


def duties(snapshot: Snapshot, me: str, running: Mapping[int, int]) -> Duties:
    """What this host has to do with its routers' processes. running: the epochs of those that run, by number."""
    mine = {number: one for number, one in snapshot.placements.items() if one.host == me}
    stop = [number for number, epoch in running.items() if number not in mine or mine[number].epoch != epoch]
    hand_over = [number for number, one in sorted(mine.items()) if one.state is State.GIVING and number not in stop]
    start = [one for number, one in sorted(mine.items()) if number not in running and one.state is not State.GIVING]
    return Duties(start if snapshot.steady else [], sorted(stop), hand_over)


def coming(snapshot: Snapshot, me: str) -> bool:
    """Whether a router is being given to this host."""
    return any(one.state is State.GIVING and one.to == me for one in snapshot.placements.values())


def serving(snapshot: Snapshot) -> set[str]:
    """IDs of the hosts to which routers may go."""
    out = isolated(snapshot)
    hosts = (one.host for one in snapshot.members.values())
    return {one.id for one in hosts if one.fit and not one.leaving and one.id not in out}


def one_for_each(snapshot: Snapshot, me: str) -> bool:
    """Whether there are as many routers as hosts that can have some, this one included: one is to come to it, then."""
    return snapshot.routers >= len(serving(snapshot) | {me})


def isolated(snapshot: Snapshot) -> set[str]:
    """IDs of the hosts without which all others reach each other: as few as possible, those with the most cut ways
    first, of equal ones that with the highest ID. So the larger side of a network that is cut in two remains, and of
    equal sides the one with the lowest ID."""
    cuts: dict[str, set[str]] = {name: set() for name in snapshot.members}
    for name, one in snapshot.members.items():
        for other in one.host.cut:
            if other in cuts and other != name:
                cuts[name].add(other)
                cuts[other].add(name)
    out: set[str] = set()
    while cuts:
        worst = max(cuts, key=lambda name: (len(cuts[name]), name))
        if not cuts[worst]:
            break
        for other in cuts.pop(worst):
            cuts[other].discard(worst)
        out.add(worst)
    return out


def disagreements(host: Host, other: Host) -> list[str]:
    """Names of what has to be the same on both and is not. What only one of them compares is of another release."""
    both = host.checks.keys() & other.checks.keys()
    return sorted(name for name in both if not host.checks[name].agrees(other.checks[name]))


class Pulse:
    """What a host has seen for a whole lease. lease: seconds; now: seconds of a clock that counts while the machine
    sleeps."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._last: float | None = None
        self._calm_from = float("-inf")
        self._isolated_since: float | None = None

    def beaten(self, now: float, kept: bool = True) -> bool:
        """A beat was answered. kept: it is on as many servers as it has to be. Returns: whether this host may take
        what is free."""
        if not kept:
            return False
        steady = self.steady(now)
        if self._last is not None and now - self._last > self._lease:
            self.disturbed(now)
        self._last = now
        return steady

    def steady(self, now: float) -> bool:
        """Whether it may, if it beats now."""
        return now >= self._calm_from and (self._last is None or now - self._last <= self._lease)

    def cut_off(self, now: float, isolated: bool) -> bool:
        """Whether it is isolated, and was each time that this was called in the last lease."""
        if not isolated:
            self._isolated_since = None
        elif self._isolated_since is None:
            self._isolated_since = now
        return self._isolated_since is not None and now - self._isolated_since >= self._lease

    def disturbed(self, now: float) -> None:
        """What is in Redis may be older than what was there."""
        self._calm_from = now + self._lease


def _in_order(snapshot: Snapshot) -> Iterable[Placement]:
    return (snapshot.placements[number] for number in sorted(snapshot.placements))


def _is_free(snapshot: Snapshot, number: int) -> bool:
    one = snapshot.placements.get(number)
    return one is None or one.host not in snapshot.members


def _leaves(snapshot: Snapshot, name: str) -> bool:
    one = snapshot.members.get(name)
    return one is not None and one.host.leaving


def _counts(snapshot: Snapshot, able: Iterable[str]) -> dict[str, int]:
    """Of each host: the routers that are on it, or are being given to it."""
    counts = dict.fromkeys(able, 0)
    for one in snapshot.placements.values():
        host = one.to if one.state is State.GIVING else one.host
        if host in counts and not _is_free(snapshot, one.number):
            counts[host] += 1
    return counts


def _least(counts: Mapping[str, int]) -> str:
    return min(counts, key=lambda host: (counts[host], host))


def _share(free: Iterable[int], counts: dict[str, int], me: str) -> list[int]:
    """Those of the free numbers that fall to this host."""
    counts = dict(counts)
    found = []
    for number in free:
        host = _least(counts)
        counts[host] += 1
        if host == me:
            found.append(number)
    return found
