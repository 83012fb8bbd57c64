"""A client of gopush2 whose worker has a new link: it gets what it has missed, or comes back for it."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
import websocket
from support.gopush2_device import EPOCH, made
from support.shard import Shard

from router.common import messages as m
from router.common.close_codes import TRY_LATER
from router.common.operation import encoded
from router.common.position import AfterOffset, LogEvent
from router.dialects.gopush2.protocol import ENTERED, Entry, channel_address

ADDRESS = channel_address("Terry-Mao")


@pytest.fixture
def shard() -> Iterator[Shard]:
    dialect = made()
    shard = Shard(more={"/sub": dialect}, named={"gopush2": dialect})
    yield shard
    shard.close()


def logged(mid: int) -> LogEvent:
    return LogEvent(mid, 1_700_000_000, mid, 2_000_000_000, "", {}, json.dumps("x"))


def read(epoch: int, recovered: bool, *mids: int) -> list[object]:
    return [epoch, 9, recovered, [list(logged(mid)) for mid in mids]]


def subscribed(shard: Shard) -> websocket.WebSocket:
    """It has had 8."""
    _, device = shard.open("/sub?key=Terry-Mao&mid=7")
    while calls := [one for one in shard.said() if isinstance(one, m.Call)]:
        for call in calls:
            payload: object = None
            if isinstance(call.request, m.Invoke):
                payload = encoded(Entry(ENTERED, 3600))
            elif isinstance(call.request, m.ReadLog):
                payload = read(EPOCH, True, 8)
            shard.sockets.received([m.Reply(call.number, m.OK, payload)])
    assert (device.recv(), device.recv()) == ("h", '{"mid":8,"msg":"x"}')
    return device


def missed(shard: Shard, status: int, payload: object) -> None:
    """The link is new, and what was missed has been asked for and answered."""
    list(shard.sockets.held_channels())
    (call,) = [one for one in shard.said() if isinstance(one, m.Call)]
    assert isinstance(call.request, m.ReadLog)
    assert (call.request.channel, call.request.position) == (ADDRESS, AfterOffset(EPOCH, 9))
    shard.sockets.received([m.Reply(call.number, status, payload)])


def test_it_gets_what_it_has_missed(shard: Shard) -> None:
    device = subscribed(shard)
    missed(shard, m.OK, read(EPOCH, True, 10))
    assert device.recv() == '{"mid":10,"msg":"x"}'


def test_it_stays_when_the_log_does_not_reach_back(shard: Shard) -> None:
    device = subscribed(shard)
    missed(shard, m.OK, read(EPOCH, False, 12))
    assert device.recv() == '{"mid":12,"msg":"x"}'


def test_it_stays_when_there_is_another_log_and_nothing_in_it(shard: Shard) -> None:
    device = subscribed(shard)
    missed(shard, m.OK, read(EPOCH + 1, False))
    shard.sockets.received([m.LoggedEvent(ADDRESS, EPOCH + 1, logged(10), "")])
    assert device.recv() == '{"mid":10,"msg":"x"}'


def test_it_gets_what_it_has_not_had_where_the_log_counts_anew(shard: Shard) -> None:
    device = subscribed(shard)
    missed(shard, m.OK, read(EPOCH + 1, False, 8, 10))
    assert device.recv() == '{"mid":10,"msg":"x"}'


@pytest.mark.parametrize(
    ("status", "payload"),
    [(m.FAILED, None), (m.OK, [*read(EPOCH + 1, False, 8, 10), True])],
    ids=["the log cannot be read", "the log counts anew, and has more than fits into a page"],
)
def test_it_is_let_go_where_that_is_not_sure(shard: Shard, status: int, payload: object) -> None:
    device = subscribed(shard)
    missed(shard, status, payload)
    shard.sockets.turn()
    opcode, data = device.recv_data()
    assert (opcode, int.from_bytes(data[:2], "big")) == (websocket.ABNF.OPCODE_CLOSE, TRY_LATER)
    assert [type(one) for one in shard.said() if not isinstance(one, m.Call)] == [m.Unsubscribe]
