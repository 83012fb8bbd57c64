"""gopush2, app-server side: requests through the routes and a real hub, answers and messages for the workers out."""

import itertools
import json

import pytest
from support.common import Rig, during_each_commit, in_rig
from support.gopush2_app import KEY, NO_SUBSCRIBER, OK, PARAM_ERROR, PUSH_FAILED, TOKEN_FAILED, App

from router.common import messages as m
from router.common.partitions import partition
from router.dialects.gopush2.protocol import MAX_MID, TOKENS, channel_address, enter, message_text

# ---- channels and tokens


@in_rig()
async def test_a_channel_is_created_and_extended(rig: Rig) -> None:
    app = App(rig, channel_expire=100)
    assert await app.pub() == NO_SUBSCRIBER
    assert await app.ch("one") == OK
    assert await app.pub() == OK
    rig.clock.pass_by(90)
    assert await app.ch("two") == OK
    rig.clock.pass_by(90)
    assert await app.pub() == OK
    rig.clock.pass_by(10)
    assert await app.pub() == NO_SUBSCRIBER
    assert await app.stat("channel") == {"created": 1, "refreshed": 1}


@in_rig()
async def test_a_token_is_added_once_while_it_is_unused(rig: Rig) -> None:
    app = App(rig)
    assert await app.ch("one") == OK
    assert await app.ch("one") == TOKEN_FAILED
    assert await app.ch("one", "other") == OK
    worker = rig.worker()
    assert (await app.entry(worker, "one")).outcome == 0
    assert await app.ch("one") == OK


@pytest.mark.parametrize("failing", range(1, 5))
@in_rig(store={"batch_limit": 1})
async def test_a_token_is_for_a_channel_that_was_extended(rig: Rig, failing: int) -> None:
    app = App(rig, channel_expire=100)
    assert await app.ch("one") == OK
    rig.clock.pass_by(50)
    commits = itertools.count(1)

    def act() -> None:
        rig.store.failing = next(commits) == failing

    during_each_commit(rig, act)
    said_so = await app.ch("two") == OK
    worker = rig.worker()
    left = (await app.look(worker)).seconds
    assert not said_so or left == 100


@in_rig()
async def test_a_token_is_kept_in_the_partition_of_its_channel(rig: Rig) -> None:
    app = App(rig)
    for key in "abcdefgh":
        await app.ch(f"token-of-{key}", key)
    tokens = [name for space, name in rig.store._records if space == TOKENS]
    assert len(tokens) == 8
    assert sorted(map(partition, tokens)) == sorted(partition(channel_address(key)) for key in "abcdefgh")


@pytest.mark.parametrize("query", ["", "?", "?key=a", "?token=a", "?key=&token=a", "?key=a&token=", "?Key=a&token=a"])
@in_rig()
async def test_a_channel_has_a_key_and_a_token(rig: Rig, query: str) -> None:
    assert await App(rig).envelope("GET", f"/ch{query}") == PARAM_ERROR


@in_rig()
async def test_a_key_that_no_device_can_ask_for_is_none(rig: Rig) -> None:
    app = App(rig)
    assert await app.ch(key="%FF") == PARAM_ERROR
    assert await app.ch(token="%FF") == PARAM_ERROR
    assert await app.ch(key="%EF%BF%BD") == OK
    assert await app.pub(key="%FF") == PARAM_ERROR


@in_rig()
async def test_keys_and_tokens_have_limits(rig: Rig) -> None:
    app = App(rig, max_key_bytes=4, max_token_bytes=3)
    assert await app.ch("abc", "abcd") == OK
    assert await app.ch("abcd", "abcd") == PARAM_ERROR
    assert await app.ch("abc", "ab%C3%A4") == OK
    assert await app.ch("abc", "abc%C3%A4") == PARAM_ERROR
    assert await app.pub(key="abcd") == OK
    assert await app.pub(key="abc%C3%A4") == NO_SUBSCRIBER


@in_rig()
async def test_without_auth_devices_create_channels(rig: Rig) -> None:
    app = App(rig, auth=False, channel_expire=100)
    assert (await app.answer("GET", f"/ch?key={KEY}&token=a")).status == 404
    assert await app.pub() == NO_SUBSCRIBER
    worker = rig.worker()
    assert (await app.entry(worker, "")).seconds == 100
    assert await app.pub() == OK
    rig.clock.pass_by(40)
    assert (await app.entry(worker, "")).seconds == 60
    rig.clock.pass_by(60)
    assert await app.pub() == NO_SUBSCRIBER
    assert await app.stored() == []


# ---- messages


@in_rig()
async def test_a_message_reaches_every_shard_and_is_stored(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    listeners = [app.listener(shard) for shard in range(2)]
    assert await app.pub('a "quoted" \N{PUSHPIN}\0') == OK
    ((mid, message),) = listeners[0].messages()
    assert listeners[1].messages() == [(mid, message)]
    assert message == 'a "quoted" \N{PUSHPIN}\0'
    assert await app.stored() == [(mid, message)]


@in_rig()
async def test_what_is_not_utf_8_is_replaced(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    assert await app.envelope("POST", f"/pub?key={KEY}", b"\xff\xc3\xa4") == OK
    assert [message for _, message in await app.stored()] == ["\N{REPLACEMENT CHARACTER}\u00e4"]


@pytest.mark.parametrize("body", ['"a"', '""', '"\\u0000\\""'])
def test_what_a_device_is_sent_is_json(body: str) -> None:
    assert json.loads(message_text(MAX_MID, body)) == {"mid": MAX_MID, "msg": json.loads(body)}
    assert json.loads(message_text(1, body, msg_id=True)) == {"mid": 1, "msg_id": 1, "msg": json.loads(body)}
    assert message_text(7, body) == b'{"mid":7,"msg":' + body.encode() + b"}"


@in_rig()
async def test_ids_that_are_given_grow_over_restarts_and_below_2_to_the_53(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    for _ in range(3):
        assert await app.pub() == OK
    rig.router_restarts()
    rig.clock.unix_s -= 50  # the clock is set back
    app = App(rig)
    assert await app.pub() == OK
    mids = [mid for mid, _ in await app.stored()]
    assert mids == sorted(set(mids))
    assert len(mids) == 4
    assert 2**50 < mids[0] < mids[-1] < 2**53


@in_rig()
async def test_app_servers_may_give_ids_in_any_order(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    listener = app.listener()
    for mid in (5, 3, MAX_MID - 1, 4):
        assert await app.pub(f"m{mid}", f"&mid={mid}") == OK
    assert [mid for mid, _ in listener.messages()] == [5, 3, MAX_MID - 1, 4]
    assert await app.stored() == [(3, "m3"), (4, "m4"), (5, "m5"), (MAX_MID - 1, f"m{MAX_MID - 1}")]
    assert await app.stored(mid=4) == [(5, "m5"), (MAX_MID - 1, f"m{MAX_MID - 1}")]


@in_rig()
async def test_an_id_is_there_once(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    listener = app.listener()
    assert await app.pub("one", "&mid=7") == OK
    assert await app.pub("two", "&mid=7") == PUSH_FAILED
    assert listener.messages() == [(7, "one")]
    assert await app.stored() == [(7, "one")]
    assert rig.hub.counters.pushes_refused == 1


@in_rig()
async def test_behind_the_highest_id_there_is_none(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    listener = app.listener()
    assert await app.pub("last", f"&mid={MAX_MID}") == OK
    assert await app.pub("without an ID") == PUSH_FAILED
    assert await app.pub("below", "&mid=1") == OK
    assert listener.messages() == [(MAX_MID, "last"), (1, "below")]


@pytest.mark.parametrize(
    "mid", ["", "a", "1.5", "0x1", "1+", "0", "-1", str(MAX_MID + 1), str(2**63), "9" * 40, "%D9%A1"]
)
@in_rig()
async def test_an_id_is_a_number_that_javascript_can_have(rig: Rig, mid: str) -> None:
    app = App(rig)
    await app.ch()
    assert await app.pub(more=f"&mid={mid}") == PARAM_ERROR
    assert await app.stored() == []


@in_rig()
async def test_beyond_the_limit_the_smallest_id_goes(rig: Rig) -> None:
    app = App(rig, max_stored_message=3)
    await app.ch()
    listener = app.listener()
    for mid in (10, 30, 20, 40):
        assert await app.pub(more=f"&mid={mid}") == OK
    assert [mid for mid, _ in await app.stored()] == [20, 30, 40]
    listener.messages()
    assert await app.pub(more="&mid=5") == OK
    assert [mid for mid, _ in listener.messages()] == [5]
    assert [mid for mid, _ in await app.stored()] == [5, 30, 40]


@in_rig()
async def test_a_message_expires(rig: Rig) -> None:
    app = App(rig, message_expire=50)
    await app.ch()
    for mid, expire in enumerate(("&expire=10", "", "&expire=abc", "&expire=9999999999999999999", "&expire=70"), 1):
        assert await app.pub(more=f"&mid={mid}{expire}") == OK
    for seconds, left in ((9, [1, 2, 3, 4, 5]), (1, [2, 3, 4, 5]), (40, [4, 5]), (20, [4])):
        rig.clock.pass_by(seconds)
        assert [mid for mid, _ in await app.stored()] == left


@pytest.mark.parametrize("expire", ["0", "-1", "-9999999999"])
@in_rig()
async def test_a_message_that_has_expired_is_not_pushed(rig: Rig, expire: str) -> None:
    app = App(rig)
    await app.ch()
    listener = app.listener()
    assert await app.pub(more=f"&expire={expire}") == PUSH_FAILED
    assert listener.messages() == []
    assert await app.stat("subscriber") == {
        "added_message": 1,
        "created": 1,
        "cur_conn": 0,
        "expired_message": 1,
        "failed_message": 1,
        "total_conn": 0,
    }


@pytest.mark.parametrize(
    ("host", "tcp_port", "addr"), [("127.0.0.1", 0, "127.0.0.1:8080"), ("::", 0, "[::]:8080"), ("a", 9, "a:9")]
)
@in_rig()
async def test_its_configuration_as_a_file_would_say_it(rig: Rig, host: str, tcp_port: int, addr: str) -> None:
    app = App(rig, host=host, tcp_port=tcp_port)
    config = await app.stat("config")
    assert (config["addr"], config["protocol"]) == (addr, int(tcp_port > 0))


@in_rig()
async def test_connections_are_those_of_all_workers(rig: Rig) -> None:
    workers = [{"gopush2_devices": 3, "gopush2_subscribed": 5}, {"gopush2_devices": 4, "gopush2_subscribed": 4.0}, {}]
    found = await App(rig, {"workers": workers}).stat("subscriber")
    assert (found["cur_conn"], found["total_conn"]) == (7, 9)


@in_rig()
async def test_a_message_has_a_limit(rig: Rig) -> None:
    app = App(rig, max_message_bytes=10)
    await app.ch()
    assert await app.pub("12345678") == OK
    assert await app.pub("123456789") == PUSH_FAILED
    assert await app.pub("123456\u00e4") == OK
    assert await app.pub("1234567\u00e4") == PUSH_FAILED
    assert rig.hub.counters.pushes_too_long == 2


@in_rig()
async def test_no_message_goes_to_no_key(rig: Rig) -> None:
    app = App(rig)
    for query in ("", "?", "?mid=1", "?key=", "?key=nobody&expire=5"):
        assert await app.envelope("POST", f"/pub{query}", b"hello") == NO_SUBSCRIBER
    assert await app.envelope("POST", "/pub?mid=x", b"hello") == PARAM_ERROR
    assert rig.hub.counters.pushes_rejected == 5


@in_rig()
async def test_what_the_store_cannot_do_is_not_ok(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    listener = app.listener()
    rig.store.failing = True
    assert await app.pub() == PUSH_FAILED
    assert await app.ch("two") == TOKEN_FAILED
    rig.store.failing = False
    assert listener.messages() == []
    assert await app.pub() == OK
    assert await app.ch("two") == OK


@in_rig(store={"queue_limit": 1})
async def test_what_cannot_wait_for_the_store_is_not_ok(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    await app.pub()
    rig.store.hold()
    first = app.ask("POST", f"/pub?key={KEY}", b"one")
    await rig.settle()
    assert await app.pub() == PUSH_FAILED
    assert await app.ch("two") == TOKEN_FAILED
    assert rig.hub.counters.pushes_refused == 1
    rig.store.release()
    await rig.settle()
    assert json.loads(first[0].body) == OK


@in_rig()
async def test_a_push_is_answered_when_it_is_durable(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    await app.pub()
    listener = app.listener()
    rig.store.hold()
    answers = app.ask("POST", f"/pub?key={KEY}", b"one")
    await rig.settle()
    assert answers == []
    assert listener.messages() == []
    rig.store.release()
    await rig.settle()
    assert len(answers) == 1
    assert len(listener.messages()) == 1


# ---- devices


@in_rig()
async def test_a_device_comes_in_by_a_token_once(rig: Rig) -> None:
    app = App(rig, channel_expire=100)
    await app.ch("one")
    await app.ch("two")
    worker = rig.worker()
    rig.clock.pass_by(30)
    entry = await app.entry(worker, "one")
    assert (entry.outcome, entry.seconds) == (0, 70)
    assert (await app.entry(worker, "one")).outcome == 0  # the same request once more
    assert (await app.entry(worker, "one", taker=b"u" * 16)).outcome == 2
    assert (await app.entry(worker, "three")).outcome == 2
    assert (await app.entry(worker, "two", key="other")).outcome == 1
    assert (await app.entry(worker, "two")).outcome == 0


@in_rig()
async def test_a_device_looks_whether_the_channel_is_there(rig: Rig) -> None:
    app = App(rig, channel_expire=100)
    worker = rig.worker()
    assert (await app.look(worker)).outcome == 1
    await app.ch("one")
    rig.clock.pass_by(99)
    assert ((await app.look(worker)).outcome, (await app.look(worker)).seconds) == (0, 1)
    await app.ch("two")
    rig.clock.pass_by(99)
    assert (await app.look(worker)).outcome == 0
    rig.clock.pass_by(1)
    assert (await app.look(worker)).outcome == 1
    assert (await app.entry(worker, "two")).outcome == 1


@in_rig()
async def test_devices_of_a_channel_that_has_expired_are_closed(rig: Rig) -> None:
    app = App(rig, channel_expire=100)
    await app.ch()
    await app.pub()
    listeners = [app.listener(shard) for shard in range(2)]
    rig.clock.pass_by(100)
    assert await app.pub() == NO_SUBSCRIBER
    closed = m.Terminate(channel_address(KEY), 4410, "the channel has expired")
    assert [listener.worker.take() for listener in listeners] == [[closed], [closed]]


@in_rig()
async def test_what_a_device_asks_that_is_no_question_fails(rig: Rig) -> None:
    App(rig)
    worker = rig.worker()
    worker.say(
        m.Call(1, m.Invoke("gopush2", channel_address(KEY), b"")),
        m.Call(2, m.Invoke("gopush2", channel_address(KEY), b"\x93\x01\xa1a\xa1a")),
        m.Call(3, m.Invoke("gopush2", channel_address(KEY), b"\x91\x03")),
    )
    await rig.settle()
    assert worker.take() == [m.Reply(number, m.FAILED, None) for number in (1, 2, 3)]


@in_rig()
async def test_a_store_that_fails_lets_nobody_in(rig: Rig) -> None:
    app = App(rig)
    await app.ch()
    worker = rig.worker()
    worker.take()
    rig.store.failing = True
    worker.say(m.Call(1, enter(channel_address(KEY), "token", b"t" * 16)))
    await rig.settle()
    assert worker.take() == [m.Reply(1, m.FAILED, None)]
    rig.store.failing = False
    assert (await app.entry(worker)).outcome == 0


# ---- nothing dead is kept


@pytest.mark.parametrize("auth", [True, False])
@in_rig(store={"log_limit": 10})
async def test_the_sweep_leaves_nothing_of_an_expired_channel(rig: Rig, auth: bool) -> None:
    app = App(rig, auth=auth, channel_expire=100, message_expire=1000)
    worker = rig.worker()
    if auth:
        await app.ch("used")
        await app.ch("unused")
    assert (await app.entry(worker, "used")).outcome == 0
    for _ in range(5):
        assert await app.pub() == OK
    assert rig.store.used > 0
    rig.clock.pass_by(100)
    for _ in range(3):
        await rig.store.sweep(int(rig.clock.unix()), 1000)
    assert dict(rig.store.sizes()) == {"inbox": 0, "log": 0, "table": 0}
    assert rig.store.used == 0


@in_rig()
async def test_a_channel_that_is_created_anew_has_nothing_of_before(rig: Rig) -> None:
    app = App(rig, channel_expire=100, message_expire=1000)
    await app.ch("one")
    await app.pub("old")
    rig.clock.pass_by(101)
    await app.ch("two")
    assert await app.stored() == []
    worker = rig.worker()
    assert (await app.entry(worker, "one")).outcome == 2
    assert await app.pub("new") == OK
    assert [message for _, message in await app.stored()] == ["new"]


# ---- who may ask, and how


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/pub?key=a", "POST"),
        ("PUT", "/pub?key=a", "POST"),
        ("POST", "/ch?key=a&token=b", "GET"),
        ("HEAD", "/ch?key=a&token=b", "GET"),
        ("POST", "/stat?type=memory", "GET"),
    ],
)
@in_rig()
async def test_methods(rig: Rig, method: str, target: str, allow: str) -> None:
    answer = await App(rig).answer(method, target)
    assert (answer.status, answer.body) == (405, b"Method Not Allowed\n")
    assert answer.headers == (("Allow", allow),)


@pytest.mark.parametrize("target", ["/pub?key=a", "/ch?key=a&token=b", "/stat?type=memory"])
@in_rig()
async def test_only_who_may_is_answered(rig: Rig, target: str) -> None:
    app = App(rig)
    method = "POST" if target.startswith("/pub") else "GET"
    far = await app.answer(method, target, address="192.0.2.1")
    assert far.status == 403
    assert b"gopush2.admin_key" in far.body
    assert (await app.answer(method, target, b"", "X-Forwarded-For: 127.0.0.1")).status == 403
    with_key = App(rig, admin_key="secret")
    assert (await with_key.answer(method, target)).status == 403
    assert (await with_key.answer(method, f"{target}&admin_key=secret", address="192.0.2.1")).status == 200
    header = "Authorization: Bearer secret"
    assert (await with_key.answer(method, target, b"", header, address="192.0.2.1")).status == 200


@in_rig()
async def test_pushes_by_id_are_another_dialects(rig: Rig) -> None:
    app = App(rig)
    assert (await app.answer("POST", "/pub?id=news", b"hello")).status == 404
    assert (await app.answer("POST", "/pub?x=1&id=news", b"hello")).status == 404
    for query in ("?key=a", "?id=news&key=a", "?valid=1", ""):
        assert await app.envelope("POST", f"/pub{query}", b"hello") == NO_SUBSCRIBER
