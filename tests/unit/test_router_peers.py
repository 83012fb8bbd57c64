"""The link between two routers, on real sockets."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.common import Clock, Rig

from router.common import messages as m
from router.common.link_address import LinkError, peer_address
from router.common.messages import peers as p
from router.common.operation import Operation
from router.common.peer_wire import encode, of_owner
from router.common.places import Places
from router.core.hub import Hub
from router.core.operations import Done
from router.gate import Gate
from router.link import RouterLink
from router.peers import Peers
from router.store.lease import Lease

HANG_S = 20


class Double(Operation, tag=1):
    REPLY = bytes

    text: bytes


class Two:
    """Two routers in one process, each of which doubles texts."""

    def __init__(self, folder: Path, link: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.link = link
        self.context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self.clock = Clock()
        self.performed: list[tuple[int, bytes]] = []
        self.held: list[Callable[[], None]] = []
        self.holding = False
        self.lives = 0
        self.rigs: dict[int, Rig] = {}
        self.peers: dict[int, Peers] = {}
        for number in (0, 1):
            self.begin(number)

    def hub(self, number: int) -> Hub:
        return self.rigs[number].hub

    def begin(self, number: int) -> None:
        """A router, or its next life."""
        self.lives += 1
        rig = self.rigs[number] = Rig(link=self.link, router=number, routers=2, clock=self.clock)
        if self.lives > 2:
            rig.router_restarts()

        def double(key: bytes, asked: Double, done: Done) -> None:
            self.performed.append((number, asked.text))
            if self.holding:
                self.held.append(lambda: done(m.OK, 2 * asked.text))
            else:
                done(m.OK, 2 * asked.text)

        rig.hub.core.operations.register("talk", {Double: double})
        self.peers[number] = Peers(self.context, Places(self.folder), number, rig.hub, rig.link)

    def end(self, number: int) -> None:
        """End a router, and wait until the other's socket has noticed: what is given to it before that is lost."""
        self.peers.pop(number).close()
        for peers in self.peers.values():
            socket = peers._owners[number]
            self.until(lambda socket=socket: not int(socket.getsockopt(zmq.EVENTS)) & zmq.POLLOUT)

    def key(self, owner: int) -> bytes:
        keys = (m.channel_key("talk", "", str(number)) for number in range(100))
        return next(key for key in keys if self.hub(0).core.operations.owner(key) == owner)

    def ask(self, asker: int, owner: int, text: bytes) -> list[tuple[int, bytes | None]]:
        """Returns: a list that gets status and reply."""
        found: list[tuple[int, bytes | None]] = []
        operations = self.hub(asker).core.operations
        operations.at(self.key(owner), Double(text), lambda status, reply=None: found.append((status, reply)))
        return found

    def until(self, condition: Callable[[], object]) -> None:
        """Pump, and let time pass as it does, until the condition holds."""
        begun = time.monotonic()
        while not condition():
            assert time.monotonic() < begun + HANG_S
            for number, peers in self.peers.items():
                peers.pump()
                self.hub(number).tick()
            self.clock.pass_by(0.002)
            time.sleep(0.002)


@pytest.fixture
def link() -> dict[str, Any]:
    """What differs from the defaults."""
    return {}


@pytest.fixture
def two(tmp_path: Path, link: dict[str, Any]) -> Iterator[Two]:
    made = Two(tmp_path, link)
    yield made
    for number in list(made.peers):
        made.end(number)
    made.context.destroy(linger=0)


def test_each_asks_the_other(two: Two) -> None:
    there, back, here = two.ask(0, 1, b"ab"), two.ask(1, 0, b"cd"), two.ask(0, 0, b"ef")
    assert here == [(m.OK, b"efef")]
    two.until(lambda: there and back)
    assert (there, back) == ([(m.OK, b"abab")], [(m.OK, b"cdcd")])
    assert sorted(two.performed) == [(0, b"cd"), (0, b"ef"), (1, b"ab")]
    counters = two.hub(0).counters
    assert (counters.forwards, counters.forwarded, counters.forwards_unreached) == (1, 1, 0)


def test_very_many_and_very_large_ones_arrive_whole_and_in_order(two: Two) -> None:
    texts = [b"%d" % number for number in range(3000)] + [bytes([number]) * 400_000 for number in range(5)]
    answers = [two.ask(0, 1, text) for text in texts]
    two.until(lambda: all(answers))
    assert answers == [[(m.OK, 2 * text)] for text in texts]
    assert [text for _, text in two.performed] == texts


@pytest.mark.parametrize("link", [{"max_message_bytes": 65_536}])
def test_no_envelope_is_longer_than_the_link_takes_whatever_is_asked_at_once(two: Two) -> None:
    texts = [b"%d" % number for number in range(3000)] + [bytes([number]) * 20_000 for number in range(20)]
    answers = [two.ask(0, 1, text) for text in texts]
    two.until(lambda: all(answers))
    assert answers == [[(m.OK, 2 * text)] for text in texts]


@pytest.mark.parametrize("link", [{"max_message_bytes": 65_536}])
@pytest.mark.parametrize("size", [40_000, 70_000])
def test_what_is_too_long_or_has_a_reply_that_is_fails_alone(two: Two, size: int) -> None:
    before, found, after = (two.ask(0, 1, text) for text in (b"before", bytes(size), b"after"))
    two.until(lambda: before and found and after)
    assert (before, after) == ([(m.OK, b"beforebefore")], [(m.OK, b"afterafter")])
    assert found == [(m.FAILED, None)]
    assert two.hub(0).counters.forwards_unreached == 0


def test_one_that_is_away_is_asked_when_it_is_there(two: Two) -> None:
    two.end(1)
    found = two.ask(0, 1, b"late")
    for _ in range(20):
        two.peers[0].pump()
    assert found == []
    two.begin(1)
    two.until(lambda: found)
    assert found == [(m.OK, b"latelate")]


def test_what_was_with_one_that_died_is_not_asked_of_its_next_life(two: Two) -> None:
    two.holding = True
    found = two.ask(0, 1, b"first")
    two.until(lambda: two.performed)
    two.end(1)
    two.holding = False
    two.begin(1)
    later = two.ask(0, 1, b"second")
    two.until(lambda: found and later)
    assert (found, later) == ([(m.UNREACHED, None)], [(m.OK, b"secondsecond")])
    assert two.performed == [(1, b"first"), (1, b"second")]
    two.held[0]()  # the answer of a life that has ended
    again = two.ask(0, 1, b"third")
    two.until(lambda: again)
    assert found == [(m.UNREACHED, None)]


def test_one_that_ends_leaves_what_comes_to_its_next_life(two: Two) -> None:
    first = two.ask(0, 1, b"first")
    two.until(lambda: first)
    two.hub(1).leave()
    found = two.ask(0, 1, b"second")
    two.until(lambda: two.hub(1).answering.quiet and not two.hub(0).asking.owners[1]._sent)
    assert (found, len(two.performed)) == ([], 1)
    two.end(1)
    two.begin(1)
    two.until(lambda: found)
    assert found == [(m.OK, b"secondsecond")]


def test_one_whose_lease_is_over_answers_when_it_has_it_again_and_asks_nothing(two: Two) -> None:
    first = two.ask(0, 1, b"first")
    two.until(lambda: first)
    lease = Lease(10.0, shared=True)
    lease.confirmed(0.0)
    now = lease.until
    two.peers[1].gate = Gate(lease, lambda: now)
    found, asked = two.ask(0, 1, b"second"), two.ask(1, 0, b"third")
    two.until(lambda: len(two.performed) == 2)
    for _ in range(20):
        for peers in two.peers.values():
            peers.pump()
    assert (found, asked) == ([], [])
    assert two.performed == [(1, b"first"), (1, b"second")]
    lease.confirmed(now)
    two.until(lambda: found and asked)
    assert (found, asked) == ([(m.OK, b"secondsecond")], [(m.OK, b"thirdthird")])


class BusyLink(RouterLink):
    """A link to workers; while it is pumped, another router asks for something."""

    two: Two

    def pump(self) -> None:
        super().pump()
        two = self.two
        two.ask(1, 0, b"again")
        assert len(two.performed) < 5000  # far more than there is time for
        while not int(two.peers[0]._askers.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
            two.peers[1].pump()


def test_others_that_never_stop_asking_do_not_hold_up_a_turn(two: Two, tmp_path: Path) -> None:
    first = two.ask(1, 0, b"first")
    two.until(lambda: first)
    link = BusyLink(two.context, f"ipc://{tmp_path}/workers", two.hub(0), two.rigs[0].link)
    link.two = two
    two.ask(1, 0, b"second")
    while not int(two.peers[0]._askers.getsockopt(zmq.EVENTS)) & zmq.POLLIN:
        two.peers[1].pump()
    assert two.peers[0].pump_with(link)  # there is more; and it has returned
    link.close()


def test_what_is_no_envelope_ends_nothing(two: Two) -> None:
    stranger = two.context.socket(zmq.DEALER)
    stranger.connect(peer_address(two.folder, 1))
    key = two.key(1)
    forward = p.Forward(1, "talk", key, b"\x92\x01\xc4\x01x")
    incarnation = two.hub(1).answering.incarnation
    for data in (b"", b"\xc1", encode(p.Forwards(incarnation, 2**62, [forward])), encode([102, b"", 1, []])):
        stranger.send(data)
    stranger.send_multipart([b"two", b"parts"])
    two.until(lambda: two.hub(1).counters.link_refused == 4)
    two.until(lambda: stranger.poll(0))
    assert of_owner(stranger.recv()) == p.PeerRejoin([])  # it has not said who it is
    assert two.performed == []
    found = two.ask(0, 1, b"ab")
    two.until(lambda: found)
    assert found == [(m.OK, b"abab")]
    stranger.close(0)


def test_an_operation_that_is_malformed_or_for_another_is_refused_alone(two: Two) -> None:
    found: list[tuple[int, bytes]] = []
    ask = two.hub(0).asking.ask
    good = b"\x92\x01\xc4\x01x"
    for dialect, key, data in (
        ("talk", two.key(1), b"\xc1"),
        ("talk", two.key(0), good),
        ("other", two.key(1), good),
        ("talk", two.key(1), good),
    ):
        ask(1, dialect, key, data, lambda status, reply: found.append((status, reply)))
    two.until(lambda: len(found) == 4)
    assert found == [(m.FAILED, b"")] * 3 + [(m.OK, b"\xc4\x02xx")]
    assert two.performed == [(1, b"x")]


def test_a_place_that_cannot_be_listened_at_is_named(two: Two, tmp_path: Path) -> None:
    rig = Rig(router=1, routers=2)
    with pytest.raises(LinkError, match="cannot listen"):
        Peers(two.context, Places(tmp_path / "missing"), 1, rig.hub, rig.link)
