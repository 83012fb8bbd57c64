"""What app servers ask of Pusher's channels: counts, members, last events; and how users are terminated."""

import json
from pathlib import Path

from support.common import DELIVERY_TIMEOUT_S, Rig, in_rig
from support.pusher_app import (
    OFF,
    OTHER,
    App,
    event,
)

from router.common import messages as m
from router.common.position import AfterOffset, LogSlice
from router.dialects.pusher.protocol import (
    channel_address,
)


@in_rig()
async def test_what_a_channel_cannot_have_is_left_out(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    app.subscribe("a")
    assert await app.post(event("a", info="user_count,cache,subscription_count")) == (
        200,
        {"channels": {"a": {"subscription_count": 1}}},
    )
    for info in ("user_count", "cache", "user_count,cache"):
        assert await app.get("/apps/3/channels/a", info=info) == (200, {"occupied": True})
    assert await app.get("/apps/3/channels", info="cache") == (200, {"channels": {"a": {}}})


@in_rig()
async def test_errors_are_in_the_words_that_libraries_look_for(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    one = {"name": "a", "data": "", "channel": "a"}
    for path, body, status, words in (
        ("/apps/3/events", event(data="x" * 11_264), 413, "content of this event"),
        ("/apps/3/batch_events", {"batch": [one | {"data": "x" * 11_264}]}, 413, "content of this event"),
        ("/apps/3/batch_events", {"batch": [one] * 11}, 400, "Batch too large"),
    ):
        found, told = await app.post(body, path)
        assert (found, words in told) == (status, True)


@in_rig()
async def test_null_is_as_good_as_nothing(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    nothing = {"socket_id": None, "info": None, "more": None}
    one = {"name": "a", "data": "", "channel": "a", "channels": None, **nothing}
    assert await app.post(one) == (200, {})
    assert await app.post(one | {"channel": None, "channels": ["a"]}) == (200, {})
    assert await app.post({"batch": [one, one], "more": None}, "/apps/3/batch_events") == (200, {})
    assert (await app.post(one | {"channel": None}))[0] == 400


@in_rig()
async def test_users_have_the_ids_that_they_were_given(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("presence-a")
    for user, info in (("7", '#{"name":"Eve"}'), ("8", "#"), ("9", '{"x":1}'), ("a", "")):
        listener.enter("presence-a", user, info)
    path = "/apps/3/channels/presence-a/users"
    assert await app.get(path) == (200, {"users": [{"id": 7}, {"id": 8}, {"id": "9"}, {"id": "a"}]})
    with_info = [{"id": 7, "user_info": {"name": "Eve"}}, {"id": 8}, {"id": "9", "user_info": {"x": 1}}, {"id": "a"}]
    assert await app.get(path, with_user_info="1") == (200, {"users": with_info})


@in_rig()
async def test_who_is_subscribed_by_now_is_counted(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    one, two = app.subscribe("a"), app.subscribe("a", "b", shard=1)
    batch = {"batch": [{"name": "x", "data": "", "channel": "a", "info": "subscription_count"}]}
    for number, (method, path, body, parameters, asked) in enumerate(
        (
            ("GET", "/apps/3/channels/a", None, {"info": "subscription_count"}, 2),
            ("GET", "/apps/3/channels", None, {"info": "subscription_count", "filter_by_prefix": "a"}, 2),
            ("POST", "/apps/3/events", event("a", info="subscription_count"), {}, 2),
            ("POST", "/apps/3/batch_events", batch, {}, 2),
            ("GET", "/apps/3/channels/b", None, {"info": "subscription_count"}, 1),
            ("GET", "/apps/3/channels/nobody", None, {"info": "subscription_count"}, 0),
            ("GET", "/apps/3/channels/a", None, {}, 0),
            ("POST", "/apps/3/events", event("a"), {}, 0),
        ),
        10,
    ):
        answers = app.call(method, path, body, **parameters)
        app.have_turns()
        assert bool(answers) is (asked == 0)
        late = m.Counted(channel_address("3", "a"), number)
        assert one.worker.tell_counts(late) == (asked == 2)
        assert two.worker.tell_counts(late) == (asked > 0)
        status, told = await app.answer(answers)
        assert status == 200
        if asked == 2:
            assert f'"subscription_count": {2 * number}' in json.dumps(told)
    assert len(rig.hub.recount) == 0


@in_rig(link={"max_recounts": 2})
async def test_a_worker_that_does_not_say_is_not_waited_for_long(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a")
    path = "/apps/3/channels/a"
    late, lost, beyond = (app.call("GET", path, info="subscription_count") for _ in range(3))
    assert (late, lost, len(beyond)) == ([], [], 1)
    rig.hub.tick()
    assert late == []
    rig.hub.lost(listener.worker.session, "a test")
    rig.hub.tick()
    assert [json.loads(answers[0].body) for answers in (late, lost)] == [
        {"occupied": False, "subscription_count": 0}
    ] * 2
    listener = app.subscribe("a")
    late = app.call("GET", path, info="subscription_count")
    rig.clock.pass_by(DELIVERY_TIMEOUT_S + 0.1)
    rig.hub.tick()
    assert json.loads(late[0].body) == {"occupied": True, "subscription_count": 1}
    assert listener.worker.tell_counts() == 1  # too late: it changes nothing


@in_rig()
async def test_a_cache_channel_keeps_its_last_event(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("cache-a")
    path = "/apps/3/channels/cache-a"
    assert await app.get(path, info="cache") == (200, {"occupied": True, "cache": None})
    rig.store.hold()
    first = app.call("POST", "/apps/3/events", event("cache-a", data="1"))
    await rig.settle()
    assert listener.hear() == first == []  # until it is durable
    rig.store.release()
    assert await app.answer(first) == (200, {})
    assert listener.hear() == [({"event": "greet", "channel": "cache-a", "data": "1"}, "")]
    assert await app.post(event("cache-a", data="2\u00fc")) == (200, {})
    rig.clock.pass_by(100)
    assert await app.get(path, info="cache,subscription_count") == (
        200,
        {"occupied": True, "subscription_count": 1, "cache": {"data": "2\u00fc", "ttl": 1700}},
    )
    found: list[LogSlice | None] = []
    rig.committer.read_log(channel_address("3", "cache-a"), AfterOffset(0, 0), lambda _, log: found.append(log))
    await rig.settle()
    assert found[0] is not None
    assert [json.loads(one.body) for one in found[0].events] == [
        {"event": "greet", "channel": "cache-a", "data": "2\u00fc"}
    ]
    rig.clock.pass_by(1700)
    assert await app.get(path, info="cache") == (200, {"occupied": True, "cache": None})


@in_rig()
async def test_every_way_into_a_cache(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path, cache_ttl=60)
    names = ["cache-a", "private-cache-a", "presence-cache-a", "private-encrypted-cache-a"]
    assert (await app.post(event(channels=[*names[:3], "plain"])))[0] == 200
    assert (await app.post(b"old", f"/apps/3/channels/{names[3]}/events", name="x"))[0] == 202
    batch = [{"name": "x", "data": "batch", "channel": "cache-b"}, {"name": "x", "data": "", "channel": "plain"}]
    assert (await app.post({"batch": batch}, "/apps/3/batch_events"))[0] == 200
    found = [(await app.get(f"/apps/3/channels/{name}", info="cache"))[1] for name in [*names, "cache-b"]]
    data = [event()["data"]] * 3 + ["old", "batch"]
    assert found == [{"occupied": False, "cache": {"data": text, "ttl": 60}} for text in data]


@in_rig(store={"queue_limit": 1})
async def test_a_store_that_cannot(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "cache-a")
    rig.store.failing = True
    assert (await app.post(event("cache-a")))[0] == 503
    assert (await app.get("/apps/3/channels/cache-a", info="cache"))[0] == 503
    rig.store.failing = False
    listener.hear()
    rig.store.hold()
    app.call("POST", "/apps/3/events", event("cache-a"))
    assert rig.committer.full
    listener.hear()
    batch = {"batch": [{"name": "x", "data": "", "channel": name} for name in ("a", "cache-a")]}
    assert (await app.post(event(channels=["a", "cache-a"])))[0] == 503
    assert (await app.post(batch, "/apps/3/batch_events"))[0] == 503
    assert (await app.post(b"", "/apps/3/channels/cache-a/events", name="x"))[0] == 503
    assert listener.hear() == []
    assert (await app.post(event("a")))[0] == 200  # which nothing keeps


@in_rig()
async def test_channels(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "presence-b", "presence-c", "#server-to-user-1")
    app.subscribe("secret", shard=1, app="4")
    listener.enter("presence-b", "jim")
    listener.count("presence-b", 3)
    path = "/apps/3/channels"
    assert await app.get(path) == (200, {"channels": {"a": {}, "presence-b": {}, "presence-c": {}}})
    assert await app.get(path, filter_by_prefix="presence-") == (
        200,
        {"channels": {"presence-b": {}, "presence-c": {}}},
    )
    assert await app.get(path, filter_by_prefix="presence-b", info="user_count,subscription_count") == (
        200,
        {"channels": {"presence-b": {"user_count": 1, "subscription_count": 3}}},
    )
    assert await app.get(path, info="subscription_count", filter_by_prefix="a") == (
        200,
        {"channels": {"a": {"subscription_count": 1}}},
    )
    for wrong in ({"info": "user_count"}, {"info": "user_count", "filter_by_prefix": "p"}, {"info": "x"}):
        assert (await app.get(path, **wrong))[0] == 400
    listener.worker.say(m.Unsubscribe(channel_address("3", "presence-c")))
    assert "presence-c" not in (await app.get(path))[1]["channels"]


@in_rig()
async def test_of_lists_of_channels_one_is_made_in_a_turn(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    app.subscribe("a")
    answers = [app.call("GET", "/apps/3/channels") for _ in range(3)]
    made = []
    while app.turns.waiting:
        app.turns.run()
        made.append(sum(map(len, answers)))
    assert made == [0, 1, 2, 3]  # asked for in a turn, and made in the next
    assert {json.loads(answer.body)["channels"].popitem()[0] for (answer,) in answers} == {"a"}


@in_rig()
async def test_one_channel(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("a", "presence-b")
    listener.enter("presence-b", "jim")
    path = "/apps/3/channels/"
    assert await app.get(path + "a") == (200, {"occupied": True})
    assert await app.get(path + "nobody") == (200, {"occupied": False})
    assert await app.get(path + "nobody", info="subscription_count") == (
        200,
        {"occupied": False, "subscription_count": 0},
    )
    assert await app.get(path + "presence-b", info="user_count,subscription_count") == (
        200,
        {"occupied": True, "user_count": 1, "subscription_count": 1},
    )
    assert await app.get(path + "presence-x", info="user_count") == (200, {"occupied": False, "user_count": 0})
    assert await app.get("/apps/3/channels") == (200, {"channels": {"a": {}, "presence-b": {}}})  # asking makes none
    for name, info in (("a", "user_count,nonsense"), ("a", "nonsense"), ("a%20b", ""), ("x" * 201, "")):
        assert (await app.get(path + name, info=info))[0] == 400


@in_rig()
async def test_users(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    listener = app.subscribe("presence-a")
    listener.enter("presence-a", "jim", '{"name":"Jim"}')
    listener.enter("presence-a", "joe")
    path = "/apps/3/channels/presence-a/users"
    assert await app.get(path) == (200, {"users": [{"id": "jim"}, {"id": "joe"}]})
    assert await app.get(path, with_user_info="1") == (
        200,
        {"users": [{"id": "jim", "user_info": {"name": "Jim"}}, {"id": "joe"}]},
    )
    assert await app.get("/apps/3/channels/presence-none/users") == (200, {"users": []})
    assert (await app.get("/apps/3/channels/a/users"))[0] == 400
    assert (await app.get("/apps/3/channels/presence-a%20/users"))[0] == 400


@in_rig()
async def test_terminate_and_its_alias(rig: Rig, tmp_path: Path) -> None:
    app = App(rig, tmp_path)
    first, second = app.subscribe("#server-to-user-jim"), app.subscribe("#server-to-user-jim", shard=1)
    other = app.subscribe("#server-to-user-jim", shard=2, app="4")
    for path in ("/apps/3/users/jim/terminate_connections", "/users/jim/terminate_connections"):
        assert await app.post({}, path) == (200, {})
        for listener in (first, second):
            (sent,) = listener.worker.take()
            reason = sent.reason
            assert sent == m.Terminate(channel_address("3", "#server-to-user-jim"), 4009, reason)
            assert reason
        assert other.worker.take() == []
    assert await app.post({}, "/users/nobody/terminate_connections") == (200, {})
    assert (await app.post({}, f"/users/{'x' * 129}/terminate_connections"))[0] == 400
    assert (await app.post({}, "/users/jim/terminate_connections", auth_key="unknown"))[0] == 401
    assert (await app.post({}, "/users/jim/terminate_connections", auth_key=None))[0] == 401
    assert (await app.post({}, "/users/jim/terminate_connections", auth_signature="0" * 64))[0] == 401
    assert (await app.post({}, "/users/jim/terminate_connections", app=OFF))[0] == 403
    assert first.worker.take() == []
    assert await app.post({}, "/users/jim/terminate_connections", app=OTHER) == (200, {})
    assert len(other.worker.take()) == 1
