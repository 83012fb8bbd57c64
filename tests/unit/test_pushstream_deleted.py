"""Push stream, device side: a channel is deleted, and who has others keeps them."""

import json

import msgspec
import pytest
import websocket
from support.pushstream_shard import Site, logged, made, site

from farm.dialects import Unsubscribe
from farm.dialects.pushstream.sessions import PublishingSession
from farm.transports.frames import CLOSE
from router.common import messages as m
from router.dialects.pushstream.protocol import DELETED, Publish, channel_address, subscribers_address

A, B, C = map(channel_address, "abc")


def delete(here: Site, channel: str) -> None:
    here.publish(channel, logged(0, "the end"))
    here.shard.sockets.received([m.Terminate(channel_address(channel), DELETED, "")])


def texts(client: websocket.WebSocket, number: int) -> list[str]:
    return [json.loads(client.recv())["text"] for _ in range(number)]


@pytest.mark.parametrize("limit", [0, 9])
def test_who_has_other_channels_keeps_them_and_ends_with_the_last(limit: int) -> None:
    with site(max_subscribers_per_channel=limit) as here:
        both, one = here.socket("/ws/a/b"), here.socket("/ws/a")
        here.answer()
        here.shard.said()
        delete(here, "a")
        assert texts(one, 1) == ["the end"]
        assert one.recv_frame().opcode == CLOSE
        here.publish("b", logged(6))
        assert texts(both, 2) == ["the end", "text 6"]
        left = {each.channel for each in here.shard.said() if isinstance(each, m.Unsubscribe)}
        assert left == ({A, subscribers_address("a")} if limit else {A})
        delete(here, "b")
        assert texts(both, 1) == ["the end"]
        assert both.recv_frame().opcode == CLOSE
        here.shard.said()
        assert not here.shard.sockets.subscriptions


def test_who_catches_up_in_several_keeps_the_others() -> None:
    with site() as here:
        client = here.socket("/ws/a.b1/b.b1")
        here.answer()
        list(here.shard.sockets.welcomed())  # the link is new: what came in the meantime is read
        list(here.shard.sockets.held_channels())
        delete(here, "a")
        here.answer({"b": [logged(5)]})
        here.publish("b", logged(6))
        assert texts(client, 2) == ["text 5", "text 6"]
        delete(here, "b")
        assert texts(client, 1) == ["the end"]
        assert client.recv_frame().opcode == CLOSE


def test_what_is_published_afterwards_goes_to_the_others_only() -> None:
    session = PublishingSession(made(max_subscribers_per_channel=3), (), _names=("a", "b", "c"))
    session.channels = (A, B, C, *map(subscribers_address, "abc"))
    assert session.terminated(B) == (Unsubscribe(B), Unsubscribe(subscribers_address("b")))
    assert session.channels == (A, C, subscribers_address("a"), subscribers_address("c"))
    (call,) = session.received(b"text", False, 0)
    assert msgspec.msgpack.decode(call.request.arguments, type=Publish).names == ["a", "c"]
    session.terminated(A)
    assert session.channels == (C, subscribers_address("c"))
    assert session.terminated(C) == ()
