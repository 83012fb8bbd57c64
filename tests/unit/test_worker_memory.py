"""What has gone leaves nothing in a worker: devices of a dialect as small as it can be."""

from collections.abc import Callable, Iterator

import pytest
import support.pager
from support.pager import CHANNEL, HELLO, KEY
from support.worker_memory import STATES, Bench, Watched, device, watched


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    register = {"messageType": "register", "channelID": CHANNEL}
    with watched(monkeypatch, device(KEY, CHANNEL, HELLO, register), support.pager, "Paged") as found:
        yield found


@pytest.mark.parametrize("state", STATES, ids=lambda state: state.__name__)
def test_what_has_gone_leaves_nothing(state: Callable[[Bench], object], worker: Watched) -> None:
    worker.check(state)
