"""Which router of several each message of a worker goes to."""

from __future__ import annotations

from typing import get_args

import pytest

from farm.worker.routes import Routes
from router.common import messages as m
from router.common.numbers import of_router, router_of
from router.common.partitions import BROADCASTS, fixed_owners, partition

DEVICE, CHANNEL = b"d" * 16, b"c" * 16
LABEL = m.channel_label("talk", "app", "room")
ROUTERS = 5


def owner(key: bytes) -> int:
    return fixed_owners(ROUTERS)[partition(key)]


def question(uri: str) -> m.Authorise:
    return m.Authorise("talk", m.CONNECT, "GET", uri, [], "192.0.2.1", [])


OF_A_KEY: list[tuple[m.Message, bytes]] = [
    (m.Attach(DEVICE, "", 1, 5), DEVICE),
    (m.Detach(DEVICE), DEVICE),
    (m.Fetch(DEVICE, 7), DEVICE),
    (m.Drop(DEVICE, "slot"), DEVICE),
    (m.Ack(DEVICE, [("slot", 3)]), DEVICE),
    (m.Subscribe(CHANNEL, LABEL), CHANNEL),
    (m.Unsubscribe(CHANNEL), CHANNEL),
    (m.ReadLog(CHANNEL, (7,)), CHANNEL),
    (m.Publish(CHANNEL, "body", 0, ""), CHANNEL),
    (m.Counted(CHANNEL, 3), CHANNEL),
    (m.PresenceJoin(CHANNEL, "ann", "{}", 5), CHANNEL),
    (m.PresenceLeave(CHANNEL, "ann"), CHANNEL),
    (m.Happened(LABEL, "what", ""), m.channel_key("talk", "app", "room")),
    (m.Record("space", DEVICE, None, 0), DEVICE),
    (m.SetAdd("space", DEVICE, CHANNEL, b"head", 60, 5), DEVICE),
    (m.SetRemove("space", DEVICE, CHANNEL), DEVICE),
    (m.Invoke("talk", CHANNEL, b""), CHANNEL),
    (question("/sub/room"), b"/sub/room"),
]


def test_each_message_of_a_worker_has_one_way_to_its_router() -> None:
    every = {*get_args(m.ToRouter), *get_args(m.AnyRequest)} - {m.Call}

    assert {*m.KEYS, *m.NUMBERS, *m.EACH} == every
    assert len(m.KEYS) + len(m.NUMBERS) + len(m.EACH) == len(every)
    assert {type(message) for message, _ in OF_A_KEY} == set(m.KEYS)


@pytest.mark.parametrize("message, key", OF_A_KEY)
def test_a_message_goes_to_the_owner_of_its_key(message: m.Message, key: bytes) -> None:
    routes = Routes(ROUTERS)

    assert routes.of(message) == routes.owner(key) == owner(key)
    if isinstance(message, m.Request):
        assert routes.of(m.Call(7, message)) == owner(key)


@pytest.mark.parametrize("router", range(ROUTERS))
def test_what_answers_a_router_goes_to_it(router: int) -> None:
    number = of_router(router, 2**54 - 1)

    for message in (m.Result(number, m.WRITTEN), m.CountsSent(number), m.Withdraw(number)):
        assert Routes(ROUTERS).of(message) == router == router_of(number)


def test_the_same_question_goes_to_the_same_router_whatever_its_arguments() -> None:
    routes = Routes(ROUTERS)

    assert routes.of(question("/sub/room?a=1")) == routes.of(question("/sub/room?a=2&b"))
    assert {routes.of(question(f"/sub/{number}")) for number in range(100)} == set(range(ROUTERS))


def test_one_router_gets_all() -> None:
    routes = Routes()

    assert {routes.of(message) for message, _ in OF_A_KEY} == {0}
    assert (routes.broadcasts, routes.share(0)) == (0, None)


def test_the_shares_of_all_routers_are_the_whole() -> None:
    routes = Routes(ROUTERS)
    shares = [routes.share(router) for router in range(ROUTERS)]

    for key in (DEVICE, CHANNEL, BROADCASTS):
        assert [share(key) for share in shares if share is not None].count(True) == 1
    assert routes.broadcasts == owner(BROADCASTS)
