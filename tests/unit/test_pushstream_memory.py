"""Push stream: a subscriber is a small object, without a timer of its own, and leaves nothing when it has gone."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import pytest
from support.living import begin
from support.pager import CHANNEL, HELLO, KEY
from support.plain_http import get
from support.pushstream_shard import DATE, EPOCH, logged, made
from support.worker_memory import Bench, device, frame, watched

import farm.dialects.pushstream.dialect
import farm.dialects.pushstream.polls
from farm.dialects import Become, Subscribe, Subscribed
from farm.transports.frames import TEXT
from farm.transports.request import Request
from router.common import messages as m
from router.common.position import LogSlice
from router.dialects.pushstream.protocol import channel_address

PATHS = ("/ws/**", "/ev/**", "/lp/**", "/sub/**")


def stays(bench: Bench, path: str) -> None:
    """Is asked about, waits for what it missed, and is sent some."""
    bench.accepted(get(f"{path}/a/b.b2"))
    bench.answer()
    bench.shard.sockets.speak()
    bench.accepted(get(f"{path}/a.b3"))
    for number in (1, 2):
        bench.shard.sockets.received([m.LoggedEvent(channel_address("a"), EPOCH, logged(number), "")])


def websockets(bench: Bench) -> None:
    for path in ("/ws/a", "/ws/a/b.b2", "/ws/ALL"):
        bench.open(path, frame(TEXT, b"published"))
    bench.answer()
    bench.shard.sockets.received([m.LoggedEvent(channel_address("a"), EPOCH, logged(1), "")])


def event_sources(bench: Bench) -> None:
    stays(bench, "/ev")


def streams(bench: Bench) -> None:
    stays(bench, "/sub")


def long_polls(bench: Bench) -> None:
    stays(bench, "/lp")
    bench.accepted(get("/lp/b", f"If-Modified-Since: {DATE}") * 2)
    bench.answer()


def jsonp(bench: Bench) -> None:
    bench.accepted(get("/lp/a?callback=took"))
    bench.answer()
    bench.accepted(get("/lp/a.b1?callback=took"))


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (websockets, "WebSocketSession"),
        (websockets, "PublishingSession"),
        (event_sources, "StreamSession"),
        (streams, "StreamSession"),
        (long_polls, "PollSession"),
        (jsonp, "PollSession"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_what_has_gone_leaves_nothing(
    state: Callable[[Bench], object], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialect = made(websocket_allow_publish=kind == "PublishingSession", ping_message_interval=30)
    one = device(KEY, CHANNEL, HELLO, {"messageType": "register", "channelID": CHANNEL})
    paths = dict.fromkeys(PATHS, dialect)
    sessions, waiting = farm.dialects.pushstream.dialect, ((farm.dialects.pushstream.polls, "WaitingPoll"),)
    with watched(monkeypatch, one, sessions, kind, paths, named={"pushstream": dialect}, also=waiting) as worker:
        worker.check(state)


@pytest.mark.parametrize(("path", "most"), [("/ws/a", 48), ("/ev/a", 48), ("/sub/a", 48), ("/lp/a", 48)])
def test_an_idle_subscriber_is_one_small_object_that_the_collector_does_not_see(path: str, most: int) -> None:
    dialect = made()

    def subscribed() -> Any:
        session: Any = dialect.opened(Request(b"GET", path, "", {}, (1, 1)))
        (asked,) = [effect for effect in session.begun(0.0) if isinstance(effect, Subscribe)]
        slices = [Subscribed(one, log=LogSlice(EPOCH, 0, True, [])) for one in asked.channels]
        effects = list(session.subscribed(slices, 0.0))
        return next((effect.session for effect in effects if isinstance(effect, Become)), session)

    one, other = subscribed(), subscribed()
    assert one.channels is other.channels
    assert sys.getsizeof(one) <= most
    begin()
    before = len(gc.get_objects())
    many = [subscribed() for _ in range(1000)]
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    del many
