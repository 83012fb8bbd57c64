"""WebPush beside SimplePush on one path: who claims a connection, and what a device costs."""

import gc
import json
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.common import settings_with
from support.webpush_device import CHANNEL, OTHER, REQUEST, Device, hello, item, member, note, tracker

import farm.dialects.simplepush
import farm.dialects.simplepush.unidentified
import farm.dialects.webpush
import farm.dialects.webpush.unidentified
from farm.dialects import Attach, Become, Context
from farm.dialects.simplepush.dialect import SimplePushDialect
from farm.dialects.simplepush.session import SimplePushSession
from farm.dialects.webpush.session import WebPushSession
from farm.worker.shared_path import Undecided, by_path
from router.common import messages as m
from router.common.metrics import WorkerCounters
from router.common.token import Tokens

# ---- beside SimplePush on one path


def simplepush() -> SimplePushDialect:
    context = Context(settings_with(), Tokens([b"k" * 32]), WorkerCounters(), lambda: 0.0)
    return SimplePushDialect(context)


@pytest.mark.parametrize(
    ("first", "claimed"),
    [
        (hello(), True),
        ({"messageType": "hello", "broadcasts": {}, "use_webpush": True}, True),
        ({"messageType": "hello", "use_webpush": False}, False),
        ({"messageType": "hello", "use_webpush": 1}, False),
        ({"messageType": "register", "use_webpush": True}, False),
        ({"messageType": "hello", "uaid": "", "channelIDs": []}, False),
        (["use_webpush"], False),
        ({}, False),
    ],
)
def test_only_a_hello_with_use_webpush_is_claimed(first: Any, claimed: bool) -> None:
    device = Device()
    path = by_path([(farm.dialects.simplepush.SIDE, simplepush()), (farm.dialects.webpush.SIDE, device.dialect)])["/"]
    session = path.opened(REQUEST)
    assert isinstance(session, Undecided)
    message = json.dumps(first).encode()
    (effect,) = session.received(message, False, 0.0)
    assert isinstance(effect, Become)
    dialect = farm.dialects.webpush if claimed else farm.dialects.simplepush
    assert isinstance(effect.session, dialect.unidentified.Unidentified)
    assert effect.message == message
    assert path.first_tick == simplepush().first_tick


@pytest.mark.parametrize("first", [b"use_webpush", b"\xff use_webpush", b"[" * 100_000 + b"use_webpush"])
def test_what_cannot_be_read_is_not_claimed(first: bytes) -> None:
    assert not Device().dialect.claims(first)
    assert not Device(bare_hello=True).dialect.claims(first)


@pytest.mark.parametrize(
    ("first", "claimed"),
    [
        ({"messageType": "hello"}, True),
        ({"messageType": "hello", "uaid": None, "channelIDs": None, "broadcasts": None}, True),
        ({"messageType": "hello", "channelIDs": []}, False),
        ({"messageType": "hello", "use_webpush": False}, False),
        ({"messageType": "ping"}, False),
        ({}, False),
    ],
)
def test_a_bare_hello_is_claimed_if_the_settings_say_so(first: Any, claimed: bool) -> None:
    message = json.dumps(first).encode()
    assert Device(bare_hello=True).dialect.claims(message) is claimed
    assert not Device().dialect.claims(message)


def test_the_subprotocol() -> None:
    assert Device().dialect.subprotocol(["a", "push-notification"]) == "push-notification"
    assert Device().dialect.subprotocol(["a"]) is None


# ---- memory


def own_bytes(make: Callable[[int], Any]) -> int:
    """Bytes that one more session costs: itself and what it refers to, but not what another one refers to as well."""
    session, other = make(1), make(2)
    shared = {id(found) for found in gc.get_referents(other)}
    own = {id(found): found for found in gc.get_referents(session) if id(found) not in shared}
    return sys.getsizeof(session) + sum(map(sys.getsizeof, own.values()))


def test_an_idle_device_costs_no_more_than_one_of_simplepush() -> None:
    webpush, other = tracker(a="1"), simplepush()

    def firefox(number: int) -> WebPushSession:
        device = Device(webpush)
        device.clock.pass_by(number)  # or the time of the ping would be the same object in both
        device.send(hello(number.to_bytes(16, "big").hex(), broadcasts={"a": "1", "b": "2"}))
        device.answer(m.OK, [[item(1), item(2)], device.dialect.today() + member(CHANNEL)])
        device.send({"messageType": "register", "channelID": OTHER})
        device.answer()
        device.send("{}")
        device.delivered(*item(3)[:2])
        device.ack(note(1), note(2), note(3))
        assert device.call is None
        return device.session

    def simple(number: int) -> SimplePushSession:
        session = other.opened(REQUEST)
        command = {"messageType": "hello", "uaid": number.to_bytes(16, "big").hex(), "channelIDs": []}
        (call,) = session.received(json.dumps(command).encode(), False, 0.0)
        assert isinstance(call, Attach)
        become, *_ = session.replied(call.context, m.OK, m.Attached([], other.today()), 0.0)
        assert isinstance(become, Become)
        identified = become.session
        assert isinstance(identified, SimplePushSession)
        identified.received(b"{}", False, number + 0.5)
        return identified

    assert own_bytes(firefox) <= own_bytes(simple)
