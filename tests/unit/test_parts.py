"""Parts of requests: a share of each turn and of what is in work for every connection."""

from collections.abc import Callable

from router.http.parts import Parts
from router.http.turns import Turns


class Desk:
    """Parts that stay in work until they are decided."""

    def __init__(self, a_turn: int, most: int) -> None:
        self.turns = Turns()
        self.parts = Parts(self.turns, a_turn, most)
        self.begun: list[tuple[str, int]] = []
        self._decided: dict[str, Callable[[], None]] = {}

    def add(self, connection: str, count: int) -> None:
        begin = lambda index: self.begun.append((connection, index))  # noqa: E731
        self._decided[connection] = self.parts.add(connection, begin, count)

    def turn(self) -> dict[str, int]:
        """Returns: how many parts each connection has begun in it."""
        before = len(self.begun)
        self.turns.run()
        names = [connection for connection, _ in self.begun[before:]]
        return {name: names.count(name) for name in names}

    def run(self) -> dict[str, int]:
        """Turns until there is no more to do."""
        before = len(self.begun)
        while self.turns.waiting:
            self.turn()
        names = [connection for connection, _ in self.begun[before:]]
        return {name: names.count(name) for name in names}

    def decide(self, connection: str, count: int = 1) -> None:
        for _ in range(count):
            self._decided[connection]()


def test_a_turn_is_shared_and_goes_on_where_the_last_one_stopped() -> None:
    desk = Desk(20, 10_000)
    for name in "abcde":
        desk.add(name, 100)
    assert desk.turn() == {"a": 8, "b": 8, "c": 4}
    assert desk.turn() == {"d": 8, "e": 8, "a": 4}
    assert desk.run() == dict.fromkeys("abcde", 100) | {"a": 88, "b": 92, "c": 96, "d": 92, "e": 92}
    assert [index for name, index in desk.begun if name == "c"] == list(range(100))


def test_all_together_have_no_more_in_work_than_one_may() -> None:
    desk = Desk(64, 100)
    desk.add("a", 1000)
    assert desk.run() == {"a": 50}  # alone: as much as is still free
    desk.add("b", 1000)
    assert desk.run() == {"b": 25}
    for name in "cdefgh":
        desk.add(name, 1000)
    desk.run()
    assert len(desk.begun) <= 100
    assert not desk.turns.waiting  # no connection is looked at again and again while nothing is decided


def test_what_does_not_end_leaves_room_for_others() -> None:
    desk = Desk(64, 100)
    desk.add("stuck", 1000)
    desk.run()
    desk.add("well", 500)
    done = 0
    while begun := desk.run().get("well"):
        done += begun
        desk.decide("well", begun)
    assert done == 500


def test_requests_of_a_connection_are_begun_one_after_the_other_and_take_no_more_than_one() -> None:
    desk = Desk(16, 10_000)
    for _ in range(10):
        desk.add("a", 10)
    desk.add("b", 40)
    assert desk.turn() == {"a": 8, "b": 8}
    while desk.turns.waiting:
        desk.turn()
    assert [index for name, index in desk.begun if name == "a"] == list(range(10)) * 10
    assert desk.begun.index(("b", 39)) < 100  # it did not wait for all ten


def test_what_is_decided_lets_those_go_on_that_had_their_share() -> None:
    desk = Desk(64, 10)
    desk.add("a", 30)
    assert desk.run() == {"a": 5}
    desk.decide("a", 2)
    assert desk.turns.waiting
    assert desk.run() == {"a": 2}
    begun = 7
    decided = 2
    while decided < 30:
        desk.decide("a")
        decided += 1
        begun += desk.run().get("a", 0)
    assert begun == 30
    desk.add("a", 1)
    assert desk.run() == {"a": 1}


def test_what_is_decided_at_once_costs_a_share_of_the_turn_too() -> None:
    turns = Turns()
    parts = Parts(turns, 10, 1000)
    begun: list[int] = []
    decide: list[Callable[[], None]] = []

    def begin(index: int) -> None:
        begun.append(index)
        decide[0]()

    decide.append(parts.add("a", begin, 25))
    seen = []
    while turns.waiting:
        turns.run()
        seen.append(len(begun))
    assert seen == [10, 20, 25]
