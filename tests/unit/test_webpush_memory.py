"""A WebPush device that has gone leaves nothing in a worker."""

from collections.abc import Callable, Iterator

import pytest
from support.common import Clock, settings_with
from support.webpush_device import CHANNEL, KEY, UAID
from support.worker_memory import STATES, Bench, Watched, device, watched

import farm.dialects.webpush
import farm.dialects.webpush.unidentified
from farm.dialects import Context, Dialect
from router.common.metrics import WorkerCounters
from router.common.token import Tokens
from router.dialects.webpush.protocol import plain_slot

HELLO = {"messageType": "hello", "uaid": UAID, "use_webpush": True, "broadcasts": {"a": "1"}}
REGISTER = {"messageType": "register", "channelID": CHANNEL}
OWN = {
    "half_a_frame",
    "asked",
    "asked_and_said_more",
    "attached",
    "sent_something",
    "asked_while_attached",
    "replaced_here",
    "replaced_elsewhere",
}
"""The states in which it matters whose device it is."""


def made(clock: Clock, counters: WorkerCounters) -> Dialect:
    return farm.dialects.webpush.SIDE.make(Context(settings_with(), Tokens([b"k" * 32]), counters, clock.unix))


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    one = device(KEY, plain_slot(1, CHANNEL), HELLO, REGISTER)
    with watched(
        monkeypatch, one, farm.dialects.webpush.unidentified, "WebPushSession", made=made, hello=HELLO
    ) as found:
        yield found


@pytest.mark.parametrize("state", [one for one in STATES if one.__name__ in OWN], ids=lambda state: state.__name__)
def test_what_has_gone_leaves_nothing(state: Callable[[Bench], object], worker: Watched) -> None:
    worker.check(state)


def test_these_are_states() -> None:
    assert {state.__name__ for state in STATES} >= OWN
