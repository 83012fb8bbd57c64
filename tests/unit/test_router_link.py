"""The router's end of the link, on real sockets."""

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.common import Rig, in_rig

from router.common import messages as v
from router.common.link_address import address
from router.common.settings import LinkOptions
from router.link import RouterLink


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    made = zmq.Context()
    yield made
    made.destroy(linger=0)


def test_workers_that_never_stop_speaking_are_heard_a_part_at_a_time(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]
) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        link = RouterLink(context, address(tmp_path), rig.hub, LinkOptions())
        talker = context.socket(zmq.DEALER)
        talker.connect(address(tmp_path))
        heard = rig.hub.heard
        ask = v.pack([v.ASK_STATUS, 1])

        def heard_and_more_said(identity: bytes, message: list[Any]) -> None:
            heard(identity, message)
            talker.send(ask)
            talker.send(ask)

        rig.hub.heard = heard_and_more_said  # type: ignore[method-assign]
        talker.send(ask)
        answers: deque[bytes] = deque()
        while not link.behind:  # it returns, although there is always more to receive
            link.pump()
        rig.hub.heard = heard  # type: ignore[method-assign]
        while link.behind:
            link.pump()
            while talker.poll(0):
                answers.append(talker.recv())
        assert answers  # requests that came meanwhile were answered
        link.close()
        talker.close()

    scenario()


def test_all_is_heard_only_when_nothing_is_left(tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]]) -> None:
    @in_rig()
    async def scenario(rig: Rig) -> None:
        link = RouterLink(context, address(tmp_path), rig.hub, LinkOptions())
        talker = context.socket(zmq.DEALER)
        talker.setsockopt(zmq.SNDHWM, 0)  # it never waits
        talker.connect(address(tmp_path))
        ask = v.pack([v.ASK_STATUS, 1])

        def more_is_said(identity: bytes, message: list[Any]) -> None:
            talker.send(ask)
            talker.send(ask)

        rig.hub.heard = more_is_said  # type: ignore[method-assign]
        talker.send(ask)
        while not link.behind:
            link.pump()
        until = link.heard_until
        link.pump()
        assert link.behind
        assert link.heard_until == until
        rig.hub.heard = lambda *_: None  # type: ignore[method-assign]
        while link.behind:
            link.pump()
        assert link.heard_until > until
        link.close()
        talker.close()

    scenario()
