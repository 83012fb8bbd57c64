"""Which hosts one cannot reach: from what its routers have not heard for a lease."""

from __future__ import annotations

from typing import Any

import pytest

from farm.supervisor.reach import Reach
from router.cluster.membership import Host, Member, Placement, Snapshot, State

LEASE = 3.0
A, B, C = (character * 16 for character in "abc")
SILENT = LEASE + 1


def snapshot(states: dict[str, State], age: float = 0.0) -> Snapshot:
    """Hosts a, b and c, with a router each, in this order. age: of the last beat of each."""
    members = {name: Member(Host(name, name[0], "10.0.0.1:7400", "k"), age, 0, 0) for name in (A, B, C)}
    placements = {n: Placement(n, 1, name, states.get(name, State.READY)) for n, name in enumerate((A, B, C))}
    return Snapshot(0.0, 3, members, placements, True)


def answer(silent: dict[str, float], hosts: dict[str, float]) -> dict[str, Any]:
    """The status of router 0, on host a."""
    return {"number": 0, "silent": silent, "hosts": hosts}


def cut(
    answers: list[dict[str, Any]], states: dict[str, State] | None = None, after: float = LEASE + 0.1, age: float = 0.0
) -> set[str]:
    """What host a cannot reach, some time after it has first seen who has which router."""
    reach = Reach(LEASE)
    seen = snapshot(states or {}, age)
    assert reach.look(seen, A, answers, 0.0, 0.0) == frozenset()
    return set(reach.look(seen, A, answers, after, after))


@pytest.mark.parametrize(
    ("silent", "hosts", "found"),
    [
        ({"1": 0.1, "2": 0.1}, {A: 0.1, B: 0.1, C: 0.1}, set()),
        ({"1": SILENT, "2": 0.1}, {A: 0.1}, {B}),
        ({"1": SILENT, "2": SILENT}, {A: 0.1}, {B, C}),
        ({"1": SILENT, "2": 0.1}, {A: 0.1, B: SILENT, C: 0.1}, {B}),
        ({"1": SILENT, "2": 0.1}, {A: 0.1, B: 0.1}, set()),  # a router that hangs: the host's workers are heard
    ],
)
def test_a_host_is_cut_if_neither_its_routers_nor_its_workers_are_heard(
    silent: dict[str, float], hosts: dict[str, float], found: set[str]
) -> None:
    assert cut([answer(silent, hosts)]) == found


def test_what_has_just_been_placed_there_may_still_be_silent() -> None:
    silent = [answer({"1": SILENT, "2": SILENT}, {})]
    assert cut(silent, {B: State.STARTING}) == {C}
    assert cut(silent, after=LEASE) == set()


def test_a_host_whose_own_routers_do_not_answer_or_are_new_knows_nothing() -> None:
    silent = answer({"1": SILENT, "2": SILENT}, {})
    assert cut([]) == set()
    assert cut([silent], {A: State.STARTING}) == set()


def test_one_that_has_not_beaten_since_may_be_dead() -> None:
    age = SILENT - LEASE / 2
    silent = [answer({"1": SILENT, "2": SILENT}, {})]
    assert cut(silent) == {B, C}
    assert cut(silent, age=age) == set()
    reach = Reach(LEASE)
    reach.look(snapshot({}), A, silent, 0.0, 0.0)
    assert reach.look(snapshot({}), A, silent, LEASE + age, LEASE) == frozenset()


def test_one_of_ours_that_hears_it_is_enough() -> None:
    reach = Reach(LEASE)
    seen = snapshot({})
    seen.placements[2] = Placement(2, 1, A, State.READY)
    answers = [answer({"1": SILENT}, {}), {"number": 2, "silent": {"1": 0.2}, "hosts": {}}]
    reach.look(seen, A, answers, 0.0, 0.0)
    assert reach.look(seen, A, answers, LEASE + 1, LEASE + 1) == frozenset()
    assert reach.look(seen, A, answers[:1], LEASE + 2, LEASE + 2) == {B}
