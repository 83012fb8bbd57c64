"""What a channel of a worker takes for its subscribers: `farm.worker.local_channel`."""

import sys

import pytest

from farm.worker.connection import Connection
from farm.worker.local_channel import LocalChannel

BESIDES = 1024


def connections(number: int) -> list[Connection]:
    return [Connection(fd, 0, 0.0) for fd in range(number)]


def size(channel: LocalChannel) -> int:
    return sys.getsizeof(channel.subscribers)


@pytest.mark.parametrize("number", [17, 100, 1_500, 7_500, 15_000])
def test_subscribers_that_come_again_take_no_more_than_those_that_stay(number: int) -> None:
    stays, comes = LocalChannel(b"k"), LocalChannel(b"k")
    devices = connections(number)
    for place, device in enumerate(devices):
        stays.add(device, None)
        comes.add(device, None)
        if place >= 50:  # as a poll that was answered at once, and then one that waits
            comes.remove(devices[place - 50])
            comes.add(devices[place - 50], "user")
    there = list(comes.subscribers)
    comes.shrink()
    assert size(comes) <= 64 * number + BESIDES and size(comes) <= 2 * size(stays)
    assert list(comes.subscribers) == there
    if number > 1_000:
        assert isinstance(comes.subscribers, dict) and list(comes.subscribers.values()).count("user") == number - 50
    before = comes.subscribers
    comes.shrink()
    assert comes.subscribers is before  # once is enough


@pytest.mark.parametrize("number", [0, 3, 16, 17, 500, 1_366, 2_731, 5_462, 10_923, 87_382])
def test_a_table_into_which_subscribers_only_came_is_left_alone(number: int) -> None:
    channel = LocalChannel(b"k")
    for device in connections(number):
        channel.add(device, None)
    before = channel.subscribers
    channel.shrink()
    assert channel.subscribers is before


def test_what_a_crowd_has_left_is_given_back() -> None:
    channel = LocalChannel(b"k")
    devices = connections(10_000)
    for device in devices:
        channel.add(device, None)
    for device in devices[100:]:
        channel.remove(device)
    channel.shrink()
    assert size(channel) < 64 * 100 + BESIDES and list(channel.subscribers) == devices[:100]
