"""Pusher's users, from the device side: members of presence channels, sign-in and watchlists."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.pusher_device import (
    KEY,
    Device,
    address,
    auth,
    denied,
    error,
    event,
    made,
    succeeded,
)

from farm.dialects import Members, Subscription
from farm.dialects.pusher.dialect import PusherDialect
from router.common import messages as m
from router.dialects.pusher.protocol import (
    label,
)


@pytest.fixture
def plain(tmp_path: Path) -> PusherDialect:
    return made(tmp_path)


@pytest.fixture
def talkative(tmp_path: Path) -> PusherDialect:
    """Client events are on, and a webhook hears of what is not in a cache."""
    hook = {"url": "http://127.0.0.1:9/", "events": ["cache_miss"]}
    return made(tmp_path, {"client_messages": True, "webhooks": [hook]})


def test_a_presence_channel(plain: PusherDialect) -> None:
    device = Device(plain)
    data = '{"user_id":10,"user_info":{"name":"Mr. Pusher"}}'
    vector = f"{KEY}:afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"
    said = {"channel": "presence-foobar", "auth": vector, "channel_data": data}
    assert device.send("pusher:subscribe", said) == []
    assert device.open == Subscription(
        address("presence-foobar"), label("3", "presence-foobar"), "10", '#{"name":"Mr. Pusher"}', 100
    )
    (told,) = device.answer(m.OK, Members([("10", '#{"name":"Mr. Pusher"}'), ("eve", "")]))
    presence = {"ids": [10, "eve"], "hash": {"10": {"name": "Mr. Pusher"}, "eve": None}, "count": 2}
    assert told == succeeded("presence-foobar", {"presence": presence})


def test_a_presence_channel_that_is_full(plain: PusherDialect) -> None:
    device = Device(plain)
    data = '{"user_id":"a"}'
    device.send("pusher:subscribe", {"channel": "presence-a", "auth": auth("presence-a", data), "channel_data": data})
    assert denied(device.answer(m.FULL)) == ("presence-a", "LimitReached", 403)
    assert device.channels() == set()
    assert device.enter("presence-a", "a", "a")[0]["event"] == "pusher_internal:subscription_succeeded"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (None, "AuthError"),
        ("", "InvalidData"),
        ("[]", "InvalidData"),
        ("{}", "InvalidData"),
        ('{"user_id":null}', "InvalidData"),
        ('{"user_id":true}', "InvalidData"),
        ('{"user_id":[1]}', "InvalidData"),
        ('{"user_id":""}', "InvalidData"),
        (json.dumps({"user_id": "x" * 129}), "InvalidData"),
        (json.dumps({"user_id": 1, "user_info": "x" * 1023}), "LimitReached"),
    ],
)
def test_a_member_that_cannot_be(plain: PusherDialect, data: str | None, kind: str) -> None:
    device = Device(plain)
    told = device.subscribe("presence-a", auth=auth("presence-a", data), channel_data=data)
    assert denied(told)[:2] == ("presence-a", kind)
    assert device.channels() == set()


@pytest.mark.parametrize(("user", "shown"), [(7, 7), ("7", "7"), (0, 0), (-7, -7), (2**64, 2**64)])
def test_an_id_is_given_back_as_it_was_given(talkative: PusherDialect, user: Any, shown: Any) -> None:
    device = Device(talkative)
    data = json.dumps({"user_id": user})
    device.send("pusher:subscribe", {"channel": "presence-a", "auth": auth("presence-a", data), "channel_data": data})
    join = device.open
    assert isinstance(join, Subscription)
    assert join.user == str(user)  # by which 7 and "7" are one member
    presence = device.answer(m.OK, Members([(join.user, join.info)]))[0]["data"]["presence"]
    assert presence == {"ids": [shown], "hash": {str(user): None}, "count": 1}
    assert event(talkative.member_added("presence-a", join.user, join.info))["data"] == {"user_id": shown}
    assert event(talkative.member_removed("presence-a", join.user, join.info))["data"] == {"user_id": shown}
    device.send("client-a", 1, channel="presence-a")
    assert json.loads(device.messages[0].body)["user_id"] == shown
    signed_in = Device(talkative).signed_in(user)
    signed_in.send("pusher:subscribe", {"channel": "presence-a", "auth": auth("presence-a")})
    assert isinstance(signed_in.open, Subscription)
    assert signed_in.open[2:4] == (join.user, join.info)


def test_user_info_of_null_is_none(plain: PusherDialect) -> None:
    device = Device(plain)
    data = '{"user_id":"a","user_info":null}'
    device.send("pusher:subscribe", {"channel": "presence-a", "auth": auth("presence-a", data), "channel_data": data})
    assert isinstance(device.open, Subscription)
    assert device.open.info == ""


def test_the_signature_covers_the_member(plain: PusherDialect) -> None:
    signed = auth("presence-a", '{"user_id":"a"}')
    told = Device(plain).subscribe("presence-a", auth=signed, channel_data='{"user_id":"b"}')
    assert denied(told) == ("presence-a", "AuthError", 401)


def test_who_is_signed_in_needs_no_channel_data(plain: PusherDialect) -> None:
    device = Device(plain).signed_in("7", user_info={"name": "Eve"})
    device.send("pusher:subscribe", {"channel": "presence-a", "auth": auth("presence-a")})
    assert isinstance(device.open, Subscription)
    assert device.open[2:4] == ("7", '{"name": "Eve"}')


def test_members_come_and_go(plain: PusherDialect) -> None:
    added = event(plain.member_added("presence-a", "7", '{"name":"Eve"}'))
    data = {"user_id": "7", "user_info": {"name": "Eve"}}
    assert added == {"event": "pusher_internal:member_added", "channel": "presence-a", "data": data}
    assert event(plain.member_added("presence-a", 'a"', ""))["data"] == {"user_id": 'a"'}
    removed = event(plain.member_removed("presence-a", "7", ""))
    assert removed == {"event": "pusher_internal:member_removed", "channel": "presence-a", "data": {"user_id": "7"}}


def test_signing_in(plain: PusherDialect) -> None:
    device = Device(plain)
    data = '{"id":"12345"}'
    vector = f"{KEY}:4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba"
    assert device.send("pusher:signin", {"auth": vector, "user_data": data}) == []
    assert device.open == Subscription(address("#server-to-user-12345"), hidden=True)
    assert device.channels() == {address("#server-to-user-12345")}
    assert device.answer() == [{"event": "pusher:signin_success", "data": {"user_data": data}}]


def test_the_channel_of_a_user(plain: PusherDialect) -> None:
    name = "#server-to-user-ä 7"
    device = Device(plain)
    assert denied(device.subscribe(name)) == (name, "AuthError", 401)
    device.signed_in("ä 7")
    assert denied(device.subscribe("#server-to-user-8"))[1:] == ("AuthError", 401)
    device.send("pusher:subscribe", {"channel": name, "auth": ""})
    assert device.open == Subscription(address(name))
    assert device.answer() == [succeeded(name)]
    device.send("pusher:unsubscribe", {"channel": name})
    assert device.open == Subscription(address(name), hidden=True)  # its connections can still be closed
    assert device.answer() == []
    assert (device.channels(), device.parted) == ({address(name)}, [])


def test_signing_in_again(plain: PusherDialect) -> None:
    device = Device(plain).signed_in("7")
    assert [told["event"] for told in device.sign_in("7")] == ["pusher:signin_success"]
    assert device.open is None
    assert error(device.sign_in("8"))[0] == 4009


@pytest.mark.parametrize("user", ["", "x" * 129])
def test_a_user_id_has_its_length(plain: PusherDialect, user: str) -> None:
    assert error(Device(plain).sign_in(user))[0] == 4009


@pytest.mark.parametrize("user", [None, True, 7.5, [7], {"id": 7}])
def test_a_user_id_is_a_text_or_a_whole_number(plain: PusherDialect, user: Any) -> None:
    assert error(Device(plain).sign_in(user))[0] is None


def test_who_signs_in_with_a_number_is_the_same_as_with_its_digits(plain: PusherDialect) -> None:
    device = Device(plain)
    assert device.sign_in(7) == []
    assert isinstance(device.open, Subscription)
    assert device.open.key == address("#server-to-user-7")
    assert device.answer() == [{"event": "pusher:signin_success", "data": {"user_data": '{"id": 7}'}}]
    assert device.sign_in("7")[0]["event"] == "pusher:signin_success"
    assert error(device.sign_in(8))[0] == 4009


def test_a_sign_in_needs_its_signature(plain: PusherDialect) -> None:
    device = Device(plain)
    told = device.send("pusher:signin", {"auth": f"{KEY}:{'0' * 64}", "user_data": '{"id":"7"}'})
    assert error(told)[0] == 4009
    assert device.closed is None
    assert device.channels() == set()


def test_a_sign_in_that_the_router_cannot_do(plain: PusherDialect) -> None:
    device = Device(plain)
    device.sign_in("7")
    device.answer(m.FAILED)
    assert device.closed is not None
    assert device.closed.code == 4100


def watch(user: str, who: str) -> Subscription:
    name = f"#watch-{user}"
    return Subscription(address(name), label("3", name), who, "", 2)


def watched(**users: list[str]) -> dict[str, Any]:
    events = [{"name": name, "user_ids": ids} for name, ids in users.items()]
    return {"event": "pusher_internal:watchlist_events", "data": {"events": events}}


def test_a_watchlist_is_told_who_is_there(tmp_path: Path) -> None:
    device = Device(made(tmp_path, {"watchlists": True}, max_channels_a_connection=1))
    device.sign_in("7", watchlist=["a", "b", "a", "7", "", "x" * 129, "c"])
    assert [told["event"] for told in device.answer()] == ["pusher:signin_success"]
    assert device.open == watch("7", "7")
    assert device.answer(m.OK, {"7": ""}) == []
    for user, members in (("a", {"": "", "a": ""}), ("b", {"": ""})):
        assert device.open == watch(user, "")
        assert device.answer(m.OK, members) == []
    assert device.open == watch("c", "")
    assert device.answer(m.OK, {"": "", "c": ""}) == [watched(online=["a", "c"], offline=["b"])]
    channels = {address(name) for name in ("#server-to-user-7", "#watch-7", "#watch-a", "#watch-b", "#watch-c")}
    assert device.channels() == channels
    assert device.subscribe("news") == [succeeded("news")]  # those are no channels that it has subscribed to
    assert denied(device.subscribe("more")) == ("more", "LimitReached", 403)


def test_who_watches_hears_of_coming_and_going(plain: PusherDialect) -> None:
    assert event(plain.member_added("#watch-a", "a", "")) == watched(online=["a"])
    assert event(plain.member_removed("#watch-a", "a", "")) == watched(offline=["a"])
    assert event(plain.member_added("#watch-a", "", "")) == watched()
    assert event(plain.member_removed("#watch-a", "", "")) == watched()


def test_a_watchlist_that_is_too_long(tmp_path: Path) -> None:
    device = Device(made(tmp_path, {"watchlists": True}, max_watchlist=1))
    device.sign_in("7", watchlist=["a", "b"])
    _, told = device.answer()
    assert error([told])[0] == 4302
    device.answer(m.OK, {"7": ""})
    assert device.answer(m.OK, {"": ""}) == [watched(offline=["a"])]
    assert device.open is None


def test_a_watchlist_of_nobody(tmp_path: Path) -> None:
    device = Device(made(tmp_path, {"watchlists": True})).signed_in("7")
    assert device.open == watch("7", "7")
    assert device.answer(m.FAILED) == []
    assert (device.open, device.channels()) == (None, {address("#server-to-user-7")})


def test_watchlists_are_off_by_default(plain: PusherDialect) -> None:
    device = Device(plain)
    device.sign_in("7", watchlist=["a"])
    device.answer()
    assert device.open is None


def test_a_watchlist_may_be_null_and_may_hold_numbers(tmp_path: Path) -> None:
    of = made(tmp_path, {"watchlists": True})
    device = Device(of).signed_in(7, watchlist=None)
    assert isinstance(device.open, Subscription)
    assert device.open.key == address("#watch-7")
    assert device.answer(m.OK, {"7": ""}) == []
    device = Device(of).signed_in("7", watchlist=[8, "8", 7])
    device.answer(m.OK, {"7": ""})
    assert isinstance(device.open, Subscription)
    assert device.open.key == address("#watch-8")
    assert device.answer(m.OK, {}) == [watched(offline=["8"])]


@pytest.mark.parametrize("watchlist", ["a", {"a": 1}, [1.5], [None], [[]]])
def test_a_watchlist_is_a_list_of_ids(plain: PusherDialect, watchlist: Any) -> None:
    assert error(Device(plain).sign_in("7", watchlist=watchlist))[0] is None
