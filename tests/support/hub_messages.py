"""What the tests of the hub share: the messages of workers, and a worker that holds a device."""

from typing import Any

from router.common import messages as m
from router.common.position import Position
from router.store.base import Append
from support.common import FakeWorker, Rig

DEVICE, OTHER = b"d" * 16, b"e" * 16
CHANNEL = b"c" * 16
DEVICES = "simplepush.device"


def attach(
    device: bytes = DEVICE, ask: int = 1, needs: str = "", fetch: int = m.EVERYTHING, since: int = 1000
) -> tuple[Any, ...]:
    return m.Call(ask, m.Attach(device, needs, fetch, since))


def subscribe(ask: int, label: str = "") -> tuple[Any, ...]:
    request = m.Subscribe(CHANNEL, label)
    return m.Call(ask, request) if ask else request


def read_log(call: int, place: Position) -> m.Call:
    return m.Call(call, m.ReadLog(CHANNEL, place))


def event(rig: Rig, body: str, **more: Any) -> Append:
    return Append(CHANNEL, rig.hub.messages.sequence(), int(rig.clock.unix()) + 60, body, **more)


def logged(messages: list[Any]) -> list[tuple[int, str, str]]:
    assert {type(one) for one in messages} <= {m.LoggedEvent}
    return [(one.event.offset, one.event.body, one.exclude) for one in messages]


async def attached(rig: Rig, shard: int = 0, device: bytes = DEVICE) -> FakeWorker:
    """A worker that holds the device and has been told so."""
    worker = rig.worker(shard)
    worker.say(attach(device))
    await rig.settle()
    last = worker.take()[-1]
    assert (last.number, last.status) == (1, m.OK)
    return worker


def slots(items: list[Any]) -> list[tuple[str, int]]:
    return [(item[0], item[1]) for item in items]


NAME = "presence-room"
LABEL = m.channel_label("pusher", "app", NAME)


def enter(user: str, ask: int = 0, most: int = 10) -> tuple[Any, ...]:
    return m.Call(ask, m.PresenceJoin(CHANNEL, user, "{}", most))
