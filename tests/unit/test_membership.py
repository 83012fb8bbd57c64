"""Which host has which router: what each host decides from one snapshot."""

from __future__ import annotations

import msgspec

from router.cluster.membership import (
    FREE,
    Check,
    Duties,
    Give,
    Host,
    Member,
    Placement,
    Pulse,
    Snapshot,
    State,
    Take,
    decide,
    disagreements,
    duties,
    isolated,
    new_id,
    one_for_each,
    serving,
)

A, B, C, D, E = ("a" * 16, "b" * 16, "c" * 16, "d" * 16, "e" * 16)


def host(name: str, **more: object) -> Host:
    return msgspec.structs.replace(Host(name, name[0], f"{name[0]}:7400", "key"), **more)


def snapshot(hosts: list[Host], routers: int = 4, **on: list[int]) -> Snapshot:
    """on: of each host, by the first letter of its ID, the routers that are ready there."""
    members = {one.id: Member(one, 0.0, 0, number) for number, one in enumerate(hosts)}
    places = {n: Placement(n, 1, name * 16, State.READY) for name, numbers in on.items() for n in numbers}
    return Snapshot(0.0, routers, members, places)


def with_place(found: Snapshot, **more: object) -> Snapshot:
    place = Placement(**{"epoch": 1, "state": State.READY, **more})  # type: ignore[arg-type]
    return msgspec.structs.replace(found, placements=found.placements | {place.number: place})


def wishes(found: Snapshot) -> dict[str, list[Take | Give]]:
    """Of each host that has one."""
    return {name[0]: wish for name in found.members if (wish := decide(found, name))}


def takes(*numbers: int) -> list[Take]:
    return [Take(number) for number in numbers]


def test_free_numbers_go_to_the_hosts_with_the_fewest() -> None:
    assert wishes(snapshot([host(A)])) == {"a": takes(0, 1, 2, 3)}
    assert wishes(snapshot([host(B), host(A)])) == {"a": takes(0, 2), "b": takes(1, 3)}
    assert wishes(snapshot([host(A), host(B)], a=[0, 1])) == {"b": takes(2, 3)}
    # of one that lives no more
    assert wishes(snapshot([host(A), host(B)], a=[0], b=[1], c=[2, 3])) == {"a": takes(2), "b": takes(3)}
    assert wishes(snapshot([host(A), host(B), host(C)], routers=2)) == {"a": takes(0), "b": takes(1)}
    assert decide(snapshot([host(A)]), B) == []


def test_whether_a_router_is_to_come_to_each_host() -> None:
    assert one_for_each(snapshot([host(A), host(B)], routers=2, a=[0, 1]), B)
    assert not one_for_each(snapshot([host(A), host(B), host(C)], routers=2, a=[0], b=[1]), C)
    # Where one is about to leave, or cannot have any, its own come to the others.
    assert one_for_each(snapshot([host(A, leaving=True), host(B), host(C)], routers=2, a=[0], b=[1]), C)
    assert one_for_each(snapshot([host(A), host(B, fit=False)], routers=2, a=[0, 1]), B)
    assert not one_for_each(snapshot([host(A), host(B, fit=False)], routers=1, a=[0]), B)


def test_one_router_moves_at_a_time_and_a_difference_of_one_moves_none() -> None:
    full = snapshot([host(A), host(B), host(C)], a=[0, 1], b=[2, 3])
    assert wishes(full) == {"a": [Give(0, C)]}
    assert wishes(with_place(full, number=0, host=A, state=State.GIVING, to=C)) == {}
    moving = with_place(full, number=0, host=C, state=State.STARTING)
    assert wishes(moving) == {}
    assert wishes(with_place(moving, number=0, host=C)) == {}
    assert wishes(snapshot([host(A), host(B)], routers=3, a=[0, 1], b=[2])) == {}
    assert wishes(with_place(full, number=0, host=A, state=State.STARTING)) == {}
    assert wishes(with_place(full, number=0, host=C)) == {}


def test_one_that_leaves_gives_all_and_is_given_nothing() -> None:
    leaving = snapshot([host(A, leaving=True), host(B), host(C)], a=[0], b=[1, 2], c=[3])
    assert wishes(leaving) == {"a": [Give(0, C)]}
    assert wishes(with_place(leaving, number=0, host=A, state=State.STARTING)) == {"a": [Give(0, C)]}
    assert wishes(with_place(leaving, number=1, host=B, state=State.STARTING)) == {}
    assert wishes(snapshot([host(A, leaving=True), host(B, leaving=True), host(C)], a=[0, 1], b=[2, 3])) == {
        "a": [Give(0, C)]
    }
    assert wishes(snapshot([host(A, leaving=True)], a=[0, 1, 2, 3])) == {}
    assert wishes(snapshot([host(A, leaving=True), host(B)])) == {"b": takes(0, 1, 2, 3)}


def test_one_that_is_not_fit_gives_up_all_where_another_is() -> None:
    unfit = host(A, fit=False)
    assert wishes(snapshot([unfit, host(B)], a=[0, 1], b=[2, 3])) == {"a": [Give(0, FREE), Give(1, FREE)]}
    assert wishes(snapshot([unfit], a=[0, 1, 2, 3])) == {}
    assert wishes(snapshot([unfit])) == {}


def test_after_a_break_nothing_is_taken_moved_or_started() -> None:
    hosts = [host(A), host(B)]
    for found in (snapshot(hosts, a=[0, 1]), snapshot(hosts, a=[0, 1, 2, 3])):
        broken = msgspec.structs.replace(found, steady=False)
        assert wishes(broken) == {}
        assert duties(broken, A, {0: 1, 1: 9, 7: 1}) == Duties([], [1, 7], [])
    pulse = Pulse(3.0)
    assert pulse.beaten(100.0)
    assert pulse.beaten(103.0)
    assert not pulse.beaten(106.1)
    assert not pulse.beaten(109.0)
    assert pulse.beaten(109.2)
    assert not pulse.beaten(109.5, kept=False)
    assert pulse.beaten(109.7)
    pulse.disturbed(110.0)
    assert not pulse.beaten(111.0)
    assert pulse.beaten(113.0)


def test_one_that_only_resumes_its_own_is_given_nothing() -> None:
    back = host(A, steady=False)
    assert wishes(snapshot([back, host(B)], b=[0, 1, 2, 3])) == {}
    assert wishes(snapshot([back, host(B), host(C)], b=[0, 1, 2, 3])) == {"b": [Give(0, C)]}
    assert wishes(snapshot([host(A, leaving=True), host(B, steady=False), host(C)], a=[0, 1], c=[2, 3])) == {
        "a": [Give(0, C)]
    }
    # What is free is shared with it all the same: the first host that may take is not to take all.
    found = msgspec.structs.replace(snapshot([back, host(B)]), steady=False)
    assert decide(snapshot([back, host(B)]), B) == takes(1, 3)
    assert decide(found, A) == []
    pulse = Pulse(3.0)
    assert [pulse.steady(100.0), pulse.beaten(100.0), pulse.steady(103.0), pulse.steady(103.1)] == [True] * 3 + [False]
    assert [pulse.beaten(103.1), pulse.steady(106.0), pulse.steady(106.1)] == [False, False, True]


def test_who_is_cut_off() -> None:
    def left(*hosts: Host) -> str:
        found = snapshot(list(hosts))
        out = isolated(found)
        assert serving(found) == found.members.keys() - out
        return "".join(sorted(name[0] for name in found.members if name not in out))

    assert left(host(A), host(B)) == "ab"
    assert left(host(A), host(B, cut=frozenset((A,)))) == "a"
    assert left(host(A, cut=frozenset((B,))), host(B)) == "a"
    # The larger side remains, and of equal ones that of the lowest ID, whoever has said it.
    two, three = frozenset((A, B)), frozenset((C, D, E))
    assert left(host(A), host(B), *(host(name, cut=two) for name in three)) == "cde"
    assert left(*(host(name, cut=three) for name in two), host(C), host(D)) == "ab"
    # Only one way is cut: one of its ends is enough.
    assert left(host(A, cut=frozenset((B,))), host(B), host(C)) == "ac"
    # No host reaches another one: one of them serves what it can.
    everybody = frozenset((A, B, C))
    assert left(*(host(name, cut=everybody) for name in everybody)) == "a"
    # Of hosts that are gone nothing follows.
    assert left(host(A, cut=three), host(B)) == "ab"
    # It is given up when that has been so for a lease.
    found = snapshot([host(A), host(B, cut=frozenset((A,)))], a=[0, 1], b=[2, 3])
    assert wishes(found) == {}
    assert wishes(msgspec.structs.replace(found, cut_off=True)) == {"b": [Give(2, FREE), Give(3, FREE)]}
    pulse = Pulse(3.0)
    told = [pulse.cut_off(now, so) for now, so in ((1.0, True), (3.9, True), (4.0, True), (4.1, False), (7.5, True))]
    assert told == [False, False, True, False, False]


def test_what_is_to_be_done_with_processes() -> None:
    found = snapshot([host(A), host(B)], a=[0, 1], b=[2])
    found = with_place(found, number=3, host=A, state=State.GIVING, to=B)
    assert duties(found, A, {}) == Duties([found.placements[0], found.placements[1]], [], [3])
    assert duties(found, A, {0: 1, 1: 1, 2: 1, 3: 1}) == Duties([], [2], [3])
    assert duties(found, A, {0: 2, 1: 1, 3: 2}) == Duties([], [0, 3], [])
    assert duties(found, B, {}) == Duties([found.placements[2]], [], [])


def test_what_has_to_be_the_same() -> None:
    def checked(**checks: Check) -> Host:
        return host(A, checks=checks)

    one, two = Check(("1",), ("1",)), Check(("2",), ("2",))
    assert disagreements(checked(x=one, y=two), checked(x=one, y=two)) == []
    assert disagreements(checked(y=one, x=one, z=one), checked(y=two, x=two, z=one)) == ["x", "y"]
    # A release that compares more, or something else, may join.
    assert disagreements(checked(x=one, y=two), checked(x=one, z=two)) == []
    # Each end has to accept what the other one offers.
    old, both, new = Check(("1",), ("1",)), Check(("1",), ("1", "2")), Check(("2",), ("1", "2"))
    assert [a.agrees(b) for a in (old, both, new) for b in (old, both, new)] == [
        *(True, True, False),
        *(True, True, True),
        *(False, True, True),
    ]


def test_ids_are_as_records_want_them() -> None:
    assert msgspec.convert({"id": new_id(), "name": "", "address": "", "key": ""}, Host)
