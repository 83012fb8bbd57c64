"""A subscriber of several cache channels, which catches up in all of them together when the link is new."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import websocket
from support.pusher_device import KEY, SECRET, address, made
from support.shard import Shard

from router.common import messages as m
from router.common.position import LogEvent, LogSlice
from router.dialects.pusher.protocol import NAME
from router.dialects.pusher.signatures import socket_signature

ROOMS = ("presence-cache-a", "presence-cache-b")
BODIES = tuple(f'{{"event":"price","data":"{price}"}}' for price in (6, 7, 8))
EVENT = LogEvent(1, 1_700_000_000, 1, 1_700_000_060, "", {}, '{"event":"price","data":"5"}')


@pytest.fixture
def shard(tmp_path: Path) -> Iterator[Shard]:
    dialect = made(tmp_path)
    shard = Shard(more={"/app/*": dialect}, named={NAME: dialect})
    yield shard
    shard.close()


def answer(shard: Shard, *members: str, events: Sequence[LogEvent] = ()) -> None:
    """Reply to all that was asked."""
    calls = [message for message in shard.said() if isinstance(message, m.Call)]
    assert calls
    for call in calls:
        payload: Any = None
        if isinstance(call.request, m.ReadLog):
            payload = LogSlice(7, 1, True, list(events))
        elif isinstance(call.request, m.PresenceJoin):
            payload = dict.fromkeys(members, "{}")
        shard.sockets.received([m.Reply(call.number, m.OK, payload)])
    shard.sockets.speak()


def inside(shard: Shard) -> websocket.WebSocket:
    """A client that is in both rooms with another user."""
    fd, client = shard.open(f"/app/{KEY}?protocol=7")
    socket_id = json.loads(json.loads(client.recv())["data"])["socket_id"]
    for room in ROOMS:
        data = json.dumps({"user_id": "me"})
        told = {"channel": room, "auth": f"{KEY}:{socket_signature(SECRET, socket_id, room, data)}"}
        client.send(json.dumps({"event": "pusher:subscribe", "data": told | {"channel_data": data}}))
        shard.sockets.ready(fd, 1)
        answer(shard, "me", "ann")
        names = [json.loads(client.recv())["event"] for _ in range(2)]
        assert names == ["pusher_internal:subscription_succeeded", "pusher:cache_miss"]
    return client


def test_it_is_sent_who_came_and_went_in_the_meantime(shard: Shard) -> None:
    client = inside(shard)
    list(shard.sockets.welcomed())
    list(shard.sockets.held_channels())
    # The router sends its members before it has read the logs.
    shard.sockets.received([m.Members(address(room), True, [("me", "{}"), ("bob", "{}")], []) for room in ROOMS])
    answer(shard, events=[EVENT])
    shard.sockets.speak()
    found = [json.loads(client.recv()) for _ in range(6)]
    for room in ROOMS:
        assert [one["event"] for one in found if one.get("channel") == room] == [
            "pusher_internal:member_added",
            "pusher_internal:member_removed",
        ]
    assert shard.sockets.subscriptions.held_bytes == 0


def test_a_log_that_counts_anew_gives_what_it_has_not_had(shard: Shard) -> None:
    """Redis was restarted while the link was away: another epoch, and perhaps the same offsets."""
    fd, client = shard.open(f"/app/{KEY}?protocol=7")
    client.recv()
    client.send(json.dumps({"event": "pusher:subscribe", "data": {"channel": "cache-a"}}))
    shard.sockets.ready(fd, 1)
    answer(shard, events=[EVENT])
    assert [json.loads(client.recv())["event"] for _ in range(2)] == [
        "pusher_internal:subscription_succeeded",
        "price",
    ]
    later = [EVENT._replace(offset=offset, tag=offset, body=body) for offset, body in enumerate(BODIES, 2)]
    shard.sockets.received([m.LoggedEvent(address("cache-a"), 7, later[0], "")])
    assert json.loads(client.recv())["data"] == "6"
    for epoch, log, news in ((8, [later[0]], []), (9, later[1:2], ["7"]), (10, [later[2]], ["8"])):
        list(shard.sockets.welcomed())
        list(shard.sockets.held_channels())
        (call,) = [message for message in shard.said() if isinstance(message, m.Call)]
        assert call.request.position.epoch == epoch - 1
        reply = m.Reply(call.number, m.OK, LogSlice(epoch, log[-1].offset, False, log))
        shard.sockets.received([reply])
        shard.sockets.speak()
        for data in news:
            assert json.loads(client.recv())["data"] == data
    client.send(json.dumps({"event": "pusher:ping"}))
    shard.sockets.ready(fd, 1)
    assert json.loads(client.recv())["event"] == "pusher:pong"
