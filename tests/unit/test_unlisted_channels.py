"""A channel that no app server lists: the router knows nothing of it but its address, and its events are made by its
dialect all the same."""

from collections.abc import Iterator

import pytest
from support.shard import Shard

from farm.dialects import Dialect, Effects, Session, Subscribe, Subscription
from farm.transports.request import Request
from router.common import messages as m
from router.common.position import Last, LogEvent

KEY = b"k" * 16


class UnlistedSession(Session):
    """Wants all that comes."""

    channels = (KEY,)

    def begun(self, now: float) -> Effects:
        return (Subscribe((Subscription(KEY, position=Last(0), dialect="unlisted"),)),)


class Unlisted(Dialect):
    """Says what it makes of an event."""

    def opened(self, request: Request) -> Session:
        return UnlistedSession()

    def event_text(self, channel: str, event: LogEvent) -> bytes:
        return f"{channel!r} {event.offset} {event.body}".encode()


@pytest.fixture
def shard() -> Iterator[Shard]:
    dialect = Unlisted()
    shard = Shard(more={"/unlisted": dialect}, named={"unlisted": dialect})
    yield shard
    shard.close()


def test_its_dialect_makes_its_events_and_the_router_has_no_name_of_it(shard: Shard) -> None:
    _, device = shard.open("/unlisted")
    subscribe, read = shard.said()
    assert subscribe.request == m.Subscribe(KEY, "")
    for call, payload in ((subscribe, None), (read, [7, 0, True, [], False])):
        shard.sockets.received([m.Reply(call.number, m.OK, payload)])
    shard.sockets.received([m.LoggedEvent(KEY, 7, LogEvent(3, 1, 1, 2, "", {}, "hello"), "")])
    assert device.recv() == "'' 3 hello"
    shard.clock.pass_by(2)
    shard.sockets.tick()
    assert shard.said() == []  # nobody counts who is in it
    ((held,),) = shard.sockets.held_channels()
    assert held == m.HeldChannel(KEY, "", 0, [])
