"""The epoll of a process: in which order it hands over what is ready."""

import socket
from collections.abc import Iterator

import pytest
import trio
from support.shard import Shard

from router.common.poller import READ, Poller


@pytest.fixture
def poller() -> Iterator[Poller]:
    poller = Poller()
    yield poller
    poller.close()


def test_what_brings_connections_comes_last(poller: Poller) -> None:
    """And the others in the order in which they became ready."""
    pairs = [socket.socketpair() for _ in range(5)]
    ours = [one.fileno() for one, _ in pairs]
    for fd in ours:
        poller.register(fd, READ)
    poller.accepting.update((ours[0], ours[3]))
    for _, other in pairs:
        other.send(b"x")
    expected = [ours[place] for place in (1, 2, 4, 0, 3)]
    assert [fd for fd, _ in poller.ready_now()] == expected
    assert [fd for fd, _ in trio.run(poller.ready)] == expected
    assert [fd for fd, _ in trio.run(poller.ready, False)] == expected
    for pair in pairs:
        for end in pair:
            end.close()


def test_a_worker_accepts_behind_all_else() -> None:
    shard = Shard()
    opened = [shard.open("/talk/x") for _ in range(2)]
    shard.connect()
    for _, client in opened:
        client.send("echo")
    *first, last = [fd for fd, _ in shard._poller.ready_now()]
    assert first == [fd for fd, _ in opened]
    assert shard._poller.accepting == {last}
    shard.sockets.drain()
    assert not shard._poller.accepting
    shard.close()
