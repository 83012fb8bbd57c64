"""The router's end of the link, on real sockets."""

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import zmq
from support.common import Rig, in_rig

from router.common import messages as m
from router.common.link_address import address
from router.common.settings import LinkOptions
from router.common.wire import NEWEST
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
        link = RouterLink(context, address(tmp_path, 0), rig.hub, LinkOptions())
        talker = context.socket(zmq.DEALER)
        talker.connect(address(tmp_path, 0))
        received = rig.hub.received
        ask = NEWEST.encode(m.AskStatus(1))

        def received_and_more_sent(identity: bytes, data: bytes) -> None:
            received(identity, data)
            with suppress(zmq.Again):  # its queue is full: on a busy machine what is sent may take its time to be here
                talker.send(ask, zmq.NOBLOCK)
                talker.send(ask, zmq.NOBLOCK)

        rig.hub.received = received_and_more_sent  # type: ignore[method-assign]
        talker.send(ask)
        answers: deque[bytes] = deque()
        while not link.behind:  # it returns, although there is always more to receive
            link.pump()
        rig.hub.received = received  # type: ignore[method-assign]
        while link.behind:
            link.pump()
            while talker.poll(0):
                answers.append(talker.recv())
        assert answers or talker.poll(20_000)  # requests that came meanwhile were answered
        link.close()
        talker.close()

    scenario()


def test_all_is_heard_only_when_nothing_is_left(
    tmp_path: Path, context: zmq.Context[zmq.Socket[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("router.link._PUMP_S", 0.0)  # one envelope at a time
    monkeypatch.setattr("router.link._PUMP_LEAST", 1)

    @in_rig()
    async def scenario(rig: Rig) -> None:
        link = RouterLink(context, address(tmp_path, 0), rig.hub, LinkOptions())
        talker = context.socket(zmq.DEALER)
        talker.connect(address(tmp_path, 0))
        begun = link.heard_until
        for _ in range(3):
            talker.send(NEWEST.encode(m.AskStatus(1)))
            assert link._socket.poll(20_000)
            link.pump()
            assert link.behind
            assert link.heard_until == begun
        while link.behind:
            link.pump()
        assert link.heard_until > begun
        link.close()
        talker.close()

    scenario()
