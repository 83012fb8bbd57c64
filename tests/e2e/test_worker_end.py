"""A worker's end of the link by itself: what it sends, and how it treats a router that sends anything."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.common import announced, array

from farm.worker.link import WorkerLink
from router.common import messages as m
from router.common.item import Item
from router.common.link_address import address
from router.common.places import Place
from router.common.settings import LinkOptions
from router.common.wire import NEWEST

DEVICE, OTHER = b"d" * 16, b"e" * 16
HANG_S = 20


class Alone:
    """A worker's link, and the bare socket of a router that sends what a test wants."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self._zmq: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = self._zmq.socket(zmq.ROUTER)
        self._router.bind(address(folder, 0))
        self.heard: list[Any] = []
        self.held: list[bytes] = []
        self.link = WorkerLink(
            self._zmq,
            Place(address(folder, 0)),
            LinkOptions(**options),
            3,
            b"incarnat",
            4711,
            self.heard.extend,
            lambda: announced(self.held),
        )
        self.link.pump()
        self.identity, _ = self._router.recv_multipart()
        self.welcome()

    def welcome(self) -> None:
        self.tell(m.Welcome(b"router-1", m.PROTOCOL))
        self._until(lambda: self.link.joined)

    def tell(self, message: Any) -> None:
        self._router.send_multipart([self.identity, message if type(message) is bytes else NEWEST.encode(message)])

    def messages(self, *messages: Any, confirmed: int = 0, unkept: tuple[int, ...] = ()) -> None:
        """Have the router say these, and the worker hear them."""
        end = m.Broadcast("end", "", None)
        self.tell(m.RouterBatch(confirmed, [*messages, end], list(unkept)))
        self._until(lambda: bool(self.heard) and self.heard[-1] == end)
        self.heard.pop()

    def next(self) -> Any:
        """The next envelope."""
        assert self._router.poll(HANG_S * 1000)
        return NEWEST.of_worker(self._router.recv_multipart()[1], 2**20)

    def said(self, count: int) -> list[Any]:
        """The next batches: sequence and messages of each."""
        batches: list[tuple[int, Any]] = []
        while len(batches) < count:
            self.link.pump()
            assert self._router.poll(HANG_S * 1000)
            envelope = NEWEST.of_worker(self._router.recv_multipart()[1], 2**20)
            if isinstance(envelope, m.WorkerBatch):
                batches.append((envelope.sequence, envelope.messages))
        return batches

    def say(self, *messages: Any) -> None:
        self.link.messages.extend(messages)
        self.link.pump()

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + HANG_S
        while not condition():
            assert time.monotonic() < deadline
            self.link.pump()
            time.sleep(0.001)

    def close(self) -> None:
        self.link.close()
        self._zmq.destroy(linger=0)


@contextmanager
def alone(folder: Path, **options: Any) -> Iterator[Alone]:
    ends = Alone(folder, **options)
    try:
        yield ends
    finally:
        ends.close()


@pytest.mark.parametrize("bound", [{"max_unconfirmed_messages": 10}, {"max_unconfirmed_bytes": 65_536}])
def test_unconfirmed_messages_are_bounded_whatever_batches_they_are_in(tmp_path: Path, bound: dict[str, int]) -> None:
    with alone(tmp_path, **bound) as ends:
        words = [m.Ack(DEVICE, [("x" * 1000, number)]) for number in range(70)]
        ends.say(*words[:5])
        assert not ends.link.saturated
        ends.say(*words[5:])
        assert ends.link.saturated
        assert ends.link.unconfirmed == 2
        ends.messages(confirmed=1)
        assert ends.link.saturated
        ends.messages(confirmed=2)
        assert not ends.link.saturated
        ends.say(*words[:5])
        assert not ends.link.saturated


@pytest.mark.parametrize(
    "word",
    [
        m.Call(7, m.Publish(DEVICE, "half a character: \ud83d", 0, "")),
        m.Call(7, m.Publish(DEVICE, "x" * 70_000, 0, "")),
        m.Call(7, m.Publish(DEVICE, 2**64, 0, "")),
    ],
)
def test_a_word_that_cannot_be_said_costs_that_word_and_whoever_asked_is_told(tmp_path: Path, word: Any) -> None:
    with alone(tmp_path, max_message_bytes=65_536) as ends:
        ends.say(m.Detach(DEVICE), word, m.Detach(OTHER))
        words = [said for _, batch in ends.said(2) for said in batch]
        assert words == [m.Detach(DEVICE), m.Detach(OTHER)]
        assert ends.heard == [m.Reply(7, m.FAILED, None)]
        assert ends.link.dropped == 1


def test_more_than_a_message_may_hold_is_said_in_several(tmp_path: Path) -> None:
    with alone(tmp_path, max_message_bytes=65_536) as ends:
        words = [m.Ack(DEVICE, [("x" * 1000, number)]) for number in range(200)]
        ends.say(*words)
        batches = ends.said(ends.link.unconfirmed)
        assert [sequence for sequence, _ in batches] == [*range(1, len(batches) + 1)]
        assert [word for _, batch in batches for word in batch] == words
        entries = [m.HeldChannel(number.to_bytes(16, "big"), "x" * 500, 1, []) for number in range(300)]
        ends.say(m.AnnounceChannels(entries))
        more = ends.said(ends.link.unconfirmed - len(batches))
        assert [entry for _, batch in more for one in batch for entry in one.channels] == entries
        assert ends.link.dropped == 0


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xc1",
        b"\x91\x81\x90\x01",
        [99],
        array(m.RouterBatch),
        array(m.RouterBatch, 0, []),
        m.RouterBatch("1", [], []),
        m.RouterBatch(0, {}, []),
        m.RouterBatch(0, [], 1),
        array(m.Welcome),
        m.Welcome("text", m.PROTOCOL),
        array(m.Rejoin, 1),
        m.Ready(m.PROTOCOL, 0, b"i", 1, m.PROTOCOL),
    ],
)
def test_an_envelope_of_a_router_that_is_none_is_passed_over(tmp_path: Path, message: Any) -> None:
    with alone(tmp_path) as ends:
        ends.say(m.Detach(DEVICE))
        ends.tell(message)
        ends.messages(m.Disconnect(DEVICE))
        assert ends.heard == [m.Disconnect(DEVICE)]
        assert (ends.link.refused, ends.link.unconfirmed, ends.link.joined) == (1, 1, True)


@pytest.mark.parametrize(
    "message",
    [
        [],
        None,
        [99],
        m.Call(1, m.Attach(DEVICE, "", 0, 0)),
        m.Deliver(1, [], "a", 1, None),
        m.Deliver(1, DEVICE, "a", "1", None),
        array(m.Deliver, 1, DEVICE),
        m.Reply([], m.OK, None),
        array(m.Reply, 1),
        m.Disconnect({}),
        m.Disconnect(b"short"),
        m.DeliverStored(DEVICE, [["a"]]),
        m.Event(DEVICE, b"no text", ""),
        m.Broadcast("space", 1, None),
        m.Members(DEVICE, True, [["ann"]], []),
        m.Terminate(DEVICE, "4009", ""),
    ],
)
def test_a_message_of_a_router_that_is_none_costs_that_message(tmp_path: Path, message: Any) -> None:
    with alone(tmp_path) as ends:
        ends.messages(m.Disconnect(DEVICE), message, m.Disconnect(OTHER))
        assert ends.heard == [m.Disconnect(DEVICE), m.Disconnect(OTHER)]
        assert ends.link.refused == 1


def test_acks_that_the_store_could_not_keep_are_said_until_it_can(tmp_path: Path) -> None:
    with alone(tmp_path) as ends:
        item = Item("a", 5, 1, 2**40, 0, None)
        ends.say(m.Ack(DEVICE, [["a", 5], ["b", 1]]), m.Detach(OTHER))
        ends.said(1)
        ends.messages(m.DeliverStored(DEVICE, [item]), confirmed=1, unkept=(1,))
        assert ends.heard.pop() == m.DeliverStored(DEVICE, [])  # the device has had it
        for sequence in (2, 3):
            ends.link.beat({})
            assert ends.said(1) == [(sequence, [m.Ack(DEVICE, [("a", 5), ("b", 1)])])]
            ends.link.beat({})  # which is under way
            assert ends.link.unconfirmed == 1
            ends.messages(confirmed=sequence, unkept=(2,) if sequence == 2 else ())
        newer = Item("a", 6, 2, 2**40, 0, None)
        ends.messages(m.DeliverStored(DEVICE, [item, newer]))
        assert ends.heard == [m.DeliverStored(DEVICE, [item, newer])]
        ends.link.beat({})
        assert ends.link.unconfirmed == 0


def test_acks_that_an_old_router_could_not_keep_are_said_before_the_devices_are_announced(tmp_path: Path) -> None:
    with alone(tmp_path, max_unconfirmed_messages=2) as ends:
        ends.held = [DEVICE]
        ends.say(m.Ack(DEVICE, [[slot, 5] for slot in "abc"]))
        ends.said(1)
        ends.messages(confirmed=1, unkept=(1,))
        assert ends.link.dropped == 1  # more than may wait
        ends.tell(m.Rejoin())
        ends._until(lambda: not ends.link.joined)
        ends.welcome()
        acks, held = ends.said(2)
        assert acks[1] == [m.Ack(DEVICE, [("b", 5), ("c", 5)])]
        assert held[1][0].devices == [DEVICE]


def test_what_comes_behind_something_lost_is_not_acted_on_until_the_router_welcomes_again(tmp_path: Path) -> None:
    with alone(tmp_path) as ends:
        ends.say(m.Detach(DEVICE))
        ends.said(1)
        first, lost, behind = (m.Broadcast("space", key, None) for key in ("first", "lost", "behind"))
        ends.tell(m.RouterBatch(0, [first], [], 1))
        ends.tell(m.RouterBatch(1, [behind], [], 3))  # it confirms what the lost one may have replied to
        ends._until(lambda: not ends.link.joined)
        ends.tell(m.RouterBatch(1, [behind], [], 4))
        ends.say(m.Detach(OTHER))
        assert ends.next() == m.Ready(m.PROTOCOL, 3, b"incarnat", 4711, m.LOWEST_PROTOCOL)
        ends.welcome()
        assert ends.next() == m.Begin("", 0)
        assert ends.said(2) == [(1, [m.Detach(DEVICE)]), (2, [m.Detach(OTHER)])]
        ends.tell(m.RouterBatch(2, [lost], [], 1))
        ends._until(lambda: len(ends.heard) > 1)
        assert ends.heard == [first, lost]
        assert ends.link.unconfirmed == 0


def test_a_beat_names_the_last_batch(tmp_path: Path) -> None:
    with alone(tmp_path) as ends:
        assert [ends.next(), ends.next()] == [m.Begin("", 0), m.Announced(0)]
        for count in range(3):
            ends.link.beat({"connections": count})
            ends.link.pump()
            assert ends.next() == m.Beat({"connections": count}, count)
            ends.say(m.Detach(DEVICE))
            ends.said(1)


def test_a_second_welcome_begins_to_count_anew(tmp_path: Path) -> None:
    with alone(tmp_path) as ends:  # READY was sent twice, because the router was slow
        ends.tell(m.RouterBatch(0, [m.Disconnect(DEVICE)], [], 1))
        ends.tell(m.Welcome(b"router-1", m.PROTOCOL))
        ends.tell(m.RouterBatch(0, [m.Disconnect(OTHER)], [], 1))
        ends._until(lambda: len(ends.heard) == 2)
        assert ends.link.joined
