"""Two routers of which one asks the other, over a link that loses, doubles and reorders, with lives that end: what
holds whatever happens. Each seed is one history."""

import random
from collections import deque
from collections.abc import Callable

import pytest
from support.common import Clock, settings_with

from router.common import messages as m
from router.common.metrics import RouterCounters
from router.common.peer_wire import encode
from router.common.settings import LinkOptions
from router.core.answering import Answering
from router.core.asking import Asking

TIMEOUT_S = 5.0
TICK_S = 0.1
KEY = bytes(16)
MOST = 40


class Life:
    """One life of the owner: what it was asked, what it has performed and not answered."""

    def __init__(self, farm: "Pair", number: int) -> None:
        self.open: list[tuple[int, Callable[[int, bytes | None], None]]] = []
        self.farm = farm
        options = farm.options
        incarnation = b"life%d" % number
        self.answering = Answering(self.perform, (0,), incarnation, options, RouterCounters(), farm.clock.unix)

    def perform(self, dialect: str, key: bytes, data: bytes, reply: Callable[[int, bytes | None], None]) -> None:
        assert (dialect, key) == ("talk", KEY)
        number = int(data)
        self.farm.performed.append(number)
        assert self.farm.clock.monotonic() <= self.farm.deadlines[number] + TICK_S
        self.open.append((number, reply))


class Pair:
    """The link between them, driven step by step."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.clock = Clock()
        self.options = settings_with((LinkOptions, {"max_forwarded": MOST})).get(LinkOptions)
        clocks = self.clock.monotonic, self.clock.unix
        self.counters = RouterCounters()
        self.asking = Asking(0, 2, b"asker", self.options, TIMEOUT_S, self.counters, *clocks)
        self.owner = self.asking.owners[1]
        self.lives = 0
        self.connections = 0
        self.deadlines: list[float] = []
        self.answers: dict[int, list[tuple[int, bytes]]] = {}
        self.performed: list[int] = []
        self.begin()

    # ------------------------------------------------------------------ what happens

    def begin(self) -> None:
        """Another life of the owner."""
        self.lives += 1
        self.life = Life(self, self.lives)
        self.connect()

    def connect(self) -> None:
        """Another connection: what was under way is lost."""
        self.connections += 1
        self.identity = b"connection%d" % self.connections
        self.there: deque[bytes] = deque()
        self.back: deque[bytes] = deque()

    def ask(self) -> None:
        number = len(self.deadlines)
        self.deadlines.append(self.clock.monotonic() + TIMEOUT_S)
        found = self.answers[number] = []
        self.asking.ask(1, "talk", KEY, b"%d" % number, lambda status, reply: found.append((status, reply)))

    def send(self) -> None:
        """Both take what there is to send."""
        if self.asking.dirty.pop(1, None) is not None:
            while (data := self.owner.envelope()) is not None:
                self.there.append(data)
                self.owner.sent()
        answering = self.life.answering
        self.back.extend(data for identity, data in answering.take_direct() if identity == self.identity)
        for asker in list(answering.dirty.values()):
            if asker.identity != self.identity:
                answering.lost(asker)
                continue
            while (data := asker.envelope()) is not None:
                self.back.append(data)
                asker.sent()
            answering.dirty.pop(asker.number)

    def receive(self) -> None:
        if self.there:
            self.life.answering.received(self.identity, self.there.popleft())
        if self.back:
            self.owner.received(self.back.popleft())

    def answer(self) -> None:
        if self.life.open:
            number, reply = self.life.open.pop(self.random.randrange(len(self.life.open)))
            reply(m.OK, b"%d" % number)

    def lose(self) -> None:
        for queue in (self.there, self.back):
            if queue and self.random.random() < 0.5:
                del queue[self.random.randrange(len(queue))]

    def double(self) -> None:
        for queue in (self.there, self.back):
            if queue:
                queue.append(self.random.choice(queue))

    def reorder(self) -> None:
        for queue in (self.there, self.back):
            queue.rotate(1)

    def pass_by(self) -> None:
        self.clock.pass_by(TICK_S)
        self.asking.tick()

    def stand_still(self) -> None:
        """Neither end gets the CPU for long."""
        self.clock.pass_by(self.random.choice((0.5, 2.0, 6.0)))
        self.asking.tick()

    def leave(self) -> None:
        self.life.answering.leave()

    # ------------------------------------------------------------------ what holds

    def check(self) -> None:
        now = self.clock.monotonic()
        for number, found in self.answers.items():
            assert len(found) <= 1
            if self.deadlines[number] < now - 6.0 - TICK_S:
                assert found
            if found and found[0][0] == m.OK:
                assert found == [(m.OK, b"%d" % number)]
                assert number in self.performed
        assert len(set(self.performed)) == len(self.performed)
        assert self.asking.open <= len(self.owner) <= MOST


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("seed", range(20))
def test_each_is_performed_once_at_most_and_answered_once(seed: int, ordered: bool) -> None:
    pair = Pair(seed)
    usual = [pair.ask, pair.ask, pair.send, pair.send, pair.receive, pair.receive, pair.receive, pair.answer]
    rare = [pair.connect, pair.begin, pair.leave, pair.stand_still]
    if not ordered:
        rare += [pair.lose, pair.double, pair.reorder]
    for _ in range(600):
        pair.random.choice(usual)()
        if pair.random.random() < 0.2:
            pair.pass_by()
        if pair.random.random() < 0.03:
            pair.random.choice(rare)()
        pair.check()
    if ordered:  # as a link is, whose connections come and go
        assert pair.performed == sorted(pair.performed)
    # In the end all is well, and nothing is left over.
    pair.begin()
    for _ in range(120):
        pair.pass_by()
        for _ in range(4):
            pair.send()
            pair.receive()
            pair.answer()
    pair.check()
    assert all(len(found) == 1 for found in pair.answers.values())
    assert (len(pair.owner), pair.asking.open) == (0, 0)
    assert (len(pair.life.answering), pair.life.answering.open) == (0, 0)
    last = len(pair.deadlines)
    pair.ask()
    for _ in range(4):
        pair.send()
        pair.receive()
        pair.answer()
    assert pair.answers[last] == [(m.OK, b"%d" % last)]


def test_the_histories_have_all_that_may_happen() -> None:
    """What the seeds above show would be little if all were answered well, or none."""
    statuses = {m.OK: 0, m.UNREACHED: 0}
    for seed in range(10):
        pair = Pair(seed)
        for step in range(300):
            for act in (pair.ask, pair.send, pair.receive, pair.receive, pair.answer):
                act()
            if step % 50 == 49:
                pair.random.choice([pair.connect, pair.begin, pair.lose])()
            if step % 3 == 0:
                pair.pass_by()
        for found in pair.answers.values():
            for status, _ in found:
                statuses[status] += 1
    assert min(statuses.values()) > 50


def test_what_was_not_sent_waits_for_the_owner() -> None:
    pair = Pair(0)
    for _ in range(3):
        pair.ask()
    pair.pass_by()
    assert pair.performed == []
    pair.send()  # PEER_READY only
    assert len(pair.there) == 1
    pair.there.clear()
    pair.begin()
    for _ in range(3):
        pair.pass_by()
        pair.send()
        pair.receive()
        pair.receive()
    assert pair.performed == [0, 1, 2]


def welcomed(pair: Pair) -> None:
    for _ in range(2):
        pair.send()
        pair.receive()


def test_what_was_sent_to_a_life_that_ended_is_answered_when_the_next_one_is_there() -> None:
    pair = Pair(0)
    welcomed(pair)
    pair.ask()
    pair.send()
    pair.receive()
    assert pair.performed == [0]
    pair.begin()
    pair.ask()
    assert pair.answers == {0: [], 1: []}
    pair.pass_by()
    for _ in range(6):
        pair.pass_by()
        pair.send()
        pair.receive()
    assert pair.answers[0] == [(m.UNREACHED, b"")]
    assert pair.performed == [0, 1]


def test_what_was_sent_after_the_first_word_to_a_new_life_is_performed_by_it() -> None:
    pair = Pair(0)
    welcomed(pair)
    pair.ask()
    pair.send()
    pair.receive()
    pair.begin()
    while not pair.there:  # until PEER_READY is due
        pair.pass_by()
        pair.send()
    pair.ask()
    pair.send()
    assert len(pair.there) == 2
    pair.receive()
    pair.send()  # PEER_WELCOME, before the other envelope has come
    for _ in range(4):
        pair.receive()
        pair.ask()
        pair.send()
    for _ in range(10):
        pair.receive()
        pair.answer()
        pair.pass_by()
        pair.send()
    assert pair.performed == [0, 1, 2, 3, 4, 5]
    assert pair.answers.pop(0) == [(m.UNREACHED, b"")]  # the life before has performed it
    assert pair.answers == {number: [(m.OK, b"%d" % number)] for number in range(1, 6)}


def test_what_a_router_that_ends_has_not_performed_goes_to_its_next_life_in_order() -> None:
    pair = Pair(0)
    welcomed(pair)
    pair.ask()
    pair.send()
    pair.receive()
    pair.answer()
    pair.leave()
    for _ in range(2):
        pair.ask()
        pair.send()
        pair.receive()
    pair.send()
    pair.ask()
    for _ in range(5):
        pair.pass_by()
        pair.send()
        pair.receive()
    assert pair.performed == [0]
    assert pair.answers == {0: [(m.OK, b"0")], 1: [], 2: [], 3: []}
    pair.begin()
    for _ in range(10):
        pair.pass_by()
        pair.send()
        pair.receive()
        pair.answer()
    assert pair.performed == [0, 1, 2, 3]
    assert pair.answers == {number: [(m.OK, b"%d" % number)] for number in range(4)}


def test_a_router_that_ends_waits_until_nothing_more_is_on_its_way() -> None:
    pair = Pair(0)
    welcomed(pair)
    assert not pair.life.answering.quiet
    pair.leave()
    pair.ask()
    pair.send()  # which cross: each has not heard the other
    assert (len(pair.there), len(pair.back)) == (1, 1)
    pair.receive()
    assert not pair.life.answering.quiet
    pair.send()
    pair.receive()
    assert pair.life.answering.quiet
    pair.ask()
    for _ in range(5):
        pair.pass_by()
        pair.send()
        pair.receive()
    assert (pair.performed, pair.answers) == ([], {0: [], 1: []})
    pair.begin()
    for _ in range(10):
        pair.pass_by()
        pair.send()
        pair.receive()
        pair.answer()
    assert pair.performed == [0, 1]
    assert not pair.life.answering.quiet  # what was said to the one before is not for this one


def test_that_a_life_was_to_end_says_nothing_of_the_next_one() -> None:
    pair = Pair(0)
    welcomed(pair)
    pair.leave()
    pair.send()
    late = pair.back.pop()
    pair.begin()
    for _ in range(10):
        pair.pass_by()
        pair.send()
        pair.receive()
    pair.owner.received(late)
    pair.ask()
    pair.send()
    pair.receive()
    assert pair.performed == [0]


def test_a_router_that_ends_awaits_no_other() -> None:
    pair = Pair(0)
    welcomed(pair)
    for _ in range(2):
        pair.ask()
        pair.send()
    pair.receive()
    pair.asking.leaving = True
    pair.leave()
    pair.receive()
    pair.answer()
    pair.ask()
    for _ in range(2):
        pair.send()
        pair.receive()
        pair.receive()
    assert pair.answers == {0: [(m.OK, b"0")], 1: [(m.UNREACHED, b"")], 2: [(m.UNREACHED, b"")]}
    pair.connect()
    pair.ask()
    pair.pass_by()
    assert pair.answers[3] == [(m.UNREACHED, b"")]
    assert pair.performed == [0]


def test_a_router_that_stands_still_holds_only_so_many_and_then_none() -> None:
    pair = Pair(0)
    welcomed(pair)
    for _ in range(MOST + 5):
        pair.ask()
        pair.send()
    refused = [number for number, found in pair.answers.items() if found]
    assert refused == list(range(MOST, MOST + 5))
    for _ in range(52):
        pair.pass_by()
        pair.send()
    assert all(found == [(m.UNREACHED, b"")] for found in pair.answers.values())
    assert len(pair.owner) == MOST  # they are with the owner yet
    pair.ask()
    assert pair.answers[MOST + 5] == [(m.UNREACHED, b"")]
    # It goes on: what has expired is not performed any more, and then it is asked again.
    while pair.there or pair.back:
        pair.receive()
        pair.send()
    assert pair.performed == []
    assert len(pair.owner) == 0
    pair.ask()
    pair.send()
    pair.receive()
    assert pair.performed == [MOST + 6]


def test_one_that_has_stood_still_itself_does_not_take_the_others_for_silent() -> None:
    pair = Pair(0)
    welcomed(pair)
    pair.clock.pass_by(60)
    pair.asking.tick()
    pair.ask()
    pair.send()
    pair.receive()  # PEER_READY
    pair.receive()
    assert pair.performed == [0]


def test_bytes_are_limited_too() -> None:
    pair = Pair(0)
    pair.options = settings_with((LinkOptions, {"max_forwarded_bytes": 65_536})).get(LinkOptions)
    pair.asking.options = pair.options
    for size, status in ((70_000, None), (1, m.UNREACHED)):
        found: list[tuple[int, bytes]] = []
        pair.asking.ask(1, "talk", KEY, b"x" * size, lambda status, reply, found=found: found.append((status, reply)))
        assert [status for status, _ in found] == ([] if status is None else [status])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x90",
        b"\x91\x66",
        encode([102, b"life1", 2**62, [[1, "talk", bytes(17), b"0"]]]),
        encode([102, b"life1", 2**62, [[-1, "talk", KEY, b"0"]]]),
        encode([101, 1, 1, 7, b"asker", 0]),
    ],
)
def test_what_is_no_envelope_is_refused_and_nothing_of_it_done(data: bytes) -> None:
    pair = Pair(0)
    welcomed(pair)
    with pytest.raises(m.MessageError):
        pair.life.answering.received(pair.identity, data)
    with pytest.raises(m.MessageError):
        pair.owner.received(data)
    pair.ask()
    pair.send()
    pair.receive()
    assert pair.performed == [0]
