"""A device of gopush2: who may come in, what it is sent first, and its heartbeats."""

import json
from typing import Any

import msgspec
import pytest
from support.gopush2_device import DAY, KEY, Device, event, made, request

from farm.dialects import Subscription
from farm.dialects.gopush2.sessions import JoiningSession, RefusedSession
from farm.transports.request import Grant, Refusal, Response
from router.common import messages as m
from router.common.answers import CloseCode
from router.common.position import OWN_OFFSETS, AfterOffset
from router.dialects.gopush2.protocol import (
    BAD_HEARTBEAT,
    BAD_PARAMETER,
    BAD_TOKEN,
    EXPIRED,
    NO_CHANNEL,
    NO_CHANNEL_HERE,
    NOT_GRANTED,
    NOT_NOW,
    SILENT,
    TOKEN_REFUSED,
    TOO_MANY,
    Enter,
    Look,
    channel_address,
    subscribers_address,
)

ADDRESS = channel_address(KEY)
HIGHEST = 2**63 - 1


def question(device: Device) -> Enter | Look:
    """What the router is asked of the channel."""
    invoke = device.asked()
    assert isinstance(invoke, m.Invoke)
    assert invoke.key == ADDRESS
    return msgspec.msgpack.decode(invoke.arguments, type=Enter | Look)


def messages(device: Device) -> list[Any]:
    return [json.loads(text) for text in device.sent if text not in (b"", b"h")]


# ---------------------------------------------------------------------- coming in


def test_its_token_comes_first_and_then_what_it_has_missed() -> None:
    device = Device("key=Terry-Mao&mid=7&token=secret")
    wanted = question(device)
    assert isinstance(wanted, Enter)
    assert (wanted.token, len(wanted.taker)) == ("secret", 16)
    assert not device.session.channels
    device.replied()
    assert device.wants() == Subscription(ADDRESS, position=AfterOffset(OWN_OFFSETS, 7), dialect="gopush2")
    assert device.session.channels == (ADDRESS,)
    assert device.sent == []
    device.subscribed(events=[event(8, "missed"), event(11, 'with "quotes"')])
    assert device.sent == [b"h", b'{"mid":8,"msg":"missed"}', b'{"mid":11,"msg":"with \\"quotes\\""}']
    assert device.session.channels == (ADDRESS,)
    assert device.dialect.counts() == {"gopush2_devices": 1, "gopush2_subscribed": 1}
    device.session.closed()
    assert device.dialect.counts() == {"gopush2_devices": 0, "gopush2_subscribed": 1}


def test_two_connections_never_have_the_same_taker() -> None:
    takers = [wanted.taker for wanted in map(question, (Device(), Device())) if isinstance(wanted, Enter)]
    assert len(set(takers)) == 2


@pytest.mark.parametrize(("outcome", "code"), [(TOKEN_REFUSED, BAD_TOKEN), (NO_CHANNEL_HERE, NO_CHANNEL)])
def test_who_may_not_come_in_is_not_subscribed(outcome: int, code: CloseCode) -> None:
    device = Device()
    device.replied(outcome=outcome)
    assert (device.closed, device.open, len(device.session.channels)) == ((code, code.text), None, 0)


def test_where_keys_have_a_limit_its_token_is_used_only_behind_that() -> None:
    device = Device(max_subscriber_per_key=3)
    counted = subscribers_address(KEY)
    wanted = device.wants()
    assert (wanted.key, wanted.user, wanted.most, wanted.hidden) == (counted, "1234.1234", 3, False)
    assert m.label_parts(wanted.label)[1:] == ("subscribers", KEY)
    device.subscribed(events=None)
    assert isinstance(question(device), Enter)
    device.joins(event(1))
    assert messages(device) == [{"mid": 1, "msg": "message 1"}]
    assert device.session.channels == (counted, ADDRESS)


def test_one_too_many_keeps_its_token() -> None:
    device = Device(max_subscriber_per_key=3)
    device.subscribed(m.FULL, None)
    assert (device.closed, device.open) == ((TOO_MANY, TOO_MANY.text), None)


def test_what_the_router_cannot_do_now_closes_it() -> None:
    device = Device()
    device.replied(m.FAILED)
    assert device.closed == (NOT_NOW, NOT_NOW.text)
    device = Device(max_subscriber_per_key=3)
    device.subscribed(m.FAILED, None)
    assert device.closed == (NOT_NOW, NOT_NOW.text)


def test_a_log_that_cannot_be_read_closes_it_so_that_it_asks_again() -> None:
    device = Device()
    device.replied()
    device.subscribed(events=None)
    assert (device.closed, device.sent) == ((NOT_NOW, NOT_NOW.text), [])


def test_a_router_that_says_nothing_for_long_closes_it() -> None:
    device = Device(heartbeat=5)
    assert device.dialect.first_tick == 10
    assert device.tick(10) == 0
    assert device.closed == (NOT_NOW, NOT_NOW.text)


def test_clients_of_the_first_versions_have_no_greeting_and_their_own_name_for_the_id() -> None:
    device = Device(greeting=False, msg_id=True)
    device.joins(event(3))
    assert [json.loads(text) for text in device.sent] == [{"mid": 3, "msg": "message 3", "msg_id": 3}]


# ---------------------------------------------------------------------- the main server


def test_the_main_server_is_asked_about_the_key_and_may_grant_another() -> None:
    dialect = made()
    asked = request("key=a%20b&mid=7&heartbeat=9")
    assert dialect.wanted(asked) == ("a b",)
    assert dialect.ignored_arguments == {"mid", "heartbeat"}
    for channels, granted in ((None, True), (("x", "a b"), True), (("x",), False), ((), False)):
        asked.grant = Grant(channels)
        session = dialect.opened(asked)
        assert isinstance(session, JoiningSession if granted else RefusedSession)
    assert list(session.begun(0.0)) == [(NOT_GRANTED, NOT_GRANTED.text)]


def test_a_request_without_a_key_asks_for_none() -> None:
    assert not made().wanted(request("mid=7"))
    assert not made().wanted(request("key=a&mid=0", "/client"))


# ---------------------------------------------------------------------- parameters


@pytest.mark.parametrize(
    "query",
    [
        "",
        "mid=0",
        "key=&mid=0",
        "key=a",
        "key=a&mid=",
        "key=a&mid=x",
        "key=a&mid=1.0",
        "key=a&mid=+1+",
        "key=a&mid=%D9%A1",
        f"key=a&mid={HIGHEST + 1}",
        f"key=a&mid={-HIGHEST - 2}",
        "key=a&mid=" + "9" * 5000,
        "key=a&mid=0&heartbeat=0",
        "key=a&mid=0&heartbeat=-1",
        "key=a&mid=0&heartbeat=x",
        "key=a&mid=0&heartbeat=101",
        "key=%FF&mid=0",
        "key=abcdefghi&mid=0",
        "key=a&mid=0&token=abcdefghi",
        "key=a&mid=0" + "&more=" * 20,
    ],
)
def test_parameters_that_cannot_be_used(query: str) -> None:
    device = Device(query, max_heartbeat=100, max_key_bytes=8, max_token_bytes=8)
    assert device.closed is not None
    assert device.closed.code == BAD_PARAMETER
    assert device.open is None
    assert len(device.closed.reason) < 120


@pytest.mark.parametrize(
    ("mid", "position"),
    [("0", 0), ("-1", 0), ("%2B5", 5), ("007", 7), (str(HIGHEST), HIGHEST), (str(-HIGHEST - 1), 0), ("1&mid=x", 1)],
)
def test_message_ids_that_it_may_have(mid: str, position: int) -> None:
    device = Device(f"key=a&mid={mid}")
    device.replied()
    assert device.wants().position == AfterOffset(OWN_OFFSETS, position)


def test_a_key_is_any_text() -> None:
    device = Device("key=%E2%82%AC+a%26b&mid=0")
    device.replied()
    assert device.wants().key == channel_address("€ a&b")


# ---------------------------------------------------------------------- heartbeats


def test_a_heartbeat_is_answered_in_kind() -> None:
    device = Device()
    device.joins()
    assert [device.said(beat) for beat in (b"h", b"", b"h")] == [[b"h"], [b""], [b"h"]]
    assert device.said(b"h", binary=True) == [b"h"]


@pytest.mark.parametrize("message", [b"H", b"hh", b" ", b"x", b"\0", b"{}"])
def test_whatever_else_it_sends_closes_it(message: bytes) -> None:
    device = Device()
    device.joins()
    assert device.said(message) == []
    assert device.closed == (BAD_HEARTBEAT, BAD_HEARTBEAT.text)
    assert device.counters.commands_refused == 1


@pytest.mark.parametrize(("query", "patience"), [("key=a&mid=0", 60), ("key=a&mid=0&heartbeat=100", 200)])
def test_silence_for_twice_its_heartbeat_closes_it(query: str, patience: float) -> None:
    device = Device(query)
    device.joins()
    assert device.ticks == [patience]
    assert device.tick(patience / 2) == patience / 2
    assert device.tick(patience - 1) == 1
    assert device.closed is None
    assert device.tick(patience) == 0
    assert device.closed == (SILENT, SILENT.text)
    assert device.counters.timeouts == 1


# ---------------------------------------------------------------------- the end of a channel


def test_at_the_end_of_its_channel_it_looks_again_and_stays_if_that_was_put_off() -> None:
    device = Device()
    device.replied(seconds=100)
    device.subscribed()
    assert device.ticks == [60]
    device.clock.pass_by(70)
    assert 0 < device.tick(20) <= 31
    device.clock.pass_by(31)
    assert device.tick(0) > 0
    assert isinstance(question(device), Look)
    device.replied(seconds=DAY)
    assert device.tick(0) == 60
    assert device.open is None
    assert device.closed is None


def test_at_the_end_of_its_channel_it_is_closed() -> None:
    device = Device()
    device.replied(seconds=5)
    device.subscribed()
    assert device.ticks == [5]
    device.clock.pass_by(6)
    device.tick(0)
    device.replied(outcome=NO_CHANNEL_HERE)
    assert device.closed == (EXPIRED, EXPIRED.text)


def test_it_is_not_closed_because_the_router_cannot_say() -> None:
    device = Device()
    device.replied(seconds=5)
    device.subscribed()
    device.clock.pass_by(6)
    assert device.tick(0) > 0
    assert device.tick(600) == 60  # it is not read meanwhile
    device.replied(m.FAILED)
    assert device.closed is None
    device.tick(0)
    assert isinstance(question(device), Look)


# ---------------------------------------------------------------------- the test page


def test_the_test_page_is_there_if_debug_is_on() -> None:
    page = Device(debug=True).dialect.opened(request("", "/client"))
    assert isinstance(page, Response)
    assert page.content_type.startswith("text/html")
    assert not made().transport(request("", "/client")).for_pages
    assert made().transport(request()).for_pages
    with pytest.raises(Refusal) as refused:
        Device().dialect.opened(request("", "/client"))
    assert refused.value.status == 404
