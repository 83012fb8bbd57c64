"""A device of gopush2 that has gone leaves nothing in a worker; and what one takes that is silent."""

import sys
from collections.abc import Callable, Iterator

import pytest
from support.gopush2_device import EPOCH, Device, event, made
from support.pager import CHANNEL, HELLO, KEY
from support.worker_memory import Bench, Watched, device, watched

import farm.dialects.gopush2.dialect
import farm.dialects.gopush2.sessions
from router.common import messages as m
from router.common.operation import encoded
from router.dialects.gopush2.protocol import ENTERED, TOKEN_REFUSED, Entry, channel_address

QUERY = "?key=a&mid=0&token=t"
SESSIONS = (
    (farm.dialects.gopush2.dialect, "JoiningSession"),
    (farm.dialects.gopush2.dialect, "RefusedSession"),
    (farm.dialects.gopush2.sessions, "SubscribedSession"),
)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    Device("key=a&mid=0").joins()  # addresses are remembered
    other = device(KEY, CHANNEL, HELLO, {})
    paths = {"/gopush2": made(), "/limited": made(max_subscriber_per_key=3)}
    named = {"gopush2": paths["/gopush2"]}
    with watched(monkeypatch, other, *SESSIONS[0], paths=paths, named=named, also=SESSIONS[1:]) as found:
        yield found


def answer(bench: Bench, rounds: int = 9, outcome: int = ENTERED, seconds: int = 3600) -> None:
    """The router answers what is asked, and so often what is asked then."""
    for _ in range(rounds):
        for call in [one for one in bench.shard.said() if isinstance(one, m.Call)]:
            payload: object = None
            if isinstance(call.request, m.Invoke):
                payload = encoded(Entry(outcome, seconds))
            elif isinstance(call.request, m.ReadLog):
                payload = [EPOCH, 1, True, [list(event(1))]]
            elif isinstance(call.request, m.PresenceJoin):
                payload = {call.request.user: ""}
            bench.shard.sockets.received([m.Reply(call.number, m.OK, payload)])


def asked(bench: Bench) -> None:
    bench.open(f"/gopush2{QUERY}")
    bench.open(f"/limited{QUERY}")


def refused(bench: Bench) -> None:
    bench.open("/gopush2?key=a")
    bench.open(f"/gopush2{QUERY}")
    answer(bench, outcome=TOKEN_REFUSED)


def reads_what_it_missed(bench: Bench) -> None:
    asked(bench)
    answer(bench, 1)
    answer(bench, 1)
    bench.shard.sockets.received([m.LoggedEvent(channel_address("a"), EPOCH, event(2), "")])


def subscribed(bench: Bench) -> None:
    asked(bench)
    answer(bench)
    bench.shard.sockets.received([m.LoggedEvent(channel_address("a"), EPOCH, event(2), "")])


def looks_whether_its_channel_is_there(bench: Bench) -> None:
    asked(bench)
    answer(bench, seconds=1)
    for _ in range(20):
        bench.shard.clock.pass_by(1)
        bench.shard.sockets.tick()


def channel_has_ended(bench: Bench) -> None:
    subscribed(bench)
    bench.shard.sockets.received([m.Terminate(channel_address("a"), 4410, "expired")])


STATES: list[Callable[[Bench], object]] = [
    asked,
    refused,
    reads_what_it_missed,
    subscribed,
    looks_whether_its_channel_is_there,
    channel_has_ended,
]


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_what_has_gone_leaves_nothing(state: Callable[[Bench], object], worker: Watched) -> None:
    worker.check(state)


def test_a_silent_device_takes_no_more_than_its_session() -> None:
    one = Device()
    one.joins()
    other = Device()
    other.joins()
    shared = ("_patience", "_deadline", "channels")
    assert sys.getsizeof(one.session) <= 56
    assert all(getattr(one.session, name) is getattr(other.session, name) for name in shared)
