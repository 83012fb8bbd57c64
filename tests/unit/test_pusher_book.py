"""What an operator sees and does of the channels and users of Pusher, over the hub and a store."""

from __future__ import annotations

import json
from pathlib import Path

from support.common import Rig, in_rig
from support.operator import Operator
from support.pusher_app import App

from router.common import messages as m
from router.core.managing import BAD_REQUEST, NOT_FOUND, REFUSED
from router.dialects.pusher import SPEC
from router.dialects.pusher.protocol import TERMINATED, channel_address, label


def operator(app: App) -> Operator:
    book = SPEC.book(app.context)
    assert book is not None
    return Operator(app.rig, app.context, {"pusher": book})


@in_rig()
async def test_lists_and_members(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    op = operator(app)
    three = app.subscribe("news", "presence-room")
    four = app.subscribe("news", shard=1, app="4")
    three.enter("presence-room", "7", '#{"name":"ann"}')
    three.count("news", 3)
    workers = [three.worker, four.worker]
    page = await op.ask("channels", workers)
    assert [(row["application"], row["channel"], row["subscribers"], row["members"]) for row in page["channels"]] == [
        ("3", "news", 3, None),
        ("3", "presence-room", 1, 1),
        ("4", "news", 1, None),
    ]
    room = await op.ask("channel", workers, dialect="pusher", application="3", channel="presence-room")
    assert (room["exists"], room["subscribers"], room["member_count"]) == (True, 1, 1)
    assert room["members"] == [{"user": "7", "info": '{"name":"ann"}'}]
    ask = {"dialect": "pusher", "application": "3"}
    assert await op.code("channel", workers, **ask, channel="nobody") == NOT_FOUND
    assert await op.code("channel", workers, **ask, channel="not a channel") == BAD_REQUEST
    assert await op.code("channel", workers, dialect="pusher", application="9", channel="news") == NOT_FOUND
    assert await op.code("channel", workers, dialect="pusher", channel="news") == NOT_FOUND  # of which application?


@in_rig()
async def test_a_test_event_and_what_a_cache_channel_holds(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    op = operator(app)
    three = app.subscribe("news")
    ask = {"dialect": "pusher", "application": "3"}
    assert await op.ask("channel.publish", **ask, channel="news", event={"data": "hi"}) == {"status": 200}
    assert three.hear() == [({"event": "farm-test", "channel": "news", "data": "hi"}, "")]
    event = {"data": "x" * 10_241, "event": "long"}
    answer = await op.ask("channel.publish", **ask, channel="news", event=event)
    assert (answer["error"]["code"], answer["error"]["message"][:4]) == (REFUSED, "413:")
    await op.ask("channel.publish", **ask, channel="cache-news", event={"data": "kept", "event": "fresh"})
    kept = await op.ask("channel", **ask, channel="cache-news")
    assert (kept["exists"], kept["subscribers"], kept["stored"]) == (True, 0, 1)


@in_rig()
async def test_the_connections_of_a_user_are_closed(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, apps=[json.loads('{"id": "3", "name": "three", "key": "k", "secret": "s"}')])
    op = operator(app)
    worker = rig.worker()
    name = "#server-to-user-ann"
    worker.say(m.Call(1, m.Subscribe(channel_address("3", name), label("3", name))))
    worker.take()
    assert (await op.ask("channels", [worker]))["channels"] == []
    assert await op.ask("user.terminate", dialect="pusher", user="ann") == {"status": 200}  # of the only application
    (said,) = [one for one in worker.take() if isinstance(one, m.Terminate)]
    assert (said.channel, said.code) == (channel_address("3", name), int(TERMINATED))
    assert await op.code("user.terminate", dialect="pusher", user="a" * 200) == REFUSED
