"""What waits in a worker while one of its two routers does not keep up, and what goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import websocket
from support.granted import Granted
from support.pager import CHANNEL
from support.plain_http import Client, get
from support.shard import DEVICES, ROOM, Shard
from websocket import ABNF

from farm.worker import sockets
from farm.worker.routes import Routes
from router.common import messages as m
from router.common.numbers import router_of

ROUTES = Routes(2)
OURS = ROUTES.owner(ROOM)
"""The router of the channel, which does not keep up."""
OTHER = 1 - OURS
KEYS = {
    router: next(bytes([n]) * 16 for n in range(99) if ROUTES.owner(bytes([n]) * 16) == router) for router in (0, 1)
}


class Worker:
    """Its sockets, driven as its process drives them."""

    def __init__(self, **options: Any) -> None:
        self.shard = Shard(routes=ROUTES, **options)
        self.sockets = self.shard.sockets

    def shut(self, *routers: int) -> None:
        self.sockets.keeps_up(frozenset(routers))

    def turn(self) -> None:
        """All that epoll reports, and what waits for its turn."""
        for fd, events in self.shard._poller.ready_now():
            if fd in self.sockets.connections:
                self.sockets.ready_where_routers_keep_up(fd, events)
        while self.sockets.waiting:
            self.sockets.turn()

    def said(self) -> list[Any]:
        for _ in range(2):  # one that goes on is watched by epoll again
            self.turn()
        return self.shard.said()

    def hello(self, key: bytes) -> tuple[int, websocket.WebSocket]:
        fd, device = self.shard.open("/")
        device.send(json.dumps({"messageType": "hello", "uaid": key.hex()}))
        self.turn()
        return fd, device

    def device(self, key: bytes) -> websocket.WebSocket:
        """One that is attached."""
        _, device = self.hello(key)
        (call,) = self.said()
        self.reply(call)
        assert json.loads(device.recv())["status"] == 200
        return device

    def reply(self, call: m.Call) -> None:
        payload = {m.Attach: [[], None], m.Invoke: b"it"}.get(type(call.request))
        self.sockets.received([m.Reply(call.number, m.OK, payload)], ROUTES.of(call))

    @property
    def waiting(self) -> int:
        return len(self.sockets._backpressure.waiting)


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker()
    yield worker
    worker.shard.close()


def ack(device: websocket.WebSocket, version: int) -> None:
    """The device acknowledges a message."""
    updates = [{"channelID": CHANNEL, "version": version}]
    device.send(json.dumps({"messageType": "ack", "updates": updates}))


def acked(router: int, version: int) -> m.Ack:
    return m.Ack(KEYS[router], [(CHANNEL, version)])


def test_a_device_is_not_read_while_its_router_does_not_keep_up_and_others_are(worker: Worker) -> None:
    waits, goes_on = worker.device(KEYS[OURS]), worker.device(KEYS[OTHER])
    worker.shut(OURS)
    for version in (1, 2):
        ack(waits, version)
        ack(goes_on, version)
    assert worker.said() == [acked(OTHER, 1), acked(OTHER, 2)]
    assert (worker.waiting, worker.said()) == (1, [])
    worker.shut()
    assert worker.said() == [acked(OURS, 1), acked(OURS, 2)]
    assert worker.waiting == 0
    ack(waits, 3)
    assert worker.said() == [acked(OURS, 3)]


def test_what_came_behind_a_call_is_not_handled_while_the_router_does_not_keep_up(worker: Worker) -> None:
    device = worker.device(KEYS[OURS])
    device.send(json.dumps({"messageType": "register", "channelID": CHANNEL}))
    ack(device, 1)
    (call,) = worker.said()
    worker.shut(OURS)
    worker.reply(call)
    assert worker.said() == []
    worker.shut()
    assert worker.said() == [acked(OURS, 1)]


def test_a_hello_waits_for_its_router_alone(worker: Worker) -> None:
    worker.shut(OURS)
    _, waits = worker.hello(KEYS[OURS])
    assert (worker.said(), worker.waiting) == ([], 1)
    worker.device(KEYS[OTHER])
    worker.shut(OURS, OTHER)
    worker.turn()
    worker.shut(OTHER)
    (call,) = worker.said()
    assert call.request.device == KEYS[OURS]
    worker.reply(call)
    assert json.loads(waits.recv())["status"] == 200


def test_hellos_that_wait_end_in_time_and_leave_nothing(worker: Worker) -> None:
    worker.shut(OURS)
    for _ in range(3):
        clients = [worker.hello(KEYS[OURS]) for _ in range(5)]
        assert worker.waiting == 5
        clients[0][1].sock.close()
        worker.sockets.output.drop(worker.sockets.connections[clients[0][0]])
        for _ in range(30):
            worker.shard.clock.pass_by(0.25)
            worker.sockets.tick()
        for _, client in clients[1:]:
            assert client.recv_frame().data[2:] == b"no hello in time"
            client.sock.close()
        worker.turn()
        assert worker.waiting == 0
    worker.shut()
    assert worker.said() == []


def test_a_call_and_a_subscription_wait_and_are_made_once(worker: Worker) -> None:
    worker.shut(OURS)
    calls, joins = worker.shard.talker(), worker.shard.talker()
    calls.say("call")
    calls.say("later")
    joins.say("join")
    assert joins.hear() == "asked"
    assert (worker.said(), worker.waiting) == ([], 2)
    worker.shut()
    made = worker.said()
    assert [type(one.request) for one in made] == [m.Invoke, m.Subscribe]
    assert (worker.said(), worker.waiting) == ([], 0)
    for call in made:
        worker.reply(call)
    worker.turn()
    assert [calls.hear(), calls.hear()] == ["took it", "later"]
    assert joins.hear() == "joined 0 null"


@pytest.mark.parametrize("together", [True, False])
def test_what_came_behind_a_subscription_that_waited_and_needs_no_reply_is_handled(
    worker: Worker, together: bool
) -> None:
    first = worker.shard.talker("join")
    (call,) = worker.said()
    worker.reply(call)
    assert [first.hear(), first.hear()] == ["asked", "joined 0 null"]
    worker.shut(OURS)
    joins = worker.shard.talker()
    if together:
        joins._client.sock.sendall(b"".join(ABNF.create_frame(text, 1).format() for text in ("join", "behind it")))
    else:
        joins.say("join")
        joins.say("behind it")
    assert (worker.said(), joins.hear(), worker.waiting) == ([], "asked", 1)
    worker.shut()
    assert (worker.said(), worker.waiting) == ([], 0)
    assert [joins.hear(), joins.hear()] == ["joined 0 null", "behind it"]
    joins._client.send("and on")
    assert (worker.said(), joins.hear()) == ([], "and on")


def test_what_a_subscriber_waits_for_is_given_up_when_it_goes(worker: Worker) -> None:
    worker.shut(OURS)
    joins = worker.shard.talker("join")
    worker.sockets.output.drop(worker.sockets.connections[joins.fd])
    worker.shut()
    assert (worker.said(), worker.waiting) == ([], 0)


def test_a_connection_that_sent_something_there_is_not_read_any_more(worker: Worker) -> None:
    worker.shut(OURS)
    sends, other = worker.shard.talker(), worker.shard.talker()
    for talker in (sends, sends, other):
        talker._client.send("publish" if talker is sends else "echo")
        worker.turn()
    assert [type(one) for one in worker.said()] == [m.Publish]
    assert (worker.waiting, other.hear()) == (1, "echo")
    worker.shut()
    assert [type(one) for one in worker.said()] == [m.Publish]


def test_counts_are_sent_when_the_router_keeps_up_or_asks(worker: Worker) -> None:
    talker = worker.shard.talker("join")
    (call,) = worker.said()
    worker.reply(call)
    assert talker.hear() == "asked" and talker.hear() == "joined 0 null"
    other = worker.shard.talker("join")
    assert other.hear() == "asked" and other.hear() == "joined 0 null"
    worker.shut(OURS)
    for _ in range(8):
        worker.sockets.tick()
    assert worker.said() == []
    worker.sockets.received([m.SendCounts(9)], OURS)
    assert worker.said() == [m.Counted(ROOM, 2), m.CountsSent(9)]


@pytest.fixture
def asking() -> Iterator[Worker]:
    """A worker that has the main server asked about its clients."""
    dialect = Granted()
    worker = Worker(worker={"admission_timeout": 10}, more={"/granted/*": dialect}, asked_about={dialect: "granted"})
    yield worker
    worker.shard.close()


PATH = next(path for path in (f"/granted/{n}" for n in range(99)) if ROUTES.owner(path.encode()) == OURS)
LEFT = next(path for path in (f"/granted/{n}" for n in range(99)) if ROUTES.owner(path.encode()) == OTHER)


def test_a_question_to_the_main_server_waits_for_its_router(asking: Worker) -> None:
    asking.shut(OURS)
    client, other = Client(asking.shard, get(PATH)), Client(asking.shard, get(LEFT))
    (call,) = asking.said()
    assert (call.request.uri, router_of(call.number), asking.waiting) == (LEFT, OTHER, 1)
    asking.shut()
    (call,) = asking.said()
    assert (call.request.uri, router_of(call.number), asking.waiting) == (PATH, OURS, 0)
    for each in (client, other):
        each.socket.close()
    assert {type(one) for one in asking.said()} == {m.Withdraw}


def test_who_leaves_while_its_question_waits_was_never_asked_about(asking: Worker) -> None:
    asking.shut(OURS)
    client = Client(asking.shard, get(PATH))
    client.socket.close()
    asking.turn()
    assert (len(asking.sockets), asking.waiting) == (0, 0)
    asking.shut()
    assert asking.said() == []


def test_a_question_that_waits_for_too_long_is_answered(asking: Worker) -> None:
    asking.shut(OURS)
    client = Client(asking.shard, get(PATH))
    for _ in range(44):
        asking.shard.clock.pass_by(0.25)
        asking.sockets.tick()
    assert client.until(b"\r\n").startswith(b"HTTP/1.1 504 ")
    asking.shut()
    assert (asking.said(), asking.waiting) == ([], 0)


def test_very_many_that_wait_go_on_a_part_a_turn(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_GO_ON", 4)
    worker.shut(OURS)
    for _ in range(sockets._GO_ON + 5):
        worker.hello(KEYS[OURS])
    worker.shut()
    worker.sockets.turn()
    assert (len(worker.shard.said()), worker.waiting, worker.sockets.waiting) == (sockets._GO_ON, 5, True)
    worker.shut(OURS)
    worker.turn()
    assert (worker.said(), worker.waiting) == ([], 5)


def test_a_router_is_announced_what_is_its_own(worker: Worker) -> None:
    for router in (0, 1):
        worker.device(KEYS[router])
    joins = worker.shard.talker("join")
    (call,) = worker.said()
    worker.reply(call)
    assert [joins.hear(), joins.hear()] == ["asked", "joined 0 null"]
    for router in (0, 1):
        assert [keys for keys, _ in worker.sockets.welcomed(router)] == [[KEYS[router]]]
    ((held,),) = worker.sockets.held_channels(OURS)
    assert held.channel == ROOM
    assert list(worker.sockets.held_channels(OTHER)) == []


def test_broadcasts_are_those_of_their_router(worker: Worker) -> None:
    owner, other = ROUTES.broadcasts, 1 - ROUTES.broadcasts
    device = worker.device(KEYS[OURS])
    worker.sockets.received([m.Broadcast(DEVICES, "a", "1"), m.BroadcastsSent()], owner)
    worker.sockets.tick()
    assert json.loads(device.recv())["broadcasts"] == {"a": "1"}
    list(worker.sockets.welcomed(other))
    worker.sockets.received([m.BroadcastsSent()], other)
    list(worker.sockets.welcomed(owner))
    worker.sockets.received([m.BroadcastsSent()], other)  # has none, and says nothing of those of the owner
    worker.sockets.received([m.Broadcast(DEVICES, "a", "1"), m.BroadcastsSent()], owner)
    worker.sockets.received([m.Broadcast(DEVICES, "b", "1")], owner)
    worker.sockets.tick()
    assert json.loads(device.recv())["broadcasts"] == {"b": "1"}
